"""Given evidence, in unusual worlds; the known answers are sums and products by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor

import pgm
from causal import (
    SCM,
    CategoricalTable,
    LinearGaussian,
    LinearSoftmax,
    condition,
    counterfactual,
    do,
)
from causal.mechanisms import LinearVector


def table() -> SCM:
    return SCM(
        "X -> Y",
        X=CategoricalTable([0.2, 0.3, 0.5]),
        Y=CategoricalTable([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]], parents=["X"]),
    )


def test_a_shifted_site_with_levels_is_drawn_and_not_summed_out() -> None:
    """X + 1 mod 3 is 0, 1, 2 with probability .5, .2, .3; P(Y = 1 | it) is .1, .5, .9."""
    model = do(table(), X=lambda value, parents: (value + 1) % 3)
    found = condition(model, {"Y": torch.tensor([1])}, particles=8000, seed=0)
    joint = torch.tensor([0.5 * 0.1, 0.2 * 0.5, 0.3 * 0.9])
    torch.testing.assert_close(found.mean()["X"][0], joint / joint.sum(), atol=0.03, rtol=0)


def leaf(node: str) -> SCM:
    """A -> B is linear-Gaussian; A has a child of another kind as well."""
    others: dict[str, Any] = {
        "V": LinearVector({"A": [1.0, 2.0]}, intercept=[0.0, 0.0]),
        "D": LinearSoftmax({"A": [1.0, 2.0, 0.0]}, intercept=[0.0, 0.0, 0.0]),
    }
    mechanisms = {"B": LinearGaussian({"A": 2.0}), node: others[node]}
    return SCM(f"A -> B; A -> {node}", A=LinearGaussian(), **mechanisms)


@pytest.mark.parametrize(
    ("node", "value", "mean"),
    [
        ("V", torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 2.0]])),
        ("D", 2, torch.tensor([[0.0, 0.0, 1.0]])),
    ],
)
def test_a_leaf_of_another_kind_that_is_set(node: str, value: Any, mean: Tensor) -> None:
    """A given B = 3 is N(6 / 5, 1 / 5) whatever the leaf is set to, which keeps its kind."""
    found = condition(do(leaf(node), {node: value}), {"B": 3.0}, particles=2000, seed=0).mean()
    torch.testing.assert_close(found[node].float(), mean)
    assert abs(float(found["A"]) - 1.2) < 0.03


def test_clamped_cells_of_observed_columns_under_another_mechanism() -> None:
    """`clamped` may have a column for each observed node alone, under `do` as without it."""
    C = LinearGaussian({"A": 2.0})
    scm = SCM("A -> C; U [latent]; U -> {A C}", C=LinearGaussian({"A": 0.0, "U": 0.0}))
    rows = {"A": torch.tensor([1.0]), "C": torch.tensor([3.0])}
    clamped = torch.tensor([[True, False]])
    found = pgm.log_prob(do(scm, C=C), {**rows, "clamped": clamped}, seed=0).value
    own = C.dist({"A": rows["A"]}).log_prob(rows["C"])
    torch.testing.assert_close(found, own, atol=1e-4, rtol=0)


def test_a_frame_of_some_columns_is_evidence_of_these() -> None:
    """What it lacks was not seen, as in a mapping of tensors in the model's numbers."""
    import pandas as pd

    schema = pgm.Schema({"A": pgm.Continuous(mean=10.0, std=2.0), "B": pgm.Continuous()})
    scm = SCM("A -> B", A=LinearGaussian(), B=LinearGaussian({"A": 2.0}), schema=schema)
    frame, coded = pd.DataFrame({"B": [3.0, 1.0]}), {"B": torch.tensor([3.0, 1.0])}
    read, told = condition(scm, frame), condition(scm, coded)
    torch.testing.assert_close(read.mean()["A"], told.mean()["A"])
    assert read.mean()["A"].tolist() == pytest.approx([1.2, 0.4])
    again = counterfactual(scm, frame, do={"A": 10.0}).mean()["B"]
    torch.testing.assert_close(again, torch.tensor([0.6, 0.2]), atol=1e-5, rtol=0)
    one = counterfactual(scm, {"B": 3.0}, do={"A": 10.0}).mean()["B"]
    torch.testing.assert_close(one, torch.tensor([0.6]), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="does not know: C"):
        condition(scm, frame.assign(C=1.0))


def test_a_set_site_is_shown_by_its_levels() -> None:
    """E of a site with levels is one-hot, whether it was set, seen or drawn."""
    found = condition(do(table(), X=2), {"Y": torch.tensor([1, 0])}, particles=10, seed=0)
    assert found.mean()["X"].tolist() == [[0.0, 0.0, 1.0]] * 2


def test_evidence_of_roots_alone_makes_no_tail() -> None:
    """All weights are p(z); what is left is the rounding of sums over d and b, no tail to gauge."""
    scm = SCM(
        "z -> {d x}; {d x} -> y; y -> b",
        z=LinearGaussian(),
        d=LinearSoftmax({"z": [0.13, 0.27, -0.6]}, intercept=[0.3, -0.2, 0.1]),
        x=LinearGaussian({"z": 0.3}),
        y=LinearGaussian({"x": 1.0, "d": [0.0, 1.0, 2.0]}),
        b=LinearSoftmax({"y": [1.7, 0.3]}, intercept=[0.0, 0.4]),
    )
    found = condition(scm, {"z": torch.linspace(-3, 3, 40)}, particles=200, seed=0)
    assert found.k is not None and bool(found.k.isnan().all())
    assert found.ess is not None and float(found.ess.min()) == pytest.approx(200, rel=1e-3)
