"""Opacus' hooks: taken on request where they are right, refused with the reason where they are not.

Each idiom of Pyro that is refused here is one where the hooks, taken on trust, let a row move the
clipped sum by more than C or give other gradients than plain autograd.
"""

import copy
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pgm
import privacy
from pgm.batch import Batch
from pgm.families.vae import VAE
from pgm.model import Model
from pgm.randomness import seeded
from privacy.gradients import PerRow
from privacy.gradients.tape import NotCovered


def numbers(*shape: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        u=torch.randn(6, *shape, generator=generator), x=torch.randn(6, 2, generator=generator)
    )


class Net(Model):
    """x ~ N(f(u), 1)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))

    def mean(self, u: Tensor) -> Tensor:
        return self.net(u)

    def model(self, n: int, u: Tensor) -> None:
        mean = self.mean(u)
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1))


class TimeFirst(Net):
    def mean(self, u: Tensor) -> Tensor:
        return self.net(u.transpose(0, 1)).sum(0)


class Enumerated(Net):
    """A latent class whose two values stand before the rows in what the layers see."""

    def model(self, n: int, u: Tensor) -> None:
        with pgm.rows(n):
            k = pyro.sample("k", dist.Categorical(torch.ones(2)), infer={"enumerate": "parallel"})
            shifted = u + k.to(u.dtype)[..., None]
            pyro.sample("x", dist.Normal(self.net(shifted), 1.0).to_event(1))


class Subsampled(Net):
    """What `pyro.plate("data", 100, subsample=...)` does: terms are scaled by 100 / n."""

    def model(self, n: int, u: Tensor) -> None:
        mean = self.mean(u)
        with pyro.poutine.scale(scale=100 / n), pgm.rows(n):
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1))


class Centred(Net):
    def mean(self, u: Tensor) -> Tensor:
        h = self.net(u)
        return h - h.mean(0)


class Loose(Net):
    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))

    def mean(self, u: Tensor) -> Tensor:
        return self.net(u) + self.shift


class BatchNormalised(Net):
    def __init__(self) -> None:
        super().__init__()
        self.net.append(nn.BatchNorm1d(2))


REFUSED: dict[str, tuple[Callable[[], Model], Batch, str]] = {
    "time first": (TimeFirst, numbers(5, 4), "something else than the rows stands in the first"),
    "as many times as rows": (TimeFirst, numbers(3, 4), "rows of a lot have another gradient"),
    "enumerated values first": (Enumerated, numbers(4), "2 gradients of 'net.0.weight' for 3 rows"),
    "a plate with subsample": (Subsampled, numbers(4), "rows of a lot have another gradient"),
    "h - h.mean()": (Centred, numbers(4), "rows of a lot have another gradient"),
    "a parameter of no layer": (Loose, numbers(4), "see no gradient of 'shift'"),
    "batch normalisation": (BatchNormalised, numbers(4), "Expected more than 1 value per channel"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_hooks_are_refused_where_they_are_wrong(kind: str) -> None:
    make, batch, why = REFUSED[kind]
    rows = PerRow(make(), size=100, route="hooks")
    with pytest.raises(NotCovered, match=why) as caught:
        rows(batch)
    assert "wrong here" in str(caught.value) and "Use 'auto'" in str(caught.value)


@pytest.mark.parametrize("kind", ["time first", "a plate with subsample"])
def test_a_fit_by_wrong_hooks_spends_nothing(kind: str) -> None:
    make, batch, why = REFUSED[kind]
    ledger = privacy.Ledger()
    with pytest.raises((NotCovered, pgm.BrokenModel), match=f"{why}|size of the lot"):
        privacy.fit(make(), batch, epsilon=1.0, delta=1e-2, steps=2, route="hooks", ledger=ledger)
    assert ledger.releases == ()


def test_without_the_trial_a_row_would_move_the_sum_by_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The scale of the plate changes with the lot, and the gradients of all rows with it."""
    monkeypatch.setattr("privacy.gradients.hooks.compare", lambda *_: None)
    batch = numbers(4)
    rows = PerRow(Subsampled(), size=100, route="hooks")
    clip = float(rows.clipped(batch, 1e9).norms.min()) * 0.9
    fewer = Batch({name: x[:1] for name, x in batch.items()})
    norms = rows(batch).gradients, rows(fewer).gradients
    first = {k: (norms[0][k][:1] - norms[1][k]).abs().max() for k in norms[0]}
    assert max(first.values()) > 0.1 and clip > 0


RIGHT: dict[str, tuple[Callable[[], Model], Batch]] = {
    "a network": (Net, numbers(4)),
    "latents": (lambda: VAE(4, latents=2, hidden=(5,)), Batch(x=numbers(4)["u"].round() % 2)),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_hooks_agree_with_single_rows_and_leave_no_trace(kind: str) -> None:
    make, batch = RIGHT[kind]
    torch.manual_seed(1)
    model = make()
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    found: list[dict[str, Tensor]] = []
    for route in ("hooks", "loop"):
        with seeded(3):
            rows = PerRow(model, size=100, route=route)  # type: ignore[arg-type]
            rows.settle(batch)
        with seeded(4):
            found.append(rows(batch).gradients)
        assert rows.route == route
    for name, g in found[1].items():
        torch.testing.assert_close(found[0][name], g, rtol=1e-4, atol=1e-5)
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert all(p.grad is None for p in model.parameters())


def test_a_fit_by_hooks_is_a_fit_by_ghost() -> None:
    weights: list[dict[str, Any]] = []
    for route in ("hooks", "ghost"):
        model = Net()
        run = privacy.fit(
            model, numbers(4), epsilon=5.0, delta=1e-2, steps=4, accountant="rdp", seed=0,
            route=route,
        )  # fmt: skip
        assert run.report.route == route
        weights.append(copy.deepcopy(model.state_dict()))
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-5)


def test_auto_never_takes_them() -> None:
    rows = PerRow(Net(), size=100)
    rows.settle(numbers(4))
    assert rows.route == "ghost"
