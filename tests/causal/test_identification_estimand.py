"""Estimands on tables, rows and SCMs: exact, plug-in, or a clear refusal."""

import pandas as pd
import pytest
import torch

import causal
import pgm
from causal.graph import parse
from causal.identification import Table, as_network, identify, random_network, tabulate
from causal.identification.estimand import Estimand

FRONT = "X -> Z -> Y; X <-> Y"


@pytest.fixture
def kidney() -> Estimand:
    return identify("size -> treatment -> success; size -> success", "success", do="treatment")


def test_kidney_stones_from_rows(kidney: Estimand, stones: dict[str, torch.Tensor]) -> None:
    """Charig et al. (1986); Pearl (2009), sec. 6.1: .8325 against .7789."""
    assert kidney.evaluate(stones, treatment=0, success=1) == pytest.approx(0.8325, abs=5e-5)
    assert kidney.evaluate(stones, treatment=1, success=1) == pytest.approx(0.7789, abs=5e-5)


def test_a_frame_with_labels_stays_as_it_is(
    kidney: Estimand, stones: dict[str, torch.Tensor]
) -> None:
    frame = pd.DataFrame({name: x.numpy() for name, x in stones.items()})
    frame["treatment"] = frame["treatment"].map({0: "open", 1: "percutaneous"})
    frame["success"] = frame["success"].astype(bool)
    before = frame.copy(deep=True)
    table = kidney.evaluate(frame)
    pd.testing.assert_frame_equal(frame, before)
    assert table.axes == ("success", "treatment")
    assert table.at(success=True, treatment="open") == pytest.approx(0.8325, abs=5e-5)
    assert "open" in str(table) and table.title == "P(success | do(treatment))"
    assert list(table.frame().columns) == ["success", "treatment", table.title]


def test_an_scm_is_asked_exactly(
    kidney: Estimand, stones_scm: causal.SCM, stones: dict[str, torch.Tensor]
) -> None:
    causal.estimate(stones_scm, stones)
    exact = kidney.evaluate(stones_scm, treatment="open", success=1)
    assert exact == pytest.approx(kidney.evaluate(stones, treatment=0, success=1), abs=1e-6)
    truth = as_network(stones_scm).interventional(["success"], do=["treatment"])
    assert exact == pytest.approx(truth.at(treatment="open", success=1), abs=1e-9)


def test_plug_in_comes_near_the_truth_as_rows_grow() -> None:
    estimand = identify(FRONT, "Y", do="X")
    network = random_network(parse(FRONT), seed=4)
    joint = network.joint()
    draws = torch.multinomial(
        joint.values.flatten(), 40_000, replacement=True, generator=torch.Generator().manual_seed(0)
    )
    cells = torch.nonzero(torch.ones(joint.values.shape))[draws]
    rows = {name: cells[:, i] for i, name in enumerate(joint.axes)}
    error = estimand.evaluate(rows).values - network.interventional(["Y"], do=["X"]).values
    assert error.abs().max() < 0.02
    assert estimand.evaluate(rows).rows == 40_000


def test_an_empty_stratum_is_an_error_that_names_it(kidney: Estimand) -> None:
    rows = {"size": [0, 0, 1, 1], "treatment": [0, 1, 0, 0], "success": [1, 0, 1, 0]}
    with pytest.raises(ValueError, match=r"at treatment=1.*\(size=1, treatment=1\).*overlap"):
        kidney.evaluate(rows, treatment=1)
    assert kidney.evaluate(rows, treatment=0, success=1) == pytest.approx(0.75)
    with pytest.raises(ValueError, match=r"no row is in: \(size=1, treatment=1\)"):
        kidney.evaluate(rows)


def test_a_stratum_that_never_occurs_does_not_matter(kidney: Estimand) -> None:
    size = pd.Categorical(["s", "s", "l", "l"], categories=["s", "l", "huge"])
    frame = pd.DataFrame({"size": size, "treatment": [0, 1, 0, 1], "success": [1, 0, 1, 1]})
    assert kidney.evaluate(frame, treatment=1, success=1) == pytest.approx(0.5)


def test_the_napkin_is_averaged_over_supported_values() -> None:
    text = "W1 -> W2 -> X -> Y; W1 <-> X; W1 <-> Y"
    estimand, network = identify(text, "Y", do="X"), random_network(parse(text), seed=1)
    truth = network.interventional(["Y"], do=["X"]).values
    joint = network.joint()
    assert torch.allclose(estimand.evaluate(network).values, truth)
    for cell in ((slice(None), -1), (0, -1), (0, -1, 0)):
        rare = joint.values.clone()  # axes W1, W2, X, Y
        rare[cell] = 0.0  # the last value of W2, or a stratum of it, never occurs: others answer
        table = estimand.evaluate(Table(rare / rare.sum(), joint.levels))
        assert torch.allclose(table.marginal(["X"]).values, torch.ones(()).double())


def test_probabilities_of_an_estimand_sum_to_one() -> None:
    for seed in range(5):
        network = random_network(parse(FRONT), seed=seed)
        table = identify(FRONT, "Y", do="X").evaluate(network)
        assert torch.allclose(table.marginal(["X"]).values, torch.ones(()).double())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"size": [0, 1], "treatment": [0, 1]}, "no column 'success'"),
        ({"size": [0, 1], "treatment": [0, 1], "success": [None, 1]}, "1 missing cells"),
        ({"size": [], "treatment": [], "success": []}, "no rows"),
        (
            {"size": torch.linspace(0, 1, 90), "treatment": [0, 1] * 45, "success": [0] * 90},
            "90 different values.*strategy",
        ),
        ({"size": torch.zeros(2, 2), "treatment": [0, 1], "success": [0, 1]}, "one value a row"),
    ],
)
def test_rows_that_cannot_be_counted(kidney: Estimand, rows: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kidney.evaluate(rows)


def test_a_value_that_does_not_occur(kidney: Estimand, stones: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match=r"'treatment' has no value 7.*0, 1"):
        kidney.evaluate(stones, treatment=7)
    with pytest.raises(ValueError, match="'size' is no variable of this table"):
        kidney.evaluate(stones, size=0)


def test_other_data_and_models_are_refused(kidney: Estimand, linear: causal.SCM) -> None:
    with pytest.raises(TypeError, match="pandas frame"):
        kidney.evaluate([1, 2])
    with pytest.raises(ValueError, match="no finite set of levels: A, B, C, D, E"):
        identify(linear.graph, "E", do="B").evaluate(linear)


def test_tables_refuse_what_does_not_fit(kidney: Estimand) -> None:
    counts = Table(torch.ones(2, 2, 2), {"size": (0, 1), "treatment": (0, 1), "success": (0, 1)})
    with pytest.raises(ValueError, match=r"sum to 8.*divide counts"):
        kidney.evaluate(counts)
    with pytest.raises(ValueError, match="shape"):
        Table(torch.ones(2, 3), {"X": (0, 1)})
    wide = {f"C{i}": list(range(40)) for i in range(5)}
    with pytest.raises(ValueError, match="102,400,000 cells"):
        tabulate(wide)


def test_a_schema_gives_the_labels() -> None:
    schema = pgm.Schema({"X": pgm.Categorical(("no", "yes")), "Y": pgm.Categorical((0, 1))})
    scm = causal.SCM("X -> Y", schema=schema)
    assert as_network(scm).joint().at(X="yes", Y=1) == pytest.approx(0.25)
