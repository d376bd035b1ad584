"""Public terms apart: exact, without noise, and never with a row of the data.

The parts add up to the loss; the private part has the sensitivity C; what is marked as public is
tried with other rows, and planted lies are found.
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
from pgm.batch import Batch, as_batch
from pgm.families.gan import GAN
from pgm.families.regression import Regression
from pgm.objectives import Objective, objective, parted, public
from pgm.randomness import seeded
from privacy.gradients import PerRow
from privacy.learner import PrivateLearner

X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))


class Shared(pgm.Model):
    """theta ~ N(0, 1) with the proposal N(m, e^s), shared by all rows; x ~ N(theta, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.m, self.s = nn.Parameter(torch.ones(2)), nn.Parameter(torch.full((2,), -9.0))

    def model(self, n: int) -> None:
        theta = pyro.sample("theta", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(theta, 1.0).to_event(1))

    def guide(self, n: int) -> None:
        pyro.sample("theta", dist.Normal(self.m, self.s.exp()).to_event(1))


class Discrete(Shared):
    """A shared latent without a reparameterised gradient."""

    def model(self, n: int) -> None:
        k = pyro.sample("k", dist.Bernoulli(0.3))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(k * self.m, self.s.exp() + 1).to_event(1))

    def guide(self, n: int) -> None:
        pyro.sample("k", dist.Bernoulli(logits=self.m.sum()))


class Looking(Shared):
    """The proposal of what is shared looks at the rows."""

    def guide(self, n: int, x: Tensor) -> None:
        pyro.sample("theta", dist.Normal(self.m + x.mean(0), self.s.exp()).to_event(1))


PARTS: dict[str, tuple[Callable[[], pgm.Model], Any, Objective]] = {
    "a shared latent": (Shared, X, objective),
    "a shared latent, particles": (Shared, X, pgm.IWAE(3)),
    "a discrete shared latent": (Discrete, X, objective),
    "regression": (lambda: Regression(2), {"x": X, "y": X[:, 0]}, objective),
    "a generator": (lambda: GAN(2, 3, hidden=(8,)), X, objective),
}


@pytest.mark.parametrize("kind", PARTS)
def test_the_parts_add_up_to_the_loss(kind: str) -> None:
    make, data, loss = PARTS[kind]
    torch.manual_seed(0)
    model, batch = make(), as_batch(data)
    with seeded(1):
        whole = loss(model, batch, size=40).mean()
    with seeded(1), parted() as terms:
        rows = loss(model, batch, size=40).mean()
    assert terms
    together = rows + torch.stack(terms).sum()
    torch.testing.assert_close(together, whole)
    parameters = list(model.parameters())
    found = torch.autograd.grad(together, parameters, materialize_grads=True)
    expected = torch.autograd.grad(whole, parameters, materialize_grads=True)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("kind", ["a shared latent, particles", "regression", "a generator"])
def test_a_private_fit_of_either_kind_says_which(kind: str) -> None:
    make, data, loss = PARTS[kind]
    for terms, said in (("split", "exact, after the noise"), ("joint", "inside the clipped")):
        assert said in fitted(make(), data, objective=loss, terms=terms).report.shared
    assert fitted(Alone(), X).report.shared == "none"


def fitted(model: pgm.Model, data: Any, **options: Any) -> privacy.PrivateFit:
    options |= {"epsilon": 2.0, "delta": 1e-3, "steps": 2, "accountant": "rdp", "seed": 0}
    return privacy.fit(model, data, **options)


class Alone(pgm.Model):
    """Nothing is shared."""

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Parameter(torch.zeros(2))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.m, 1.0).to_event(1))


def test_the_gradients_of_a_shared_latent_in_closed_form() -> None:
    """Rows: m - x_i, whatever N; public: that of KL(N(m, s) || N(0, 1)) / N, m / N."""
    split = PerRow(Shared(), size=10, terms="split")
    found = split(as_batch(X)).gradients["m"]
    torch.testing.assert_close(found, 1.0 - X, rtol=0.0, atol=1e-3)
    exact = split.public_gradients(4)
    torch.testing.assert_close(exact["m"], torch.full((2,), 0.1), rtol=0.0, atol=1e-3)
    joint = PerRow(Shared(), size=10)(as_batch(X)).gradients["m"]
    torch.testing.assert_close(joint, 1.0 - X + 0.1, rtol=0.0, atol=1e-3)


def test_a_generator_never_meets_the_data_nor_the_noise() -> None:
    """The private part reaches the critic alone; huge noise leaves the generator be."""
    torch.manual_seed(0)
    model = GAN(2, 3, hidden=(8,))
    rows = PerRow(model, size=40, terms="split")
    rows.settle(as_batch(X))
    assert {name.split(".")[0] for name in rows.parameters} == {"critic"}
    before = copy.deepcopy(model)
    with seeded(2):
        step(model, rows, sigma=1e4)
    with seeded(2):
        rows.model = rows._split.model = rows._loss.model = before
        rows.clipped(as_batch(X), 1.0)
        exact = rows.public_gradients(20)
    for (name, new), old in zip(model.named_parameters(), before.parameters(), strict=True):
        if name.startswith("generator"):
            torch.testing.assert_close(old - new, exact[name])
        else:
            assert float((old - new).detach().norm()) > 10.0


def step(model: pgm.Model, rows: PerRow, *, sigma: float, batch: Any = X) -> None:
    """One step of plain descent with step one, on a lot of 20 rows on average."""
    release = privacy.Release("test", "a", sigma, 0.5, 1, 1.0, 40, 1e-5)
    learner = PrivateLearner(
        model, rows, release=release, ledger=privacy.Ledger(), seed=11, steps=1,
        learning_rate=1.0, optimiser=torch.optim.SGD,
    )  # fmt: skip
    learner.update(as_batch(batch) if not isinstance(batch, Batch) else batch)


def test_public_gradients_are_the_same_whatever_the_data() -> None:
    for make in (Shared, lambda: GAN(2, 3, hidden=(8,))):
        torch.manual_seed(0)
        model, found = make(), []
        for data in (X, torch.full((9, 2), 1e3)):
            rows = PerRow(model, size=40, terms="split")
            rows.settle(as_batch(data))
            with seeded(4):
                found.append(rows.public_gradients(5))
        assert found[0].keys() == found[1].keys()
        assert all(torch.equal(g, found[1][name]) for name, g in found[0].items())


def test_an_empty_lot_is_noise_and_the_public_gradient() -> None:
    model = Shared()
    rows = PerRow(model, size=40, terms="split")
    step(model, rows, sigma=0.0, batch=Batch(x=X[:0]))
    torch.testing.assert_close(model.m.detach(), torch.full((2,), 1 - 1 / 40), atol=1e-3, rtol=0.0)


def test_one_row_moves_the_step_by_the_clipping_norm_at_most() -> None:
    """Whatever the row is; the public part is the same with and without it."""
    moved = []
    for extra in (None, 0.0, 1e6, -1e6, torch.nan, torch.inf):
        rows_ = X if extra is None else torch.cat([X, torch.full((1, 2), extra)])
        model = Shared()
        with seeded(3):
            rows = PerRow(model, size=40, terms="split", route="loop")
            step(model, rows, sigma=0.0, batch=Batch(x=rows_))
        moved.append(nn.utils.parameters_to_vector(model.parameters()).detach())
    for there in moved[1:]:
        assert 20 * float((there - moved[0]).norm()) <= 1.0 + 1e-3


# --------------------------------------------------------------------------------- planted lies


def seeing_generator(model: Any, batch: Any, *, size: int) -> Tensor:
    """A generator that starts from real rows, in a term that is said to be public."""
    x = batch["x"]
    fake = model.generator(torch.randn(len(x), 3) + x.mean())
    return model.critic(x).squeeze(-1) - public(model.critic(fake).squeeze(-1))


def test_a_generator_that_sees_real_rows_is_found() -> None:
    model = GAN(2, 3, hidden=(8,))
    rows = PerRow(model, size=40, objective=seeing_generator, terms="split")
    rows.settle(as_batch(X))
    assert rows.tainted is not None and not rows.public
    assert len(rows.parameters) == len(list(model.parameters())), "all of it is clipped and noised"
    with pytest.raises(
        pgm.BrokenModel, match=r"taken as public, but their .* changes with the rows"
    ):
        privacy.fit(model, X, epsilon=1.0, delta=1e-3, steps=1, objective=seeing_generator)


def test_a_shared_site_whose_guide_looks_at_rows_is_found() -> None:
    rows = PerRow(Looking(), size=40, terms="split")
    rows.settle(as_batch(X))
    assert rows.tainted is not None and not rows.public
    with pytest.raises(pgm.BrokenModel, match="mixes rows"):
        privacy.check(Looking(), X)


def test_a_private_generator_has_noise_like_everything_that_rows_reach() -> None:
    def reached(model: Any, batch: Any, *, size: int) -> Tensor:
        hidden = model.generator(batch["x"] @ torch.ones(2, 3))
        return model.critic(hidden).squeeze(-1) + public(model.critic(hidden.detach()).mean())

    rows = PerRow(GAN(2, 3, hidden=(8,)), size=40, objective=reached, terms="split")
    rows.settle(as_batch(X))
    assert {name.split(".")[0] for name in rows.parameters} == {"critic", "generator"}
