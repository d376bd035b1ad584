"""Losses and their gradients against closed forms and exact sums over discrete latents.

A gradient is unbiased if its mean over many draws is the gradient of the exact expectation, which
is written out here and differentiated by autograd.
"""

import itertools
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pgm
from pgm.batch import Batch, as_batch, chunks
from pgm.objectives import IWAE, objective
from pgm.randomness import seeded
from pgm.weights import log_weight

X = torch.tensor([1.3])
NAN = float("nan")
Loss = Callable[..., Tensor]


def agree(toy: pgm.Model, loss: Loss, exact: Loss, batch: Batch, rows: int = 2000) -> None:
    """The mean gradient over draws is that of `exact(toy)`, within four standard errors."""
    many = Batch({k: v.repeat_interleave(rows, 0) for k, v in batch.items()})
    parameters, found = list(toy.parameters()), []
    for _ in range(30):
        mean = loss(toy, many, size=rows).mean()
        gradients = torch.autograd.grad(mean, parameters, materialize_grads=True)
        found.append(torch.cat([g.flatten() for g in gradients]))
    theirs = torch.autograd.grad(exact(toy), parameters, materialize_grads=True)
    expected = torch.cat([g.flatten() for g in theirs])
    mean, error = torch.stack(found).mean(0), torch.stack(found).std(0) / len(found) ** 0.5
    assert (error < 0.1 * expected.abs().max()).all(), "too rough to say anything"
    assert ((mean - expected).abs() <= 4 * error + 1e-6).all(), (mean, expected, error)


class Linear(pgm.Model):
    """z ~ N(0, 1), x ~ N(a z, s^2), q(z) = N(m, v^2)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.log_s = nn.Parameter(torch.tensor(1.2)), nn.Parameter(torch.tensor(-0.3))
        self.m, self.log_v = nn.Parameter(torch.tensor(0.4)), nn.Parameter(torch.tensor(-0.5))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(torch.zeros(n), 1.0))
            pyro.sample("x", dist.Normal(self.a * z, self.log_s.exp()))

    def guide(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(self.m.expand(n), self.log_v.exp()))

    def negative_elbo(self) -> Tensor:
        """KL(q || p) - E_q[log p(x | z)] (Kingma & Welling 2014, eqs 3 and 10)."""
        kl = 0.5 * (self.m**2 + (2 * self.log_v).exp() - 1) - self.log_v
        square = (X - self.a * self.m) ** 2 + self.a**2 * (2 * self.log_v).exp()
        log_2pi = torch.tensor(2 * torch.pi).log()
        return (kl + 0.5 * log_2pi + self.log_s + 0.5 * square / (2 * self.log_s).exp()).sum()


def test_the_loss_of_reparameterised_draws_is_the_elbo_with_its_gradient() -> None:
    toy = Linear()
    loss = objective(toy, Batch(x=X.repeat(50_000)), seed=0).mean()
    assert torch.allclose(loss, toy.negative_elbo(), atol=0.02)
    agree(toy, objective, Linear.negative_elbo, Batch(x=X))


class Coins(pgm.Model):
    """b ~ Bernoulli(p), z ~ N(b, 1), x ~ N(mu_b + z, 1), q(b) = Bernoulli(r), q(z | b) reparam."""

    def __init__(self) -> None:
        super().__init__()
        self.p, self.r = nn.Parameter(torch.tensor(-0.6)), nn.Parameter(torch.tensor(0.4))
        self.mu = nn.Parameter(torch.tensor([-1.0, 0.5]))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            b = pyro.sample("b", dist.Bernoulli(logits=self.p.expand(n)))
            pyro.sample("x", dist.Normal(self.mu[b.long()], 1.0))

    def guide(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("b", dist.Bernoulli(logits=self.r.expand(n)))

    def log_w(self) -> tuple[Tensor, Tensor]:
        """log p(x, b) - log q(b) and log q(b), for b = 0, 1."""
        b = torch.tensor([0.0, 1.0])
        log_q = dist.Bernoulli(logits=self.r).log_prob(b)
        log_p = dist.Bernoulli(logits=self.p).log_prob(b) + dist.Normal(self.mu, 1.0).log_prob(X)
        return log_p - log_q, log_q

    def negative_iwae(self, particles: int) -> Tensor:
        """Minus the sum over all b_1 .. b_K of q(b_1) .. q(b_K) log 1/K sum_k w(b_k)."""
        log_w, log_q = self.log_w()
        total = torch.zeros(())
        for draws in itertools.product((0, 1), repeat=particles):
            index = torch.tensor(draws)
            bound = log_w[index].logsumexp(0) - torch.tensor(float(particles)).log()
            total = total - log_q[index].sum().exp() * bound
        return total


def test_the_gradient_of_a_discrete_guide_is_unbiased() -> None:
    toy = Coins()
    agree(toy, objective, lambda toy: toy.negative_iwae(1), Batch(x=X))


@pytest.mark.parametrize("particles", [1, 2, 3])
def test_the_gradient_of_the_iwae_of_a_discrete_guide_is_unbiased(particles: int) -> None:
    agree(Coins(), IWAE(particles), lambda toy: toy.negative_iwae(particles), Batch(x=X))


class Mixed(Coins):
    """As `Coins`, with z ~ N(b, 1) in between and q(z | b) = N(r b, 1)."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            b = pyro.sample("b", dist.Bernoulli(logits=self.p.expand(n)))
            z = pyro.sample("z", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Normal(self.mu[b.long()] + z, 1.0))

    def guide(self, n: int) -> None:
        with pgm.rows(n):
            b = pyro.sample("b", dist.Bernoulli(logits=self.r.expand(n)))
            pyro.sample("z", dist.Normal(self.r * b, 1.0))

    def negative_elbo(self) -> Tensor:
        b = torch.tensor([0.0, 1.0])
        log_q = dist.Bernoulli(logits=self.r).log_prob(b)
        inside = dist.Bernoulli(logits=self.p).log_prob(b) - log_q - 0.5 * (self.r * b - b) ** 2
        inside = inside + dist.Normal(self.mu + self.r * b, 1.0).log_prob(X) - 0.5
        return -(log_q.exp() * inside).sum()


def test_discrete_and_reparameterised_draws_together() -> None:
    agree(Mixed(), objective, Mixed.negative_elbo, Batch(x=X))


class Shared(pgm.Model):
    """theta in {0, 1} shared by all rows, x_i ~ N(mu_theta, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.r, self.mu = nn.Parameter(torch.tensor(0.4)), nn.Parameter(torch.tensor([-1.0, 0.5]))

    def model(self, n: int) -> None:
        theta = pyro.sample("theta", dist.Bernoulli(0.3))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mu[theta.long()], 1.0))

    def guide(self, n: int) -> None:
        pyro.sample("theta", dist.Bernoulli(logits=self.r))

    def negative_elbo(self, x: Tensor) -> Tensor:
        theta = torch.tensor([0.0, 1.0])
        log_q = dist.Bernoulli(logits=self.r).log_prob(theta)
        log_p = dist.Normal(self.mu[:, None], 1.0).log_prob(x).sum(1)
        return -(log_q.exp() * (log_p + dist.Bernoulli(0.3).log_prob(theta) - log_q)).sum()


@pytest.mark.parametrize("loss", [objective, IWAE(1), IWAE(3)])
def test_the_gradient_of_a_shared_discrete_guide_is_unbiased(loss: Loss) -> None:
    """All there is to draw is theta: the gradient at either value, weighed by its probability."""
    toy, x = Shared(), torch.tensor([0.2, -0.4, 1.0])
    (expected,) = torch.autograd.grad(toy.negative_elbo(x), toy.r)
    found: dict[float, Tensor] = {}
    for seed in range(8):
        with seeded(seed):
            theta = float(log_weight(toy, Batch(x=x)).values["theta"])
        with seeded(seed):
            total = loss(toy, Batch(x=x), size=3).sum()
        (found[theta],) = torch.autograd.grad(total, toy.r)
    r = toy.r.sigmoid()
    assert torch.allclose((1 - r) * found[0.0] + r * found[1.0], expected, atol=1e-5)


def test_a_missing_discrete_parent_teaches_its_own_law() -> None:
    """The loss is -E_b[log p(x | b)] over b ~ p: its gradient has a term of log p(b)."""

    def exact(toy: Any) -> Tensor:
        log_p = dist.Bernoulli(logits=toy.p).log_prob(torch.tensor([0.0, 1.0]))
        return -(log_p.exp() * dist.Normal(toy.mu, 1.0).log_prob(X)).sum()

    class Observed(Coins):
        guide = pgm.Model.guide

    toy = Observed()
    agree(toy, objective, exact, as_batch({"x": X, "b": torch.tensor([NAN])}))


class Summed(Coins):
    """k summed out, b ~ Bernoulli(p_k) missing, x ~ N(mu_b, 1) seen."""

    guide = pgm.Model.guide

    def model(self, n: int) -> None:
        with pgm.rows(n):
            k = pyro.sample("k", dist.Bernoulli(0.25), infer={"enumerate": "parallel"})
            b = pyro.sample("b", dist.Bernoulli(logits=self.p * (2 * k - 1)))
            pyro.sample("x", dist.Normal(self.mu[b.long()], 1.0))

    def exact(self) -> Tensor:
        """Over the draws b_0, b_1 of b for either k: -log(3/4 p(x | b_0) + 1/4 p(x | b_1))."""
        log_p = dist.Normal(self.mu, 1.0).log_prob(X)
        weights, total = torch.tensor([0.75, 0.25]).log(), torch.zeros(())
        for b in itertools.product((0, 1), repeat=2):
            log_q = dist.Bernoulli(logits=self.p * torch.tensor([-1.0, 1.0])).log_prob(
                torch.tensor(b, dtype=torch.float32)
            )
            total = total - log_q.sum().exp() * (weights + log_p[list(b)]).logsumexp(0)
        return total


def test_a_missing_discrete_cell_below_an_enumerated_site() -> None:
    agree(Summed(), objective, Summed.exact, as_batch({"x": X, "b": torch.tensor([NAN])}))


def test_missing_cells_that_nothing_depends_on_add_no_noise_to_the_gradient() -> None:
    def model(self: Any, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Bernoulli(logits=torch.zeros(n, 4)).to_event(1))

    toy = type("Toy", (pgm.Model,), {"model": model})()
    weight = log_weight(toy, as_batch(torch.tensor([[1.0, NAN, NAN, 0.0]])))
    assert weight.score_rows.tolist() == [0.0]
    assert weight.rows.item() == pytest.approx(2 * torch.tensor(0.5).log().item())


def test_one_particle_is_the_elbo() -> None:
    for toy in (Linear(), Mixed()):
        elbo = objective(toy, Batch(x=X.repeat(5)), seed=3)
        with seeded(3):
            assert torch.allclose(IWAE(1)(toy, Batch(x=X.repeat(5)), size=5), elbo)


def test_more_particles_are_tighter_and_never_pass_the_evidence() -> None:
    """Burda, Grosse & Salakhutdinov 2016, theorem 1."""
    toy, many = Linear(), Batch(x=X.repeat(4000))
    with torch.no_grad():
        losses = [float(IWAE(k)(toy, many, size=4000).mean()) for k in (1, 4, 16)]
        width = (toy.a**2 + (2 * toy.log_s).exp()).sqrt()
        evidence = -float(dist.Normal(0.0, width).log_prob(X))
    assert losses[0] > losses[1] > losses[2] > evidence - 0.01
    assert losses[2] < evidence + 0.05


def test_with_shared_latents_the_iwae_is_a_bound_on_the_evidence_of_all_rows() -> None:
    """Two rows that contradict each other: p(x1, x2) is far below p(x1) p(x2)."""

    def model(self: Any, n: int) -> None:
        theta = pyro.sample("theta", dist.Normal(0.0, 3.0))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(theta, 1.0))

    toy = type("Toy", (pgm.Model,), {"model": model, "guide": _wide})()
    x = torch.tensor([-3.0, 3.0])
    covariance = 9 + torch.eye(2)
    evidence = dist.MultivariateNormal(torch.zeros(2), covariance).log_prob(x)
    losses = torch.stack([IWAE(50)(toy, Batch(x=x), size=2).sum() for _ in range(100)])
    assert losses.mean() - 4 * losses.std() / 10 > -evidence


def _wide(self: Any, n: int) -> None:
    pyro.sample("theta", dist.Normal(0.0, 3.0))


def test_minibatches_add_up_to_the_whole() -> None:
    """One N-th of the shared terms a row: for one draw of them, the parts are the whole."""

    def model(self: Any, n: int) -> None:
        theta = pyro.sample("theta", dist.Normal(0.0, 3.0))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(theta, 1.0))

    toy = type("Toy", (pgm.Model,), {"model": model, "guide": _wide})()
    batch = Batch(x=torch.randn(10))
    whole = objective(toy, batch, seed=1)
    for size in (1, 3, 10):
        parts = [objective(toy, piece, size=10, seed=1) for piece in chunks(batch, size)]
        assert torch.allclose(torch.cat(parts), whole)
    weight = log_weight(toy, batch)
    assert torch.allclose(objective(toy, batch, seed=1), whole)
    assert weight.shared.shape == ()


@pytest.mark.parametrize("size", [0, -3])
def test_a_size_without_rows_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}"):
        objective(Linear(), Batch(x=X), size=size)


def test_no_particles_are_refused() -> None:
    with pytest.raises(ValueError, match="particles is 0"):
        IWAE(0)
