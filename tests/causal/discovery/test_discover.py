"""From tables to posteriors: Sachs' cells, targets, knowledge, effects, and what is refused."""

import math

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch

import causal
import pgm.data
from causal.discovery import BDeu, BGe, GraphPosterior, discover
from causal.discovery.dags import needed
from pgm.data import Dataset
from pgm.verb import Unsupported


@pytest.fixture(scope="module")
def sachs() -> Dataset:
    return pgm.data.load("sachs")


@pytest.fixture(scope="module")
def found(sachs: Dataset) -> GraphPosterior:
    return discover(sachs.frame, clamped=sachs.clamped)


@pytest.mark.parametrize("prior", ["uniform", "order"])
@pytest.mark.parametrize(("most", "above", "extra"), [(3, 25, 8), (4, 26, 9)])
def test_sachs_network_from_the_cells(sachs, prior, most: int, above: int, extra: int) -> None:
    """Issue 5's numbers: 17 of the 17 published arrows, none reversed, under either prior."""
    posterior = discover(sachs.frame, clamped=sachs.clamped, max_parents=most, prior=prior)
    assert len(posterior.graph().edges) == above
    published = posterior.compare(sachs.graph("published"))
    counts = [len(getattr(published, k)) for k in ("right", "reversed", "missed", "extra")]
    assert counts == [17, 0, 0, extra]
    consensus = posterior.compare(sachs.graph("consensus"))
    assert [len(getattr(consensus, k)) for k in ("right", "reversed", "missed")] == [16, 2, 2]


def test_sachs_network_without_the_targets(sachs: Dataset) -> None:
    agreement = discover(sachs.frame).compare(sachs.graph("published"))
    assert len(agreement.right) == 8
    assert str(agreement).startswith("8 of 17 arrows found")


def test_draws_agree_with_exact_probabilities(sachs: Dataset) -> None:
    few = discover(sachs.frame[::270], clamped=sachs.clamped[::270], unseen="keep")
    draws = few.sample(400, seed=0)
    error = (few.edges * (1 - few.edges) / 400).sqrt()
    assert ((draws.adjacency.double().mean(0) - few.edges).abs() <= 4.5 * error + 1e-9).all()
    assert few.ancestors is not None
    error = (few.ancestors * (1 - few.ancestors) / 400).sqrt()
    assert ((draws.ancestors.double().mean(0) - few.ancestors).abs() <= 4.5 * error + 1e-9).all()
    assert torch.equal(few.sample(20, seed=3).parents, few.sample(20, seed=3).parents)
    assert all(nx.is_directed_acyclic_graph(graph) for graph in few.sample(20, seed=1))


def test_a_posterior_prints_plots_and_gives_itself_up(found: GraphPosterior) -> None:
    assert "25 arrows above .5" in str(found) and "uniform prior" in str(found)
    assert found.table().loc["PKA", "Akt"] == found.probability("PKA", "Akt")
    assert found.graph().edges["PKA", "Akt"]["probability"] > 0.99
    assert nx.is_directed_acyclic_graph(found.mode())
    assert found.plot().get_xlabel() == "effect"
    assert "25 graphs" in str(found.sample(25, seed=0))
    assert float(found.ancestor("PKC", "Akt")) == pytest.approx(1)
    with pytest.raises(ValueError, match="Did you mean 'PKA'"):
        found.probability("PKAA", "Akt")
    with pytest.raises(ValueError, match="different nodes"):
        found.compare("A -> B")


def test_evidence_is_averaged_over_graphs() -> None:
    """Two binary columns: three graphs, of which two score alike."""
    data = {"a": torch.tensor([0, 1, 1, 0]), "b": torch.tensor([0, 1, 1, 1])}
    found = discover(data)
    s = found.families.scores
    apart, joined = float(s[0, 0] + s[1, 0]), float(s[0, 0] + s[1, 1])
    expected = math.log((math.exp(apart) + 2 * math.exp(joined)) / 3)
    assert found.log_evidence == pytest.approx(expected, abs=1e-12)
    weight = math.exp(joined) / (math.exp(apart) + 2 * math.exp(joined))
    assert found.probability("a", "b") == pytest.approx(weight, abs=1e-12)
    by_order = discover(data, prior="order")
    expected = math.log((2 * math.exp(apart) + 2 * math.exp(joined)) / 4)
    assert by_order.log_evidence == pytest.approx(expected, abs=1e-12)


def test_targets_come_in_every_form(sachs: Dataset) -> None:
    frame, clamped = sachs.frame[::30], sachs.clamped[::30]
    names = list(frame.columns)
    label = [next((n for n, yes in zip(names, r, strict=True) if yes), None) for r in clamped]
    forms = [
        clamped,
        clamped.numpy(),
        label,
        [() if v is None else (v,) for v in label],
        {n: clamped[:, j] for j, n in enumerate(names) if bool(clamped[:, j].any())},
        pd.DataFrame(clamped.numpy(), columns=names),
    ]
    edges = [discover(frame, clamped=form, max_parents=2).edges for form in forms]
    batch = {n: torch.tensor(frame[n].cat.codes.to_numpy(copy=True)).long() for n in names}
    edges.append(discover({**batch, "clamped": clamped}, max_parents=2).edges)
    edges.append(discover(frame.assign(INT=label), clamped="INT", max_parents=2).edges)
    for other in edges[1:]:
        assert torch.equal(edges[0], other)


def test_unknown_targets_are_found(sachs: Dataset) -> None:
    """The inhibitors act on Mek, PIP2 and Akt, and say so in the levels of those."""
    names = list(sachs.frame.columns)
    keep = ~sachs.clamped[:, [names.index("PKA"), names.index("PKC")]].any(1)
    frame, clamped = sachs.frame[keep.numpy()], sachs.clamped[keep]
    label = [f"anti {names[int(r.long().argmax())]}" if bool(r.any()) else None for r in clamped]
    found = discover(frame, conditions=label, max_parents=3, unseen="keep")
    for name in ("Mek", "PIP2", "Akt"):
        row = found.targets[found.conditions.index(f"anti {name}")]
        assert float(row[names.index(name)]) > 0.95
    assert "condition anti Mek acts on" in str(found)


def test_conditions_are_nodes_without_parents() -> None:
    """The posterior with a condition is that over all nodes in which nothing causes it."""
    generator = torch.Generator().manual_seed(0)
    c = torch.randint(2, (60,), generator=generator)
    a = (c + (torch.rand(60, generator=generator) < 0.3)) % 2
    b = (a + (torch.rand(60, generator=generator) < 0.3)) % 2
    folded = discover({"a": a, "b": b}, conditions={"c": c}, max_parents=2)
    whole = discover({"a": a, "b": b, "c": c}, max_parents=2, tiers=[["c"], ["a", "b"]])
    assert torch.allclose(folded.edges, whole.edges[:2, :2], rtol=0, atol=1e-12)
    assert torch.allclose(folded.targets[0], whole.edges[2, :2], rtol=0, atol=1e-12)
    draws = folded.sample(2000, seed=0).adjacency.double().mean(0)
    assert torch.allclose(draws, folded.edges, atol=0.05)


@pytest.mark.parametrize("prior", ["uniform", "order"])
def test_knowledge_is_kept(sachs: Dataset, prior) -> None:
    frame = sachs.frame[::100]
    found = discover(
        frame, prior=prior, max_parents=2,
        forbidden=[("PKA", "Akt")], required=[("Erk", "Akt"), ("P38", "Erk")],
        tiers=[["PKC", "PKA"], ["Raf", "Mek"]],
    )  # fmt: skip
    assert found.probability("PKA", "Akt") == 0
    assert found.probability("Erk", "Akt") == pytest.approx(1, abs=1e-12)
    assert found.probability("Raf", "PKA") == found.probability("Mek", "PKC") == 0
    assert float(found.ancestor("P38", "Akt", draws=50, seed=0)) == pytest.approx(1, abs=1e-9)
    for graph in found.sample(30, seed=0):
        assert graph.has_edge("P38", "Erk") and not graph.has_edge("PKA", "Akt")
    assert found.mode().has_edge("Erk", "Akt")


@pytest.mark.parametrize(
    ("known", "error"),
    [
        ({"forbidden": [("PKA", "Atk")]}, "Did you mean 'Akt'"),
        ({"forbidden": ["PKA"]}, "is no arrow"),
        ({"forbidden": [("Erk", "Akt")], "required": [("Erk", "Akt")]}, "required, and forbidden"),
        ({"required": [("Erk", "Akt"), ("Akt", "Erk")]}, "cycle"),
        ({"required": [(x, "Akt") for x in ("Erk", "PKA", "PKC")]}, "Raise it"),
        ({"tiers": [["Akt"], ["Akt"]]}, "two tiers"),
    ],
)
def test_impossible_knowledge_is_refused(sachs: Dataset, known, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        discover(sachs.frame[::200], max_parents=2, **known)


def test_numbers_with_interventions() -> None:
    """x -> y -> z: observed rows leave the direction open, rows in which y was set tell it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    y = 0.8 * x + rng.normal(size=400)
    y[200:] = rng.normal(size=200)
    frame = pd.DataFrame({"x": x, "y": y, "z": 0.8 * y + rng.normal(size=400)})
    open_ = discover(frame[:200])
    assert open_.score == BGe()
    assert 0.2 < open_.probability("x", "y") < 0.8
    found = discover(frame, clamped=[None] * 200 + ["y"] * 200)
    assert found.probability("x", "y") > 0.99 and found.probability("y", "z") > 0.99
    effect = found.effect("z", do={"y": 1.0}, versus={"y": 0.0}, draws=40, seed=0)
    assert float(effect.lower[0]) < 0.8 < float(effect.upper[0])
    assert "Bayesian bootstrap" in str(effect)


def test_an_effect_over_one_graph_is_the_effect_in_that_graph(sachs: Dataset) -> None:
    """All other arrows are forbidden; many rows: the tables are close to relative frequencies."""
    graph = causal.as_graph("PKC -> PKA -> Akt; PKC -> Akt")
    frame = sachs.frame[list(graph)]
    clamped = sachs.clamped[:, [list(sachs.frame).index(n) for n in graph]]
    forbidden = [(a, b) for a in graph for b in graph if a != b and not graph.has_edge(a, b)]
    found = discover(frame, clamped=clamped, forbidden=forbidden, required=graph.edges)
    ours = found.effect("Akt", do={"PKA": "high"}, versus={"PKA": "low"}, draws=60, seed=0)
    schema = pgm.Schema.infer(frame, site=None)
    scm = causal.SCM(graph, schema=schema)
    causal.estimate(scm, schema.encode(frame) | {"clamped": clamped})
    exact = causal.effect(scm, "Akt", do={"PKA": "high"}, versus={"PKA": "low"}, draws=10)
    assert torch.allclose(ours.difference, exact.difference, atol=0.02)
    assert ours.do == exact.do and ours.levels == exact.levels
    assert (ours.lower < ours.difference).all() and (ours.difference < ours.upper).all()


def test_an_effect_takes_a_fit_of_its_own_once_a_graph(found: GraphPosterior) -> None:
    seen = []

    def fit(scm: causal.SCM, rows) -> None:
        causal.estimate(scm, rows)
        scm.note = "private, epsilon 1"
        seen.append(scm)

    effect = found.effect("Akt", do={"PKA": "high"}, draws=100, fit=fit, seed=0)
    assert len(seen) == len(found.sample(100, seed=0).distinct()[0])
    assert effect.note == "private, epsilon 1" and "budgets add up" in str(effect)
    assert effect.means.shape == (100, 2, 1, 3)


def test_effects_refuse_levels_that_were_never_there(found: GraphPosterior) -> None:
    with pytest.raises(ValueError, match="purple"):
        found.effect("Akt", do={"PKA": "purple"})
    with pytest.raises(ValueError, match="too few"):
        found.effect("Akt", do={"PKA": "high"}, draws=10)


def refused(sachs: Dataset):
    frame = sachs.frame[::300].reset_index(drop=True)
    clamped = sachs.clamped[::300]
    label = ["PKA" if bool(v) else None for v in clamped[:, 7]]
    record = ["PKA" if bool(v) else "none" for v in clamped[:, 7]]
    yield frame.assign(Akt=frame["Akt"].where(frame.index > 0)), {}, "Cells of Akt are missing"
    yield frame.assign(Akt="low"), {}, "Akt is constant"
    yield frame.assign(Akt=range(len(frame))), {}, "Whole numbers came in Akt"
    yield frame.assign(Akt=np.linspace(0, 1, len(frame))), {"score": BDeu()}, "with fractions"
    yield frame.assign(Akt=np.linspace(0, 1, len(frame))), {}, "holds numbers and the other"
    kind = pd.CategoricalDtype(["low", "medium", "high", "huge"])
    yield frame.assign(Akt=frame["Akt"].astype(kind)), {}, "'?huge'?, which no row shows"
    yield frame.assign(INT=record), {"clamped": label}, "'INT' has values of its own"
    yield frame, {"clamped": clamped, "conditions": {"c": clamped[:, 7]}}, "'c' is exactly where"
    yield frame, {"clamped": "INT"}, "is no column"
    yield frame, {"clamped": ["Atk"] * len(frame)}, "which is no node"
    yield frame, {"clamped": ["Akt"] * len(frame)}, "set in every row"
    yield frame, {"clamped": clamped[:, :3]}, "clamped has shape"
    yield frame, {"conditions": ["a"] * len(frame)}, "nothing is compared"
    yield frame, {"max_parents": 0}, "nothing to find"
    yield frame, {"method": "mcmc", "prior": "order"}, "prior is uniform over graphs"
    yield torch.zeros(3, 2).long(), {"names": ["a"]}, "1 names came"
    yield frame.rename(columns={"Akt": "Erk"}), {}, "several columns called Erk"
    yield frame, {"clamped": {"Akt": [True, False]}}, "of 2 rows whether 'Akt' was set"
    yield frame, {"forbidden": "Raf -> Mek"}, "arrows are pairs"


@pytest.mark.parametrize("case", range(19))
def test_bad_input_is_explained(sachs: Dataset, case: int) -> None:
    data, options, error = list(refused(sachs))[case]
    with pytest.raises(ValueError, match=error):
        discover(data, **options)


def test_more_nodes_than_memory_allows() -> None:
    x = torch.randint(2, (50, 26), generator=torch.Generator().manual_seed(0))
    with pytest.raises(MemoryError, match=r"26 nodes need .* GiB.*method='mcmc'"):
        discover(x, prior="order")
    with pytest.raises(MemoryError, match="allow memory="):
        discover(x, method="exact")
    assert needed(11) < 0.5


def test_ways_that_are_closed_say_so(sachs: Dataset) -> None:
    found = discover(
        sachs.frame[["PKA", "Akt", "Erk"]], max_parents=1, method="mcmc", steps=200, chains=2
    )
    with pytest.raises(Unsupported, match="most frequent"):
        found.mode()
    assert found.log_evidence != found.log_evidence and "Markov chains" in str(found)
