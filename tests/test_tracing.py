"""Records of programs: what they draw, what they refuse, and the updates of the optimisers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from pgm.randomness import seeded
from pgm.tracing import Untraceable, trace
from pgm.tracing.optimisers import clipped, update_of
from pgm.tracing.program import close, record

X, Y = torch.linspace(0.1, 0.9, 6), torch.linspace(0.2, 0.7, 6)
DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x + torch.randn_like(x),
    "uniform in place": lambda x: x * torch.empty(6).uniform_(1.0, 2.0),
    "bernoulli": torch.bernoulli,
    "gamma": torch._standard_gamma,
    "poisson": lambda x: torch.poisson(5 * x),
    "categorical": lambda x: torch.multinomial(x, 3, replacement=True),
    "dropout": lambda x: nn.functional.dropout(x, 0.5),
    "order": lambda x: x[torch.randperm(6)],
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("backend", ["graph", "ts"])
def test_a_replay_draws_what_the_program_would(name: str, backend: Any) -> None:
    def program(x: Tensor) -> tuple[Tensor, ...]:
        return (DRAWS[name](x),)

    replay = trace(program, [X], [Y], backend=backend)
    for seed in range(3):
        with seeded(seed):
            (expected,) = program(X)
        with seeded(seed):
            (found,) = replay(X)
        assert bool((found == expected).all())
    many = torch.stack([replay(X)[0].double() for _ in range(20)])
    assert bool((many != many[0]).any())


def test_recording_leaves_inputs_and_random_numbers_alone() -> None:
    def program(x: Tensor) -> tuple[Tensor, ...]:
        return (x.add_(torch.randn(6)),)

    x, before = X.clone(), torch.get_rng_state()
    trace(program, [x], [Y], backend="ts")
    assert bool((x == X).all())
    assert bool((torch.get_rng_state() == before).all())


def test_constants_are_folded_and_shared() -> None:
    def program(x: Tensor) -> tuple[Tensor, ...]:
        scale = torch.full((6,), 2.0).log().exp()
        return (x.sin() * scale + x.sin(),)

    graph = record(program, [X], [Y])
    calls = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert calls == ["aten.sin.default", "aten.mul.Tensor", "aten.add.Tensor"]


def looks(x: Tensor) -> tuple[Tensor, ...]:
    return (x if x.sum() > 0 else -x,)


def converts(x: Tensor) -> tuple[Tensor, ...]:
    return (x * x[0].item(),)


def leaves_torch(x: Tensor) -> tuple[Tensor, ...]:
    return (x * float(np.sum(x.numpy())),)


def draws_elsewhere(x: Tensor) -> tuple[Tensor, ...]:
    return (x * float(_NUMPY.normal()),)


def grows(x: Tensor) -> tuple[Tensor, ...]:
    _SEEN.append(x)
    return (x.repeat(len(_SEEN)),)


def keeps(x: Tensor) -> tuple[Tensor, ...]:
    _TOTAL.add_(x.detach())
    return (x + _TOTAL,)


_NUMPY = np.random.default_rng(0)
_SEEN: list[Tensor] = []
_TOTAL = torch.zeros(6)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (looks, "looks at the values"),
        (converts, "looks at the values"),
        (leaves_torch, "not the same each time"),
        (draws_elsewhere, "not the same each time"),
        (grows, "not the same each time"),
        (keeps, "changes a tensor in place|not the same each time"),
    ],
)
def test_a_program_without_a_fixed_record_is_refused(program: Any, why: str) -> None:
    with pytest.raises(Untraceable, match=why):
        trace(program, [X], [Y], backend="graph")


def test_an_input_that_is_reached_by_another_way_is_refused() -> None:
    weight = torch.ones(6)

    def program(w: Tensor) -> tuple[Tensor, ...]:
        return (w * weight,)

    with pytest.raises(Untraceable, match="by another way"):
        record(program, [weight], [Y])


def test_rounding_is_close_and_more_is_not() -> None:
    a = torch.tensor([1.0, 100.0, torch.inf, torch.nan])
    assert close(a, a * (1 + 1e-7))
    assert not close(a, a * torch.tensor([1.0, 1.01, 1.0, 1.0]))
    assert not close(a, torch.tensor([1.0, 100.0, 0.0, torch.nan]))
    assert not close(a, a.double())


OPTIMISERS: dict[str, Callable[..., Optimizer]] = {
    "Adam": lambda p: Adam(p, lr=0.1, betas=(0.8, 0.95), eps=1e-3),
    "Adam, decay": lambda p: Adam(p, lr=0.1, weight_decay=0.3),
    "AdamW": lambda p: AdamW(p, lr=0.1, weight_decay=0.3),
    "descent": lambda p: SGD(p, lr=0.1, weight_decay=0.3),
    "momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.2),
    "Nesterov": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_updates_are_those_of_the_optimiser(name: str) -> None:
    p = nn.Parameter(X.double().clone())
    optimiser = OPTIMISERS[name]([p])
    gradients = [torch.randn(6, dtype=torch.float64) for _ in range(4)]
    p.grad = gradients[0]
    optimiser.step()
    update = update_of(optimiser)
    assert update is not None
    value, (state,) = p.detach().clone(), update.remembered(optimiser, [p])
    state = [part.clone() for part in state]
    for t, gradient in enumerate(gradients[1:], start=2):
        p.grad = gradient
        optimiser.step()
        rate, count = torch.tensor(0.1, dtype=torch.float64), torch.tensor(float(t)).double()
        value, *state = update(value, gradient, state, rate, count)
        torch.testing.assert_close(value, p.detach())
        torch.testing.assert_close(state, update.remembered(optimiser, [p])[0])


def test_updates_that_are_not_known_are_left_to_the_optimiser() -> None:
    p = nn.Parameter(X.clone())
    assert update_of(RMSprop([p])) is None
    assert update_of(Adam([p], amsgrad=True)) is None
    assert update_of(SGD([{"params": [p]}, {"params": [nn.Parameter(Y.clone())]}], lr=1.0)) is None


def test_clipping_is_that_of_torch() -> None:
    a, b = nn.Parameter(X.clone()), nn.Parameter(Y.clone())
    a.grad, b.grad = 3 * X, -5 * Y
    found = clipped([3 * X, -5 * Y], 0.7)
    nn.utils.clip_grad_norm_([a, b], 0.7)
    torch.testing.assert_close(found, [a.grad, b.grad])


def test_a_replay_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def program(x: Tensor) -> tuple[Tensor, ...]:
        return (x.exp(), x.cos())

    def wrong(graph: Any, *_: Any) -> Any:
        return lambda x: (x.exp(), x.cos() + 0.01)

    monkeypatch.setattr("pgm.tracing.program.run", wrong)
    with pytest.raises(Untraceable, match="differs from the program under the same seed, by up to"):
        trace(program, [X], [Y], backend="graph")
