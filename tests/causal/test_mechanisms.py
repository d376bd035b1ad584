"""Mechanisms: their estimates are maxima of the likelihood, their posterior draws have its law."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import Tensor

from causal.mechanisms import CategoricalTable, Kind, LinearGaussian, LinearSoftmax, Mechanism


def likelihood(mechanism: Mechanism, x: Tensor, parents: dict[str, Tensor], w: Tensor) -> float:
    return (w * mechanism.dist(parents).log_prob(x)).sum().item()


def rows(seed: int, n: int = 60) -> tuple[dict[str, Tensor], Tensor, Tensor, Tensor]:
    """Parents a (a number) and t (3 levels), a number y, a binary z, and weights."""
    g = torch.Generator().manual_seed(seed)
    a, t = torch.randn(n, generator=g), torch.randint(3, (n,), generator=g)
    y = 1 + 2 * a - 0.5 * t + torch.randn(n, generator=g)
    z = (torch.rand(n, generator=g) < torch.sigmoid(a + t - 1)).long()
    return {"a": a, "t": t}, y, z, torch.rand(n, generator=g) + 0.1


@settings(max_examples=5)
@given(st.integers(0, 10_000))
def test_no_step_away_from_an_estimate_raises_the_likelihood(seed: int) -> None:
    parents, y, z, w = rows(seed)
    made: list[tuple[Mechanism, Tensor, dict[str, Tensor]]] = [
        (LinearGaussian.start({"a": Kind(), "t": Kind(levels=3)}, Kind()), y, parents),
        (LinearSoftmax.start({"a": Kind(), "t": Kind(levels=3)}, Kind(levels=2)), z, parents),
        (CategoricalTable.start({"t": Kind(levels=3)}, Kind(levels=2)), z, {"t": parents["t"]}),
    ]
    g = torch.Generator().manual_seed(seed)
    for mechanism, x, inputs in made:
        mechanism.estimate(x, inputs, w)
        best = likelihood(mechanism, x, inputs, w)
        for parameter in mechanism.parameters():
            step = 0.03 * torch.randn(parameter.shape, generator=g)
            parameter.data += step
            assert likelihood(mechanism, x, inputs, w) <= best + 1e-3
            parameter.data -= step


def test_least_squares_and_logistic_regression_agree_with_scikit_learn() -> None:
    parents, y, z, w = rows(0)
    X = torch.stack([parents["a"], parents["t"] == 1, parents["t"] == 2], 1).double().numpy()
    linear = LinearGaussian.start({"a": Kind(), "t": Kind(levels=3)}, Kind())
    linear.estimate(y, parents, w)
    theirs = LinearRegression().fit(X, y.numpy(), w.numpy())
    assert linear.dist(parents).mean.detach() == pytest.approx(theirs.predict(X), abs=1e-4)
    softmax = LinearSoftmax.start({"a": Kind(), "t": Kind(levels=3)}, Kind(levels=2))
    softmax.estimate(z, parents, w)
    theirs = LogisticRegression(C=1e6, tol=1e-8, max_iter=1000).fit(X, z.numpy(), w.numpy())
    ours = softmax.dist(parents).probs[:, 1].detach()
    assert ours == pytest.approx(theirs.predict_proba(X)[:, 1], abs=1e-2)


def test_a_table_draw_is_dirichlet_with_one_more_observation() -> None:
    """Gamma(n + 1/k) over their sum is Dirichlet(n + 1/k): compare mean and variance."""
    table = CategoricalTable.start({}, Kind(levels=3))
    x = torch.tensor([0, 0, 0, 1])
    alpha = torch.tensor([3.0, 1.0, 0.0]) + 1 / 3
    draws = []
    for _ in range(1000):
        table.resample(x, {}, torch.empty(4).exponential_())
        draws.append(table.logits.detach().softmax(-1))
    law = torch.distributions.Dirichlet(alpha)
    found = torch.stack(draws)
    assert (found.mean(0) - law.mean).abs().max() < 4 * (law.variance.max() / 1000).sqrt()
    assert found.var(0) == pytest.approx(law.variance, rel=0.3)


def test_what_never_occurs_stays_uniform_and_is_wide_in_the_posterior() -> None:
    table = CategoricalTable.start({"t": Kind(levels=2)}, Kind(levels=2))
    x, parents, w = torch.tensor([0, 1, 1, 1]), {"t": torch.zeros(4).long()}, torch.ones(4)
    table.estimate(x, parents, w)
    assert table.logits.softmax(-1).tolist() == [pytest.approx([0.25, 0.75]), [0.5, 0.5]]
    draws = []
    for _ in range(200):
        table.resample(x, parents, w)
        draws.append(table.logits.softmax(-1)[1, 0].item())
    assert min(draws) < 0.05
    assert max(draws) > 0.95


@pytest.mark.parametrize(
    ("parents", "message"),
    [
        ({"a": torch.ones(20), "b": torch.randn(20)}, "'a' is constant"),
        ({"a": torch.arange(20.0), "b": 2 * torch.arange(20.0) + 1}, "linearly dependent"),
        ({"a": torch.randn(20)[:2], "b": torch.randn(20)[:2]}, "2 rows for 3 weights"),
    ],
)
def test_a_singular_design_is_refused(parents: dict[str, Tensor], message: str) -> None:
    n = len(parents["a"])
    with pytest.raises(ValueError, match=message):
        LinearGaussian.start({"a": Kind(), "b": Kind()}, Kind()).estimate(
            torch.randn(n), parents, torch.ones(n)
        )


def test_a_level_that_never_occurs_is_refused_by_the_linear_mechanism() -> None:
    with pytest.raises(ValueError, match=r"levels \[2\] of 't' never occur"):
        LinearGaussian.start({"t": Kind(levels=3)}, Kind()).estimate(
            torch.randn(20), {"t": torch.arange(20) % 2}, torch.ones(20)
        )


def test_a_node_without_noise_is_refused() -> None:
    a = torch.randn(20)
    with pytest.raises(ValueError, match="no variance"):
        LinearGaussian.start({"a": Kind()}, Kind()).estimate(2 * a, {"a": a}, torch.ones(20))


def test_arguments_that_make_no_mechanism() -> None:
    with pytest.raises(ValueError, match="positive"):
        LinearGaussian(scale=0.0)
    with pytest.raises(ValueError, match="one number"):
        LinearGaussian({"a": [1.0]})
    with pytest.raises(ValueError, match="no probabilities"):
        CategoricalTable([0.5, 0.6])
    with pytest.raises(ValueError, match="2 axes for 0 parents"):
        CategoricalTable([[0.5, 0.5]])
    with pytest.raises(ValueError, match="one a level of the node"):
        LinearSoftmax({"a": [0.0, 1.0, 2.0]}, intercept=[0.0, 0.0])
    with pytest.raises(ValueError, match="far more than rows could fill"):
        CategoricalTable.start({str(i): Kind(levels=10) for i in range(8)}, Kind(levels=10))
    with pytest.raises(ValueError, match=r"3 levels, coded 0 \.\. 2, but holds 7"):
        CategoricalTable.start({}, Kind(levels=3)).estimate(torch.tensor([0, 7]), {}, torch.ones(2))
