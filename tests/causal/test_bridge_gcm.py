"""Models there and back: dowhy.gcm's own answers are ours, and ours are gcm's."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch

import causal
import pgm
from causal import SCM, LinearGaussian
from causal.assess import evaluate
from causal.bridge import falsify_by_permutation, from_gcm, to_gcm
from causal.bridge.gcm import as_gcm_frame
from causal.bridge.late import dowhy

gcm = dowhy("gcm")


def test_importing_dowhy_leaves_the_display_of_the_session_alone() -> None:
    """A session of its own: SymPy, once installed, stays for the whole process."""
    code = (
        "import sys; hook = sys.displayhook; from causal.bridge.late import dowhy; dowhy(); "
        "assert sys.displayhook is hook"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_counterfactuals_of_an_exported_model_are_ours(linear: SCM) -> None:
    """The unit of the README, (1, 2, -1, .5, 3) under do(B=0): (1, 0, .6, -.1, 4)."""
    seen = pd.DataFrame([[1.0, 2.0, -1.0, 0.5, 3.0]], columns=list("ABCDE"))
    made = to_gcm(linear)
    assert isinstance(made, gcm.InvertibleStructuralCausalModel)
    theirs = gcm.counterfactual_samples(made, {"B": lambda b: 0.0 * b}, observed_data=seen)
    assert theirs[list("ABCDE")].to_numpy()[0] == pytest.approx([1, 0, 0.6, -0.1, 4.0], abs=1e-6)


def test_units_and_draws_of_an_exported_model() -> None:
    """y = 100 + 20 z, standardised in the model: gcm sees the frame's unit."""
    frame = pd.DataFrame({"x": np.random.default_rng(0).normal(50, 5, size=400)})
    frame["y"] = 2 * frame.x + np.random.default_rng(1).normal(0, 3, size=400)
    scm = SCM("x -> y", schema=pgm.Schema.infer(frame))
    causal.estimate(scm, frame)
    made = to_gcm(scm)
    with pgm.seeded(0):
        drawn = gcm.draw_samples(made, 20_000)
    assert drawn.mean().to_numpy() == pytest.approx(
        frame.mean()[drawn.columns].to_numpy(), rel=0.01
    )
    assert drawn.cov().loc["x", "y"] == pytest.approx(frame.cov().loc["x", "y"], rel=0.05)
    heard = as_gcm_frame(scm, frame)
    noise = made.causal_mechanism("y").estimate_noise(frame.y.to_numpy(), heard[["x"]].to_numpy())
    back = made.causal_mechanism("y").evaluate(heard[["x"]].to_numpy(), noise)
    assert back.ravel() == pytest.approx(frame.y.to_numpy(), rel=1e-4)
    assert noise.std() == pytest.approx(1, abs=0.01)


def test_levels_are_strings_with_their_probabilities(
    stones: dict[str, torch.Tensor], stones_scm: SCM
) -> None:
    causal.estimate(stones_scm, stones)
    made = to_gcm(stones_scm)
    assert not isinstance(made, gcm.InvertibleStructuralCausalModel)
    success = made.causal_mechanism("success")
    parents = np.array([["small", "open"], ["large", "percutaneous"]], dtype=object)
    assert success.estimate_probabilities(parents)[:, 1] == pytest.approx([81 / 87, 55 / 80])
    with pgm.seeded(0):
        drawn = gcm.draw_samples(made, 5000)
    assert set(drawn["size"]) == {"small", "large"}
    assert (drawn["success"] == "1").mean() == pytest.approx(562 / 700, abs=0.02)


def test_counts_are_drawn_and_not_inverted() -> None:
    """y ~ Poisson(exp(.5 + x)) with x = 1: mean e^1.5; its noise is left open by a row."""
    scm = SCM("x -> y", x=LinearGaussian(), y=causal.Poisson({"x": 1.0}, intercept=0.5))
    made = to_gcm(scm)
    assert not isinstance(made, gcm.InvertibleStructuralCausalModel)
    with pgm.seeded(0):
        drawn = made.causal_mechanism("y").draw_samples(np.ones((4000, 1)))
    assert drawn.mean() == pytest.approx(np.exp(1.5), rel=0.05)
    assert (drawn == drawn.round()).all()
    found = evaluate(scm, pgm.sample(scm, 500, seed=0), seed=0)
    assert found.misfits == {}


def fitted(frame: pd.DataFrame, graph: str, **mechanisms: object) -> object:
    made = gcm.InvertibleStructuralCausalModel(causal.as_graph(graph))
    if any(isinstance(m, gcm.ClassifierFCM) for m in mechanisms.values()):
        made = gcm.StructuralCausalModel(causal.as_graph(graph))
    for node, mechanism in mechanisms.items():
        made.set_causal_mechanism(node, mechanism)
    gcm.config.disable_progress_bars()
    gcm.fit(made, frame)
    return made


def curved() -> tuple[pd.DataFrame, object]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    z = rng.normal(size=400)
    frame = pd.DataFrame({"z": z, "x": x, "y": x**2 - z + 0.2 * rng.exponential(size=400)})
    made = fitted(
        frame, "x -> y; z -> y", x=gcm.EmpiricalDistribution(), z=gcm.EmpiricalDistribution(),
        y=gcm.AdditiveNoiseModel(gcm.ml.create_polynom_regressor()),
    )  # fmt: skip
    return frame, made


def test_counterfactuals_of_an_imported_model_are_gcms() -> None:
    """A polynomial with empirical noise, rows seen, do(x=1)."""
    frame, made = curved()
    rows = frame[:20]
    theirs = gcm.counterfactual_samples(made, {"x": lambda x: 0 * x + 1.0}, observed_data=rows)
    scm = from_gcm(made).double()
    ours = causal.counterfactual(scm, rows, do={"x": 1.0})
    assert ours.exact
    assert ours.draws["y"][0].numpy() == pytest.approx(theirs["y"].to_numpy(), abs=1e-5)
    assert "AdditiveNoiseModel of dowhy.gcm" in str(scm)


def test_an_imported_model_is_sampled_with_a_seed_and_has_no_density() -> None:
    frame, made = curved()
    scm = from_gcm(made).double()
    first, again = (pgm.sample(scm, 4000, seed=1) for _ in range(2))
    assert torch.equal(first["y"], again["y"])
    assert float(first["y"].mean()) == pytest.approx(frame.y.mean(), abs=0.1)
    assert set(first["x"].tolist()) <= set(frame.x.tolist())
    found = causal.effect(scm, "y", do={"x": 2.0}, versus={"x": 0.0}, draws=2000, seed=0)
    assert float(found.difference) == pytest.approx(4.0, abs=0.2)
    with pytest.raises(NotImplementedError, match="has no "):
        pgm.log_prob(scm, frame[:5])


def test_an_imported_classifier_has_its_probabilities_and_labels() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=500)
    y = np.where(rng.random(500) < 1 / (1 + np.exp(-2 * x)), "yes", "no")
    made = fitted(
        pd.DataFrame({"x": x, "y": y}), "x -> y", x=gcm.EmpiricalDistribution(),
        y=gcm.ClassifierFCM(gcm.ml.create_logistic_regression_classifier()),
    )  # fmt: skip
    scm = from_gcm(made).double()
    at = np.array([[0.5], [-1.0]])
    theirs = made.causal_mechanism("y").estimate_probabilities(at)
    ours = scm.mechanism("y").dist({"x": torch.tensor(at[:, 0])}).probs
    assert ours.numpy() == pytest.approx(theirs)
    found = causal.effect(scm, "y", do={"x": 1.0}, versus={"x": -1.0}, draws=4000, seed=0)
    assert found.levels == ("no", "yes")
    assert float(found.difference[1]) > 0.6


def test_what_is_no_structural_equation_is_refused() -> None:
    made = gcm.StructuralCausalModel(causal.as_graph("x -> y"))
    with pytest.raises(ValueError, match="'x' has no fitted mechanism"):
        from_gcm(made)


def diamond(n: int = 300) -> pd.DataFrame:
    e = np.random.default_rng(0).normal(size=(5, n))
    a = e[0]
    b, c = a + e[1], e[2] - a
    d = b + c + e[3]
    return pd.DataFrame({"A": a, "B": b, "C": c, "D": d, "E": d + e[4]})


def test_a_graph_against_shuffled_graphs() -> None:
    """The true graph is better than all but its equivalents; a reversed hub is not."""
    frame = diamond()
    right = falsify_by_permutation("A -> {B C} -> D -> E", frame, permutations=60, seed=0)
    assert not right.rejected
    assert right.informative
    assert right.p <= 0.05
    wrong = falsify_by_permutation("B -> {A E} -> C; D", frame, permutations=60, seed=0)
    assert wrong.violations > right.violations
    assert wrong.p > 0.05
    again = falsify_by_permutation("A -> {B C} -> D -> E", frame, permutations=60, seed=0)
    assert str(again) == str(right)
    with pytest.raises(ValueError, match="without latent"):
        falsify_by_permutation("A -> B; A <-> B", frame)


def test_mechanisms_are_copied() -> None:
    scm = SCM("x -> y", y=LinearGaussian({"x": 2.0}), x=LinearGaussian())
    made = to_gcm(scm)
    clone = made.causal_mechanism("y").clone()
    clone.fit(np.array([[0.0], [1.0], [2.0]]), np.array([0.0, 5.0, 10.5]))
    assert scm.mechanism("y").weight.item() == 2.0
    assert made.causal_mechanism("y").evaluate(np.ones((1, 1)), np.zeros(1)).item() == 2.0
