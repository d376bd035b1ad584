"""The density that chains move in: it integrates to the evidence, and refuses what has none."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pgm
from pgm.batch import Batch, as_batch
from pgm.inference.precision import double
from pgm.inference.traced import log_density
from pgm.inference.unconstrained import BadStart, log_joint
from pgm.tracing import Backend
from pgm.verb import Unsupported


def program(joint: object, **context: object) -> pgm.Model:
    """A model without parameters whose joint program is `joint(n)`."""
    return type("Program", (pgm.Model,), {"model": lambda self, n: joint(n)})()


def evidence(model: pgm.Model, x: Tensor, *, reach: float = 40.0, points: int = 401) -> float:
    """log of the integral over u of the density, for one latent number."""
    with double(model, as_batch(x)) as (precise, batch):
        density = log_joint(precise, batch)
        u = torch.linspace(-reach, reach, points)
        values = torch.stack([density(point) for point in u.unsqueeze(-1)])
    values = values.nan_to_num(nan=-math.inf)
    return float(values.logsumexp(0) + math.log(2 * reach / (points - 1)))


def test_a_beta_prior_gives_the_beta_binomial_evidence() -> None:
    def joint(n: int) -> None:
        p = pyro.sample("p", dist.Beta(2.0, 3.0))
        with pgm.rows(n):
            pyro.sample("x", dist.Bernoulli(p))

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    x = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0])
    exact = log_beta(2 + 3, 3 + 2) - log_beta(2, 3)
    assert evidence(program(joint), x) == pytest.approx(exact, abs=1e-6)


def test_a_gamma_prior_gives_the_negative_binomial_evidence() -> None:
    def joint(n: int) -> None:
        rate = pyro.sample("rate", dist.Gamma(3.0, 2.0))
        with pgm.rows(n):
            pyro.sample("x", dist.Poisson(rate))

    exact = float(dist.NegativeBinomial(3.0, torch.tensor(1 / 3)).log_prob(torch.tensor(4.0)))
    assert evidence(program(joint), torch.tensor([4.0])) == pytest.approx(exact, abs=1e-5)


def test_a_simplex_and_a_support_that_depends_on_another_latent() -> None:
    """Two latents: a ~ Dirichlet(1, 1) over two parts, b ~ Uniform(0, a_0); x ~ N(b, 1)."""

    def joint(n: int) -> None:
        a = pyro.sample("a", dist.Dirichlet(torch.ones(2)))
        b = pyro.sample("b", dist.Uniform(0.0, a[0]))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(b, 1.0))

    a = (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    b = a[:, None] * a  # uniform in (0, a_0), a_0 itself uniform
    exact = float(dist.Normal(b, 1.0).log_prob(torch.tensor(0.7)).exp().mean().log())
    with double(program(joint), as_batch(torch.tensor([0.7]))) as (precise, batch):
        density = log_joint(precise, batch)
        u = torch.linspace(-12, 12, 41)
        grid = torch.cartesian_prod(u, u)
        values = torch.stack([density(point) for point in grid])
    assert float(values.logsumexp(0) + 2 * math.log(24 / 40)) == pytest.approx(exact, abs=1e-4)


def test_enumerated_latents_are_summed_out_and_improper_priors_need_no_draw() -> None:
    def joint(n: int) -> None:
        mu = pyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), (2,)))
        with pgm.rows(n):
            k = pyro.sample(
                "k", dist.Categorical(torch.tensor([0.3, 0.7])), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(mu[k], 1.0))

    x = torch.tensor([0.2, -1.0, 3.0], dtype=torch.float64)
    mu = torch.tensor([0.5, 2.0], dtype=torch.float64)
    by_part = dist.Normal(mu, 1.0).log_prob(x[:, None]) + torch.tensor([0.3, 0.7]).log()
    with double(program(joint), as_batch(x)) as (precise, batch):
        density = log_joint(precise, batch)(mu)
    assert float(density) == pytest.approx(float(by_part.logsumexp(1).sum()), abs=1e-6)


def test_missing_cells_are_left_out_of_the_density() -> None:
    def joint(n: int) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(mu, 1.0).to_event(1))

    u = torch.tensor([0.3, -0.4], dtype=torch.float64)
    values = []
    for x in ([[1.0, math.nan], [math.nan, math.nan], [2.0, 5.0]], [[1.0, -0.4], [2.0, 5.0]]):
        with double(program(joint), as_batch(torch.tensor(x))) as (precise, batch):
            values.append(float(log_joint(precise, batch)(u)))
    extra = -0.5 * math.log(2 * math.pi)  # the cell that stands at its mean
    assert values[0] == pytest.approx(values[1] - extra, abs=1e-9)


def start(model: pgm.Model, data: object) -> None:
    with double(model, as_batch(data)) as (precise, batch):
        log_joint(precise, batch).start()


def test_a_missing_cell_that_others_depend_on_is_refused() -> None:
    def joint(n: int) -> None:
        slope = pyro.sample("slope", dist.Normal(0.0, 1.0))
        with pgm.rows(n):
            x = pyro.sample("x", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(slope * x, 1.0))

    x, y = torch.tensor([1.0, math.nan]), torch.tensor([1.0, 2.0])
    with pytest.raises(Unsupported, match=r"missing cells of 'x'.*pgm\.impute"):
        start(program(joint), {"x": x, "y": y})
    start(program(joint), {"x": y, "y": x})


def test_a_start_that_is_never_finite_names_the_site() -> None:
    def joint(n: int) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(z, 1e-200))

    with pytest.raises(BadStart, match="observed site 'x'"):
        start(program(joint), torch.tensor([1.0]))


def kernel(n: int) -> None:
    """A covariance that has a factor where w is above zero alone."""
    w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
    with pgm.rows(n):
        law = dist.MultivariateNormal(torch.zeros(2), covariance_matrix=w * torch.eye(2))
        pyro.sample("x", law)


@pytest.mark.parametrize("backend", ["eager", "ts"])
def test_a_matrix_without_a_factor_is_a_density_of_zero_there(backend: Backend) -> None:
    """One chain that strays must not take the others along."""
    x, w = torch.ones(3, 2), torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    density = log_density(program(kernel), x, backend=backend)
    expected = [
        dist.Normal(0.0, 1.0).log_prob(v) + 6 * dist.Normal(0.0, v.sqrt()).log_prob(torch.ones(()))
        for v in w
    ]
    torch.testing.assert_close(density(w[:, None])[0], torch.stack(expected))
    w[1] = -1.0
    log_p, gradient = density(w[:, None])
    assert not bool(log_p[1].isfinite()) and bool(gradient[[0, 2]].isfinite().all())
    torch.testing.assert_close(log_p[[0, 2]], torch.stack(expected)[[0, 2]])


def test_a_program_that_never_has_a_factor_says_so() -> None:
    def broken(n: int) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(()), 1.0))
        with pgm.rows(n):
            law = dist.MultivariateNormal(torch.zeros(2), covariance_matrix=w * 0 - torch.eye(2))
            pyro.sample("x", law)

    with pytest.raises(BadStart, match="a matrix has no factor"):
        start(program(broken), torch.ones(3, 2))


def test_each_refusal_says_what_to_do() -> None:
    def discrete(n: int) -> None:
        k = pyro.sample("k", dist.Bernoulli(0.5))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(k, 1.0))

    def nothing(n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(0.0, 1.0))

    def positive(n: int) -> None:
        rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
        with pgm.rows(n):
            pyro.sample("x", dist.Exponential(rate))

    def noisy(n: int) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(z + torch.randn(()), 1.0))

    def branching(n: int) -> None:
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        w = pyro.sample("w" if z > 0 else "v", dist.Normal(0.0, 1.0))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(w, 1.0))

    x = torch.tensor([1.0, -2.0])
    for joint, data, kind, message in [
        (discrete, x, Unsupported, "'k' is a discrete latent .*enumerate"),
        (nothing, x, ValueError, "no continuous latent"),
        (positive, x, ValueError, "'x' lie outside the support of its Exponential"),
        (positive, torch.ones(2, 1), ValueError, r"'x' have shape .*1\).*Reshape"),
        (positive, {"x": x.abs(), "age": x}, ValueError, "'age', which Program does not know"),
        (noisy, x, Unsupported, "random numbers besides its sites"),
    ]:
        with pytest.raises(kind, match=message):
            start(program(joint), data)
    with double(program(branching), Batch(x=x)) as (precise, batch):
        density = log_joint(precise, batch)
        with pytest.raises(Unsupported, match="structure depends on its draws"):
            for u in torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).double():
                density(u)


def test_the_default_type_is_restored_after_an_error() -> None:
    with pytest.raises(RuntimeError), double(pgm.Model(), Batch(x=torch.zeros(1))):
        raise RuntimeError
    assert torch.get_default_dtype() == torch.float32
