"""The ghost route: right wherever it is taken, and not taken where it would be wrong.

The reference is plain autograd on a batch of one row (route="loop"). A planted bug is a program on
which one pass over the lot gives other gradients than rows alone; each is shown to do so with the
trial switched off, and to be found by it.
"""

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from pyro.nn import PyroModule
from torch import Tensor, nn
from zuko.nn import MaskedLinear

import pgm
from pgm.batch import Batch, as_batch
from pgm.families.vae import VAE
from pgm.objectives import Objective, objective
from pgm.randomness import seeded
from privacy.gradients import PerRow, ghost
from privacy.gradients.rows import clipped
from privacy.gradients.tape import NotCovered


class Net(pgm.Model):
    """x ~ N(f(u), 1); the programs below say what f is."""

    def __init__(self) -> None:
        super().__init__()
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


class Flattened(Net):
    def mean(self, u: Tensor) -> Tensor:
        return self.net(u.reshape(-1, 4)).reshape(len(u), -1, 2).sum(1)


class Wide(Net):
    """One layer, called three times: norms by pairs of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(40, 40)

    def mean(self, u: Tensor) -> Tensor:
        h = u.repeat(1, 10)
        for _ in range(3):
            h = h + self.net(h).tanh()
        return h[:, :2]


class Tied(Net):
    """Two layers with one weight; one bias is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.b.weight = self.a.weight
        self.net[0].bias.requires_grad_(False)

    def mean(self, u: Tensor) -> Tensor:
        return self.net(self.b(self.a(u).relu_()))


class Words(Net):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4)

    def mean(self, u: Tensor) -> Tensor:
        return self.net(self.table((u[..., 0] > 0).long())).sum(1)


class TiedWords(Words):
    """The table is also the weight of a linear layer."""

    def mean(self, u: Tensor) -> Tensor:
        h = self.table((u[..., 0] > 0).long()).sum(1)
        return self.net(h) + F.linear(h, self.table.weight)[:, :2]


class Normalised(Net):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.ReLU(True), nn.Linear(6, 2))

    def mean(self, u: Tensor) -> Tensor:
        return self.net(u).sum(1)


class Images(Net):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 3, 2, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(27, 2)
        )

    def mean(self, u: Tensor) -> Tensor:
        return self.net(u[:, None])


class Series(Net):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(4, 3, 3, padding=2, dilation=2), nn.Tanh())
        self.out = PyroModule[nn.Linear](15, 2)

    def mean(self, u: Tensor) -> Tensor:
        return self.out(self.net(u.mT).flatten(1))


class Masked(Net):
    def __init__(self) -> None:
        super().__init__()
        mask = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 1], [1, 1, 0, 0]]).bool()
        self.net = nn.Sequential(MaskedLinear(mask), nn.Tanh(), nn.Linear(3, 2))


class MaskedSeries(Masked):
    def mean(self, u: Tensor) -> Tensor:
        return self.net(u).sum(1)


class Enumerated(Net):
    """The network sees all values of k at once, in a dimension left of the rows."""

    def model(self, n: int, u: Tensor) -> None:
        with pgm.rows(n):
            k = pyro.sample("k", dist.Categorical(torch.ones(3)), infer={"enumerate": "parallel"})
            shifted = u + k.to(u.dtype)[..., None]
            pyro.sample("x", dist.Normal(self.net(shifted), 1.0).to_event(1))


class Raw(Net):
    """Parameters of no layer: a row of numbers, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.log_scale = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(()))

    def mean(self, u: Tensor) -> Tensor:
        return (self.net(u) + self.shift) * self.log_scale.exp()


def rows_of_numbers(*shape: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    u, x = torch.randn(6, *shape, generator=generator), torch.randn(6, 2, generator=generator)
    return {"u": u, "x": x}


def vae(**options: Any) -> Callable[[], pgm.Model]:
    return lambda: VAE(5, latents=2, hidden=(8,), **options)


BITS = (torch.rand(6, 5, generator=torch.Generator().manual_seed(2)) < 0.5).float()
HOLES = torch.where(BITS.roll(1, 0).roll(1, 1) > BITS, torch.nan, BITS)
RIGHT: dict[str, tuple[Callable[[], pgm.Model], Any, Objective]] = {
    "a network": (Net, rows_of_numbers(4), objective),
    "time first": (TimeFirst, rows_of_numbers(5, 4), objective),
    "time and rows in one": (Flattened, rows_of_numbers(5, 4), objective),
    "a layer called three times": (Wide, rows_of_numbers(4), objective),
    "tied layers, a frozen bias": (Tied, rows_of_numbers(4), objective),
    "embeddings": (Words, rows_of_numbers(5, 4), objective),
    "a table that is a layer too": (TiedWords, rows_of_numbers(5, 4), objective),
    "layer normalisation": (Normalised, rows_of_numbers(5, 4), objective),
    "images": (Images, rows_of_numbers(4, 4), objective),
    "series": (Series, rows_of_numbers(5, 4), objective),
    "masked layers": (Masked, rows_of_numbers(4), objective),
    "masked layers over time": (MaskedSeries, rows_of_numbers(5, 4), objective),
    "enumerated values first": (Enumerated, rows_of_numbers(4), objective),
    "parameters of no layer": (Raw, rows_of_numbers(4), objective),
    "latents": (vae(), BITS, objective),
    "particles": (vae(), BITS, pgm.IWAE(4)),
    "dropout": (vae(dropout=0.4), BITS, objective),
    "missing cells": (vae(), HOLES, objective),
    "a raw noise scale": (vae(likelihood="gaussian"), HOLES, objective),
}


def in_double(model: pgm.Model, data: Any) -> tuple[pgm.Model, Batch]:
    batch = as_batch(data)
    return model.double().train(), Batch(
        {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    )


def off(model: pgm.Model, batch: Batch, loss: Objective, route: Any) -> float:
    """The largest relative difference to the loop, of the gradients by row and clipped sums."""
    rows = PerRow(model, size=50, objective=loss, route=route)
    with seeded(3):
        reference = PerRow(model, size=50, objective=loss, route="loop")(batch)
    clip = float(clipped(reference, 1.0).norms.median())
    with seeded(3):
        found = rows(batch)
    with seeded(3):
        total = rows.clipped(batch, clip)
    expected = clipped(reference, clip)
    pairs = [(found.gradients[k], g) for k, g in reference.gradients.items()]
    pairs += [(total.gradients[k], g) for k, g in expected.gradients.items()]
    pairs += [(total.norms, expected.norms), (total.losses, reference.losses)]
    return max(float((a - b).norm() / (b.norm() + 1e-12)) for a, b in pairs)


@pytest.mark.parametrize("kind", RIGHT)
def test_norms_and_clipped_sums_are_those_of_rows_alone(kind: str) -> None:
    make, data, loss = RIGHT[kind]
    torch.manual_seed(0)
    model, batch = in_double(make(), data)
    assert off(model, batch, loss, "ghost") < 1e-9


# ----------------------------------------------------------------- programs that must be found out


class Centred(Net):
    """h - h.mean(): every row sees the others."""

    def mean(self, u: Tensor) -> Tensor:
        h = self.net(u)
        return h - h.mean(0) if len(h) > 1 else h


class Gated(Centred):
    """The same behind a gate that is closed at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(2, 2, bias=False)
        nn.init.zeros_(self.gate.weight)

    def mean(self, u: Tensor) -> Tensor:
        h = self.net(u)
        return h - self.gate(self.gate(h)).mean(0)


class BatchNormalised(Net):
    def mean(self, u: Tensor) -> Tensor:
        return self.net(F.batch_norm(u, None, None, training=True) if len(u) > 1 else u)


class Attending(Net):
    """Attention across the rows."""

    def mean(self, u: Tensor) -> Tensor:
        h = self.net(u)
        return (h @ h.mT).softmax(-1) @ h


class Subsampled(Net):
    """What `pyro.plate("data", 100, subsample=...)` does: terms are scaled by 100 / n."""

    def model(self, n: int, u: Tensor) -> None:
        mean = self.mean(u)
        with pyro.poutine.scale(scale=100 / n), pgm.rows(n):
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1))


class OfNoRow(Net):
    """A layer on something that is the same for all rows."""

    def mean(self, u: Tensor) -> Tensor:
        return self.net(u) + self.net(torch.ones(1, 4, dtype=u.dtype))


def weight_decay(model: pgm.Model, batch: Any, *, size: int) -> Tensor:
    """loss + regulariser: the lot's clipped sum would carry it unclipped."""
    decay = sum(p.square().sum() for p in model.parameters())
    return objective(model, batch, size=size) + 0.1 * decay


def activity_decay(model: Any, batch: Any, *, size: int) -> Tensor:
    """A regulariser on what all rows together do to a layer."""
    return objective(model, batch, size=size) + model.net(batch["u"]).mean(0).square().sum()


def slope_penalty(model: Any, batch: Any, *, size: int) -> Tensor:
    """The gradient of a gradient, in which parameters come twice."""
    u = batch["u"].detach().requires_grad_()
    (slope,) = torch.autograd.grad(model.net(u).sum(), u, create_graph=True)
    return objective(model, batch, size=size) + slope.square().sum(-1)


def func_penalty(model: Any, batch: Any, *, size: int) -> Tensor:
    slope = torch.func.grad(lambda u: model.net(u).sum())(batch["u"])
    return objective(model, batch, size=size) + slope.square().sum(-1)


FOUND: dict[str, tuple[Callable[[], pgm.Model], Objective, str]] = {
    "h - h.mean()": (Centred, objective, "another gradient"),
    "h - h.mean(), hidden by zeros": (Gated, objective, "another gradient"),
    "batch normalisation": (BatchNormalised, objective, "another gradient"),
    "attention across rows": (Attending, objective, "another gradient"),
    "a plate with subsample": (Subsampled, objective, "another gradient"),
    "a layer on no row": (OfNoRow, objective, "no entry for each row"),
    "loss + regulariser": (Net, weight_decay, "layers without a rule, or none, use"),
    "loss + regulariser of the lot": (Net, activity_decay, "another gradient"),
    "a gradient's gradient": (Net, slope_penalty, "differentiates a gradient"),
    "a gradient's gradient by torch.func": (Net, func_penalty, "transformation of torch.func"),
}


@pytest.mark.parametrize("bug", FOUND)
def test_a_program_that_a_pass_over_the_lot_gets_wrong_is_not_taken(bug: str) -> None:
    make, loss, why = FOUND[bug]
    torch.manual_seed(0)
    model, batch = in_double(make(), rows_of_numbers(4))
    with pytest.raises(NotCovered, match=why):
        PerRow(model, size=50, objective=loss, route="ghost")(batch)
    assert off(model, batch, loss, "auto") < 1e-9


@pytest.mark.parametrize(
    "bug", [bug for bug, (_, _, why) in FOUND.items() if why == "another gradient"]
)
def test_without_the_trial_it_would_be_wrong(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, loss, _ = FOUND[bug]
    torch.manual_seed(0)
    model, batch = in_double(make(), rows_of_numbers(4))
    if make is Gated:
        nn.init.ones_(model.gate.weight)
    monkeypatch.setattr(ghost, "compare", lambda *_: None)
    assert off(model, batch, loss, "ghost") > 0.01


class Moody(Net):
    """Calls a layer once more when a row is large: not seen in the trial."""

    def mean(self, u: Tensor) -> Tensor:
        h = self.net(u)
        return h + self.net(u) if bool((u > 100).any()) else h


def test_a_program_that_changes_its_ways_in_use_leaves_the_route() -> None:
    model, batch = in_double(Moody(), rows_of_numbers(4))
    rows = PerRow(model, size=50)
    with seeded(3):
        rows(batch)
    assert rows.route == "ghost"
    large = Batch(batch | {"u": batch["u"] + 200})
    found = rows.clipped(large, 1.0)
    assert rows.route == "loop"
    assert "other calls than when it was tried out" in rows.reason
    expected = PerRow(model, size=50, route="loop").clipped(large, 1.0)
    torch.testing.assert_close(found.gradients, expected.gradients)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e300])
def test_a_row_that_is_not_finite_counts_as_zero_and_spoils_no_other(bad: float) -> None:
    model, batch = in_double(Net(), rows_of_numbers(4))
    spoilt = Batch({k: v.clone() for k, v in batch.items()})
    spoilt["x"][2], spoilt["u"][4] = bad, bad
    rows = PerRow(model, size=50, route="ghost")
    found = rows.clipped(spoilt, 1.0)
    kept = torch.tensor([0, 1, 3, 5])
    good = rows.clipped(Batch({k: v[kept] for k, v in batch.items()}), 1.0)
    counted = float(found.finite[[2, 4]].sum())
    for name, g in found.gradients.items():
        assert g.isfinite().all()
        assert float((g - good.gradients[name]).norm()) <= counted * (1 + 1e-6)
    assert found.finite[kept].all()


def test_one_row_and_no_row() -> None:
    model, batch = in_double(Net(), rows_of_numbers(4))
    rows = PerRow(model, size=50, route="ghost")
    none = rows.clipped(Batch({k: v[:0] for k, v in batch.items()}), 1.0)
    assert not any(bool(g.any()) for g in none.gradients.values())
    one = Batch({k: v[:1] for k, v in batch.items()})
    found, expected = rows(one), PerRow(model, size=50, route="loop")(one)
    torch.testing.assert_close(found.gradients, expected.gradients)


def test_the_trial_leaves_parameters_and_random_numbers_as_they_were() -> None:
    model, batch = in_double(Net(), rows_of_numbers(4))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = torch.get_rng_state()
    PerRow(model, size=50, route="ghost").settle(batch)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
