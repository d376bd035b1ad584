"""Laws that approximations keep, each held against a bug that the closed forms alone let pass.

Planted, one at a time: draws by the wrong triangle of a factor, an error of the evidence that does
not shrink with the draws, draws chosen anew without their weights, an ELBO with a sign turned,
moves at another temperature than the one that is reached, a mode that is not the highest, a wrong
count of particles, a loose test of what is normal.
"""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import pgm
from pgm.inference import InferenceWarning, evidence, laplace, resample, tempering
from pgm.inference.approximate.lowrank import InverseHessian, LowRankNormal
from pgm.inference.approximate.paths import find_paths
from pgm.inference.approximate.quadratic import exact_normal
from pgm.inference.approximate.tempering import _Bridge
from pgm.inference.precision import double
from pgm.inference.traced import Density
from pgm.inference.unconstrained import log_joint


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InferenceWarning)
        yield


class Tied(pgm.Model):
    """Two weights of columns that go together, the noise known: a normal with correlation."""

    def model(self, n: int, x: Tensor) -> None:
        w = pyro.sample("w", dist.Normal(torch.zeros(2).to(x), 2.0).to_event(1))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(x @ w, 1.0))


def rows() -> dict[str, Tensor]:
    noise = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    x = torch.stack([noise[:, 0], 0.7 * noise[:, 0] + 0.5 * noise[:, 1]], 1)
    return {"x": x, "y": x.sum(1) + noise[:, 2]}


def law() -> tuple[MultivariateNormal, float]:
    """Bishop 2006, eqs 3.49 to 3.51; the evidence is a normal density of y."""
    x, y = (value.double() for value in rows().values())
    precision = torch.eye(2).double() / 4 + x.T @ x
    posterior = MultivariateNormal(torch.linalg.solve(precision, x.T @ y), precision.inverse())
    marginal = MultivariateNormal(torch.zeros(12).double(), 4 * x @ x.T + torch.eye(12).double())
    return posterior, float(marginal.log_prob(y))


@pytest.fixture
def density() -> Iterator[Density]:
    with double(Tied(), pgm.as_batch(rows())) as (model, batch):
        yield Density(log_joint(model, batch), backend="graph")


def assert_law(w: Tensor, truth: MultivariateNormal, *, draws: float) -> None:
    """Mean and covariance within four and a half errors of so many independent draws."""
    sd = truth.variance.sqrt()
    assert ((w.mean(0) - truth.mean).abs() < 4.5 * sd / draws**0.5).all()
    off = (w.T.cov() - truth.covariance_matrix).abs() / (sd * sd[:, None])
    assert float(off.max()) < 4.5 * (2 / draws) ** 0.5


def test_exact_draws_have_the_correlation_of_the_posterior() -> None:
    truth, _ = law()
    sd = truth.variance.sqrt()
    assert float(truth.covariance_matrix[0, 1] / sd.prod()) < -0.6
    assert_law(exact_normal(Tied(), rows(), draws=4000, seed=0).draws["w"][0], truth, draws=4000)


def test_draws_chosen_anew_by_their_weights_are_those_of_the_posterior() -> None:
    """A diagonal Laplace has variances 1 / A_ii, here .4 of those of the posterior."""
    truth, _ = law()
    with quiet():
        found = laplace(Tied(), rows(), structure="diagonal", draws=20_000, seed=0, backend="graph")
    w = found.draws["w"][0]
    narrow = truth.precision_matrix.diagonal().reciprocal()
    torch.testing.assert_close(w.var(0), narrow, rtol=0.05, atol=0.0)
    assert bool((narrow < 0.6 * truth.variance).all())
    weights = found.sample_stats["log_weight"][0].softmax(0)
    anew = resample(found, draws=10_000, seed=0).draws["w"][0]
    assert_law(anew, truth, draws=1 / float(weights.square().sum()) / 2)


def test_the_error_of_the_evidence_is_the_spread_of_its_estimates() -> None:
    with quiet():
        found = laplace(Tied(), rows(), structure="diagonal", draws=40_000, seed=1, backend="graph")
    pieces = found.sample_stats["log_weight"].split(400, 1)
    w = found.draws["w"].split(400, 1)
    every = [
        evidence(replace(found, draws={"w": some}, sample_stats={"log_weight": piece}))
        for some, piece in zip(w, pieces, strict=True)
    ]
    values = torch.tensor([each.value for each in every])
    error = sum(each.error for each in every) / len(every)
    assert 0.7 * float(values.std()) < error < 1.3 * float(values.std())


def test_the_bound_of_a_path_is_the_evidence_less_the_divergence_of_its_normal(
    density: Density,
) -> None:
    truth, log_p = law()
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(16, 2, generator=generator, dtype=torch.float64)
    paths = find_paths(density, start, draws=1, generator=generator, trials=2000)
    q = MultivariateNormal(paths.normal.mean, covariance_of(paths.normal))
    bound = log_p - torch.distributions.kl_divergence(q, truth)
    torch.testing.assert_close(paths.elbo, bound, rtol=0, atol=0.15)
    assert float(bound.max()) > log_p - 1.0


def covariance_of(normal: LowRankNormal) -> Tensor:
    """diag(alpha)^1/2 (I + Q (F F^T - I) Q^T) diag(alpha)^1/2, by path."""
    eye, inner = (torch.eye(k, dtype=torch.float64) for k in normal.basis.shape[1:])
    root = normal.alpha.sqrt()[:, :, None]
    inside = normal.factor @ normal.factor.mT - inner
    return root * (eye + normal.basis @ inside @ normal.basis.mT) * root.mT


def test_the_normal_of_a_climb_has_the_inverse_hessian_that_its_steps_show() -> None:
    """Steps along a quadratic in d = 5: H y = s for the last one (the secant equation)."""
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    A = root @ root.T + torch.eye(5, dtype=torch.float64)
    hessian = InverseHessian.start(3, 5, 4)
    for _ in range(6):
        s = torch.randn(3, 5, generator=generator, dtype=torch.float64)
        hessian = hessian.update(s, s @ A)
    torch.testing.assert_close(hessian.times(s @ A), s)
    normal = hessian.normal(torch.zeros_like(s), torch.zeros_like(s))
    columns = [hessian.times(row.expand(3, 5)) for row in torch.eye(5, dtype=torch.float64)]
    torch.testing.assert_close(covariance_of(normal), torch.stack(columns, 2))


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_moves_keep_to_their_temperature(t: float, density: Density) -> None:
    """q^(1 - t) p^t of normals is the normal of the precision (1 - t) Q + t P."""
    truth, _ = law()
    eye = torch.eye(2, dtype=torch.float64)[None]
    centre, spread = truth.mean + 3.0, torch.full((2,), 0.5, dtype=torch.float64)
    q = LowRankNormal(centre[None], spread[None], eye, eye)
    precision = (1 - t) * (1 / spread).diag() + t * truth.precision_matrix
    pull = (1 - t) * centre / spread + t * truth.precision_matrix @ truth.mean
    between = MultivariateNormal(torch.linalg.solve(precision, pull), precision.inverse())
    generator = torch.Generator().manual_seed(2)
    u = centre + torch.randn(2000, 2, generator=generator, dtype=torch.float64)
    state, log_q = _Bridge(density, q).moved(u, t, 40, generator)
    assert_law(state.u, between, draws=2000)
    torch.testing.assert_close(log_q, q.mixture_log_prob(state.u))


class Uneven(pgm.Model):
    """A mean that is known up to its sign, and more likely positive."""

    def model(self, n: int) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.tensor(0.5), 1.0))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(mu.square(), 1.0))


def test_the_mode_is_the_highest_that_was_found() -> None:
    for seed in range(4):
        with quiet():
            found = laplace(
                Uneven(), {"y": torch.full((5,), 4.0)}, draws=5, seed=seed, backend="graph"
            )
        assert float(found.draws["mu"].mean()) == pytest.approx(2.0, abs=0.3)


def test_the_evidence_of_few_particles_is_no_other() -> None:
    """A count of particles that is off by one in 32 shows at every temperature."""
    _, log_p = law()
    with quiet():
        values = [
            tempering(Tied(), rows(), particles=32, seed=seed, backend="graph").log_evidence
            for seed in range(6)
        ]
    assert sum(values) / 6 == pytest.approx(log_p, abs=0.25)


class Heavy(pgm.Model):
    """Nearly normal: errors with thirty degrees of freedom."""

    def model(self, n: int) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 3.0))
        with pgm.rows(n):
            pyro.sample("y", dist.StudentT(30.0, mu, 1.0))


def test_what_is_nearly_normal_is_not_taken_for_normal() -> None:
    with pytest.raises(pgm.Unsupported, match="not normal"):
        exact_normal(Heavy(), {"y": torch.tensor([0.2, -0.4, 0.1])}, seed=0)
