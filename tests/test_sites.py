"""What a run makes of a site: values given, observed, enumerated or drawn, and what it refuses."""

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor

import pgm
from pgm.batch import Batch, as_batch
from pgm.sites import Run
from pgm.verb import Unsupported
from pgm.weights import LogWeight, log_weight

NAN = float("nan")
P, MEANS = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([-1.0, 0.0, 2.0])
X = torch.tensor([-1.0, 0.5, 2.0])
JOINT = P.log()[:, None] + dist.Normal(MEANS[:, None], 1.0).log_prob(X)
"""log p(k, x) of the mixture below, for every k (rows) and x (columns)."""


def weigh(
    model: Callable[..., Any], data: Any, guide: Callable[..., Any] | None = None, **options: Any
) -> LogWeight:
    body: dict[str, Any] = {"model": model} | ({"guide": guide} if guide else {})
    toy = type("Toy", (pgm.Model,), body)()
    return log_weight(toy, as_batch(data), **options)


def component(n: int) -> Tensor:
    return pyro.sample("k", dist.Categorical(P.expand(n, 3)), infer={"enumerate": "parallel"})


def mixture(self: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        pyro.sample("x", dist.Normal(MEANS[component(n)], 1.0))


def test_an_enumerated_site_is_summed_out() -> None:
    assert torch.allclose(weigh(mixture, X).rows, JOINT.logsumexp(0))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.uint8])
def test_an_enumerated_site_that_is_observed_is_not(dtype: torch.dtype) -> None:
    """Levels index tables whatever their dtype; bytes would be taken for a mask."""
    k = torch.tensor([0, 2, 1])
    rows = weigh(mixture, {"x": X, "k": k.to(dtype)}).rows
    assert torch.allclose(rows, JOINT.gather(0, k[None])[0])


def test_labels_of_some_rows_only() -> None:
    rows = weigh(mixture, {"x": X, "k": torch.tensor([0.0, NAN, 1.0])}).rows
    expected = torch.stack([JOINT[0, 0], JOINT[:, 1].logsumexp(0), JOINT[1, 2]])
    assert torch.allclose(rows, expected)


def test_a_one_hot_label_of_which_some_cells_are_missing() -> None:
    """That k is not 0 is known, whether it is 1 or 2 is not."""

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            k = pyro.sample(
                "k", dist.OneHotCategorical(P.expand(n, 3)), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(k @ MEANS, 1.0))

    label = torch.tensor([[0.0, NAN, NAN], [0.0, 1.0, NAN], [NAN, NAN, NAN]])
    rows = weigh(model, {"x": X, "k": label}).rows
    expected = [JOINT[1:, 0].logsumexp(0), JOINT[1, 1], JOINT[:, 2].logsumexp(0)]
    assert torch.allclose(rows, torch.stack(expected))


def test_the_guides_draw_goes_before_enumeration() -> None:
    def guide(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("k", dist.Categorical(torch.tensor([0.0, 1.0, 0.0]).expand(n, 3)))

    assert torch.allclose(weigh(mixture, X, guide).rows, JOINT[1], atol=1e-4)


def test_two_enumerated_sites_with_a_shared_child() -> None:
    """u -> v, (u, v) -> x: four terms a row, and draws with the right joint frequencies."""
    table, means = torch.tensor([[0.1, 0.9], [0.6, 0.4]]), torch.tensor([[-1.0, 0.0], [1.0, 3.0]])

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            u = pyro.sample("u", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            v = pyro.sample("v", dist.Categorical(table[u.long()]), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(means[u.long(), v], 1.0))

    prior = torch.tensor([0.7, 0.3]).log()[:, None] + table.log()
    joint = prior[..., None] + dist.Normal(means[..., None], 1.0).log_prob(X)
    assert torch.allclose(weigh(model, X).rows, joint.flatten(0, 1).logsumexp(0))
    weight = weigh(model, X[1:2], particles=8000, enumerated="draw")
    u, v = weight.values["u"][:, 0].long(), weight.values["v"][:, 0]
    count = torch.bincount(2 * u + v, minlength=4).double()
    expected = 8000 * joint[..., 1].flatten().double().softmax(0)
    assert stats.chisquare(count.numpy(), expected.numpy()).pvalue > 1e-4


def test_enumerated_sites_in_a_plate_inside_the_rows() -> None:
    """Two independent components a row, each with its own cell of x."""

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            with pyro.plate("cells", 2, dim=-2):
                k = component(n)
                z = pyro.sample("z", dist.Normal(MEANS[k], 1.0))
            pyro.sample("x", dist.Normal(z.movedim(-2, -1), 0.01).to_event(1))

    def guide(self: pgm.Model, n: int, x: Tensor) -> None:
        with pgm.rows(n), pyro.plate("cells", 2, dim=-2):
            pyro.sample("z", dist.Normal(x.T, 0.01))

    x = torch.stack([X, X.flip(0)], -1)
    weight = weigh(model, x, guide, particles=500, enumerated="draw")
    exact = JOINT.logsumexp(0)
    estimate = weight.rows.logsumexp(0) - torch.tensor(500.0).log()
    assert torch.allclose(estimate, exact + exact.flip(0), atol=0.05)
    assert weight.values["k"].shape == weight.values["z"].shape == (500, 3, 2)


def test_masks_hide_a_row_wholly_also_where_a_site_is_enumerated() -> None:
    """A hidden row weighs 0, and not the logarithm of the number of components."""
    seen = torch.tensor([True, False, True])

    def model(self: pgm.Model, n: int) -> None:
        with pyro.poutine.mask(mask=seen):
            mixture(self, n)

    def by_distribution(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            k = pyro.sample(
                "k", dist.Categorical(P.expand(n, 3)).mask(seen), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(MEANS[k], 1.0).mask(seen))

    expected = torch.where(seen, JOINT.logsumexp(0), 0.0)
    assert torch.allclose(weigh(model, X).rows, expected, atol=1e-6)
    assert torch.allclose(weigh(by_distribution, X).rows, expected, atol=1e-6)


def test_scales_masks_factors_and_deterministic_sites() -> None:
    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            with pyro.poutine.scale(scale=3.0):
                x = pyro.sample("x", dist.Normal(0.0, 1.0))
            with pyro.poutine.mask(mask=torch.tensor([True, False, True])):
                pyro.sample("y", dist.Normal(1.0, 1.0))
            pyro.factor("f", torch.tensor([0.5, 0.25, 0.0]))
            pyro.deterministic("twice", 2 * x)
        pyro.factor("prior", torch.tensor(-7.0))

    weight = weigh(model, {"x": X, "y": X})
    x, y = (dist.Normal(mu, 1.0).log_prob(X) for mu in (0.0, 1.0))
    kept = torch.tensor([1.0, 0.0, 1.0])
    assert torch.allclose(weight.rows, 3 * x + kept * y + torch.tensor([0.5, 0.25, 0.0]))
    assert weight.shared == -7.0
    assert torch.equal(weight.values["twice"], 2 * X)


def test_a_scaled_enumerated_site_is_refused() -> None:
    def model(self: pgm.Model, n: int) -> None:
        with pyro.poutine.scale(scale=2.0):
            mixture(self, n)

    with pytest.raises(Unsupported, match="'k' is enumerated under a scale"):
        weigh(model, X)


def test_an_enumerated_site_outside_the_rows_is_refused() -> None:
    def model(self: pgm.Model, n: int) -> None:
        k = pyro.sample("k", dist.Categorical(P), infer={"enumerate": "parallel"})
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(MEANS[k], 1.0))

    with pytest.raises(Unsupported, match=r"'k'.*outside `rows`"):
        weigh(model, X)


def test_scores_know_neither_scales_nor_masks() -> None:
    """The gradient of E_q needs log q of what was drawn, whatever weight the site has."""

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            b = pyro.sample("b", dist.Bernoulli(torch.full((n,), 0.5)))
            pyro.sample("x", dist.Normal(b, 1.0))

    def guide(self: pgm.Model, n: int) -> None:
        hidden = pyro.poutine.mask(mask=torch.tensor(False))
        with pgm.rows(n), pyro.poutine.scale(scale=3.0), hidden:
            pyro.sample("b", dist.Bernoulli(torch.full((n,), 0.25)))

    weight = weigh(model, X, guide)
    assert torch.allclose(weight.score_rows, dist.Bernoulli(0.25).log_prob(weight.values["b"]))


@pytest.mark.parametrize(
    "b", [[1, 0, 1], [True, False, True], [1.0, 0.0, 1.0], [1.0, NAN, 1.0]], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bernoulli_takes_whole_numbers_of_any_dtype(b: list[Any], dtype: torch.dtype) -> None:
    probs = torch.tensor(0.25, dtype=dtype)

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            b = pyro.sample("b", dist.Bernoulli(probs.expand(n)))
            pyro.sample("cells", dist.Bernoulli(probs.expand(n, 1)).to_event(1))
            pyro.sample("x", dist.Normal(1 - b, 1.0))

    rows = weigh(model, {"b": torch.tensor(b), "cells": torch.tensor(b)[:, None]}).rows
    seen = torch.tensor([1.0, float(b[1] == b[1]), 1.0])
    expected = seen * 2 * torch.tensor([0.25, 0.75, 0.25]).log()
    assert torch.allclose(rows.float(), expected)


def factorised(self: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        pyro.sample("x", dist.Normal(torch.zeros(n, 3), 1.0).to_event(1))
        y = pyro.sample("y", dist.Normal(torch.zeros(n), 1.0))
        pyro.sample("k", dist.Categorical(P.expand(n, 3)))
        pyro.deterministic("twice", 2 * y)
        with pyro.plate("parts", 3, dim=-2):
            pyro.sample("inner", dist.Normal(torch.zeros(3, n), 1.0))
    pyro.sample("theta", dist.Normal(torch.zeros(n), 1.0).to_event(1))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"x": torch.zeros(3, 1)}, r"'x' have shape \(n, 1\).*shape \(3,\)"),
        ({"x": torch.zeros(3)}, r"'x' have shape \(n\)"),
        ({"y": torch.zeros(3, 1)}, r"'y' have shape \(n, 1\)"),
        ({"y": torch.zeros(3, 3)}, r"'y' have shape \(n, 3\)"),
        ({"inner": torch.zeros(3, 3)}, r"'inner', which stands in a plate"),
        ({"theta": torch.zeros(3)}, r"'theta', which stands outside `rows`"),
        ({"twice": torch.zeros(3)}, r"'twice', which is computed"),
        ({"z": torch.zeros(3)}, r"'z', which Toy does not know.*x, y, k"),
        ({"x_seen": torch.ones(3, 3, dtype=torch.bool)}, r"'x_seen'"),
        ({"k": torch.tensor([0.0, 0.5, 1.0])}, r"'k' hold 0.5"),
        ({"k": torch.tensor([0.0, 0.5, NAN])}, r"'k' hold 0.5.*whole"),
        ({"k": torch.tensor([0, 1, 7])}, r"'k'.*support"),
        ({"k": torch.tensor([0.0, 7.0, NAN])}, r"'k'.*support"),
    ],
)
def test_data_that_would_be_repeated_ignored_or_rounded_are_refused(data: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        weigh(factorised, data)


def test_a_label_that_is_no_whole_number_is_refused_where_it_is_enumerated() -> None:
    with pytest.raises(ValueError, match=r"'k' hold 1.5"):
        weigh(mixture, {"x": X, "k": torch.tensor([0.0, 1.5, NAN])})


def latent(self: pgm.Model, n: int) -> None:
    with pgm.rows(n):
        z = pyro.sample("z", dist.Normal(torch.zeros(n, 1), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.squeeze(-1), 1.0))


def test_a_guides_draw_of_another_event_shape_is_refused() -> None:
    """Of shape (n,) for an event (1,), its density under the prior would be an (n, n) table."""

    def guide(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(torch.zeros(n), 1.0))

    with pytest.raises(ValueError, match=r"'z' has shape \(3,\).*to_event"):
        weigh(latent, X, guide)


def test_a_guide_that_draws_what_the_batch_has_is_refused() -> None:
    def guide(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(torch.zeros(n, 1), 1.0).to_event(1))

    with pytest.raises(ValueError, match=r"'z', and the guide draws it too"):
        weigh(latent, {"x": X, "z": torch.zeros(3, 1)}, guide)


def test_a_guides_site_that_the_model_lacks_or_has_elsewhere_is_refused() -> None:
    def unknown(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(torch.zeros(n, 1), 1.0).to_event(1))
            pyro.sample("w", dist.Normal(torch.zeros(n), 1.0))

    def outside(self: pgm.Model, n: int) -> None:
        pyro.sample("z", dist.Normal(torch.zeros(n, 1), 1.0).to_event(2))

    with pytest.raises(ValueError, match=r"'w', which the model does not have"):
        weigh(latent, X, unknown)
    with pytest.raises(ValueError, match=r"shape|outside `rows`"):
        weigh(latent, X, outside)


def test_a_dimension_that_is_no_plate_is_refused() -> None:
    """Without .to_event every row would be given the sum over all rows."""

    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(torch.zeros(n, 1), 1.0))

    with pytest.raises(ValueError, match=r"'x' has log densities of shape \(3, 3\)"):
        weigh(model, X)


def test_upstream_are_the_draws_that_a_later_term_can_feel() -> None:
    def model(self: pgm.Model, n: int) -> None:
        with pgm.rows(n):
            a = pyro.sample("a", dist.Normal(torch.zeros(n), 1.0))
            b = pyro.sample("b", dist.Normal(a, 1.0))
            c = pyro.sample("c", dist.Normal(b, 1.0))
            pyro.deterministic("d", c)

    toy = type("Toy", (pgm.Model,), {"model": model})()

    def upstream(**data: list[float]) -> list[str]:
        with Run(observed=as_batch(data)) as run:
            toy.model(2)
        return [site.name for site in run.upstream]

    assert upstream(a=[1.0, 1.0]) == []
    assert upstream(a=[1.0, NAN]) == []
    assert upstream(b=[1.0, 1.0]) == ["a"]
    assert upstream(c=[1.0, NAN]) == ["a", "b"]
    assert upstream(a=[1.0, NAN], b=[NAN, 1.0]) == ["a"]
    assert upstream(a=[1.0, NAN], b=[NAN, 1.0], c=[1.0, 1.0]) == ["a", "b"]


def test_a_run_gives_observes_and_draws_in_that_order() -> None:
    toy = type("Toy", (pgm.Model,), {"model": factorised})()
    with Run({"k": torch.tensor([1, 1])}, observed=Batch(y=torch.tensor([3.0, 4.0]))) as run:
        toy.model(2)
    assert list(run.sites) == ["x", "y", "k", "twice", "inner", "theta"]
    assert run.sites["k"].value.tolist() == [1, 1]
    assert run.sites["twice"].value.tolist() == [6.0, 8.0]
    assert [name for name, site in run.sites.items() if site.drawn is not None] == [
        "x",
        "inner",
        "theta",
    ]
    assert not run.sites["theta"].rows
    assert run.sites["inner"].plates == frozenset({-2})


def test_rows_is_pyros_plate() -> None:
    """With the indices of all rows, and the same draws as pyro.plate gives."""
    pyro.set_rng_seed(0)
    with pyro.plate("rows", 3, dim=-1):
        plain = pyro.sample("x", dist.Normal(0.0, 1.0))
    pyro.set_rng_seed(0)
    with pgm.rows(3) as index:
        ours = pyro.sample("x", dist.Normal(0.0, 1.0))
    assert index.tolist() == [0, 1, 2]
    assert torch.equal(ours, plain)
