"""The self-check: each planted fault is found, and named with its remedy."""

import sys
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pgm
import privacy
from pgm.batch import as_batch
from pgm.families.mixture import GaussianMixture
from pgm.objectives import objective
from pgm.randomness import seeded
from privacy.gradients import parts
from privacy.gradients.rows import RowGradients
from privacy.synthetic import synthetic_rows

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
GHOST, ROWS = sys.modules["privacy.gradients.ghost"], sys.modules["privacy.gradients.rows"]


class Net(pgm.Model):
    """x ~ N(f(0), 1) with a layer, and a latent that is a layer's too."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(2, 2), nn.Linear(2, 2)

    def model(self, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1))

    def guide(self, n: int, x: Tensor) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))


def problems(model: pgm.Model, **options: Any) -> str:
    return "\n".join(privacy.check(model, X, **options).problems)


def test_a_sound_model_passes_by_every_route() -> None:
    for route in ("ghost", "vmap", "loop"):
        assert problems(Net(), route=route) == ""


def centred(model: pgm.Model, batch: Any, *, size: int) -> Tensor:
    losses = objective(model, batch, size=size)
    return losses - losses.mean()


def weighed(model: pgm.Model, batch: Any, *, size: int) -> Tensor:
    losses = objective(model, batch, size=size)
    return losses * losses.detach().mean()


def divided(model: pgm.Model, batch: Any, *, size: int) -> Tensor:
    return objective(model, batch, size=size) / len(batch["x"])


def summed(model: pgm.Model, batch: Any, *, size: int) -> Tensor:
    return objective(model, batch, size=size).sum()


class Subsampled(Net):
    """What a plate with subsample does to the terms within."""

    def model(self, n: int) -> None:
        with pyro.poutine.scale(scale=100 / n):
            super().model(n)

    def guide(self, n: int, x: Tensor) -> None:
        with pyro.poutine.scale(scale=100 / n):
            super().guide(n, x)


@pytest.mark.parametrize(
    ("make", "loss", "message"),
    [
        (Net, centred, "Changing the first row changes the loss of the others"),
        (Net, divided, "depends on the size of the lot"),
        (Net, summed, "must give one number a row"),
        (Subsampled, objective, "depends on the size of the lot"),
    ],
)
def test_an_objective_that_is_not_by_row(
    make: Callable[[], pgm.Model], loss: Any, message: str
) -> None:
    assert message in problems(make(), objective=loss)


class Crowded(Net):
    """Centres rows where there are more than a few, or weighs them."""

    def __init__(self, *, weighs: bool) -> None:
        super().__init__()
        self.weighs = weighs

    def guide(self, n: int, x: Tensor) -> None:
        h = self.encoder(x)
        if n > 100:
            h = h * (100 / n) if self.weighs else h - h.mean(0)
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(h, 0.5).to_event(1))


@pytest.mark.parametrize("weighs", [True, False])
def test_rows_that_are_joined_in_large_lots_alone(weighs: Any) -> None:
    model = Crowded(weighs=weighs)
    assert "joins rows where there are many" in str(privacy.check(model, X, rows=1000))
    assert problems(model) == "", "a table of 40 rows has no such lots"
    assert problems(model, route="vmap", rows=1000) == "", "which sees one row at a time"


def no_clipping(norms: Tensor, clip: float) -> Tensor:
    return torch.ones_like(norms)


def clip_per_batch(norms: Tensor, clip: float) -> Tensor:
    return (clip / norms.mean()).clamp(max=1.0).expand_as(norms)


def keep_all(gradients: dict[str, Tensor], losses: Tensor) -> RowGradients:
    return RowGradients(gradients, losses, torch.ones(len(losses), dtype=torch.bool))


@pytest.mark.parametrize(
    ("route", "where", "name", "planted"),
    [
        ("ghost", ROWS, "factors", no_clipping),
        ("ghost", ROWS, "factors", clip_per_batch),
        ("vmap", ROWS, "factors", no_clipping),
        ("vmap", ROWS, "factors", clip_per_batch),
        ("vmap", sys.modules["privacy.gradients.routes"], "whole_rows", keep_all),
        ("ghost", parts.Outer, "kept", lambda self, rows: self),
    ],
)
def test_a_sum_that_is_not_clipped(
    route: Any, where: Any, name: str, planted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, planted)
    assert "moves the sum of clipped gradients by" in problems(Net(), route=route)


def test_norms_that_are_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would let a row count for more than the noise covers."""
    monkeypatch.setattr(parts.Outer, "norms", lambda self: 0.3 * self._single())
    found = problems(Net(), route="ghost")
    assert "All rows at once and one row after the other differ" in found
    assert "moves the sum of clipped gradients by" in found


def test_rows_that_are_joined_on_the_way_to_the_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GHOST, "compare", lambda *_: None)
    found = problems(Net(), route="ghost", objective=weighed)
    assert "All rows at once and one row after the other differ" in found


def test_layers_that_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts.Outer, "weighted", lambda self, c: torch.zeros(self.shape))
    assert "differ by" in problems(Net(), route="ghost")


def test_a_route_that_cannot_be_taken_is_refused_before_anything_is_spent() -> None:
    ledger = privacy.Ledger()
    with pytest.raises(ValueError, match=r"Route 'ghost' was asked for, but .* Use 'auto'"):
        privacy.fit(
            GaussianMixture(2, 2), X, epsilon=1.0, delta=1e-3, steps=1,
            route="ghost", ledger=ledger,
        )  # fmt: skip
    assert ledger.releases == ()


def test_made_up_rows_are_the_same_whatever_the_data() -> None:
    model, made_up = Net(), []
    for data in (X, 100 * X.flip(0)):
        with seeded(0):
            made_up.append(synthetic_rows(model, as_batch(data), 3)["x"])
    assert torch.equal(*made_up)
