"""The laws of noise forms where x does not fix u: discrete distributions and mixtures."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.distributions import Distribution
from torch.func import vmap

from pgm.noise import couplings, noise, pull, push, sample

ROWS = 6000
ALPHA = 1e-5  # of each test of a law; the seeds are fixed
LOGITS = [[0.0, 1.0, -1.0, 0.5], [2.0, -3.0, 0.0, 0.0]]
CUTPOINTS = torch.tensor([-1.0, 0.0, 1.5])

# name -> the distribution of one parameter, and two values of it
DISCRETE: dict[str, tuple[Callable[[Tensor], Any], list[Any]]] = {
    "Bernoulli": (lambda p: dist.Bernoulli(p), [0.2, 0.9]),
    "Categorical": (lambda logits: dist.Categorical(logits=logits), LOGITS),
    "OneHotCategorical": (lambda logits: dist.OneHotCategorical(logits=logits), LOGITS),
    "OrderedLogistic": (lambda m: dist.OrderedLogistic(m, CUTPOINTS.to(m)), [0.3, -2.0]),
    "Poisson": (lambda rate: dist.Poisson(rate), [0.3, 6.0]),
    "Binomial": (lambda p: dist.Binomial(5, p), [0.2, 0.7]),
    "Geometric": (lambda p: dist.Geometric(p), [0.3, 0.8]),
    "NegativeBinomial": (lambda p: dist.NegativeBinomial(2.5, p), [0.3, 0.6]),
    "GammaPoisson": (lambda rate: dist.GammaPoisson(2.5, rate), [0.8, 2.0]),
    "Empirical": (
        lambda w: dist.Empirical(torch.tensor([1.0, 3, 3, 2]).expand(w.shape), w),
        LOGITS,
    ),
}
PAIRS = [
    pytest.param(make, parameter, coupling, id=f"{name}-{coupling}")
    for name, (make, parameter) in DISCRETE.items()
    for coupling in couplings(make(torch.tensor(parameter)))
]
each_pair = pytest.mark.parametrize(("make", "parameter", "coupling"), PAIRS)


@each_pair
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_push_undoes_pull(make: Any, parameter: Any, coupling: str, dtype: torch.dtype) -> None:
    fn = make(torch.tensor(parameter, dtype=dtype))
    x = fn.sample((2000,))
    back = push(fn, pull(fn, x, coupling=coupling), coupling=coupling)
    assert back.dtype == x.dtype
    assert torch.equal(back, x)


@each_pair
def test_sample_has_the_law_of_the_distribution(make: Any, parameter: Any, coupling: str) -> None:
    """Chi-square against the probabilities that `log_prob` states."""
    fn = make(torch.tensor(parameter, dtype=torch.float64))
    x = sample(fn, (ROWS,), coupling=coupling)
    assert x.shape == fn.shape((ROWS,))
    values = x.unique(dim=0) if fn.event_shape else x.unique().reshape(-1, 1).expand(-1, 2)
    if fn.event_shape:
        values = torch.eye(4, dtype=x.dtype).unsqueeze(1).expand(-1, 2, -1)
    for row in (0, 1):
        expected = ROWS * torch.stack([fn.log_prob(v) for v in values]).exp()[:, row]
        same = (x[:, row].unsqueeze(1) == values[:, row]).reshape(ROWS, len(values), -1).all(-1)
        assert chi_square(same.sum(0), expected) > ALPHA


@each_pair
def test_abducted_noise_has_the_law_of_noise(make: Any, parameter: Any, coupling: str) -> None:
    """If x ~ fn and u ~ p(u | x), then u has its prior law."""
    fn = make(torch.tensor(parameter, dtype=torch.float64))
    law = stats.norm if coupling == "monotone" else stats.gumbel_r
    law = stats.logistic if type(fn).__name__ == "Bernoulli" else law
    for u in (
        pull(fn, fn.sample((ROWS,)), coupling=coupling),
        noise(fn, (ROWS,), coupling=coupling),
    ):
        ranks = torch.as_tensor(law.cdf(u.reshape(ROWS, -1).T.numpy()))
        assert all(stats.kstest(r, "uniform").pvalue > ALPHA for r in ranks.numpy())
        assert torch.corrcoef(ranks).fill_diagonal_(0).abs().max() < 5 / ROWS**0.5


@each_pair
def test_abduction_draws_from_the_posterior(make: Any, parameter: Any, coupling: str) -> None:
    """p(u | x) is also the noise that is left when draws with another outcome are thrown away."""
    fn = make(torch.tensor(parameter, dtype=torch.float64)[:1])
    u = noise(fn, (4 * ROWS,), coupling=coupling)
    x = push(fn, u, coupling=coupling)
    for value in x[:20].unique(dim=0):
        kept = u[(x == value).reshape(len(x), -1).all(-1)]
        drawn = pull(fn, value.expand(2000, *value.shape), coupling=coupling)
        for a, b in zip(kept.flatten(1).T, drawn.flatten(1).T, strict=True):
            assert len(kept) < 20 or stats.ks_2samp(a, b).pvalue > ALPHA


logits = st.lists(st.floats(-6, 6), min_size=5, max_size=5).map(torch.tensor)


@given(logits, logits, st.integers(0, 4))
def test_gumbel_counterfactuals_are_stable(was: Tensor, would: Tensor, x: int) -> None:
    """Oberst and Sontag 2019, def. 4: x becomes y only if the odds of y against x have risen."""
    fact, other = dist.Categorical(logits=was), dist.Categorical(logits=would)
    u = pull(fact, torch.full((200,), x))
    y = push(other, u)
    rise = other.logits - fact.logits
    assert (rise[y] >= rise[x] - 1e-4).all()


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6), st.floats(0.0, 3.0))
def test_monotone_counterfactuals_are_monotone(start: list[float], shift: float) -> None:
    """More of what moves the whole distribution up never gives less, for any unit."""
    was = torch.tensor(start, dtype=torch.float64)
    for make in (
        lambda m: dist.Poisson(m.exp()),
        lambda m: dist.Binomial(9, logits=m),
        lambda m: dist.NegativeBinomial(2.0, logits=m - 1),
        lambda m: dist.Geometric(logits=-m),
        lambda m: dist.OrderedLogistic(m, CUTPOINTS.double()),
    ):
        x = make(was).sample((50,))
        assert (push(make(was + shift), pull(make(was), x)) >= x).all()


@each_pair
def test_the_monotone_coupling_rises_with_its_noise(
    make: Any, parameter: Any, coupling: str
) -> None:
    fn = make(torch.tensor(parameter, dtype=torch.float64))
    if coupling == "monotone" and not fn.event_shape:
        u = torch.linspace(-3, 3, 200, dtype=torch.float64).unsqueeze(-1).expand(-1, 2)
        order = push(fn, u, coupling=coupling)
        if type(fn).__name__ == "Empirical":  # it rises in the index of the atom
            order = order.eq(1.0).logical_not() * 1
        assert (order.diff(dim=0) >= 0).all()


def test_bernoulli_counterfactual_in_closed_form() -> None:
    """From p = .3 to .6: x = 1 stays; P(x' = 1 | x = 0) = (.6 - .3) / .7, either coupling."""
    zeros = torch.zeros(40_000)
    for coupling in ("gumbel", "monotone"):
        u = pull(dist.Bernoulli(torch.tensor(0.3)), zeros, coupling=coupling)
        share = push(dist.Bernoulli(torch.tensor(0.6)), u, coupling=coupling).mean().item()
        assert share == pytest.approx(3 / 7, abs=0.012)
    assert push(dist.Bernoulli(0.6), pull(dist.Bernoulli(0.3), zeros + 1)).all()


def test_monotone_counterfactual_in_closed_form() -> None:
    """u is uniform between F(x - 1) and F(x): P(x' = 1 | x = 1) by the overlap of the intervals."""
    fact = dist.Categorical(torch.tensor([0.2, 0.3, 0.5]))
    other = dist.Categorical(torch.tensor([0.4, 0.2, 0.4]))
    u = pull(fact, torch.ones(40_000), coupling="monotone")
    shares = push(other, u, coupling="monotone").bincount(minlength=3) / 40_000
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 1 / 3, 0.0]), atol=0.012, rtol=0)


def test_what_cannot_happen_does_not_and_is_not_abducted() -> None:
    for coupling, dtype in product(("gumbel", "monotone"), (torch.float32, torch.float64)):
        fn = dist.Categorical(torch.tensor([0.0, 0.5, 0.5, 0.0], dtype=dtype))
        x = sample(fn, (2000,), coupling=coupling)
        assert x.min() == 1 and x.max() == 2
        assert torch.equal(push(fn, pull(fn, x, coupling=coupling), coupling=coupling), x)
        for impossible in (0, 3):
            with pytest.raises(ValueError, match=rf"probability zero.*{impossible}\."):
                pull(fn, torch.tensor([1, impossible]), coupling=coupling)
    zero, one = torch.zeros((), dtype=torch.float64), torch.ones(())
    for fn, x in (
        (dist.Bernoulli(zero), 1.0),
        (dist.Bernoulli(zero + 1), 0.0),
        (dist.Bernoulli(one - 1), 1.0),
        (dist.Bernoulli(one), 0.0),
        (dist.Poisson(zero), 1.0),
    ):
        value = torch.tensor([x])
        with pytest.raises(ValueError, match="probability zero"):
            pull(fn, value)
        assert not (sample(fn, (500,)) == value).any()


def test_noise_of_what_has_one_outcome_keeps_its_law() -> None:
    one, none = dist.Categorical(torch.ones(1)), dist.Binomial(0, torch.tensor(0.5))
    for fn, coupling in ((one, "gumbel"), (one, "monotone"), (none, "monotone")):
        u = pull(fn, torch.zeros(2000), coupling=coupling).flatten()
        assert not push(fn, noise(fn, coupling=coupling), coupling=coupling)
        law = "gumbel_r" if coupling == "gumbel" else "norm"
        assert stats.kstest(u.numpy(), law).pvalue > ALPHA


@pytest.mark.parametrize(("coupling", "common"), [("gumbel", 85.0), ("monotone", 26.0)])
def test_rare_outcomes_survive_the_round_trip(coupling: str, common: float) -> None:
    """A million draws: the rounding that is guarded against turns up about once in 1e5."""
    fn = dist.Categorical(logits=torch.tensor([common, 0.0, -1.0, common - 1]))
    x = torch.tensor([2, 3]).repeat(1_000_000)
    assert torch.equal(push(fn, pull(fn, x, coupling=coupling), coupling=coupling), x)
    coin = dist.Bernoulli(logits=torch.tensor([-30.0, 30.0]))
    x = torch.tensor([[1.0, 0.0]]).expand(1_000_000, 2)
    assert torch.equal(push(coin, pull(coin, x, coupling=coupling), coupling=coupling), x)


def mixture(logits: Tensor, loc: Tensor) -> Any:
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), dist.Normal(loc, 0.7))


WEIGHTS = torch.tensor([[0.0, 1.0, -1.0], [0.5, 0.0, 0.0]], dtype=torch.float64)
MEANS = torch.tensor([[-2.0, 0.0, 3.0], [0.0, 0.5, 1.0]], dtype=torch.float64)


@pytest.mark.parametrize("coupling", ["gumbel", "monotone"])
def test_mixture(coupling: str) -> None:
    fn = mixture(WEIGHTS, MEANS)
    x = fn.sample((ROWS,))
    u = pull(fn, x, coupling=coupling)
    torch.testing.assert_close(push(fn, u, coupling=coupling), x, rtol=1e-10, atol=1e-10)
    law = stats.gumbel_r if coupling == "gumbel" else stats.norm
    for leaf, prior in ((u.component, law), (u.kernel, stats.norm)):
        ranks = prior.cdf(leaf.reshape(ROWS, -1).T.numpy())
        assert all(stats.kstest(r, "uniform").pvalue > ALPHA for r in ranks)
    y = sample(fn, (ROWS,), coupling=coupling)
    for row in (0, 1):
        assert stats.ks_2samp(y[:, row], x[:, row]).pvalue > ALPHA


def test_mixture_counterfactual_in_closed_form() -> None:
    """Shift all means by 10: x' = x + 10 whichever component made x; weights left as they were."""
    x = torch.tensor([-1.0, 0.7], dtype=torch.float64)
    u = pull(mixture(WEIGHTS, MEANS), x)
    torch.testing.assert_close(push(mixture(WEIGHTS, MEANS + 10), u), x + 10)


def test_mixture_of_vectors_keeps_shapes_and_reaches_its_means() -> None:
    loc = torch.randn(4, 3, 2, requires_grad=True)
    fn = dist.MixtureSameFamily(
        dist.Categorical(torch.ones(4, 3)), dist.Normal(loc, 1.0).to_event(1)
    )
    x = sample(fn, (5,))
    assert x.shape == (5, 4, 2)
    (gradient,) = torch.autograd.grad(x.sum(), loc)
    assert gradient.sum().item() == 5 * 4 * 2  # one component each
    u = pull(fn.to_event(1), x.detach())
    torch.testing.assert_close(push(fn.to_event(1), u), x)


def test_an_empirical_value_must_be_an_atom() -> None:
    fn = dist.Empirical(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3))
    with pytest.raises(ValueError, match=r"none of its atoms.*2\.5"):
        pull(fn, torch.tensor([1.0, 2.5]))


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without argument checks, which vmap does not allow: they look at values."""
    checked = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    yield
    Distribution.set_default_validate_args(checked)


@each_pair
def test_vmap_over_parameters(make: Any, parameter: Any, coupling: str, unchecked: None) -> None:
    if type(make(torch.tensor(parameter))).__name__ == "OrderedLogistic":
        pytest.skip("Pyro builds it by writing in place, which vmap cannot")
    theta = torch.tensor(parameter, dtype=torch.float64)
    fn = make(theta)
    u = noise(fn, (5,), coupling=coupling)
    pushed = vmap(lambda t, u: push(make(t), u, coupling=coupling), (0, 1), 1)(theta, u)
    assert torch.equal(pushed, push(fn, u, coupling=coupling))

    def there_and_back(t: Tensor, x: Tensor) -> Tensor:
        return push(make(t), pull(make(t), x, coupling=coupling), coupling=coupling)

    again = vmap(there_and_back, (0, 1), 1, randomness="different")(theta, pushed)
    assert torch.equal(again, pushed)
    drawn = vmap(lambda t: sample(make(t), (3000,), coupling=coupling), randomness="different")
    mean = fn.mean if not fn.mean.isnan().any() else (fn.probs * torch.arange(4)).sum(-1)
    torch.testing.assert_close(drawn(theta).double().mean(1), mean, atol=0.2, rtol=0.0)


def test_mixtures_under_vmap(unchecked: None) -> None:
    x = mixture(WEIGHTS, MEANS).sample((7,))

    def there_and_back(w: Tensor, m: Tensor, x: Tensor) -> Tensor:
        return push(mixture(w, m), pull(mixture(w, m), x))

    again = vmap(there_and_back, (0, 0, 1), 1, randomness="different")(WEIGHTS, MEANS, x)
    torch.testing.assert_close(again, x)


def test_an_unknown_coupling_is_refused() -> None:
    counts, outcome = dist.Poisson(1.0), dist.Categorical(torch.ones(3))
    with pytest.raises(ValueError, match=r"Poisson has no coupling 'gumbel'.*Use 'monotone'"):
        pull(counts, torch.tensor(1.0), coupling="gumbel")
    with pytest.raises(ValueError, match="Use 'gumbel' or 'monotone'"):
        noise(outcome, coupling="optimal")


def test_noise_of_another_coupling_is_refused() -> None:
    fn = dist.Categorical(torch.ones(3))
    with pytest.raises(ValueError, match="one Gumbel variable for each outcome"):
        push(fn, noise(fn, (5,), coupling="monotone"))


@pytest.mark.parametrize(
    ("fn", "x"),
    [
        (dist.Categorical(torch.ones(3)), 3),
        (dist.Poisson(2.0), 2.5),
        (dist.Binomial(4, 0.5), 5.0),
        (dist.Bernoulli(0.5), 2.0),
        (dist.Geometric(0.5), -1.0),
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_a_value_that_is_no_outcome_is_refused(fn: Any, x: float) -> None:
    with pytest.raises(ValueError, match=rf"{type(fn).__name__}.*outside the support.*{x}"):
        pull(fn, torch.tensor([0, x]))


def chi_square(seen: Tensor, expected: Tensor) -> float:
    """The p-value of counts, cells with fewer than five expected put together."""
    rare = expected < 5
    cells = [(s.item(), e.item()) for s, e in zip(seen[~rare], expected[~rare], strict=True)]
    rest = max(float(ROWS - sum(e for _, e in cells)), 0.0)
    if rest >= 5:
        cells.append((ROWS - sum(s for s, _ in cells), rest))
    statistic = sum((s - e) ** 2 / e for s, e in cells)
    return float(stats.chi2.sf(statistic, max(len(cells) - 1, 1)))
