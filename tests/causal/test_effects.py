"""Effects: published numbers, exact means against enumeration and draws, intervals that cover."""

import itertools
from typing import Any

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from torch import Tensor

import causal
import pgm
import pgm.data
from causal import SCM, CategoricalTable, LinearGaussian, LinearSoftmax, effect
from causal.effects.enumeration import mean
from causal.effects.twins import Twins

OPEN = {"treatment": "open"}


def expectation(scm: SCM, values: Any, node: str) -> Tensor | None:
    """The exact mean of a node under interventions; None where there is no closed form."""
    with torch.no_grad():
        twins = Twins(scm, {}, values)
        found = mean(twins, twins.copy(node, 1))
    return None if found is None else found.to(scm.dtype)


def test_kidney_stones(stones: dict[str, Tensor], stones_scm: SCM) -> None:
    """Charig et al. (1986): adjusted .8325 against .7789; as observed .7800 against .8257."""
    causal.estimate(stones_scm, stones)
    found = effect(
        stones_scm, "success", do=OPEN, versus={"treatment": "percutaneous"}, level=1, draws=10
    )
    assert float(found.treated) == pytest.approx(0.8325, abs=1e-4)
    assert float(found.control) == pytest.approx(0.7789, abs=1e-4)
    assert float(found.difference) > 0
    surgery = stones["treatment"] == 0
    seen = [stones["success"][rows].double().mean() for rows in (surgery, ~surgery)]
    assert [float(p) for p in seen] == pytest.approx([0.7800, 0.8257], abs=1e-4)


def test_kidney_stones_fitted_through_the_loop(stones: dict[str, Tensor], stones_scm: SCM) -> None:
    pgm.fit(
        stones_scm, stones, steps=100, batch_size=700, learning_rate=0.3, schedule="cosine", seed=0
    )
    found = effect(
        stones_scm, "success", do=OPEN, data=stones, level=1, draws=10, refits=40, seed=0
    )
    assert float(found.treated) == pytest.approx(0.8325, abs=2e-3)
    assert float(found.lower) < float(found.difference) < float(found.upper)
    assert found.versus == {}


def test_sachs() -> None:
    """Sachs et al. (2005): 5400 cells, their graph; PKA's known inhibition of Erk at its top level.

    The truncated factorisation is summed by hand over Mek, Raf and PKC, from counts of the cells in
    which the experiment left the protein alone.
    """
    data = pgm.data.load("sachs")
    schema = pgm.Schema.infer(data.frame)
    cells = {**schema.encode(data.frame), "clamped": data.clamped}
    scm = SCM(data.graph("published"), schema=schema)
    causal.estimate(scm, cells)
    found = effect(
        scm,
        "Erk",
        do={"PKA": "high"},
        versus={"PKA": "low"},
        data=cells,
        draws=100,
        refits=60,
        seed=0,
    )

    def table(node: str, *given: str) -> Tensor:
        free = ~data.clamped[:, scm.nodes.index(node)]
        codes = torch.stack([cells[name][free] for name in (*given, node)], 1)
        counts = torch.zeros(*[3] * codes.shape[1]).double()
        counts.index_put_(tuple(codes.T), torch.ones(len(codes)).double(), accumulate=True)
        return counts / counts.sum(-1, keepdim=True)

    pkc, raf = table("PKC"), table("Raf", "PKA", "PKC")
    mek, erk = table("Mek", "Raf", "PKA", "PKC"), table("Erk", "Mek", "PKA")
    high, low = (
        torch.einsum("c,cr,rcm,me->e", pkc, raf[a], mek[:, a].nan_to_num(1 / 3), erk[:, a])
        for a in (2, 0)
    )
    assert torch.allclose(found.treated, high, atol=1e-5)
    assert torch.allclose(found.difference, high - low, atol=1e-5)
    assert found.levels == ("low", "medium", "high")
    assert bool((found.lower < found.difference).all() and (found.difference < found.upper).all())
    assert float(found.upper[2]) < 0, "high PKA makes high Erk rarer"
    assert "Bayesian bootstrap of 5400 rows" in str(found)


def tables(seed: int) -> tuple[SCM, dict[tuple[str, ...], Any]]:
    """A random discrete SCM on five nodes, with a confounder, a mediator and a collider."""
    g = torch.Generator().manual_seed(seed)
    inputs = {"U": [], "X": ["U"], "M": ["X"], "Y": ["M", "U"], "C": ["X", "Y"]}
    levels = {"U": 3, "X": 2, "M": 2, "Y": 3, "C": 2}

    def table(node: str) -> CategoricalTable:
        shape = [levels[p] for p in inputs[node]] + [levels[node]]
        return CategoricalTable(torch.rand(shape, generator=g).softmax(-1), inputs[node])

    made = {node: table(node) for node in inputs}
    arrows = [(p, node) for node, ps in inputs.items() for p in ps]
    return SCM(arrows, **made), levels


@settings(max_examples=8)
@given(st.integers(0, 1000), st.sampled_from(["X", "M", "U"]), st.sampled_from(["Y", "C"]))
def test_exact_laws_are_those_of_enumeration(seed: int, done: str, node: str) -> None:
    scm, levels = tables(seed)
    acted = causal.do(scm, {done: 1})
    cells = torch.tensor(list(itertools.product(*(range(levels[v]) for v in scm.nodes))))
    rows = dict(zip(scm.nodes, cells[cells[:, scm.nodes.index(done)] == 1].T, strict=True))
    mass = pgm.log_prob(acted, rows).value.exp()
    assert float(mass.sum()) == pytest.approx(1, abs=1e-5)
    law = torch.zeros(levels[node]).index_add(0, rows[node], mass.detach())
    assert torch.allclose(expectation(scm, acted.values, node), law, atol=1e-5)


def test_exact_means_of_a_mixed_scm_are_those_of_draws() -> None:
    scm = SCM(
        "t -> x; t -> y; x -> y",
        t=CategoricalTable([0.2, 0.3, 0.5]),
        x=LinearGaussian({"t": [0.0, 1.0, 2.0]}),
        y=LinearGaussian({"t": [1.0, 0.0, -1.0], "x": 0.5}, intercept=3.0),
    )
    law = dist.Categorical(torch.tensor([0.5, 0.5, 0.0]))
    for values in ({}, {"x": torch.tensor(2.0)}, {"t": torch.tensor(1)}, {"t": law}):
        y = pgm.sample(causal.Intervened(scm, values), 20_000, seed=0)["y"]
        exact = expectation(scm, values, "y")
        assert abs(float(exact) - float(y.mean())) < 4.5 * float(y.std()) / 20_000**0.5


def test_what_is_cut_off_need_not_have_a_closed_form() -> None:
    """x is a softmax of a number; once it is set, y follows from its table alone."""
    scm = SCM(
        "z -> x -> y",
        z=LinearGaussian(),
        x=LinearSoftmax({"z": [0.0, 1.0]}, intercept=[0.0, 0.0]),
        y=CategoricalTable([[0.9, 0.1], [0.2, 0.8]], parents=["x"]),
    )
    assert expectation(scm, {}, "y") is None
    assert expectation(scm, {"x": torch.tensor(1)}, "y").tolist() == pytest.approx([0.2, 0.8])


def test_the_linear_effect_and_its_unit(linear: SCM) -> None:
    """E[E | do(B=b)] = -.5 b by the paths of the graph; in units of std 10, do(B=...) by labels."""
    found = effect(linear, "E", do={"B": 1.0}, versus={"B": -1.0}, draws=10)
    assert float(found.difference) == pytest.approx(-1.0, abs=1e-6)
    column = pgm.Continuous(mean=100, std=10)
    schema = pgm.Schema(dict.fromkeys("ABCDE", column))
    mechanisms = {node: linear.mechanism(node) for node in linear.nodes}
    scaled = SCM(linear.graph, schema=schema, **mechanisms)
    found = effect(scaled, "E", do={"B": 110}, versus={"B": 100}, draws=10)
    assert float(found.treated) == pytest.approx(95, abs=1e-4)
    assert float(found.difference) == pytest.approx(-5, abs=1e-4)


def test_the_interval_has_the_width_of_least_squares() -> None:
    """For y = 2x + u the effect is the slope, whose standard error is textbook (Gauss-Markov)."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(400, generator=g)
    rows = {"x": x, "y": 2 * x + torch.randn(400, generator=g)}
    scm = SCM("x -> y")
    causal.estimate(scm, rows)
    found = effect(scm, "y", do={"x": 1.0}, versus={"x": 0.0}, data=rows, refits=300, seed=0)
    error = 1 / float((x - x.mean()).square().sum().sqrt())
    width = float(found.upper - found.lower)
    assert width == pytest.approx(2 * 1.96 * error, rel=0.2)
    assert float(found.lower) < 2 < float(found.upper)


def test_other_models_are_refitted_on_resampled_rows() -> None:
    class Line(pgm.Model):
        def __init__(self) -> None:
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor(0.0))

        def model(self, n: int) -> None:
            with pgm.rows(n):
                x = pyro.sample("x", dist.Normal(0.0, 1.0))
                pyro.sample("y", dist.Normal(self.slope * x, 1.0))

    g = torch.Generator().manual_seed(0)
    x = torch.randn(100, generator=g)
    rows = {"x": x, "y": 2 * x + torch.randn(100, generator=g)}
    model, options = Line(), {"steps": 5, "learning_rate": 0.7, "batch_size": 100}
    options["optimiser"] = torch.optim.SGD
    pgm.fit(model, rows, seed=0, **options)
    slope = model.slope.item()
    asked: dict[str, Any] = {"do": {"x": 1.0}, "versus": {"x": 0.0}, "draws": 5000, "seed": 0}
    with pytest.raises(ValueError, match="say how a copy is trained"):
        effect(model, "y", data=rows, **asked)
    found = effect(model, "y", data=rows, refits=40, refit=options, **asked)
    assert abs(float(found.difference) - slope) < 0.08
    assert 0.25 < float(found.upper - found.lower) < 0.65
    assert model.slope.item() == slope, "the model itself is not refitted"


def test_latent_parameters_bring_their_posterior() -> None:
    """A slope with q(b) = N(2, .1^2): the effect of x is b, interval 2 ± 1.96 * .1."""

    class Bayes(pgm.Model):
        def model(self, n: int) -> None:
            b = pyro.sample("b", dist.Normal(0.0, 1.0))
            with pgm.rows(n):
                x = pyro.sample("x", dist.Normal(0.0, 1.0))
                pyro.sample("y", dist.Normal(b * x, 0.01))

        def guide(self, n: int) -> None:
            pyro.sample("b", dist.Normal(2.0, 0.1))

    asked: dict[str, Any] = {"do": {"x": 1.0}, "versus": {"x": 0.0}, "draws": 50, "seed": 0}
    found = effect(Bayes(), "y", refits=120, **asked)
    assert float(found.difference) == pytest.approx(2.0, abs=0.05)
    assert float(found.lower) == pytest.approx(2 - 0.196, abs=0.08)
    assert float(found.upper) == pytest.approx(2 + 0.196, abs=0.08)
    assert "draws of b from the guide" in found.source
    with pytest.raises(ValueError, match="leave data= out"):
        effect(Bayes(), "y", data={"x": torch.zeros(3), "y": torch.zeros(3)}, **asked)


def test_without_a_closed_form_the_error_is_that_of_the_draws() -> None:
    """P(y = 1 | do(x = 0)) = 1/2 for a softmax of z ~ N(0, 1) and x."""
    scm = SCM(
        "z -> y; x -> y",
        z=LinearGaussian(),
        x=LinearGaussian(),
        y=LinearSoftmax({"z": [0.0, 1.0], "x": [0.0, 1.0]}, intercept=[0.0, 0.0]),
    )
    found = effect(scm, "y", do={"x": 0.0}, versus={"x": 50.0}, level=1, draws=4000, seed=0)
    assert float(found.lower) < -0.5 < float(found.upper)
    assert float(found.upper - found.lower) == pytest.approx(2 * 1.96 * 0.5 / 4000**0.5, rel=0.05)
    assert "error of the draws alone" in found.source


def test_exact_and_without_data_there_is_no_interval(linear: SCM) -> None:
    found = effect(linear, "E", do={"B": 1.0}, draws=10)
    assert bool(found.lower.isnan().all())
    assert "none" in str(found)
    assert "pass data=" in str(found)


def test_same_seed_same_answer_and_the_global_state_is_left_alone(linear: SCM) -> None:
    rows = pgm.sample(linear, 50, seed=0)
    causal.estimate(linear, rows)
    before = torch.get_rng_state()
    first, second = (
        effect(linear, "E", do={"B": 1.0}, data=rows, refits=40, draws=10, seed=1) for _ in range(2)
    )
    assert torch.equal(first.lower, second.lower)
    assert torch.equal(first.samples[0], second.samples[0])
    assert torch.equal(before, torch.get_rng_state())


def test_a_model_far_from_its_data_is_told(linear: SCM) -> None:
    rows = pgm.sample(linear, 200, seed=0)
    wrong = {**rows, "E": rows["E"] + 10 * rows["B"]}
    with pytest.warns(RuntimeWarning, match="not at the maximum of the likelihood"):
        effect(linear, "E", do={"B": 1.0}, versus={"B": 0.0}, data=wrong, refits=40, draws=10)


def test_a_model_that_was_not_trained_to_the_end_is_told(
    stones: dict[str, Tensor], stones_scm: SCM
) -> None:
    """A few small steps leave the effect half as large, well inside the interval."""
    pgm.fit(stones_scm, stones, steps=30, batch_size=700, learning_rate=0.03, seed=0)
    with pytest.warns(RuntimeWarning, match=r"but 0\.05367 under parameters fitted"):
        effect(
            stones_scm, "success", do=OPEN, versus={"treatment": "percutaneous"}, level=1,
            data=stones, refits=40, draws=10, seed=0,
        )  # fmt: skip


def test_a_note_is_carried_and_data_beyond_it_refused(linear: SCM) -> None:
    rows = pgm.sample(linear, 50, seed=0)
    linear.note = "epsilon 3 was spent"
    assert "epsilon 3 was spent" in str(effect(linear, "E", do={"B": 1.0}, draws=10))
    with pytest.raises(ValueError, match="beyond what it says"):
        effect(linear, "E", do={"B": 1.0}, data=rows)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outcome": "Q"}, "no site 'Q'"),
        ({"level": 1}, "the levels of 'E' are: none"),
        ({"do": {"Q": 1.0}}, "no site 'Q' to intervene on"),
        ({"do": {"B": 1.0}, "versus": {"Q": 1.0}}, "no site 'Q' to intervene on"),
        ({"confidence": 95.0}, "between 0 and 1"),
        ({"refits": 10}, "at least 40 of them"),
        ({"draws": 1}, "two or more"),
        ({"do": {"B": torch.zeros(3)}}, "rows"),
    ],
)
def test_questions_without_an_answer(linear: SCM, options: dict[str, Any], message: str) -> None:
    asked = {"outcome": "E", "do": {"B": 1.0}, **options}
    with pytest.raises(ValueError, match=message):
        effect(linear, asked.pop("outcome"), **asked)


def test_a_level_that_the_outcome_lacks(stones_scm: SCM, stones: dict[str, Tensor]) -> None:
    causal.estimate(stones_scm, stones)
    with pytest.raises(ValueError, match="level='yes': the levels of 'success' are: 0, 1"):
        effect(stones_scm, "success", do=OPEN, level="yes")


def test_an_untrained_scm_is_refused() -> None:
    with pytest.raises(ValueError, match="mechanisms of A, B are as they were made"):
        effect(SCM("A -> B"), "B", do={"A": 1.0})


def test_the_effect_along_an_arrow() -> None:
    """C = B - A + u and B = 2A + u with E[A] = 1: E[C | do(A -> C = 3)] is 2 - 3, and was 1."""
    scm = SCM(
        "A -> B -> C; A -> C",
        A=LinearGaussian(intercept=1.0),
        B=LinearGaussian({"A": 2.0}),
        C=LinearGaussian({"B": 1.0, "A": -1.0}),
    )
    assert float(effect(scm, "C", do={("A", "C"): 3.0}).difference) == -2.0
    drawn = effect(scm, "C", do={("A", "C"): lambda a: a + 2}, draws=4000, seed=0)
    assert abs(float(drawn.difference) - -2.0) < 0.1
    table = SCM(
        "X -> Y",
        X=CategoricalTable([0.2, 0.8]),
        Y=CategoricalTable([[0.9, 0.1], [0.3, 0.7]], parents=["X"]),
    )
    found = effect(table, "Y", do={("X", "Y"): 0}, draws=10000, seed=0)
    torch.testing.assert_close(found.treated.float(), torch.tensor([0.9, 0.1]), atol=0.02, rtol=0)
