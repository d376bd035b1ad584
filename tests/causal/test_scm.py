"""Structural causal models: mechanisms by column, training, clamped cells, missing cells, files."""

from functools import partial
from pathlib import Path

import networkx as nx
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

import causal
import pgm
from causal import SCM, CategoricalTable, Kind, LinearGaussian, LinearSoftmax
from causal.scm import untrained

MIXED = pgm.Schema(
    {
        "age": pgm.Continuous(mean=50, std=20),
        "dose": pgm.Categorical(("low", "medium", "high")),
        "relapse": pgm.Categorical((False, True)),
        "score": pgm.Continuous(),
    }
)
GRAPH = "age -> dose -> relapse; age -> score; dose -> score; relapse -> score"


def mixed_rows(n: int = 200) -> dict[str, Tensor]:
    age, dose = torch.randn(n), torch.randint(3, (n,))
    relapse = (torch.rand(n) < 0.2 + 0.3 * (dose == 0)).long()
    return {
        "age": age,
        "dose": dose,
        "relapse": relapse,
        "score": age + dose - relapse + 0.5 * torch.randn(n),
    }


def test_mechanisms_are_chosen_by_the_kind_of_column() -> None:
    scm = SCM(GRAPH, schema=MIXED)
    kinds = {node: type(scm.mechanism(node)) for node in scm.nodes}
    assert kinds == {
        "age": LinearGaussian,
        "dose": LinearSoftmax,
        "relapse": CategoricalTable,
        "score": LinearGaussian,
    }
    assert scm.mechanism("score").inputs == {
        "age": Kind(),
        "dose": Kind(levels=3),
        "relapse": Kind(levels=2),
    }


def test_a_count_gets_a_negative_binomial() -> None:
    scm = SCM("A -> B", schema=COUNT)
    assert isinstance(scm.mechanism("A"), causal.NegativeBinomial)
    rows = {"A": torch.tensor([0.0, 3.0, 1.0, 8.0]), "B": torch.tensor([0.0, 1.0, 0.0, 2.0])}
    causal.estimate(scm, rows)
    assert scm.mechanism("A").dist({}).mean.item() == pytest.approx(3.0, rel=1e-2)


def test_mechanisms_by_class_with_options_and_by_kind() -> None:
    net = partial(causal.AdditiveNoise, hidden=(4,))
    scm = SCM("t -> y; v -> y", t=Kind(levels=3), v=Kind(size=2), y=net)
    assert [type(scm.mechanism(n)).__name__ for n in ("t", "v", "y")] == [
        "CategoricalTable",
        "LinearVector",
        "AdditiveNoise",
    ]
    assert scm.mechanism("y").predictor.net[0].weight.shape == (4, 5)
    assert set(untrained(scm)) == {"t", "v", "y"}


def test_a_kind_may_say_what_the_schema_says() -> None:
    schema = pgm.Schema({"A": pgm.Categorical((0, 1)), "B": pgm.Continuous()})
    scm = SCM("A -> B", A=Kind(levels=2), B=Kind(), schema=schema)
    assert isinstance(scm.mechanism("A"), CategoricalTable)


def test_fit_through_the_loop_reaches_the_closed_form() -> None:
    rows = mixed_rows()
    exact, trained = SCM(GRAPH, schema=MIXED), SCM(GRAPH, schema=MIXED)
    causal.estimate(exact, rows)
    pgm.fit(trained, rows, steps=200, batch_size=200, learning_rate=0.1, schedule="cosine", seed=0)
    best, found = (pgm.log_prob(scm, rows).mean[0] for scm in (exact, trained))
    assert best - 0.01 < found < best + 1e-4


def test_a_frame_gives_an_scm_its_schema() -> None:
    frame = pd.DataFrame({"sun": ["a", "b", "a", "b"], "rain": [1.5, 0.5, 2.5, 0.0]})
    scm = SCM("sun -> rain")
    pgm.fit(scm, frame, steps=3, seed=0)
    assert isinstance(scm.mechanism("sun"), CategoricalTable)
    assert scm.schema == pgm.Schema.infer(frame, standardise=True)
    other = SCM("sun -> rain")
    causal.estimate(other, frame)
    assert other.mechanism("rain").dist({"sun": torch.tensor([0, 1])}).mean.tolist() == [2.0, 0.25]


def test_a_frame_far_from_standard_with_missing_cells_is_fitted_by_default() -> None:
    """What estimate refuses, fit takes: y = 3 x + 50 + 4 u, x ~ N(100, 15^2), a tenth unseen."""
    generator = torch.Generator().manual_seed(0)
    x = 100 + 15 * torch.randn(800, generator=generator)
    y = 3 * x + 50 + 4 * torch.randn(800, generator=generator)
    y[::10] = torch.nan
    frame = pd.DataFrame({"x": x.numpy(), "y": y.numpy(), "up": (x > 100).int().numpy()})
    scm = SCM("x -> y; x -> up")
    with pytest.raises(pgm.Unsupported, match="missing"):
        causal.estimate(scm, frame)
    assert scm.schema is None
    pgm.fit(scm, frame, steps=1500, learning_rate=0.01, seed=0)
    found = causal.effect(scm, "y", do={"x": 101.0}, versus={"x": 100.0})
    assert abs(float(found.difference) - 3) < 0.15
    assert scm.mechanism("up").levels == 2


def test_density_is_the_sum_over_mechanisms(linear: SCM) -> None:
    x = pgm.sample(linear, 4, seed=0)
    total = sum(
        linear.mechanism(v).dist({p: x[p] for p in linear.parents(v)}).log_prob(x[v])
        for v in linear.nodes
    )
    answer = pgm.log_prob(linear, x)
    assert answer.kind == "exact"
    assert torch.allclose(answer.value, total)


def test_a_clamped_cell_has_no_term_and_still_feeds_its_children(linear: SCM) -> None:
    x = pgm.sample(linear, 3, seed=0)
    clamped = torch.zeros(3, 5, dtype=torch.bool)
    clamped[1, linear.nodes.index("B")] = True
    whole = pgm.log_prob(linear, x).value
    cut = pgm.log_prob(linear, {**x, "clamped": clamped}).value
    own = linear.mechanism("B").dist({"A": x["A"]}).log_prob(x["B"])
    assert torch.allclose(whole - cut, torch.where(clamped[:, 1], own, 0.0))


def test_clamped_rows_teach_nothing_of_the_node_that_was_set() -> None:
    """Half the rows have B set to 9 by an experiment: B's own mechanism ignores them."""
    A = torch.randn(400)
    B = 2 * A + torch.randn(400)
    clamped = torch.zeros(400, 3, dtype=torch.bool)
    clamped[200:, 1], B[200:] = True, 9.0
    C = -B + torch.randn(400)
    scm, free = SCM("A -> B -> C"), SCM("A -> B -> C")
    causal.estimate(scm, {"A": A, "B": B, "C": C, "clamped": clamped})
    causal.estimate(free, {"A": A[:200], "B": B[:200], "C": C[:200]})
    ours, theirs = (s.mechanism("B").weight.detach() for s in (scm, free))
    assert torch.equal(ours, theirs)
    both = scm.mechanism("C").weight.detach(), free.mechanism("C").weight.detach()
    assert not torch.equal(*both)


def test_gradients_by_row_exist_under_vmap() -> None:
    """Private training takes them: no step of the program may look at values."""
    scm, rows = SCM(GRAPH, schema=MIXED), mixed_rows(5)
    rows["clamped"] = torch.eye(5, 4, dtype=torch.bool)
    parameters = {k: v.detach() for k, v in scm.named_parameters() if v.requires_grad}

    def loss(p: dict[str, Tensor], row: dict[str, Tensor]) -> Tensor:
        class Loss(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.scm = scm

            def forward(self, batch: pgm.batch.Batch) -> Tensor:
                return pgm.objective(self.scm, batch, size=5)[0]

        batch = pgm.batch.Batch({k: v[None] for k, v in row.items()})
        return functional_call(Loss(), {f"scm.{k}": v for k, v in p.items()}, (batch,))

    by_row = vmap(grad(loss), in_dims=(None, 0))(parameters, rows)
    pgm.objective(scm, rows).sum().backward()
    for name, parameter in scm.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(by_row[name].sum(0), parameter.grad, atol=1e-5)


def test_missing_cells_are_integrated_out() -> None:
    """p(y) = N(0, 1 + 4) where x is missing and y = 2x + u: exact, and so by importance weights."""
    scm = SCM("x -> y", x=LinearGaussian(), y=LinearGaussian({"x": 2.0}))
    batch = {"x": torch.tensor([0.3, torch.nan]), "y": torch.tensor([1.0, 1.0])}
    exact = torch.distributions.Normal(0.0, 5**0.5).log_prob(torch.tensor(1.0))
    own = pgm.log_prob(scm, batch)
    assert own.kind == "exact"
    assert own.value[1].item() == pytest.approx(exact.item(), abs=1e-5)
    drawn = pgm.log_prob.generic(scm, pgm.batch.as_batch(batch), particles=20_000)
    assert abs(drawn.value[1] - exact) < 4 * drawn.error[1]


@pytest.mark.parametrize("given", [{}, {"score": LinearGaussian}])
def test_save_and_load(tmp_path: Path, given: dict[str, type[LinearGaussian]]) -> None:
    scm, rows = SCM(GRAPH, schema=MIXED, **given), mixed_rows()
    causal.estimate(scm, rows)
    scm.note = "a note"
    pgm.save(scm, tmp_path / "scm.pt")
    back = pgm.load(tmp_path / "scm.pt")
    assert isinstance(back, SCM)
    assert (back.nodes, back.schema, back.note) == (scm.nodes, scm.schema, scm.note)
    assert list(back.graph.edges) == list(scm.graph.edges)
    assert torch.equal(pgm.log_prob(back, rows).value, pgm.log_prob(scm, rows).value)
    assert untrained(back) == []


def test_untrained_mechanisms_are_told_from_given_ones(tmp_path: Path) -> None:
    scm = SCM("A -> B", A=LinearGaussian())
    pgm.save(scm, tmp_path / "scm.pt")
    assert untrained(scm) == untrained(pgm.load(tmp_path / "scm.pt")) == ["B"]
    causal.estimate(scm, {"A": torch.randn(20), "B": torch.randn(20)})
    assert untrained(scm) == []


def test_names_that_modules_use_are_names_of_nodes() -> None:
    scm = SCM("type -> train -> Sepal.Length; self -> type")
    assert set(pgm.sample(scm, 2)) == {"type", "train", "Sepal.Length", "self"}


def test_nothing_of_the_user_is_changed_or_shared() -> None:
    graph, mechanism = nx.DiGraph([("A", "B")]), LinearGaussian({"A": 1.0})
    scm = SCM(graph, B=mechanism)
    causal.estimate(scm, {"A": torch.randn(20), "B": torch.randn(20)})
    graph.add_edge("B", "C")
    assert scm.nodes == ("A", "B")
    assert mechanism.weight.tolist() == [1.0]
    with pytest.raises(nx.NetworkXError):
        scm.graph.add_edge("B", "C")


COUNT = pgm.Schema({"A": pgm.Count(), "B": pgm.Continuous()})
NUMBERS = pgm.Schema({"A": pgm.Continuous(), "B": pgm.Continuous()})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SCM("A -> B", C=LinearGaussian()), "mechanism 'C' is not in the graph"),
        (lambda: SCM("A -> B", B=LinearGaussian({"C": 1.0})), "listens to C, but its parents"),
        (lambda: SCM("A -> B", B=LinearGaussian()), "listens to nothing"),
        (lambda: SCM("A -> B", B=LinearGaussian({"A": [0.0, 1.0]})), "but the node is a number"),
        (lambda: SCM("A -> B", B=Kind(levels=2), schema=NUMBERS), "but its column in the schema"),
        (lambda: SCM("A -> clamped"), "cannot be called 'clamped'"),
        (lambda: SCM("A -> B_seen"), "end with _seen"),
        (lambda: SCM("A -> B -> C", schema=NUMBERS), "without a column in the schema: C"),
        (lambda: SCM("A", schema=NUMBERS), "Column 'B' is not in the graph"),
        (lambda: SCM("A -> B", schema=pgm.Schema(NUMBERS.columns, site="x")), "site=None"),
        (lambda: SCM("A", A=CategoricalTable([0.5, 0.5]), schema=NUMBERS.select(["A"])), "number"),
    ],
)
def test_arguments_that_contradict_each_other(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_mechanism_of_no_kind_is_refused() -> None:
    with pytest.raises(TypeError, match="Pass a mechanism"):
        SCM("A -> B", B=lambda A: 2 * A)


@pytest.mark.parametrize("clamped", [torch.zeros(3, 4).bool(), torch.zeros(3, 5)])
def test_clamped_of_another_shape_or_dtype(linear: SCM, clamped: Tensor) -> None:
    batch = {**pgm.sample(linear, 3), "clamped": clamped}
    with pytest.raises(ValueError, match="a column for each node: A, B, C, D, E"):
        pgm.log_prob(linear, batch)


def test_what_cannot_be_estimated_in_closed_form() -> None:
    hole = {"A": torch.tensor([1.0, torch.nan, 3.0]), "B": torch.randn(3)}
    with pytest.raises(pgm.Unsupported, match="Cells of 'A' are missing"):
        causal.estimate(SCM("A -> B"), hole)
    rows = {"A": torch.randn(5), "B": torch.randn(5), "clamped": torch.ones(5, 2).bool()}
    with pytest.raises(ValueError, match="'A' was clamped in every row"):
        causal.estimate(SCM("A -> B"), rows)
    flat = {"A": torch.ones(5), "B": torch.randn(5)}
    with pytest.raises(ValueError, match="Node 'A' cannot be estimated"):
        causal.estimate(SCM("A -> B"), flat)
    with pytest.raises(ValueError, match="neither in the data"):
        causal.estimate(SCM("A -> B"), {"A": torch.randn(5)})
