"""Each broken rule is found and explained, and a sound model is left alone."""

from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn

import pgm

Body = Callable[[pgm.Model, int], None]


class Written(pgm.Model):
    """A model whose programs are functions."""

    def __init__(self, body: Body, proposal: Callable[..., None] | None = None) -> None:
        super().__init__()
        self.body, self.proposal = body, proposal
        self.net = nn.Linear(2, 2)
        self.norm = nn.LayerNorm(2)

    def model(self, n: int) -> None:
        self.body(self, n)

    def guide(self, n: int, x: Tensor) -> None:
        if self.proposal is not None:
            self.proposal(self, n, x)


def normal(loc: Any, event: int = 1) -> Any:
    return dist.Normal(loc, 1.0).to_event(event)


def sound(model: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        z = pyro.sample("z", normal(torch.zeros(2)))
        pyro.sample("x", normal(z))


def proposal(model: Any, n: int, x: Tensor) -> None:
    with pgm.rows(n):
        pyro.sample("z", normal(model.net(x)))


def no_rows(model: pgm.Model, n: int) -> None:
    pyro.sample("x", normal(torch.zeros(n, 2), 2))


def no_event(model: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        pyro.sample("z", normal(torch.zeros(2)))
        pyro.sample("x", dist.Normal(torch.zeros(n, n), 1.0))


def loose(model: pgm.Model, n: int) -> None:
    scale = pyro.param("scale", torch.tensor(1.0))
    with pgm.rows(n):
        z = pyro.sample("z", normal(torch.zeros(2)))
        pyro.sample("x", dist.Normal(z, scale).to_event(1))


def mixing_guide(model: Any, n: int, x: Tensor) -> None:
    h = model.net(x)
    with pgm.rows(n):
        pyro.sample("z", normal(h - h.mean(0)))


def foreign_guide(model: Any, n: int, x: Tensor) -> None:
    proposal(model, n, x)
    with pgm.rows(n):
        pyro.sample("w", normal(torch.zeros(2)))


def unobserved(model: pgm.Model, n: int) -> None:
    sound(model, n)
    with pgm.rows(n):
        pyro.sample("k", dist.Bernoulli(0.5))


def infinite(model: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        z = pyro.sample("z", normal(torch.zeros(2)))
        pyro.sample("x", dist.Uniform(z + 50.0, z + 51.0).to_event(1))


X = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))


def test_a_sound_model_has_no_problem() -> None:
    report = pgm.check(Written(sound, proposal), X)
    assert report.problems == ()
    assert report.sites == ("z latent (2,)", "x observed (2,)")
    assert "no broken rule" in str(report)


@pytest.mark.parametrize(
    ("body", "guide", "message"),
    [
        (no_rows, None, "No site stands inside the plate 'rows'"),
        (sound, None, "Site 'z' is neither in the data nor in the guide"),
        (unobserved, proposal, "infer={'enumerate': 'parallel'}"),
        (sound, foreign_guide, "The guide samples 'w'"),
        (no_event, proposal, r"Add .to_event\(k\)"),
        (loose, proposal, "pyro.param\\('scale'\\) is loose"),
        (sound, mixing_guide, "something mixes rows"),
        (infinite, proposal, "Site 'x': Expected value"),
    ],
)
def test_a_broken_rule_is_explained(body: Body, guide: Any, message: str) -> None:
    model = Written(body, guide)
    report = pgm.check(model, X)
    with pytest.raises(pgm.BrokenModel, match=message):
        report.raise_if_broken()
    with pytest.raises(pgm.BrokenModel, match=message):
        pgm.fit(model, X, steps=1, seed=0)


def test_a_layer_that_mixes_rows_is_named() -> None:
    model = Written(sound, proposal)
    model.norm = nn.BatchNorm1d(2)
    with pytest.raises(pgm.BrokenModel, match=r"Layer 'norm' is a BatchNorm1d.*nn.LayerNorm"):
        pgm.check(model, X).raise_if_broken()


def test_data_of_another_shape() -> None:
    with pytest.raises(pgm.BrokenModel, match=r"shape \(n, 3\).*event shape is \(2,\)"):
        pgm.check(
            Written(sound, lambda m, n, x: proposal(m, n, x[:, :2])), torch.zeros(5, 3)
        ).raise_if_broken()


def test_a_column_without_values() -> None:
    x = X.clone()
    x[:, 1] = torch.nan
    with pytest.raises(pgm.BrokenModel, match=r"'x' is missing \(columns: \[1\]\)"):
        pgm.check(Written(sound, proposal), x).raise_if_broken()


def test_a_check_changes_nothing() -> None:
    model = Written(sound, proposal)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    state = torch.get_rng_state()
    pgm.check(model, X)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_two_models_of_one_class_do_not_share_weights() -> None:
    """With Pyro's global store the second of a class does not train (design, section 4.1)."""
    first, second = Written(sound, proposal), Written(sound, proposal)
    weights = first.net.weight.detach().clone()
    pgm.fit(second, X, steps=3, seed=0)
    assert torch.equal(first.net.weight, weights)


class WithPrior(pgm.Model):
    """A weight with a PyroSample prior, which must not vanish from the trace."""

    def __init__(self) -> None:
        super().__init__()
        self.w = pyro.nn.PyroSample(dist.Normal(0.0, 1.0))
        self.loc = nn.Parameter(torch.zeros(()))

    def model(self, n: int) -> None:
        w = self.w
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(w, 1.0))

    def guide(self, n: int) -> None:
        pyro.sample("w", dist.Normal(self.loc, 0.1))


def test_priors_on_attributes_are_sites() -> None:
    report = pgm.check(WithPrior(), torch.zeros(3))
    assert report.sites[0] == "w latent () shared"
    assert report.problems == ()


def test_draws_that_take_more_random_numbers_are_no_mixing_of_rows() -> None:
    """torch draws a Poisson by as many uniform numbers as its rate asks for."""

    class Counts(pgm.Model):
        def __init__(self) -> None:
            super().__init__()
            self.rate = torch.nn.Parameter(torch.tensor(0.5))

        def model(self, n: int) -> None:
            with pgm.rows(n):
                z = pyro.sample("z", dist.Poisson(torch.ones(())))
                pyro.sample("y", dist.Normal(z, 1.0))

        def guide(self, n: int, y: Tensor) -> None:
            with pgm.rows(n):
                pyro.sample("z", dist.Poisson(torch.nn.functional.softplus(self.rate + y)))

    for seed in range(8):
        y = torch.randn(6, generator=torch.Generator().manual_seed(seed))
        assert pgm.check(Counts(), {"y": y}).problems == ()
