"""What a private step needs beside an open step, in bytes; and that noise in place is noise.

Known answer: the ghost route holds of a layer what backpropagation holds, its input and the
gradient at its output, and no gradient by row, so a step needs no more than an open one on the same
rows. Planted: copies that the route once made (a layer's output, a bias's gradients by row, noise
beside its sum), and one sum that two parameters share.
"""

import weakref
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pgm
import privacy
from pgm.batch import Batch, take
from pgm.families.vae import VAE
from pgm.learner import GradientLearner
from pgm.objectives import objective
from privacy import optimiser
from privacy.gradients import PerRow, layers, tape
from privacy.gradients.traced import TracedRows
from privacy.learner import PrivateLearner

N = 128


class Bytes(TorchDispatchMode):
    """Counts what torch's calls allocate within the block, and what of it is still held."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {_address(x) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, Tensor) and (key := _address(x)) not in given | self.held.keys():
                self.held[key] = x.untyped_storage().nbytes()
                weakref.finalize(x.untyped_storage(), self.held.pop, key, None)
        self.peak = max(self.peak, sum(self.held.values()))
        return out


def _address(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def private(model: pgm.Model, rows: PerRow, sigma: float = 1.0) -> PrivateLearner:
    release = privacy.Release("test", "a", sigma, 0.5, 1, 1.0, 2 * N, 1e-5)
    options = {"release": release, "ledger": privacy.Ledger(), "steps": 1, "seed": 3}
    return PrivateLearner(model, rows, learning_rate=1.0, optimiser=torch.optim.SGD, **options)


def peak(step: Callable[[Batch], float], batch: Batch) -> int:
    """Of the second step and its rows, above what is there before it."""
    step(batch)
    with Bytes() as counted:
        step(take(batch, torch.arange(N)))
    return counted.peak


def memory_of_a_step() -> float:
    """Private over open, of the VAE 784-400-20 at 256 rows, all halved."""
    torch.manual_seed(0)
    model, batch = VAE(392, latents=10, hidden=(200,)), Batch(x=torch.rand(N, 392).round())
    rows = PerRow(model, size=2 * N, route="ghost")
    plain = GradientLearner(
        model, objective, size=N, steps=2, learning_rate=1e-3, optimiser=torch.optim.SGD
    )
    before = peak(private(model, rows).update, batch)
    return before / peak(lambda lot: (plain.update(lot), model.zero_grad())[0], batch)


def test_a_step_by_the_ghost_route_takes_the_memory_of_an_open_step() -> None:
    assert memory_of_a_step() <= 1.1


class Copied(torch.autograd.Function):
    """As the route once attached the outputs of first layers."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, root: Tensor) -> Tensor:
        ctx.save_for_backward(out.clone())
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[None, None]:
        return None, None


COPIES = {
    "of first layers' outputs": (tape, "_Rooted", Copied),
    "of a bias's gradients by row": (layers, "_total", lambda g: g.sum(1)),
    "noise beside the sums": (
        optimiser.PrivateOptimiser,
        "add_noise",
        optimiser.PrivateOptimiser.__mro__[1].add_noise,  # type: ignore[attr-defined]
    ),
}


@pytest.mark.parametrize("where", COPIES)
def test_copies_are_seen(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = memory_of_a_step()
    monkeypatch.setattr(*COPIES[where])
    assert memory_of_a_step() > usual


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 32, 33, 47, 48, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_in_pieces_is_the_noise_drawn_at_once(
    size: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimiser, "_NUMBERS_AT_ONCE", 16)
    p = nn.Parameter(torch.zeros(size, dtype=dtype))
    at_once = torch.normal(0.0, 1.5, (size,), generator=_generator(), dtype=dtype)
    assert torch.equal(_noisy(p, torch.ones_like(p)), at_once + 1)


def test_a_sum_in_any_layout_gets_all_its_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimiser, "_NUMBERS_AT_ONCE", 16)
    p = nn.Parameter(torch.zeros(6, 9))
    plain, turned = _noisy(p, torch.ones(6, 9)), _noisy(p, torch.ones(9, 6).mT)
    assert torch.equal(plain, turned) and bool((plain != 1).all())
    one = _noisy(p, torch.ones(()).expand(6, 9))
    assert torch.equal(plain, one), "numbers that lie in one place in memory"


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _noisy(p: nn.Parameter, total: Tensor) -> Tensor:
    step = optimiser.PrivateOptimiser(
        torch.optim.SGD([p], lr=1.0),
        noise_multiplier=1.5,
        max_grad_norm=1.0,
        expected_batch_size=1,
        on_step=lambda: None,
        generator=_generator(),
    )
    p.grad = total
    step.accumulate()
    step.add_noise()
    assert p.grad is not None
    return p.grad


class Twice(pgm.Model):
    """x ~ N(a + b, 1): the gradients of a and b are the same; c has none."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.zeros(500)) for _ in range(3))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.a + self.b + 0 * self.c, 1.0).to_event(1))


@pytest.mark.parametrize("route", ["ghost", "vmap", "loop", "graph"])
def test_every_parameter_has_noise_of_its_own_and_no_step_keeps_it(route: Any) -> None:
    model, batch = Twice(), Batch(x=torch.zeros(8, 500))
    if route == "graph":
        rows: PerRow = TracedRows(model, backend="graph", lot=8, told=True, size=2 * N)
    else:
        rows = PerRow(model, size=2 * N, route=route)
    step, moves = private(model, rows), []
    for _ in range(3):
        before = torch.stack([p.detach().clone() for p in model.parameters()])
        model.zero_grad()
        batch["x"] = (model.a + model.b).detach().expand(8, -1)  # no gradient: noise alone
        step.update(batch)
        moves.append(torch.stack(list(model.parameters())).detach() - before)
    moved = torch.cat(moves) * N
    assert float((torch.corrcoef(moved) - torch.eye(9)).abs().max()) < 0.25
    assert float(moved.std(1).min()) > 0.9 and float(moved.std(1).max()) < 1.1


def test_a_record_that_gives_two_parameters_one_tensor_and_keeps_it_is_copied() -> None:
    rows = TracedRows(Twice(), backend="graph", lot=8, told=True, size=2 * N)
    batch = Batch(x=torch.ones(8, 500))
    expected = rows.clipped(batch, 1.0)
    (frame,) = rows._frames.values()
    with torch.no_grad():
        a, b, *others = frame.trace(*frame._inputs(*_in_frame(batch, frame.size), 1.0))
    assert torch.equal(a, b) and torch.equal(a, expected.gradients["a"])
    frame.trace = lambda *_: (a, a, *others)  # type: ignore[method-assign, assignment]
    for _ in range(2):
        found = frame(batch, 1.0)
        torch.testing.assert_close(found.gradients, expected.gradients, rtol=0, atol=0)
        for g in found.gradients.values():
            g.add_(1)


def _in_frame(batch: Batch, size: int) -> tuple[Batch, Tensor]:
    empty = torch.zeros(size - 8, 500)
    return Batch(x=torch.cat([batch["x"], empty])), torch.arange(size) < 8
