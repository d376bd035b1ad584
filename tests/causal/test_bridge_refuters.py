"""Refuters: sound estimates pass, unsound ones fail, and every draw is what it is said to be."""

from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import causal
import pgm
from causal import SCM, CategoricalTable
from causal.bridge import adjust, refute, refute_scm
from causal.bridge.refuters import HOWS, How

WTY = "w -> {t y}; t -> y"
ASK = {"treatment": "t", "outcome": "y", "refits": 40, "seed": 0}


def rows(n: int = 300, seed: int = 0, effect: float = 2.0) -> pd.DataFrame:
    """w confounds a treatment of two values."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=n)
    t = (w + rng.logistic(size=n) > 0).astype(int)
    return pd.DataFrame({"w": w, "t": t, "y": effect * t + 3 * w + rng.normal(size=n)})


@pytest.mark.parametrize(
    ("how", "method"), [*((how, "doubly robust") for how in HOWS), ("subset", "weighting")]
)
def test_a_sound_estimate_passes(how: How, method: str) -> None:
    found = adjust(rows(), WTY, method=method, **ASK)
    tried = refute(found, how, draws=40, seed=0)
    assert tried.passed
    assert tried.expected == (0.0 if how in ("placebo", "dummy outcome") else found.value)
    assert float(tried.draws.std()) > 0, "seeded, and still not the same draw each time"
    assert "as it should be" in str(tried)


def test_a_biased_estimator_fails_the_placebo() -> None:
    """An estimator that adds one whatever the data say."""
    found = adjust(rows(), WTY, method="doubly robust", **ASK)
    drawn = [refute(found, "placebo", draws=40, seed=0).draws.tolist() for _ in range(2)]
    assert drawn[0] == drawn[1] != refute(found, "placebo", draws=40, seed=1).draws.tolist()

    class Biased(type(found.estimator)):  # type: ignore[misc]
        def __call__(self, table: object) -> float:
            return super().__call__(table) + 1

    wrong = adjust(rows(), WTY, method="doubly robust", **ASK)
    object.__setattr__(wrong, "estimator", Biased("doubly robust"))
    for how in ("placebo", "dummy outcome"):
        told = refute(wrong, how, draws=40, seed=0)
        assert not told.passed
        assert "REFUTED" in str(told)


def test_front_door_and_instrument_can_be_refuted() -> None:
    rng = np.random.default_rng(0)
    u, z, *e = rng.normal(size=(5, 800))
    x = u + z + e[0]
    m = x + e[1]
    frame = pd.DataFrame({"z": z, "x": x, "m": m, "y": m + u + e[2]})
    graph = nx.DiGraph([("u", "x"), ("u", "y"), ("z", "x"), ("x", "m"), ("m", "y")])
    graph.nodes["u"]["latent"] = True
    ask = ASK | {"treatment": "x"}
    door = adjust(frame, graph, method="front door", **ask)
    assert refute(door, "placebo", draws=40, seed=0).passed
    valve = adjust(frame, graph, method="instrument", **ask)
    for how in ("subset", "dummy outcome", "random common cause"):
        assert refute(valve, how, draws=40, seed=0).passed
    with pytest.raises(ValueError, match="no longer moved by the instrument"):
        refute(valve, "placebo")


@pytest.mark.parametrize("how", ["placebo", "random common cause"])
def test_a_structural_model_is_estimated_again(how: How) -> None:
    frame = rows().astype({"t": float})
    scm = SCM(WTY, schema=pgm.Schema.infer(frame.astype({"t": "category"})))
    causal.estimate(scm, frame.astype({"t": "category"}))
    before = {k: v.clone() for k, v in scm.state_dict().items()}
    tried = refute_scm(
        scm, frame.astype({"t": "category"}), how, treatment="t", outcome="y", do=1.0, versus=0.0,
        draws=40, seed=0,
    )  # fmt: skip
    assert tried.passed
    assert tried.value == pytest.approx(2, abs=0.4)
    assert float(tried.draws.mean()) == pytest.approx(tried.expected, abs=0.2)
    assert all((v == before[k]).all() for k, v in scm.state_dict().items())


@pytest.mark.parametrize("how", ["placebo", "bootstrap"])
def test_a_treatment_of_labels(how: How) -> None:
    """Text is shuffled as codes are: the same draws."""
    told = {}
    for labels in ((0, 1), ("none", "high")):
        frame = rows(300)
        frame["t"] = np.array(labels, dtype=object if labels[0] else int)[frame["t"].astype(int)]
        level = pgm.Categorical(labels)
        schema = pgm.Schema({**pgm.Schema.infer(frame).columns, "t": level})
        scm = SCM(WTY, schema=schema)
        causal.estimate(scm, frame)
        ask: dict[str, Any] = {"treatment": "t", "outcome": "y", "draws": 40, "seed": 0}
        tried = refute_scm(scm, frame, how, do=labels[1], versus=labels[0], **ask)
        assert tried.passed and float(tried.draws.std()) > 0
        told[labels[1]] = tried.draws
    torch.testing.assert_close(told[1], told["high"])


def test_global_randomness_is_left_as_it_was() -> None:
    found = adjust(rows(100), WTY, **ASK)
    np.random.seed(5)  # noqa: NPY002
    refute(found, "subset", draws=40, seed=1)
    assert np.random.rand() == np.random.RandomState(5).rand()  # noqa: NPY002


def test_bad_questions_are_explained() -> None:
    found = adjust(rows(100), WTY, **ASK)
    with pytest.raises(ValueError, match="there are 'placebo'"):
        refute(found, "magic")
    with pytest.raises(ValueError, match="draws is 1: with fewer than 40"):
        refute(found, draws=1)
    scm = SCM("t -> y", t=CategoricalTable([0.5, 0.5]), y=CategoricalTable([[1, 0], [0, 1]], ["t"]))
    with pytest.raises(ValueError, match="'y' has levels; the refuters compare means"):
        refute_scm(scm, rows(50), treatment="t", outcome="y")
    scm.note = "(1, 1e-5)-private"
    with pytest.raises(ValueError, match="carries a note"):
        refute_scm(scm, rows(50), treatment="t", outcome="y")
