"""Leave-one-out, comparison, predictive checks, sensitivity and diagnosis, by conjugate models."""

import math
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from scipy import integrate
from torch import Tensor

import pgm
from pgm.inference import Posterior
from pgm.inference.checks import loo_pit, predictive_check
from pgm.inference.comparison import compare, loo, stacking
from pgm.inference.diagnosis import diagnose
from pgm.inference.sensitivity import distance, sensitivity

D = 4000


class Mean(pgm.Model):
    """y ~ N(mu, s^2), mu ~ N(m, a^2): everything is known in closed form."""

    def __init__(self, s: float = 1.0, a: float = 10.0, m: float = 0.0) -> None:
        super().__init__()
        self.s, self.a, self.m = s, a, m

    def model(self, n: int) -> None:
        mu = pyro.sample("mu", dist.Normal(self.m, self.a))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(mu, self.s))

    def law(self, y: Tensor) -> tuple[float, float]:
        """Mean and sd of mu given y."""
        v = 1 / (1 / self.a**2 + len(y) / self.s**2)
        return v * float(self.m / self.a**2 + y.sum() / self.s**2), math.sqrt(v)


def exact(model: Mean, y: Tensor, *, seed: int = 0, draws: int = D) -> Posterior:
    mean, sd = model.law(y.double())
    g = torch.Generator().manual_seed(seed)
    mu = mean + sd * torch.randn(2, draws // 2, generator=g, dtype=torch.float64)
    return Posterior({"mu": mu}, {}, model, pgm.batch.as_batch({"y": y}), 0.0, "nuts", {"mu": ()})


def normal(n: int = 30, seed: int = 0) -> Tensor:
    return 1.0 + torch.randn(n, generator=torch.Generator().manual_seed(seed))


def test_leave_one_out_of_a_conjugate_normal() -> None:
    y = normal()
    model = Mean()
    by_hand = []
    for i in range(len(y)):
        mean, sd = model.law(torch.cat([y[:i], y[i + 1 :]]).double())
        by_hand.append(dist.Normal(mean, math.hypot(sd, 1.0)).log_prob(y[i].double()))
    found = loo(exact(model, y))
    torch.testing.assert_close(found.rows, torch.stack(by_hand), atol=0.02, rtol=0)
    assert found.elpd == pytest.approx(float(torch.stack(by_hand).sum()), abs=0.05)
    assert found.p == pytest.approx(1.0, abs=0.3)
    assert found.bad == 0


class Waiting(pgm.Model):
    """y ~ Exponential(r), r ~ Gamma(1, 1): p(y_i | y_-i) is a Lomax density."""

    def model(self, n: int) -> None:
        r = pyro.sample("r", dist.Gamma(torch.tensor(1.0), 1.0))
        with pgm.rows(n):
            pyro.sample("y", dist.Exponential(r))


WAITS = torch.tensor([0.1, 0.3, 3.0])


def approximate(draws: int = 8000) -> Posterior:
    """Laplace's normal, which is far from this posterior; its weights make up for it."""
    return pgm.posterior(
        Waiting(), {"y": WAITS}, method="laplace", draws=draws, seed=1, backend="graph"
    )


def test_leave_one_out_takes_the_weights_of_an_approximation() -> None:
    """Without them -7.8 came for -4.87."""
    total = float(WAITS.sum())

    def lomax(y: float, a: float, b: float) -> float:
        return math.log(a) + a * math.log(b) - (a + 1) * math.log(b + y)

    found = loo(approximate())
    by_hand = [lomax(y, 3.0, 1 + total - y) for y in WAITS.tolist()]
    within = [lomax(y, 4.0, 1 + total) for y in WAITS.tolist()]
    assert found.rows.tolist() == pytest.approx(by_hand, abs=0.1)
    assert found.within.tolist() == pytest.approx(within, abs=0.05)


def test_other_checks_take_them_too() -> None:
    """The mean wait of three, given those three: a ratio of gammas, by draws of the posterior."""
    g = torch.distributions.Gamma(torch.tensor(4.0).double(), 1 + WAITS.double().sum())
    with pgm.seeded(0):
        rate = g.sample(torch.Size([2, 5000]))
    batch = pgm.batch.as_batch({"y": WAITS})
    drawn = Posterior({"r": rate}, {}, Waiting(), batch, 0.0, "nuts", {"r": ()})
    one, two = (
        predictive_check(p, statistics={"mean": lambda x: x.mean()}, seed=0).p["mean of y"]
        for p in (drawn, approximate(3000))
    )
    assert one == pytest.approx(two, abs=0.03)
    first, second = (sensitivity(p) for p in (drawn, approximate(20_000)))
    assert first.prior["r"] == pytest.approx(second.prior["r"], rel=0.15)
    assert first.likelihood["r"] == pytest.approx(second.likelihood["r"], rel=0.15)
    values = [loo_pit(p, seed=0).values["y"] for p in (drawn, approximate(3000))]
    torch.testing.assert_close(*values, atol=0.04, rtol=0)


def test_rows_with_latents_of_their_own_have_weights_of_their_own() -> None:
    """y ~ N(z, 1), z ~ N(0, 1), a guide N(y, 1): p(y_i) = N(0, 2) for a row that is left out."""

    class Own(pgm.Model):
        def model(self, n: int) -> None:
            with pgm.rows(n):
                z = pyro.sample("z", dist.Normal(0.0, 1.0))
                pyro.sample("y", dist.Normal(z, 1.0))

        def guide(self, n: int, y: Tensor) -> None:
            with pgm.rows(n):
                pyro.sample("z", dist.Normal(0.5 * y, 1.0))

    y = torch.tensor([0.3, -1.0, 0.8])
    found = loo(pgm.posterior(Own(), {"y": y}, method="variational", draws=4000, seed=0))
    by_hand = dist.Normal(0.0, math.sqrt(2.0)).log_prob(y.double())
    torch.testing.assert_close(found.rows, by_hand, atol=0.06, rtol=0)


def test_an_outlier_is_told_by_its_k() -> None:
    y = torch.cat([normal(8), torch.tensor([12.0])])
    found = loo(exact(Mean(a=100.0), y))
    assert int(found.k.argmax()) == 8
    assert found.bad >= 1
    assert "too influential" in str(found) or "another one" in str(found)


def test_models_are_ranked_and_those_that_are_alike_are_said_to_be() -> None:
    y = normal(60)
    made = {"wide": exact(Mean(s=3.0), y), "right": exact(Mean(), y), "twin": exact(Mean(a=9.0), y)}
    found = compare(made)
    assert list(found.loo)[-1] == "wide"
    table = found.frame()
    assert table.loc["wide", "difference"] > 2 * table.loc["wide", "difference_error"]
    assert found.weights["wide"] < 0.1
    assert sum(found.weights.values()) == pytest.approx(1.0)
    assert "is not told apart" in str(found)


def test_stacking_finds_the_best_mixture() -> None:
    g = torch.Generator().manual_seed(0)
    log_p = torch.randn(50, 2, generator=g, dtype=torch.float64)
    w = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    grid = torch.stack([w, 1 - w])
    score = (log_p.exp() @ grid).log().sum(0)
    assert float(stacking(log_p)[0]) == pytest.approx(float(w[score.argmax()]), abs=2e-3)


class Counts(pgm.Model):
    """Counts, with probabilities where Mean has a density."""

    def model(self, n: int) -> None:
        rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
        with pgm.rows(n):
            pyro.sample("y", dist.Poisson(rate))


@pytest.mark.parametrize("other", ["rows", "values", "kind"])
def test_models_of_other_data_are_not_compared(other: str) -> None:
    y = torch.tensor([1.0, 2.0, 0.0, 3.0])
    first = exact(Mean(), y)
    second: dict[str, Any] = {
        "rows": exact(Mean(), y[:3]),
        "values": exact(Mean(), y + 1),
        "kind": Posterior(
            {"rate": torch.rand(2, 100, dtype=torch.float64) + 1},
            {},
            Counts(),
            pgm.batch.as_batch({"y": y}),
            0.0,
            "nuts",
            {"rate": ()},
        ),
    }
    with pytest.raises(ValueError, match="not of the same data"):
        compare({"first": first, "second": second[other]})
    with pytest.raises(ValueError, match="two or more"):
        compare({"first": first})


def test_the_data_of_the_model_pass_and_skewed_ones_fail() -> None:
    good = predictive_check(exact(Mean(), normal(100), draws=400), seed=0)
    assert good.problems() == ()
    y = normal(100).exp()
    bad = predictive_check(exact(Mean(s=float(y.std())), y, draws=400), seed=0)
    assert any("largest of y" in problem for problem in bad.problems())
    assert any("least of y" in problem for problem in bad.problems())


def test_the_p_value_of_the_mean_by_its_closed_form() -> None:
    """mean(rep) - mean | y ~ N(E mu, v + s^2 / n)."""
    model, y = Mean(a=0.3), normal(20)
    mean, sd = model.law(y.double())
    spread = math.hypot(sd, 1 / math.sqrt(20))
    by_hand = 1 - float(dist.Normal(mean, spread).cdf(y.double().mean()))
    found = predictive_check(exact(model, y), statistics={"mean": lambda x: x.mean()}, seed=0)
    assert found.p["mean of y"] == pytest.approx(by_hand, abs=4 * math.sqrt(0.25 / D))


def test_loo_pit_is_uniform_under_the_model_alone() -> None:
    y = normal(150)
    found = loo_pit(exact(Mean(), y, draws=600), seed=0)
    assert found.p["y"] > 0.01
    assert found.plot().get_xlabel() == "LOO-PIT"
    assert loo_pit(exact(Mean(s=2.5), y, draws=600), seed=0).p["y"] < 1e-3
    assert loo_pit(exact(Mean(s=0.4), y, draws=600), seed=0).p["y"] < 1e-3


def test_loo_pit_by_its_closed_form() -> None:
    model, y = Mean(), normal(12)
    by_hand = []
    for i in range(len(y)):
        mean, sd = model.law(torch.cat([y[:i], y[i + 1 :]]).double())
        by_hand.append(dist.Normal(mean, math.hypot(sd, 1.0)).cdf(y[i].double()))
    found = loo_pit(exact(model, y), seed=0).values["y"]
    torch.testing.assert_close(found, torch.stack(by_hand), atol=0.05, rtol=0)


def test_holes_in_the_data_are_refused_by_checks() -> None:
    y = normal(5)
    y[0] = math.nan
    posterior = exact(Mean(), y.nan_to_num(), draws=200)
    holed = Posterior(posterior.draws, {}, Mean(), pgm.batch.as_batch({"y": y}), 0.0, "nuts")
    with pytest.raises(ValueError, match="missing"):
        predictive_check(holed, seed=0)


def test_sensitivity_is_that_of_powered_conjugate_normals() -> None:
    """The prior to the power a is N(m, s^2 / a): distances of two normals, by quadrature."""
    model, y = Mean(a=1.0, m=-3.0), normal(4)
    found = sensitivity(exact(model, y, draws=20_000))

    def law(prior: float, data: float) -> dist.Normal:
        v = 1 / (prior / model.a**2 + data * len(y) / model.s**2)
        mean = v * float(prior * model.m / model.a**2 + data * y.sum() / model.s**2)
        return dist.Normal(mean, math.sqrt(v))

    def apart(p: dist.Normal, q: dist.Normal) -> float:
        sides = []
        for sign in (1.0, -1.0):  # of x and of -x
            x = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
            low, high = ((d.cdf(x) if sign > 0 else 1 - d.cdf(x)) for d in (p, q))
            inside = (x > p.icdf(torch.tensor(1e-5))) & (x < p.icdf(torch.tensor(1 - 1e-5)))
            low, high, x = low[inside], high[inside], x[inside]
            m = (low + high) / 2
            both = torch.xlogy(low, low / m) + torch.xlogy(high, high / m)
            top = integrate.trapezoid(both, x)
            sides.append(math.sqrt(top / integrate.trapezoid((low + high) * math.log(2), x)))
        return max(sides)

    step = 2 * math.log2(1.25)
    prior = sum(apart(law(1, 1), law(a, 1)) for a in (0.8, 1.25)) / step
    data = sum(apart(law(1, 1), law(1, a)) for a in (0.8, 1.25)) / step
    assert found.prior["mu"] == pytest.approx(prior, rel=0.1)
    assert found.likelihood["mu"] == pytest.approx(data, rel=0.1)
    assert "conflict" in found.problems()[0]


def test_a_vague_prior_is_not_felt() -> None:
    assert sensitivity(exact(Mean(a=100.0), normal(50))).problems() == ()


def test_the_distance_knows_alike_and_apart() -> None:
    x = torch.linspace(0, 1, 200)
    even = torch.full((200,), 1 / 200)
    last = torch.zeros(200)
    last[-1] = 1.0
    assert float(distance(x, even)) == pytest.approx(0.0, abs=1e-7)
    assert 0.5 < float(distance(x, last)) <= 1.0


def test_a_good_posterior_has_a_clean_bill_and_prints_it() -> None:
    found = exact(Mean(), normal(40), draws=1000)
    object.__setattr__(found, "sample_stats", _calm(found))
    diagnosis = diagnose(found)
    assert diagnosis.good, str(diagnosis)
    assert "no sign" in str(diagnosis)


def test_switched_labels_are_told() -> None:
    posterior = exact(Mean(), normal(10), draws=400)
    g = torch.Generator().manual_seed(0)
    at = torch.tensor([[-2.0, 2.0], [2.0, -2.0]], dtype=torch.float64)[:, None]
    theta = at + 0.1 * torch.randn(2, 200, 2, generator=g, dtype=torch.float64)
    stats = _calm(posterior)
    mixed = Posterior(
        posterior.draws | {"theta": theta}, stats, posterior.model, posterior.batch, 0.0, "nuts"
    )
    assert any("label switching" in said for said in diagnose(mixed).sampling)
    apart = theta[:1].expand(2, -1, -1) + torch.tensor([0.0, 3.0])[:, None, None]
    other = Posterior(
        posterior.draws | {"theta": apart}, stats, posterior.model, posterior.batch, 0.0, "nuts"
    )
    assert not any("label switching" in said for said in diagnose(other).sampling)


class Funnel(pgm.Model):
    """Groups around a mean, centred."""

    def model(self, n: int) -> None:
        tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
        with pgm.rows(n):
            theta = pyro.sample("theta", dist.Normal(0.0, tau))
            pyro.sample("y", dist.Normal(theta, 10.0))


def test_a_funnel_that_diverges_is_to_be_non_centred() -> None:
    g = torch.Generator().manual_seed(0)
    tau = torch.rand(2, 100, generator=g, dtype=torch.float64) + 0.1
    theta = tau[..., None] * torch.randn(2, 100, 4, generator=g, dtype=torch.float64)
    draws = {"tau": tau, "theta": theta}
    batch = pgm.batch.as_batch({"y": torch.tensor([28.0, 8.0, -3.0, 7.0])})
    posterior = Posterior(draws, {}, Funnel(), batch, 0.0, "nuts", {"theta": ("rows",)})
    stats = _calm(posterior)
    stats["diverging"][0, 3] = True
    object.__setattr__(posterior, "sample_stats", stats)
    said = " ".join(diagnose(posterior).sampling)
    assert "theta hang on a scale" in said
    assert "reparameterise" in said


def _calm(posterior: Posterior) -> dict[str, Tensor]:
    """The statistics of a sampler that has nothing to complain of."""
    size = posterior.size
    g = torch.Generator().manual_seed(1)
    return {
        "diverging": torch.zeros(size, dtype=torch.bool),
        "reached_max_treedepth": torch.zeros(size, dtype=torch.bool),
        "energy": torch.randn(size, generator=g, dtype=torch.float64),
    }
