"""Log importance weights against closed forms and exact sums.

E[exp(rows)] over draws of the guide is p(x) of each row (Burda et al. 2016, eq. 8): every test
compares that mean, with its standard error, with a number computed another way.
"""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pgm
from pgm.batch import Batch, as_batch
from pgm.verb import Unsupported
from pgm.weights import log_weight

A, S = 1.5, 0.5
NAN = float("nan")


def program(
    model: Callable[..., Any], guide: Callable[..., Any] | None = None, **tensors: Tensor
) -> pgm.Model:
    """A model of two functions of `self` and `n`; `tensors` become parameters."""
    body: dict[str, Any] = {"model": model} | ({"guide": guide} if guide else {})
    made = type("Toy", (pgm.Model,), body)()
    for name, tensor in tensors.items():
        made.register_parameter(name, nn.Parameter(tensor))
    return made


def agree(model: pgm.Model, batch: Batch, exact: Tensor, particles: int = 20_000) -> None:
    """The mean weight is the evidence, within four standard errors, which must be small."""
    with torch.no_grad():
        w = log_weight(model, batch, particles=particles).rows.double().exp()
    mean, error = w.mean(0), w.std(0) / particles**0.5
    assert (error < 0.05 * mean).all(), "the estimate is too rough to say anything"
    assert ((mean - exact.double().exp()).abs() <= 4 * error + 1e-6).all()


def prior(n: int) -> Tensor:
    return pyro.sample("z", dist.Normal(torch.zeros(n), 1.0))


def linear(self: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        z = prior(n)
        pyro.sample("x", dist.Normal(A * z, S))


def rough(self: pgm.Model, n: int, x: Tensor) -> None:
    with pgm.rows(n):
        pyro.sample("z", dist.Normal(0.5 * x, 1.0))


def posterior(self: pgm.Model, n: int, x: Tensor) -> None:
    with pgm.rows(n):
        precision = 1 + A**2 / S**2
        pyro.sample("z", dist.Normal(A * x / S**2 / precision, precision**-0.5))


X = torch.tensor([-1.0, 0.0, 2.0])
EVIDENCE = torch.distributions.Normal(0.0, (A**2 + S**2) ** 0.5).log_prob(X)


def test_the_mean_weight_is_the_evidence() -> None:
    agree(program(linear, rough), Batch(x=X), EVIDENCE)


def test_under_the_posterior_every_weight_is_the_evidence() -> None:
    """Bayes' rule: p(x, z) / p(z | x) = p(x), whatever z was drawn."""
    rows = log_weight(program(linear, posterior), Batch(x=X), particles=7).rows
    assert torch.allclose(rows, EVIDENCE.expand(7, -1), atol=1e-5)


def test_latents_in_inner_plates_are_summed_within_their_row() -> None:
    """x_i = (z_i1 + e, z_i2 + e): two evidences multiply."""

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            with pyro.plate("parts", 2, dim=-2):
                z = pyro.sample("z", dist.Normal(torch.zeros(2, n), 1.0))
            pyro.sample("x", dist.Normal(A * z.T, S).to_event(1))

    def guide(self: pgm.Model, n: int, x: Tensor) -> None:
        with pgm.rows(n), pyro.plate("parts", 2, dim=-2):
            pyro.sample("z", dist.Normal(0.5 * x.T, 0.8))

    toy, x = program(model, guide), torch.stack([X, X.flip(0)], -1)
    agree(toy, Batch(x=x), EVIDENCE + EVIDENCE.flip(0))
    values = log_weight(toy, Batch(x=x), particles=4).values
    assert values["z"].shape == (4, 3, 2)


def test_terms_of_shared_sites_stand_apart() -> None:
    """theta ~ N(0, 1) outside the rows: log p(theta) - log q(theta) is not in any row."""

    def model(self: pgm.Model, n: int) -> None:
        theta = pyro.sample("theta", dist.Normal(0.0, 1.0))
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(theta, S))

    def guide(self: pgm.Model, n: int) -> None:
        pyro.sample("theta", dist.Normal(0.5, 0.3))

    weight = log_weight(program(model, guide), Batch(x=X), particles=5)
    theta = weight.values["theta"]
    assert weight.shared_sites == ("theta",)
    assert theta.unique().numel() == 5
    ratio = dist.Normal(0.0, 1.0).log_prob(theta) - dist.Normal(0.5, 0.3).log_prob(theta)
    assert torch.allclose(weight.shared, ratio, atol=1e-5)
    assert torch.allclose(weight.rows, dist.Normal(theta[:, None], S).log_prob(X), atol=1e-5)


def test_several_latents_one_of_them_discrete() -> None:
    """b ~ Bernoulli(0.3), z ~ N(b, 1), x ~ N(z, 1), the guide drawing both."""

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            b = pyro.sample("b", dist.Bernoulli(torch.full((n,), 0.3)))
            z = pyro.sample("z", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0))

    def guide(self: pgm.Model, n: int, x: Tensor) -> None:
        with pgm.rows(n):
            b = pyro.sample("b", dist.Bernoulli(torch.full((n,), 0.5)))
            pyro.sample("z", dist.Normal((b + x) / 2, 0.8))

    parts = torch.stack([dist.Normal(float(b), 2.0**0.5).log_prob(X) for b in (0, 1)])
    exact = (parts + torch.tensor([[0.7], [0.3]]).log()).logsumexp(0)
    toy = program(model, guide)
    agree(toy, Batch(x=X), exact)
    weight = log_weight(toy, Batch(x=X))
    assert torch.allclose(weight.score_rows, torch.full((3,), 0.5).log())


def test_particles_are_independent_calls() -> None:
    """One call with K particles and K calls have the same distribution: mean and spread."""
    toy, K = program(linear, rough), 4000
    with torch.no_grad():
        together = log_weight(toy, Batch(x=X), particles=K).rows
        apart = torch.stack([log_weight(toy, Batch(x=X)).rows for _ in range(K // 10)])
    error = (together.var(0) / K + apart.var(0) / len(apart)).sqrt()
    assert ((together.mean(0) - apart.mean(0)).abs() < 4 * error).all()
    assert torch.allclose(together.std(0), apart.std(0), rtol=0.2)


def test_a_site_that_the_batch_leaves_out_is_marginalised() -> None:
    """log p(x) of log p(x, y) is free of y, which is drawn and not weighed."""

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            x = pyro.sample("x", dist.Normal(torch.zeros(n), 1.0))
            pyro.sample("y", dist.Normal(x, 1.0))

    toy, standard = program(model), dist.Normal(0.0, 1.0)
    rows = log_weight(toy, Batch(x=X), particles=3).rows
    assert torch.allclose(rows, standard.log_prob(X).expand(3, -1))
    agree(toy, Batch(y=X), dist.Normal(0.0, 2**0.5).log_prob(X))


def test_missing_cells_of_a_factorised_site_are_left_out() -> None:
    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(torch.zeros(n, 2), 1.0).to_event(1))
            pyro.sample("b", dist.Bernoulli(torch.full((n, 2), 0.2)).to_event(1))
            pyro.sample("k", dist.Categorical(torch.tensor([0.5, 0.3, 0.2]).expand(n, 3)))

    batch = as_batch(
        {
            "x": torch.tensor([[1.0, NAN], [NAN, NAN]]),
            "b": torch.tensor([[1.0, 0.0], [NAN, 1.0]]),
            "k": torch.tensor([2.0, NAN]),
        }
    )
    rows = log_weight(program(model), batch).rows
    first = dist.Normal(0.0, 1.0).log_prob(torch.tensor(1.0)) + torch.tensor(0.2 * 0.8 * 0.2).log()
    assert torch.allclose(rows, torch.stack([first, torch.tensor(0.2).log()]))


def multivariate(self: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        scale = torch.tensor([[1.0, 0.0], [0.5, 1.0]])
        pyro.sample("x", dist.MultivariateNormal(torch.zeros(n, 2), scale_tril=scale))


def test_a_joint_density_lacks_whole_rows_and_refuses_parts() -> None:
    toy = program(multivariate)
    whole = as_batch(torch.tensor([[NAN, NAN], [0.0, 0.0]]))
    log_p = dist.MultivariateNormal(torch.zeros(2), torch.tensor([[1.0, 0.5], [0.5, 1.25]]))
    assert torch.allclose(
        log_weight(toy, whole).rows,
        torch.stack([torch.tensor(0.0), log_p.log_prob(torch.zeros(2))]),
    )
    with pytest.raises(Unsupported, match=r"'x'.*MultivariateNormal.*pgm\.impute"):
        log_weight(toy, as_batch(torch.tensor([[0.0, NAN]])))


def test_a_missing_parent_is_summed_over_its_own_law() -> None:
    """a -> x <- b with cells of a and b missing: both are drawn, neither is taken for zero."""

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            a = pyro.sample("a", dist.Normal(torch.full((n,), 3.0), 1.0))
            b = pyro.sample("b", dist.Bernoulli(torch.full((n,), 0.3)))
            pyro.sample("x", dist.Normal(a + 2 * b, 1.0))

    batch = as_batch(
        {
            "a": torch.tensor([3.5, NAN, NAN, 3.5]),
            "b": torch.tensor([1.0, 1.0, NAN, NAN]),
            "x": torch.full((4,), 5.0),
        }
    )
    five, log = torch.tensor(5.0), torch.log
    a, one, zero = dist.Normal(3.0, 1.0).log_prob(torch.tensor(3.5)), torch.tensor(0.3), 0.7
    wide = [dist.Normal(3.0 + 2 * b, 2**0.5).log_prob(five) for b in (0, 1)]
    near = [dist.Normal(3.5 + 2 * b, 1.0).log_prob(five) for b in (0, 1)]
    exact = torch.stack(
        [
            a + log(one) + near[1],
            log(one) + wide[1],
            log(zero * wide[0].exp() + one * wide[1].exp()),
            a + log(zero * near[0].exp() + one * near[1].exp()),
        ]
    )
    agree(program(model), batch, exact)


def test_a_missing_cell_between_an_enumerated_site_and_its_child() -> None:
    """k is summed out, a | k is missing, x | a, k is seen: p(x) = sum_k p(k) p(x | k)."""

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            weights = dist.Categorical(torch.tensor([0.25, 0.75]).expand(n, 2))
            k = pyro.sample("k", weights, infer={"enumerate": "parallel"})
            a = pyro.sample("a", dist.Normal(torch.tensor([-1.0, 2.0])[k], 1.0))
            pyro.sample("x", dist.Normal(a + k, 1.0))

    means = torch.tensor([[-1.0], [3.0]])
    exact = dist.Normal(means, 2**0.5).log_prob(X) + torch.tensor([[0.25], [0.75]]).log()
    toy = program(model)
    agree(toy, as_batch({"a": torch.full((3,), NAN), "x": X}), exact.logsumexp(0))
    agree(toy, Batch(x=X), exact.logsumexp(0))
    seen = as_batch({"a": torch.tensor([0.0, NAN, NAN]), "x": X})
    each = dist.Normal(torch.tensor([-1.0, 2.0]), 1.0).log_prob(torch.tensor(0.0))
    each = each + dist.Normal(torch.tensor([0.0, 1.0]), 1.0).log_prob(X[0])
    first = (each + torch.tensor([0.25, 0.75]).log()).logsumexp(0)
    agree(toy, seen, torch.cat([first[None], exact.logsumexp(0)[1:]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_stays_in_the_dtype_of_the_model(dtype: torch.dtype) -> None:
    def model(self: Any, n: int) -> None:
        with pgm.rows(n):
            k = pyro.sample(
                "k", dist.Categorical(logits=self.logits), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(self.mu[k], 1.0))

    toy = program(model, logits=torch.zeros(2), mu=torch.tensor([0.0, 1.0])).to(dtype)
    x = torch.tensor([0.5, NAN], dtype=dtype)
    k = torch.tensor([1.0, NAN], dtype=dtype)
    for batch in (as_batch({"x": x}), as_batch({"x": x, "k": k})):
        weight = log_weight(toy, batch, particles=2, enumerated="draw")
        for tensor in (weight.rows, weight.shared, weight.score_rows, weight.score_shared):
            assert tensor.dtype == dtype
        assert weight.values["x"].dtype == dtype
    sharp = log_weight(toy.double(), Batch(x=torch.tensor([0.5], dtype=torch.float64)))
    exact = dist.Normal(0.0, 1.0).log_prob(torch.tensor(0.5, dtype=torch.float64))
    assert abs(float(sharp.rows.detach() - exact)) < 1e-12


def test_nothing_is_made_on_another_device() -> None:
    """On the meta device, as on a GPU, a tensor of the CPU cannot be added to one of the model."""
    toy = program(plain, mu=torch.zeros(2)).to("meta")
    with pyro.validation_enabled(False):
        weight = log_weight(toy, Batch(x=torch.zeros(3, 2, device="meta")), particles=2)
        whole = (
            weight.rows + weight.score_rows + weight.shared[:, None] + weight.score_shared[:, None]
        )
        assert whole.device.type == "meta"
        assert pgm.objectives.objective(toy, Batch(x=torch.zeros(3, 2, device="meta"))).shape == (
            3,
        )
        IWAE = pgm.IWAE(2)(toy, Batch(x=torch.zeros(3, 2, device="meta")), size=3)
        assert IWAE.device.type == "meta"


def plain(self: Any, n: int) -> None:
    with pgm.rows(n):
        pyro.sample("x", dist.Normal(self.mu, 1.0).to_event(1))


def test_values_have_particles_and_rows_in_front_and_shared_ones_particles() -> None:
    """Also where the numbers agree by chance: 4 levels, and 4 = 2 particles of 2 rows."""

    def model(self: pgm.Model, n: int) -> None:
        pyro.deterministic("table", torch.arange(4.0))
        with pgm.rows(n):
            k = pyro.sample(
                "k", dist.Categorical(torch.ones(n, 4)), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(k.float()[..., None], 1.0).to_event(1))

            pyro.deterministic("row", torch.arange(n))

    batch = Batch(x=torch.zeros(2, 1))
    whole = log_weight(program(model), batch, particles=2).values
    drawn = log_weight(program(model), batch, particles=2, enumerated="draw").values
    assert whole["k"].shape == (4, 1, 1, 1, 1)
    assert drawn["k"].shape == (2, 2)
    for values in (whole, drawn):
        assert values["table"].tolist() == [0.0, 1.0, 2.0, 3.0]
        assert values["x"].shape == (2, 2, 1)
        assert values["row"].tolist() == [[0, 1], [2, 3]]
