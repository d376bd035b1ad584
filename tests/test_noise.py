"""The laws of noise forms, over a table of distributions; the known answers are SciPy's."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro.contrib.zuko import ZukoToPyro
from pyro.distributions.torch_distribution import ExpandedDistribution
from scipy import stats
from torch import Tensor
from torch.distributions import Distribution, transforms
from torch.func import grad, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from pgm.noise import noise, pull, push, sample

ROWS = 4000
ALPHA = 1e-5  # of each Kolmogorov-Smirnov test; the seeds are fixed


@dataclass(frozen=True)
class Case:
    """A distribution as a function of its parameters, two settings of them, and its noise's law."""

    make: Callable[..., Any]
    parameters: tuple[list[Any], ...]
    law: str

    def __call__(self, dtype: torch.dtype = torch.float64) -> Any:
        return self.make(*self.tensors(dtype))

    def tensors(self, dtype: torch.dtype = torch.float64) -> list[Tensor]:
        return [torch.tensor(p, dtype=dtype) for p in self.parameters]


LOC, SCALE = [-1.0, 2.0], [0.5, 3.0]
SHAPE, SHAPE2 = [0.4, 6.0], [2.5, 0.7]
FACTOR = [[[1.0, 0.0], [0.4, 0.3]], [[2.0, 0.0], [-1.0, 0.5]]]
PLANE = [[-1.0, 2.0], [0.0, 0.5]]

CASES = {
    "Normal": Case(dist.Normal, (LOC, SCALE), "norm"),
    "torch's Normal": Case(torch.distributions.Normal, (LOC, SCALE), "norm"),
    "Laplace": Case(dist.Laplace, (LOC, SCALE), "laplace"),
    "Cauchy": Case(dist.Cauchy, (LOC, SCALE), "cauchy"),
    "Logistic": Case(dist.Logistic, (LOC, SCALE), "logistic"),
    "Gumbel": Case(dist.Gumbel, (LOC, SCALE), "gumbel_r"),
    "HalfNormal": Case(dist.HalfNormal, (SCALE,), "halfnorm"),
    "HalfCauchy": Case(dist.HalfCauchy, (SCALE,), "halfcauchy"),
    "Uniform": Case(dist.Uniform, (LOC, [0.0, 7.0]), "uniform"),
    "Exponential": Case(dist.Exponential, (SCALE,), "expon"),
    "Weibull": Case(dist.Weibull, (SCALE, SHAPE), "expon"),
    "Pareto": Case(dist.Pareto, (SCALE, SHAPE2), "expon"),
    "Kumaraswamy": Case(dist.Kumaraswamy, (SHAPE, SHAPE2), "expon"),
    "LogNormal": Case(dist.LogNormal, (LOC, [0.5, 1.0]), "norm"),
    "StudentT": Case(dist.StudentT, ([1.5, 8.0], LOC, SCALE), "norm"),
    "Gamma": Case(dist.Gamma, (SHAPE, SCALE), "norm"),
    "Chi2": Case(dist.Chi2, ([1.0, 9.0],), "norm"),
    "InverseGamma": Case(dist.InverseGamma, ([1.4, 6.0], SCALE), "norm"),
    "Beta": Case(dist.Beta, (SHAPE, SHAPE2), "norm"),
    "AffineBeta": Case(dist.AffineBeta, (SHAPE, SHAPE2, LOC, SCALE), "norm"),
    "Dirichlet": Case(dist.Dirichlet, ([[0.7, 3.0, 1.0], [2.0, 2.0, 9.0]],), "norm"),
    "MultivariateNormal": Case(
        lambda loc, L: dist.MultivariateNormal(loc, scale_tril=L.tril()), (PLANE, FACTOR), "norm"
    ),
    "shared covariance": Case(
        lambda loc, L: dist.MultivariateNormal(loc, scale_tril=L.tril()), (PLANE, FACTOR[0]), "norm"
    ),
    "LowRankMultivariateNormal": Case(
        dist.LowRankMultivariateNormal, (PLANE, FACTOR, [SCALE, SCALE]), "norm"
    ),
    "LogisticNormal": Case(dist.LogisticNormal, (PLANE, [SCALE, SCALE]), "norm"),
    "ContinuousBernoulli": Case(dist.ContinuousBernoulli, ([0.2, 0.9],), "uniform"),
    "GeneralizedPareto": Case(dist.GeneralizedPareto, (LOC, SCALE, [-0.1, 0.3]), "expon"),
    "SoftLaplace": Case(dist.SoftLaplace, (LOC, SCALE), "hypsecant"),
    "SkewLogistic": Case(
        lambda *p: dist.SkewLogistic(*p, asymmetry=torch.tensor(2.0)), (LOC, SCALE), "uniform"
    ),
    "Independent": Case(lambda m, s: dist.Normal(m, s).to_event(1), (PLANE, SCALE), "norm"),
    "masked": Case(
        lambda m, s: dist.Normal(m, s).mask(torch.tensor([True, False])), (LOC, SCALE), "norm"
    ),
    "expanded": Case(
        lambda m, s: ExpandedDistribution(dist.Gumbel(m, s), torch.Size((3, 2))),
        (LOC, SCALE),
        "gumbel_r",
    ),
    "transformed": Case(
        lambda m, s: dist.TransformedDistribution(
            dist.Normal(m, s), [transforms.SigmoidTransform(), transforms.AffineTransform(1, -2)]
        ),
        (LOC, [0.5, 1.0]),
        "norm",
    ),
}


@pytest.fixture(params=CASES, ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def zuko_flow() -> Iterator[Any]:
    """A spline flow of zuko, whose import switches argument checks off for all distributions."""
    checked = Distribution._validate_args
    import zuko

    torch.manual_seed(3)
    yield zuko.flows.NSF(2, context=1, transforms=2, hidden_features=(8,)).double()
    Distribution.set_default_validate_args(checked)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["f32", "f64"]
)
def test_push_undoes_pull(case: Case, dtype: torch.dtype, tolerance: float) -> None:
    fn = case(dtype)
    x = fn.sample((300,))
    if case is CASES["SkewLogistic"]:
        tolerance *= 10  # its noise is its CDF, which is rounded near 1
    back = push(fn, pull(fn, x))
    assert back.dtype == dtype
    torch.testing.assert_close(back, x, rtol=tolerance, atol=tolerance)


def test_pull_undoes_push(case: Case) -> None:
    fn = case()
    u = noise(fn, (300,))
    torch.testing.assert_close(pull(fn, push(fn, u)), u, rtol=1e-6, atol=1e-6)


def test_noise_has_its_law_whatever_the_parameters(case: Case) -> None:
    fn = case()
    u = noise(fn, (ROWS,))
    assert agrees_with(case.law, u)
    torch.manual_seed(5)
    first = noise(fn, (2,))
    torch.manual_seed(5)
    other = case.make(*(0.9 * p for p in case.tensors()))
    torch.testing.assert_close(noise(other, (2,)), first, rtol=0, atol=0)


def test_abducted_noise_has_the_law_of_noise(case: Case) -> None:
    fn = case()
    assert agrees_with(case.law, pull(fn, fn.sample((ROWS,))))


def test_sample_has_the_law_of_the_distribution(case: Case) -> None:
    fn = case()
    x, y = sample(fn, (ROWS,)), fn.sample((ROWS,))
    assert x.shape == y.shape
    for a, b in zip(columns(x), columns(y), strict=True):
        assert stats.ks_2samp(a, b).pvalue > ALPHA


def test_gradients_of_push_and_pull_are_those_of_differences(case: Case) -> None:
    theta = [p.requires_grad_() for p in case.tensors()]
    u = noise(case.make(*theta), (2,)).clamp(-1, 0.9)
    x = push(case.make(*theta), u).detach().requires_grad_()
    u.requires_grad_()
    check = torch.autograd.gradcheck
    tolerance = {"eps": 1e-6, "atol": 1e-5, "rtol": 1e-4}
    assert check(lambda u, *theta: push(case.make(*theta), u), (u, *theta), **tolerance)
    if len(case().event_shape) == 0:  # differences leave the simplex
        assert check(lambda x, *theta: pull(case.make(*theta), x), (x, *theta), **tolerance)


def test_vmap_over_parameters_is_the_batch(case: Case, unchecked: None) -> None:
    if case in (CASES["masked"], CASES["expanded"]):
        pytest.skip("these two fix their batch shape, which vmap takes away")
    if case is CASES["shared covariance"]:
        pytest.skip("its parameters have no common batch axis")
    theta = case.tensors()
    if case is CASES["Independent"]:
        theta[1] = theta[1].expand(2, 2)
    fn = case.make(*theta)
    u = noise(fn, (5,))
    x = push(fn, u)
    pushed = vmap(lambda u, *theta: push(case.make(*theta), u), (1, *[0] * len(theta)), 1)
    pulled = vmap(lambda x, *theta: pull(case.make(*theta), x), (1, *[0] * len(theta)), 1)
    torch.testing.assert_close(pushed(u, *theta), x)
    torch.testing.assert_close(pulled(x, *theta), pull(fn, x))
    drawn = vmap(lambda *theta: sample(case.make(*theta), (4,)), randomness="different")(*theta)
    assert drawn.shape == (2, 4, *fn.event_shape)
    draws_of_one = vmap(lambda _: noise(case.make(*(p[0] for p in theta))), randomness="different")(
        torch.zeros(ROWS)
    )
    assert agrees_with(case.law, draws_of_one)


def test_per_row_gradients_by_vmap() -> None:
    shape, u = torch.tensor([0.5, 2.0, 30.0], dtype=torch.float64), torch.tensor(0.3).double()

    def draw(a: Tensor) -> Tensor:
        return push(dist.Gamma(a, 1.0, validate_args=False), u)

    rows = vmap(grad(draw))(shape)
    each = torch.stack([grad(draw)(a) for a in shape])
    torch.testing.assert_close(rows, each)


@pytest.mark.parametrize(
    ("fn", "reference"),
    [
        (dist.Gamma(2.5, 4.0), stats.gamma(2.5, scale=0.25)),
        (dist.Beta(2.5, 0.4), stats.beta(2.5, 0.4)),
        (dist.StudentT(3.0, 1.0, 2.0), stats.t(3.0, 1.0, 2.0)),
        (dist.Poisson(3.5), stats.poisson(3.5)),
        (dist.Poisson(1e6), stats.poisson(1e6)),
        (dist.Binomial(12, 0.3), stats.binom(12, 0.3)),
        (dist.Geometric(0.2), stats.geom(0.2, loc=-1)),
        (dist.NegativeBinomial(2.5, 0.7), stats.nbinom(2.5, 0.3)),
        (dist.GammaPoisson(2.5, 0.25), stats.nbinom(2.5, 0.2)),
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_quantiles_are_those_of_scipy(fn: Any, reference: Any) -> None:
    u = torch.linspace(-4, 4, 41, dtype=torch.float64)
    expected = torch.as_tensor(reference.ppf(stats.norm.cdf(u))).float()
    torch.testing.assert_close(push(fn, u).float(), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("fn", "x"),
    [
        (dist.Exponential(1.0), 60.0),
        (dist.Gamma(2.0, 1.0), 150.0),
        (dist.StudentT(1.0, 0.0, 1.0), 1e12),
        (dist.Laplace(0.0, 1.0), 90.0),
        (dist.Poisson(1.0), 60.0),
        (dist.Binomial(300, 0.01), 80.0),
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_no_tail_is_rounded_away_in_float32(fn: Any, x: float) -> None:
    value = torch.tensor(x)
    torch.testing.assert_close(push(fn, pull(fn, value)), value, rtol=1e-5, atol=0)


def test_small_parts_of_a_simplex_keep_their_digits_in_float32() -> None:
    fn = dist.Dirichlet(torch.tensor([500.0, 0.5, 0.5]))
    x = fn.sample((500,))
    x = x[x.amin(-1) > 1e-9]
    torch.testing.assert_close(push(fn, pull(fn, x)), x, rtol=2e-4, atol=0)


def test_a_value_that_an_inverse_cdf_cannot_keep_is_refused() -> None:
    fn = dist.SkewLogistic(torch.tensor(0.0), torch.tensor(1.0))
    with pytest.raises(ValueError, match=r"SkewLogistic.*too far in the tail.*float64.*80\.0"):
        pull(fn, torch.tensor(80.0))


def test_noise_broadcasts_over_worlds() -> None:
    """One u, three worlds in front: the scenario axis is drawn for only once."""
    u = pull(dist.Gamma(torch.tensor([1.0, 2.0]), 1.0), torch.tensor([0.5, 3.0]))
    worlds = push(dist.Gamma(torch.tensor([[1.0], [2.0], [3.0]]).expand(3, 2), 1.0), u)
    assert worlds.shape == (3, 2)
    torch.testing.assert_close(worlds[[0, 1], [0, 1]], torch.tensor([0.5, 3.0]))


@pytest.mark.parametrize("wrap", [ZukoToPyro, lambda flow: flow], ids=["Pyro's wrapper", "zuko's"])
def test_flows_of_zuko(zuko_flow: Any, wrap: Callable[[Any], Any]) -> None:
    context = torch.randn(4, 1).double()
    fn = wrap(zuko_flow(context))
    u = noise(fn, (ROWS // 4,))
    x = push(fn, u)
    assert x.shape == (ROWS // 4, 4, 2)
    assert agrees_with("norm", u.float())
    torch.testing.assert_close(pull(fn, x), u, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(push(fn, pull(fn, x)), x, rtol=1e-10, atol=1e-10)
    y = zuko_flow(context).sample((ROWS // 4,))
    assert stats.ks_2samp(columns(x)[0], columns(y)[0]).pvalue > ALPHA
    weights = torch.autograd.grad(x.sum(), list(zuko_flow.parameters()), allow_unused=True)
    assert any(w is not None and w.abs().sum() > 0 for w in weights)


def test_expansion_draws_anew_along_repeated_axes() -> None:
    loc = 1000 * torch.arange(3.0).unsqueeze(-1)
    fn = ExpandedDistribution(dist.Normal(loc, 1.0), torch.Size((2, 3, 4)))
    u = noise(fn, (5,))
    assert u.shape == (5, 2, 3, 4)
    assert u.unique().numel() == u.numel()
    assert (push(fn, u) - loc).abs().max() < 10


def test_a_transform_with_a_cache_never_answers_from_before_an_update() -> None:
    scale = torch.tensor(2.0)
    flow = transforms.AffineTransform(0.0, scale, cache_size=1)
    fn = dist.TransformedDistribution(dist.Normal(0.0, 1.0), [flow])
    u = torch.tensor(1.0)
    x = push(fn, u)
    scale.mul_(5)
    assert pull(fn, x).item() == pytest.approx(0.2)
    assert push(fn, u).item() == pytest.approx(10.0)


def test_a_constant_has_no_noise() -> None:
    fn = dist.Delta(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), event_dim=1)
    u = pull(fn, fn.v)
    assert u.shape == (2,) and not u.any()
    assert sample(fn, (3,)).shape == (3, 2, 2)
    with pytest.raises(ValueError, match=r"Delta.*not the constant.*\[3\.0, 5\.0\]"):
        pull(fn, torch.tensor([[1.0, 2.0], [3.0, 5.0]]))


def test_a_recorded_program_computes_quantiles_anew() -> None:
    """make_fx must not freeze what SciPy computed for the values it was recorded with."""

    def draw(a: Tensor) -> Tensor:
        return push(dist.Gamma(a, 1.0, validate_args=False), torch.tensor(0.3))

    replayed = make_fx(draw)(torch.tensor(2.0))
    torch.testing.assert_close(replayed(torch.tensor(7.0)), draw(torch.tensor(7.0)))


def test_same_seed_same_draws() -> None:
    fn = dist.Gamma(torch.ones(3), 1.0)
    torch.manual_seed(1)
    first = sample(fn, (2,))
    torch.manual_seed(1)
    torch.testing.assert_close(sample(fn, (2,)), first, rtol=0, atol=0)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without argument checks, which vmap does not allow: they look at values."""
    checked = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    yield
    Distribution.set_default_validate_args(checked)


def agrees_with(law: str, u: Tensor) -> bool:
    """Whether each column follows the law and no two go together."""
    cdf = getattr(stats, law).cdf
    ranks = torch.stack([torch.as_tensor(cdf(column)) for column in columns(u)])
    follows = all(stats.kstest(r, "uniform").pvalue > ALPHA for r in ranks.numpy())
    together = torch.corrcoef(ranks).fill_diagonal_(0) if len(ranks) > 1 else torch.zeros(1)
    return follows and bool(together.abs().max() < 5 / len(u) ** 0.5)


def columns(x: Tensor) -> list[Any]:
    """The columns of draws, one for each element of batch and event."""
    return list(x.detach().double().reshape(len(x), -1).T.numpy())
