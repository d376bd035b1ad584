"""Effects from a table and a graph: closed forms, enumeration, LaLonde's experiment, refusals."""

import networkx as nx
import numpy as np
import pandas as pd
import pytest

import pgm.data
from causal.bridge import adjust, sensitivity
from causal.bridge.estimators import Method, first_stage
from causal.bridge.late import dowhy
from causal.bridge.matching import matched
from causal.bridge.overlap import Units, propensity_model
from causal.bridge.strategy import plan

ARMS: list[Method] = ["regression", "weighting", "matching", "stratification", "doubly robust"]


def latent(graph: str | list[tuple[str, str]], *hidden: str) -> nx.DiGraph:
    made = nx.DiGraph(graph)
    nx.set_node_attributes(made, dict.fromkeys(hidden, True), "latent")
    return made


def confounded(n: int = 4000, seed: int = 0) -> pd.DataFrame:
    """P(t | w) = (1 + 2 w) / 4 for w in {0, 1}; y = w + t (1 + 2 w) + noise: 1 and 3 by w.

    E w = 1/2, P(w | t=1) = 3/4, P(w | t=0) = 1/4: ate 2, att 2.5, atc 1.5, difference of means 3.
    """
    rng = np.random.default_rng(seed)
    w = rng.integers(2, size=n)
    t = rng.random(n) < (1 + 2 * w) / 4
    y = w + t * (1 + 2 * w) + 0.1 * rng.normal(size=n)
    return pd.DataFrame({"w": w, "t": t, "y": y})


WTY = "w -> {t y}; t -> y"


@pytest.mark.parametrize("method", [m for m in ARMS if m != "stratification"])
@pytest.mark.parametrize(("units", "truth"), [("ate", 2.0), ("att", 2.5), ("atc", 1.5)])
def test_every_method_averages_over_the_units_asked_for(
    method: Method, units: Units, truth: float
) -> None:
    """Within a stratum of w all is known; sampled shares of w leave an error of .03."""
    frame = confounded()
    found = adjust(
        frame, WTY, treatment="t", outcome="y", do=True, versus=False, method=method,
        units=units, refits=40, seed=0,
    )  # fmt: skip
    assert found.value == pytest.approx(truth, abs=0.06)
    assert found.lower < truth < found.upper


def test_enumeration_over_levels() -> None:
    """sum_w P(w) (E[y | 1, w] - E[y | 0, w]) from the table itself, for labels of any kind."""
    rng = np.random.default_rng(1)
    w = rng.choice(["a", "b", "c"], size=3000, p=[0.2, 0.3, 0.5])
    t = np.where(rng.random(3000) < np.where(w == "a", 0.3, 0.6), "drug", "none")
    y = (rng.random(3000) < 0.2 + 0.3 * (t == "drug") * (w != "b")).astype(int)
    frame = pd.DataFrame({"w": pd.Categorical(w), "t": t, "y": y})
    means = frame.groupby(["w", "t"], observed=True).y.mean().unstack()
    truth = float((frame.w.value_counts(normalize=True) * (means.drug - means.none)).sum())
    for method in ("regression", "weighting", "doubly robust"):
        found = adjust(
            frame, WTY, treatment="t", outcome="y", do="drug", versus="none", method=method,
            refits=40, seed=0,
        )  # fmt: skip
        assert found.value == pytest.approx(truth, abs=1e-4)


def test_the_frame_is_left_alone_and_a_seed_repeats_the_interval() -> None:
    frame = confounded(300)
    before = frame.copy(deep=True)
    ask = {"treatment": "t", "outcome": "y", "do": True, "versus": False, "refits": 40, "seed": 3}
    for method in ARMS[:3]:
        first, again = (adjust(frame, WTY, method=method, **ask) for _ in range(2))
        assert (first.lower, first.upper) == (again.lower, again.upper)
        pd.testing.assert_frame_equal(frame, before)


def test_the_front_door_with_a_contrast_of_two() -> None:
    """x = u + e, m = .5 x + e, y = 2 m + 3 u + e: do(x=2) against do(x=0) is 2 * .5 * 2 = 2."""
    rng = np.random.default_rng(0)
    u, *e = rng.normal(size=(4, 20_000))
    x = u + e[0]
    m = 0.5 * x + e[1]
    frame = pd.DataFrame({"x": x, "m": m, "y": 2 * m + 3 * u + e[2]})
    graph = latent([("u", "x"), ("u", "y"), ("x", "m"), ("m", "y")], "u")
    found = adjust(frame, graph, treatment="x", outcome="y", do=2, versus=0, refits=40, seed=0)
    assert found.strategy.kind == found.estimator.method == "front door"
    assert found.value == pytest.approx(2.0, abs=0.12)
    assert found.lower < 2 < found.upper


@pytest.mark.parametrize("several", [0, 1])
def test_instruments_are_two_stage_least_squares(several: int) -> None:
    """Against the textbook formula, means far from zero; the effect of do(x=3) against 1 is 3."""
    rng = np.random.default_rng(0)
    u, w, z1, z2, *e = rng.normal(size=(6, 5000))
    z = z1 + w + 5
    x = z + 0.5 * several * z2 + u + 2 + e[0]
    frame = pd.DataFrame({"w": w, "z": z, "z2": z2, "x": x, "y": 1.5 * x + 2 * u + w + 10 + e[1]})
    arrows = [("w", "z"), ("w", "y"), ("z", "x"), ("u", "x"), ("u", "y"), ("x", "y")]
    graph = latent([*arrows, *([("z2", "x")] if several else [])], "u")
    found = adjust(frame, graph, treatment="x", outcome="y", do=3, versus=1, refits=40, seed=0)
    assert found.strategy.kind == "instrument"
    assert found.strategy.adjust == ("w",)
    assert len(found.strategy.instruments) == 1 + several
    names = [*found.strategy.instruments, "w"]
    Z = np.column_stack([np.ones(5000), frame[names]])
    X = np.column_stack([np.ones(5000), frame.x, frame.w])
    fitted = Z @ np.linalg.lstsq(Z, X, rcond=None)[0]
    slope = np.linalg.lstsq(fitted, frame.y, rcond=None)[0][1]
    assert found.value == pytest.approx(2 * slope, rel=1e-6)
    assert found.value == pytest.approx(3.0, abs=0.15)
    assert found.first_stage == pytest.approx(first_stage(found.table))
    assert "those whom the instrument moves" in str(found)


def test_a_binary_instrument_of_any_coding_is_walds_ratio() -> None:
    rng = np.random.default_rng(0)
    z = rng.integers(1, 3, size=2000)
    u = rng.normal(size=2000)
    x = (u + z + rng.normal(size=2000) > 1.5).astype(int)
    frame = pd.DataFrame({"z": z, "x": x, "y": 2.0 * x + u})
    graph = latent([("z", "x"), ("u", "x"), ("u", "y"), ("x", "y")], "u")
    found = adjust(frame, graph, treatment="x", outcome="y", refits=40, seed=0)
    by = frame.groupby("z").mean()
    assert found.value == pytest.approx((by.y[2] - by.y[1]) / (by.x[2] - by.x[1]))


@pytest.mark.parametrize("units", ["ate", "att", "atc"])
def test_matching_without_ties_is_dowhys(units: Units) -> None:
    """Its own functions, asked without our bridge, on a treatment that depends on a number."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=400)
    t = (w + rng.logistic(size=400) > 0).astype(int)
    frame = pd.DataFrame({"w": w, "t": t, "y": w + t * (1 + w) + rng.normal(size=400)})
    found = adjust(frame, WTY, treatment="t", outcome="y", method="matching", units=units, seed=0)
    target = dowhy("causal_identifier").IdentifiedEstimand(
        None, ["t"], ["y"], backdoor_variables={"backdoor": ["w"]}, identifier_method="backdoor"
    )
    model = propensity_model()
    module = dowhy("causal_estimators.propensity_score_matching_estimator")
    theirs = module.PropensityScoreMatchingEstimator(target, propensity_score_model=model)
    value = theirs.fit(frame.copy()).estimate_effect(frame.copy(), target_units=units).value
    assert found.value == pytest.approx(value, rel=1e-6)


def test_the_interval_of_matching_covers() -> None:
    """80 samples, the effect is 1: of 90 % intervals about 72 cover it, +- 8 by the binomial."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(80):
        w = rng.normal(size=300)
        t = w + rng.logistic(size=300) > 0
        y = w + t + rng.normal(size=300)
        value, error = matched(y, t, 1 / (1 + np.exp(-w)), "ate")
        covered += abs(value - 1) < 1.645 * error
    assert 64 <= covered <= 79


NSW = {"treatment": "treat", "outcome": "re78", "units": "att", "refits": 40, "seed": 0}


def test_nsw_experiment_and_naive_difference() -> None:
    """LaLonde (1986), Dehejia & Wahba (1999): 1794.34 by the experiment, -8497.5 by the survey."""
    data = pgm.data.load("nsw")
    for split, truth in (("experiment", 1794.34), ("observed", -8497.5)):
        frame = data.split(split).frame
        found = adjust(frame, "treat -> re78", method="regression", **NSW)
        assert found.value == pytest.approx(truth, abs=0.05)


@pytest.mark.parametrize("method", ARMS)
def test_nsw_adjusted_and_trimmed_is_near_the_experiment(method: Method) -> None:
    data = pgm.data.load("nsw")
    frame, graph = data.split("observed").frame, data.graph()
    found = adjust(frame, graph, method=method, trim=(0.1, 0.9), **NSW)
    assert 800 <= found.value <= 2600
    assert found.lower < 1794.34 < found.upper
    assert found.left_out == len(frame) - len(found.table.frame) > 15_000
    printed = str(found)
    assert printed.startswith("Overlap: propensity\n  treated ")
    assert f"{found.left_out} of 16177 rows left out" in printed
    assert "and not of the treated rows" in printed
    before, after = found.before, found.overlap
    assert before is not None and after is not None
    assert before.outside > 0.9 > 0.1 > after.outside
    assert before.ess[1] < 500 < 15_992 == len(before.untreated)
    assert any("hardly a counterpart" in worry for worry in before.worries)


def test_nothing_is_clipped_or_dropped_in_silence() -> None:
    """Weights by hand from unclipped propensities; strata that lack an arm are refused."""
    data = pgm.data.load("nsw")
    frame = data.split("observed").frame
    found = adjust(frame, data.graph(), method="weighting", **NSW)
    e, y = found.overlap.untreated.numpy(), frame[frame.treat == 0].re78.to_numpy()
    control = np.average(y, weights=e / (1 - e))
    assert found.value == pytest.approx(frame[frame.treat == 1].re78.mean() - control, rel=1e-6)
    assert float(e.min()) < 0.001
    with pytest.raises(ValueError, match=r"strata, with \d+ rows .* hold one arm only.*trim="):
        adjust(frame, data.graph(), method="stratification", **NSW | {"units": "ate"})


def test_sensitivity_bound_is_attained_by_the_cause_that_was_left_out() -> None:
    """The bias of a regression without u, for the shares of variance that u explains."""
    rng = np.random.default_rng(0)
    u, w, v, e = rng.normal(size=(4, 4000))
    t = 0.7 * u + w + v
    frame = pd.DataFrame({"w": w, "u": u, "t": t, "y": 2 * t + 1.3 * u - w + e})
    full = adjust(frame, "{u w} -> {t y}; t -> y", treatment="t", outcome="y", method="regression",
        refits=40, seed=0)  # fmt: skip
    less = adjust(frame, WTY, treatment="t", outcome="y", method="regression", refits=40, seed=0)
    shares = sensitivity(full).covariates["u"]
    assert sensitivity(less).bias(*shares) == pytest.approx(abs(less.value - full.value), rel=0.05)
    r = sensitivity(less).robustness
    assert sensitivity(less).bias(r, r) == pytest.approx(abs(less.value))
    assert "would bring the effect from" in str(sensitivity(less))


@pytest.mark.parametrize(
    ("arrows", "kind", "given"),
    [
        ("z -> x -> y; w -> {z y}", "adjustment", ("w",)),  # optimal: the parent of y, not z
        ("x -> y; a -> {x m}; b -> {m y}", "adjustment", ("b",)),  # M-bias: never m
        ("x -> m -> y; w -> {m y}; x -> c; y -> c", "adjustment", ("w",)),
    ],
)
def test_strategies(arrows: str, kind: str, given: tuple[str, ...]) -> None:
    found = plan(arrows, "x", "y")
    assert (found.kind, found.adjust) == (kind, given)


def test_bad_input_is_explained() -> None:
    frame = confounded(200)
    ask = {"treatment": "t", "outcome": "y", "do": True, "versus": False, "refits": 40}
    bow = latent([("u", "t"), ("u", "y"), ("t", "y")], "u")
    apart = frame.assign(w=frame.t + 0.1 * np.arange(200) / 200)
    holes = frame.assign(w=frame.w.where(frame.index > 3))
    door = frame.assign(m=frame.t)
    cases = [
        (frame, bow, {}, "nor an instrument.*unseen: u.*It is not identifiable"),
        (door, "w -> {t m y}; t -> m -> y; t <-> y", {}, "It is identified, by .*P"),
        (frame, "y -> t", {}, "no directed path leads from 't' to 'y'"),
        (frame, WTY, {"given": []}, "non-causal path t <- w -> y is open: the estimate"),
        (
            frame.assign(c=frame.y),
            WTY + "; y -> c",
            {"given": ["c"]},
            "c is an effect of y, on a causal path",
        ),
        (apart, WTY, {}, "The arms do not overlap.*No row shows"),
        (holes, WTY, {}, "Cells of w are missing, in 4 of 200 rows"),
        (frame, WTY, {"do": 2}, "takes the values (True, False|False, True), but do=2"),
        (frame, WTY, {"trim": (0.9, 0.1)}, "two propensities"),
        (frame, WTY, {"refits": 10}, "at least 40"),
        (frame, WTY, {"method": "magic"}, "there are .regression."),
        (frame, WTY, {"units": "all"}, "there are .ate."),
        (frame.assign(y="ill"), WTY, {}, "The outcome 'y' is no number"),
        (frame[:0], WTY, {}, "has 0 rows"),
        (frame.assign(w=frame.index.map(str)), WTY, {}, "has 200 levels in 200 rows"),
        (frame.assign(t=True), WTY, {}, "'t' is True in every row"),
        (frame.drop(columns="w"), WTY, {}, "neither adjustment.*unseen: w"),
    ]
    for data, graph, more, message in cases:
        with pytest.raises(ValueError, match=message):
            adjust(data, graph, **ask | more)


def test_a_singular_design_is_refused_and_a_repeated_covariate_is_not() -> None:
    rng = np.random.default_rng(0)
    w, e = rng.normal(size=(2, 300))
    frame = pd.DataFrame({"w": w, "v": 2 * w, "t": 3 * w, "y": w + e})
    ask = {"treatment": "t", "outcome": "y", "refits": 40, "seed": 0}
    with pytest.raises(ValueError, match=r"do not determine the effect.*linear function"):
        adjust(frame, WTY, **ask)
    good = frame.assign(t=w + rng.normal(size=300))
    twice = adjust(good, "{w v} -> {t y}; t -> y", **ask)
    once = adjust(good, WTY, **ask)
    assert twice.value == pytest.approx(once.value)


def test_a_level_that_one_arm_lacks_is_refused_and_a_rare_one_told() -> None:
    """No treated row has w = c; in the second table two have, and few draws miss both."""
    frame = pd.DataFrame({"w": ["a", "b"] * 60 + ["c"] * 30, "t": [0, 1, 1, 0] * 30 + [0] * 30})
    frame["y"] = np.random.default_rng(0).normal(size=150) + frame.t
    ask = {"treatment": "t", "outcome": "y", "seed": 0}
    with pytest.raises(ValueError, match="treated rows do not determine what the others"):
        adjust(frame, WTY, **ask)
    with pytest.raises(ValueError, match="The rows do not determine the effect"):
        adjust(frame, WTY, method="regression", **ask)
    adjust(frame, WTY, units="att", refits=40, **ask)  # every treated row has a counterpart
    frame.loc[[120, 121, 122, 123], "t"] = 1
    rare = adjust(frame, WTY, refits=200, **ask)
    assert "had no estimate" in rare.source
