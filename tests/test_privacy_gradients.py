"""Per-row gradients: all rows at once agree with one row after the other, for every kind of model.

The reference is plain autograd on a batch of one row (route="loop"), which shares with vmap nothing
but the table of noise; closed forms are worked out beside the tests.
"""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam, PyroSample
from scipy import stats
from torch import Tensor, nn

import pgm
import privacy
from pgm.batch import Batch, as_batch, take
from pgm.objectives import Objective, objective
from pgm.randomness import seeded
from privacy.draws import RowDraws
from privacy.gradients import PerRow, RowGradients


class VAE(pgm.Model):
    """Reparameterised latents; the guide is a network."""

    def __init__(self, features: int = 5, hidden: int = 8, latents: int = 2) -> None:
        super().__init__()
        self.latents = latents
        self.encoder = nn.Sequential(
            nn.Linear(features, hidden), nn.Tanh(), nn.Linear(hidden, 2 * latents)
        )
        self.decoder = nn.Sequential(
            nn.Linear(latents, hidden), nn.Tanh(), nn.Linear(hidden, features)
        )

    def prior(self) -> dist.Distribution:
        return dist.Normal(torch.zeros(self.latents), 1.0).to_event(1)

    def proposal(self, a: Tensor, b: Tensor) -> dist.Distribution:
        return dist.Normal(a, b.exp()).to_event(1)

    def likelihood(self, out: Tensor) -> dist.Distribution:
        return dist.Bernoulli(logits=out).to_event(1)

    def model(self, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(self.decoder(z)))

    def guide(self, n: int, x: Tensor) -> None:
        a, b = self.encoder(x).chunk(2, -1)
        with pgm.rows(n):
            pyro.sample("z", self.proposal(a, b))


class Dropout(VAE):
    """A network that draws random numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(self.encoder, nn.Dropout(0.3))


class Discrete(VAE):
    """Latents without a reparameterised gradient: the score-function term."""

    def prior(self) -> dist.Distribution:
        return dist.Bernoulli(torch.full((self.latents,), 0.3)).to_event(1)

    def proposal(self, a: Tensor, b: Tensor) -> dist.Distribution:
        return dist.Bernoulli(logits=a).to_event(1)

    def guide(self, n: int, x: Tensor) -> None:
        a = self.encoder(x)[:, : self.latents] + self.encoder(x)[:, self.latents :]
        with pgm.rows(n):
            pyro.sample("z", self.proposal(a, a))


class Counts(VAE):
    """Gamma latents, Poisson rows: draws that torch makes by rejection."""

    def prior(self) -> dist.Distribution:
        return dist.Gamma(torch.full((self.latents,), 2.0), 2.0).to_event(1)

    def proposal(self, a: Tensor, b: Tensor) -> dist.Distribution:
        return dist.Gamma(a.exp(), b.exp()).to_event(1)

    def likelihood(self, out: Tensor) -> dist.Distribution:
        return dist.Poisson(out.exp()).to_event(1)


class Shares(Counts):
    """Dirichlet latents, whose draw in torch has no vmap rule."""

    def prior(self) -> dist.Distribution:
        return dist.Dirichlet(torch.ones(self.latents))

    def proposal(self, a: Tensor, b: Tensor) -> dist.Distribution:
        return dist.Dirichlet((a + b).exp())


class Mixture(pgm.Model):
    """Enumerated latents."""

    def __init__(self, components: int = 3, features: int = 5) -> None:
        super().__init__()
        spread = torch.linspace(-1.0, 1.0, components)[:, None]
        self.logits = nn.Parameter(torch.zeros(components))
        self.mu = nn.Parameter(spread * torch.ones(features))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            k = pyro.sample(
                "k", dist.Categorical(logits=self.logits), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(self.mu[k], 1.0).to_event(1))


class Regression(pgm.Model):
    """Shared latent weights with a prior, and context."""

    def __init__(self, features: int = 5) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](features, 1)
        prior = dist.Normal(0.0, 1.0).expand([1, features]).to_event(2)
        self.linear.weight = PyroSample(prior)
        self.loc = nn.Parameter(torch.zeros(1, features))
        self.scale = PyroParam(torch.full((1, features), 0.1), constraint=dist.constraints.positive)

    def model(self, n: int, inputs: Tensor) -> None:
        mean = self.linear(inputs).squeeze(-1)
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(mean, 1.0))

    def guide(self, n: int) -> None:
        pyro.sample("linear.weight", dist.Normal(self.loc, self.scale).to_event(2))


def bits(n: int, features: int = 5) -> Tensor:
    """Rows of zeros and ones, the same each time."""
    generator = torch.Generator().manual_seed(1)
    return (torch.rand(n, features, generator=generator) < 0.5).float()


def with_holes(x: Tensor) -> Tensor:
    """The rows with a fifth of the cells missing."""
    generator = torch.Generator().manual_seed(2)
    return torch.where(torch.rand(x.shape, generator=generator) < 0.2, torch.nan, x)


X = bits(7)
KINDS: dict[str, tuple[Callable[[], pgm.Model], Any]] = {
    "reparameterised latents": (VAE, X),
    "a network with dropout": (Dropout, X),
    "score-function latents": (Discrete, X),
    "Gamma latents": (Counts, X),
    "enumerated latents": (Mixture, X),
    "shared latents, context": (Regression, {"inputs": X, "y": X[:, 0]}),
    "missing cells": (VAE, with_holes(X)),
    "missing counts": (Counts, with_holes(X)),
    "missing cells, enumerated": (Mixture, with_holes(X)),
    "missing rows, shared": (Regression, {"inputs": X, "y": with_holes(X)[:, 0]}),
}
OBJECTIVES: dict[str, Objective] = {"elbo": objective, "iwae": pgm.IWAE(4)}


def by(route: str, model: pgm.Model, batch: Batch, loss: Objective = objective) -> RowGradients:
    with seeded(3):
        return PerRow(model, size=50, objective=loss, route=route)(batch)  # type: ignore[arg-type]


def difference(found: RowGradients, reference: RowGradients) -> float:
    """The largest relative difference over the parameters."""
    assert found.gradients.keys() == reference.gradients.keys()
    return max(
        float((found.gradients[name] - g).norm() / (g.norm() + 1e-12))
        for name, g in reference.gradients.items()
    )


@pytest.mark.parametrize("loss", OBJECTIVES)
@pytest.mark.parametrize("kind", KINDS)
def test_all_rows_at_once_are_one_row_after_the_other(kind: str, loss: str) -> None:
    make, data = KINDS[kind]
    model, batch = make().double(), as_batch(data)
    batch = Batch({k: v.double() if v.is_floating_point() else v for k, v in batch.items()})
    found = by("vmap", model, batch, OBJECTIVES[loss])
    reference = by("loop", model, batch, OBJECTIVES[loss])
    assert difference(found, reference) < 1e-6
    torch.testing.assert_close(found.losses, reference.losses)
    assert found.finite.all()
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {n: (7, *p.shape) for n, p in trainable.items()} == {
        n: tuple(g.shape) for n, g in found.gradients.items()
    }
    assert all(bool(g.any()) for g in found.gradients.values())


def test_the_gradient_of_a_row_is_that_of_its_own_loss() -> None:
    model = Mixture()
    found = privacy.per_row_gradients(model, X, size=7)
    for i in range(len(X)):
        model.zero_grad()
        objective(model, take(as_batch(X), slice(i, i + 1)), size=7).sum().backward()
        for name, p in model.named_parameters():
            torch.testing.assert_close(found[name][i], p.grad)


def test_shared_terms_enter_as_one_nth() -> None:
    """KL(N(m, s) || N(0, 1)) has gradient m in m; over the rows' part it is m / N more."""
    model = Regression()
    with torch.no_grad():
        model.loc.fill_(2.0)
        model.scale = torch.full((1, 5), 1e-4)
    batch = as_batch({"inputs": X, "y": X[:, 0]})
    few = PerRow(model, size=10, route="vmap")(batch).gradients["loc"]
    many = PerRow(model, size=10**9, route="vmap")(batch).gradients["loc"]
    torch.testing.assert_close(few - many, torch.full_like(few, 2.0 / 10), rtol=0.0, atol=5e-3)


def test_rows_are_drawn_apart_and_again_each_time() -> None:
    model, same = VAE(), as_batch(X[:1].repeat(7, 1))
    found = privacy.per_row_gradients(model, same, size=7)["decoder.0.bias"]
    again = privacy.per_row_gradients(model, same, size=7)["decoder.0.bias"]
    assert len(torch.unique(found, dim=0)) == 7
    assert not torch.equal(found, again)


def test_a_program_that_cannot_be_vmapped_takes_the_loop_and_says_why() -> None:
    model, batch = Shares(), as_batch(X)
    rows = PerRow(model, size=7)
    found = rows(batch)
    assert (rows.route, "setup_context" in rows.reason) == ("loop", True)
    assert all(bool(g.any()) for g in found.gradients.values())
    with pytest.raises(RuntimeError, match="setup_context"):
        PerRow(model, size=7, route="vmap")(batch)


class Stranger(VAE):
    """Draws by a function of torch that has no rule."""

    def guide(self, n: int, x: Tensor) -> None:
        super().guide(n, x + torch.zeros_like(x).geometric_(0.5))


def test_an_unknown_random_function_is_never_shared_by_the_rows() -> None:
    rows = PerRow(Stranger(), size=7)
    rows(as_batch(X))
    assert rows.route == "loop"


def test_no_rows_have_no_gradients() -> None:
    model = VAE()
    found = PerRow(model, size=7)(Batch(x=X[:0]))
    assert {n: tuple(g.shape) for n, g in found.gradients.items()} == {
        n: (0, *p.shape) for n, p in model.named_parameters()
    }
    assert found.losses.shape == found.finite.shape == (0,)


@pytest.mark.parametrize("route", ["vmap", "loop"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e38])
def test_a_row_without_finite_gradient_counts_as_zero(route: str, bad: float) -> None:
    x = X.clone()
    x[2, 1] = bad
    model = Mixture()
    found, clean = by(route, model, Batch(x=x)), by(route, model, Batch(x=X))
    others = [0, 1, 3, 4, 5, 6]
    for name, g in found.gradients.items():
        assert g.isfinite().all()
        torch.testing.assert_close(g[others], clean.gradients[name][others])
    if not found.finite[2]:
        assert not any(bool(g[2].any()) for g in found.gradients.values())
    assert found.finite[others].all()


def test_frozen_parameters_have_no_gradient_and_keep_none() -> None:
    model = VAE()
    model.decoder.requires_grad_(False)
    found = privacy.per_row_gradients(model, X, size=7)
    assert found.keys() == {name for name, _ in model.named_parameters() if "encoder" in name}
    assert all(p.grad is None for p in model.parameters())


def test_a_tied_parameter_is_one() -> None:
    class Tied(Mixture):
        def __init__(self) -> None:
            super().__init__()
            self.copy = self.mu

    found, reference = by("vmap", Tied(), as_batch(X)), by("loop", Mixture(), as_batch(X))
    assert found.gradients.keys() == {"logits", "mu"}
    assert difference(found, reference) < 1e-5


def test_neither_the_model_nor_the_callers_random_numbers_are_touched() -> None:
    model, before = VAE(), torch.get_rng_state()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with seeded(0):
        privacy.per_row_gradients(model, X, size=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_model_without_trainable_parameters_is_refused() -> None:
    class Frozen(Mixture):
        def __init__(self) -> None:
            super().__init__()
            self.requires_grad_(False)

    with pytest.raises(ValueError, match="nothing to fit"):
        privacy.per_row_gradients(Frozen(), X, size=7)


P = torch.tensor([0.2, 0.5, 0.3])
DRAWS: dict[str, tuple[Callable[[], Tensor], Any]] = {
    "normal": (lambda: torch.normal(torch.tensor(2.0), torch.tensor(3.0)), stats.norm(2, 3)),
    "normal of numbers": (lambda: torch.normal(2.0, 3.0, size=()), stats.norm(2, 3)),
    "normal_": (lambda: torch.empty(()).normal_(2.0, 3.0), stats.norm(2, 3)),
    "randn": (lambda: torch.randn(()), stats.norm()),
    "randn of sizes": (lambda: torch.randn(2, 3)[1, 2], stats.norm()),
    "randn_like": (lambda: torch.randn_like(P)[0], stats.norm()),
    "rand": (lambda: torch.rand(size=(2,))[1], stats.uniform()),
    "rand_like": (lambda: torch.rand_like(P)[0], stats.uniform()),
    "uniform_": (lambda: P.new_empty(1).uniform_(-1.0, 3.0)[0], stats.uniform(-1, 4)),
    "uniform_ by name": (
        lambda: torch.empty_like(P).uniform_(**{"from": -1.0, "to": 3.0})[0],
        stats.uniform(-1, 4),
    ),
    "exponential_": (lambda: P.new(torch.Size(())).exponential_(2.0), stats.expon(scale=0.5)),
    "cauchy_": (lambda: torch.empty(()).cauchy_(1.0, 2.0), stats.cauchy(1, 2)),
    "gamma": (lambda: torch._standard_gamma(torch.tensor(1.7)), stats.gamma(1.7)),
    "bernoulli": (lambda: torch.bernoulli(P)[0], stats.bernoulli(0.2)),
    "bernoulli_": (lambda: torch.empty(()).bernoulli_(0.2), stats.bernoulli(0.2)),
    "bernoulli, method": (lambda: P.bernoulli()[0], stats.bernoulli(0.2)),
    "poisson": (lambda: torch.poisson(torch.tensor(2.5)), stats.poisson(2.5)),
    "binomial": (lambda: torch.binomial(torch.tensor(5.0), P[2]), stats.binom(5, 0.3)),
    "randint": (lambda: torch.randint(4, ()).float(), stats.randint(0, 4)),
    "randint from": (lambda: torch.randint(-1, 3, size=()).float(), stats.randint(-1, 3)),
    "randperm": (lambda: torch.randperm(4)[0].float(), stats.randint(0, 4)),
    "multinomial": (
        lambda: torch.multinomial(P, 2, replacement=True)[1].float(),
        stats.rv_discrete(values=([0, 1, 2], P.double().numpy() / float(P.double().sum()))),
    ),
    "multinomial once": (
        lambda: torch.multinomial(P, 1)[0].float(),
        stats.rv_discrete(values=([0, 1, 2], P.double().numpy() / float(P.double().sum()))),
    ),
    "dropout": (lambda: nn.functional.dropout(torch.ones(1), 0.2)[0] / 1.25, stats.bernoulli(0.8)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_keeps_its_law_and_is_the_same_by_both_routes(name: str) -> None:
    draw, law = DRAWS[name]
    n, tables = 4000, dict[Any, Tensor]()

    def of_row(row: Tensor) -> Tensor:
        with RowDraws(n, row, tables):
            return draw()

    with seeded(5):
        x = torch.func.vmap(of_row)(torch.arange(n)[:, None])
    one_by_one = torch.stack([of_row(torch.tensor([i])) for i in range(5)])
    torch.testing.assert_close(x[:5], one_by_one)
    values = x.double().numpy()
    if isinstance(getattr(law, "dist", law), stats.rv_discrete):
        levels, counts = torch.unique(x, return_counts=True)
        expected = law.pmf(levels.double().numpy()) * n
        assert expected.sum() == pytest.approx(n, rel=2e-3)
        large = expected > 8
        chi2 = ((counts.numpy() - expected) ** 2 / expected)[large].sum()
        assert stats.chi2.sf(chi2, large.sum() - 1) > 1e-5
    else:
        assert stats.kstest(values, law.cdf).pvalue > 1e-5


def test_draws_without_replacement_are_all_different() -> None:
    tables = dict[Any, Tensor]()
    with RowDraws(1, torch.tensor([0]), tables):
        chosen = torch.multinomial(torch.ones(6), 6)
    assert sorted(chosen.tolist()) == list(range(6))


def test_a_layer_in_evaluation_mode_drops_nothing() -> None:
    x = torch.ones(4)
    with RowDraws(1, torch.tensor([0]), {}):
        assert torch.equal(nn.functional.dropout(x, 0.5, training=False), x)
        assert torch.equal(nn.functional.dropout(x, 0.0), x)
        assert torch.equal(nn.functional.dropout(x, 1.0), torch.zeros(4))
