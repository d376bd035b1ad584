"""Rows that a model keeps in plain attributes: told before a fit, stopped during one.

Pickling a model releases all of its attributes, and no noise covers them.
"""

import pickle
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pgm
import privacy
from pgm.objectives import objective
from privacy.kept import Kept

X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
GOOD: dict[str, Any] = {"epsilon": 3.0, "delta": 1e-3, "steps": 3, "seed": 0}


class Net(pgm.Model):
    """x ~ N(f(z), 1), and something that a program may keep."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(2, 2), nn.Linear(2, 2)
        self.seen: Any = torch.zeros(2)
        self.rows_seen = 0
        self.past: Any = []
        self.table: Any = {"mean": np.zeros(2)}

    def model(self, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), 1.0).to_event(1))

    def guide(self, n: int, x: Tensor) -> None:
        self.keep(x)
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.5).to_event(1))

    def keep(self, x: Tensor) -> None:
        """Nothing."""


class Rows(Net):
    def keep(self, x: Tensor) -> None:
        self.seen = x.detach()


class RunningMean(Net):
    def keep(self, x: Tensor) -> None:
        self.seen = 0.9 * self.seen + 0.1 * x.mean(0)


class InPlace(Net):
    def keep(self, x: Tensor) -> None:
        self.seen.mul_(0.9).add_(x.mean(0), alpha=0.1)


class Number(Net):
    def keep(self, x: Tensor) -> None:
        self.seen = float(x.mean())


class Growing(Net):
    def keep(self, x: Tensor) -> None:
        self.past.append(x)


class Inside(Net):
    def keep(self, x: Tensor) -> None:
        self.table["mean"][:] = x.detach().numpy().mean(0)


class Below(Net):
    def keep(self, x: Tensor) -> None:
        self.encoder.last = x


class Counted(Net):
    """Lots have a secret size."""

    def keep(self, x: Tensor) -> None:
        self.rows_seen += len(x)


class Transformed(Net):
    """Pyro's transformations cache what they saw last."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = dist.transforms.AffineTransform(1.0, 2.0, cache_size=1)

    def keep(self, x: Tensor) -> None:
        self.shift(x)


KEEPERS = [
    (Rows, "seen"),
    (RunningMean, "seen"),
    (InPlace, "seen"),
    (Number, "seen"),
    (Growing, "past"),
    (Inside, "table"),
    (Below, "encoder.last"),
    (Counted, "rows_seen"),
    (Transformed, "shift"),
]


@pytest.mark.parametrize(("make", "name"), KEEPERS)
def test_it_is_told_by_name_before_a_fit(make: type[Net], name: str) -> None:
    model, ledger = make(), privacy.Ledger()
    before = pickle.dumps([*vars(model)])
    assert f"Attribute '{name}' keeps what depends on the rows" in str(privacy.check(model, X))
    for route in ("auto", "vmap", "loop"):
        with pytest.raises(pgm.BrokenModel, match=f"Attribute '{name}' keeps"):
            privacy.fit(model, X, ledger=ledger, route=route, **GOOD)
    assert ledger.releases == () and pickle.dumps([*vars(model)]) == before
    assert torch.equal(model.seen, torch.zeros(2)) and model.past == [] and model.rows_seen == 0
    assert model.table["mean"].tolist() == [0.0, 0.0]


def test_so_is_what_an_objective_keeps() -> None:
    def keeping(model: Any, batch: Any, *, size: int) -> Tensor:
        losses = objective(model, batch, size=size)
        model.past.append(losses.detach())
        return losses

    assert "Attribute 'past' keeps" in str(privacy.check(Net(), X, objective=keeping))


class Constants(Net):
    """Caches that say nothing of the rows."""

    def keep(self, x: Tensor) -> None:
        self.rows_seen += 1
        self.seen = torch.ones(2) * 3
        self.table["squares"] = self.encoder.weight.detach().square()


@pytest.mark.parametrize("route", ["ghost", "vmap", "loop"])
def test_constants_counts_and_what_follows_from_the_parameters_are_no_rows(route: Any) -> None:
    model = Constants()
    assert privacy.check(model, X, route=route).problems == ()
    assert model.rows_seen == 0 and "squares" not in model.table
    run = privacy.fit(model, X, route=route, **GOOD)
    assert len(run.steps) == 3 and model.rows_seen > 0


def test_weights_that_torch_recomputes_at_every_call() -> None:
    model = Net()
    with pytest.warns(FutureWarning, match="deprecated"):
        nn.utils.weight_norm(model.decoder)
    assert privacy.fit(model, X, **GOOD).steps


class Sometimes(Net):
    """Keeps a row that no made-up row looks like."""

    def keep(self, x: Tensor) -> None:
        if bool((x > 50).any()):
            self.seen = x.detach().mean(0)


class Selected(Net):
    """Of made-up rows it keeps nothing, again and again."""

    def keep(self, x: Tensor) -> None:
        self.seen = x.detach()[x.detach()[:, 0] > 50] * 2


class Masked(Net):
    """The same in the reach of vmap."""

    def keep(self, x: Tensor) -> None:
        self.seen = torch.where(x > 50, x, 0.0).sum(0)


@pytest.mark.parametrize(
    ("make", "route"),
    [(Sometimes, "ghost"), (Selected, "ghost"), (Masked, "ghost"), (Masked, "vmap")],
)
def test_what_only_some_rows_leave_stops_the_run(make: type[Net], route: Any) -> None:
    x = X.clone()
    x[3] = 100.0
    model, ledger = make(), privacy.Ledger()
    before = model.decoder.weight.clone()
    with pytest.raises(RuntimeError, match=r"'seen' of .* changed .* Discard this model"):
        privacy.fit(model, x, route=route, ledger=ledger, rate=1.0, **GOOD)
    assert torch.equal(model.decoder.weight, before)
    assert sum(release.steps for release in ledger.releases) == 0


class Initialised(Net):
    """A parameter that the first rows set."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.ready = nn.Parameter(torch.zeros(2)), False

    def keep(self, x: Tensor) -> None:
        if not self.ready:
            self.shift.data.copy_(x.mean(0))
            self.ready = True

    def model(self, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z) + self.shift, 1.0).to_event(1))


def test_data_dependent_initialisation() -> None:
    model = Initialised()
    with pytest.raises(pgm.BrokenModel, match=r"'shift' changes .* data-dependent init"):
        privacy.fit(model, X, **GOOD)
    assert torch.equal(model.shift, torch.zeros(2)) and not model.ready


class Holding(Net):
    """Rows in a plain attribute from the start."""

    def __init__(self, points: Tensor) -> None:
        super().__init__()
        self.past = [points.numpy()[:7]]


def test_rows_that_are_kept_from_the_start() -> None:
    found = str(privacy.check(Holding(X.clone()), X))
    assert "'past' holds rows of 'x', the data themselves" in found
    assert "'an argument of the constructor' holds rows of 'x'" in found
    assert privacy.check(Holding(torch.randn(40, 2)), X).problems == ()


def test_what_is_looked_at_is_put_back() -> None:
    model = Net()
    model.past = [1, {"a": torch.zeros(2)}]
    kept = Kept.of(model, copies=True)
    model.past.append(3)
    model.past[1]["a"].add_(1.0)
    model.past[1]["b"], model.late = 2, "new"
    assert kept.changed(Kept.of(model, copies=True)) == {"past", "late"}
    kept.restore()
    assert kept.changed(Kept.of(model, copies=True)) == set()
    assert len(model.past) == 2 and model.past[1]["a"].tolist() == [0.0, 0.0]
