"""Causal flows: the structure of the graph, exact densities under do, noise, and known answers."""

import copy
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.distributions import Normal
from torch import Tensor
from torch.autograd.functional import jacobian

import causal
import pgm
from causal import CausalFlow, LinearGaussian
from causal.flows.splines import SplineNormal
from causal.flows.synthetic import published
from pgm.batch import Batch
from pgm.evaluation.samples import mmd

DIAMOND = "A -> {B C}; B -> D; C -> D; E"


def rough(graph: object, *, seed: int = 0, size: float = 0.3) -> CausalFlow:
    """A flow with parameters far from those at the start, in double precision."""
    d = len(causal.as_graph(graph))
    scales = {"mean": [float(j) for j in range(d)], "std": [1 + j / 2 for j in range(d)]}
    flow = CausalFlow(graph, hidden=(4, 4), bins=4, **scales).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in flow.parameters():
            weight.add_(size * torch.randn(weight.shape, generator=generator))
    return flow


def rows(flow: CausalFlow, n: int = 50, **options: object) -> Batch:
    return pgm.sample(flow, n, seed=0, **options)


@st.composite
def dags(draw: st.DrawFn) -> nx.DiGraph:
    """Random DAGs of 1 to 6 nodes, whose order of nodes is not a causal one."""
    d = draw(st.integers(1, 6))
    names = draw(st.permutations([f"x{i}" for i in range(d)]))
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from(f"x{i}" for i in range(d))
    pairs = [(names[i], names[j]) for i in range(d) for j in range(i + 1, d)]
    graph.add_edges_from(pair for pair in pairs if draw(st.booleans()))
    return graph


@given(dags(), st.integers(0, 3))
@settings(max_examples=15)
def test_the_jacobian_has_the_pattern_of_the_graph(graph: nx.DiGraph, seed: int) -> None:
    flow = rough(graph, seed=seed)
    x = torch.stack([rows(flow, 4)[node] for node in flow.nodes], -1)

    def noise(row: Tensor) -> Tensor:
        return flow.conditioner(row).pull(row)

    J = torch.stack([jacobian(noise, row) for row in x])
    listens = torch.tensor([[graph.has_edge(a, b) for a in graph] for b in graph])
    assert torch.equal((J != 0).any(0), listens | torch.eye(len(graph), dtype=torch.bool))
    assert bool((J.diagonal(dim1=1, dim2=2) > 0).all())
    expected = Normal(0.0, 1.0).log_prob(noise(x)).sum(-1) + J.det().abs().log()
    batch = dict(zip(flow.nodes, x.T, strict=True))
    torch.testing.assert_close(pgm.log_prob(flow, batch).value, expected, atol=1e-6, rtol=1e-6)


@given(dags())
@settings(max_examples=6)
def test_one_pass_of_the_network_gives_what_the_program_does(graph: nx.DiGraph) -> None:
    flow = rough(graph)
    batch = rows(flow, 7)
    one, program = pgm.log_prob(flow, batch), pgm.log_prob.generic(flow, batch, particles=1)
    assert one.kind == program.kind == "exact"
    torch.testing.assert_close(one.value, program.value, atol=1e-10, rtol=0)
    losses = (pgm.objective(flow, batch), pgm.objective.generic(flow, batch))
    torch.testing.assert_close(*losses, atol=1e-10, rtol=0)
    assert not pgm.log_prob(flow, batch).value.requires_grad


def test_rows_become_noise_and_rows_again() -> None:
    flow = rough(DIAMOND, size=0.5)
    u = 2 * torch.randn(500, 5, dtype=torch.float64)
    x = pgm.decode(flow, u)
    torch.testing.assert_close(pgm.encode(flow, x)["u"], u, atol=1e-8, rtol=0)
    single = flow.float()
    x = pgm.decode(single, u.float())
    back = pgm.decode(single, pgm.encode(single, x)["u"])
    for node in flow.nodes:
        torch.testing.assert_close(back[node], x[node], atol=1e-4, rtol=1e-4)
    assert pgm.encode(single, x, draws=3)["u"].shape == (3, 500, 5)


def test_a_law_is_normalised_and_its_quantiles_are_its_inverse() -> None:
    theta = torch.randn(13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    law = SplineNormal.from_parameters(theta, *torch.tensor([3.0, 2.0], dtype=torch.float64))
    p = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    torch.testing.assert_close(law.cdf(law.icdf(p)), p)
    x = torch.linspace(-60.0, 60.0, 200_001, dtype=torch.float64)
    assert torch.trapezoid(law.log_prob(x).exp(), x).item() == pytest.approx(1, abs=1e-5)
    density = torch.gradient(law.cdf(x), spacing=(x,))[0]
    assert (density - law.log_prob(x).exp()).abs().max() < 1e-2


def test_at_the_start_the_nodes_are_independent_normals() -> None:
    flow = CausalFlow("A -> B", mean=[1.0, -2.0], std=[2.0, 0.5])
    x = {"A": torch.tensor([0.0, 3.0]), "B": torch.tensor([1.0, -2.0])}
    expected = Normal(1.0, 2.0).log_prob(x["A"]) + Normal(-2.0, 0.5).log_prob(x["B"])
    torch.testing.assert_close(pgm.log_prob(flow, x).value, expected)


def terms(flow: CausalFlow, x: Batch) -> dict[str, Tensor]:
    """log p(x_j | parents) of each node, from the parents' columns alone."""
    heard = {node: {p: x[p] for p in flow.parents(node)} for node in flow.nodes}
    return {node: flow.mechanism(node).dist(heard[node]).log_prob(x[node]) for node in flow.nodes}


def test_setting_a_node_truncates_the_factorisation() -> None:
    flow = rough(DIAMOND)
    acted = causal.do(flow, B=0.75)
    x = rows(acted)
    assert bool((x["B"] == 0.75).all())
    expected = sum(term for node, term in terms(flow, x).items() if node != "B")
    answer = pgm.log_prob(acted, x)
    assert answer.kind == "exact"
    torch.testing.assert_close(answer.value, expected)


def test_a_policy_replaces_one_factor() -> None:
    flow = rough(DIAMOND)
    x = rows(flow)
    others = sum(term for node, term in terms(flow, x).items() if node != "B")
    law = causal.do(flow, B=Normal(torch.tensor(1.0).double(), 2.0))
    torch.testing.assert_close(
        pgm.log_prob(law, x).value, others + Normal(1.0, 2.0).log_prob(x["B"])
    )
    policy = causal.do(flow, B=lambda parents: Normal(parents["A"], 0.5))
    torch.testing.assert_close(
        pgm.log_prob(policy, x).value, others + Normal(x["A"], 0.5).log_prob(x["B"])
    )
    y = pgm.sample(causal.do(flow, B=lambda parents: 2 * parents["A"]), 50, seed=0)
    torch.testing.assert_close(y["B"], 2 * y["A"])


def test_an_arrow_and_a_mechanism_can_be_exchanged() -> None:
    flow = rough(DIAMOND)
    x = rows(flow)
    part = terms(flow, x)
    deaf = flow.mechanism("D").dist({"B": torch.tensor(0.5).double(), "C": x["C"]})
    answer = pgm.log_prob(causal.do(flow, {("B", "D"): 0.5}), x).value
    expected = sum(part.values()) - part["D"] + deaf.log_prob(x["D"])
    torch.testing.assert_close(answer, expected)
    swapped = causal.do(flow, B=LinearGaussian({"E": 2.0}).double())
    expected = sum(part.values()) - part["B"] + Normal(2 * x["E"], 1.0).log_prob(x["B"])
    torch.testing.assert_close(pgm.log_prob(swapped, x).value, expected)


def test_a_counterfactual_keeps_the_noise_of_every_other_node() -> None:
    flow = rough(DIAMOND)
    x = rows(flow)
    answer = causal.counterfactual(flow, x, do={"B": 1.5})
    y = {node: draw[0] for node, draw in answer.draws.items()}
    assert all(torch.equal(y[node], x[node]) for node in ("A", "C", "E"))
    u, v = (pgm.encode(flow, dict(batch))["u"] for batch in (x, y))
    torch.testing.assert_close(u[:, 3], v[:, 3], atol=1e-9, rtol=0)
    assert (y["D"] - x["D"]).abs().max() > 0.01
    same = causal.counterfactual(flow, x, do={"B": x["B"]})  # consistency
    for node in flow.nodes:
        torch.testing.assert_close(same.draws[node][0], x[node], atol=1e-9, rtol=0)


@pytest.fixture(scope="module")
def trained() -> CausalFlow:
    """Fitted to 10000 rows of the nonlinear triangle in 800 steps."""
    known = published("triangle_nonlinear")
    seen = known.sample(10_000, seed=0)
    torch.manual_seed(0)
    flow = CausalFlow.from_data(known.graph, seen, hidden=(32, 32))
    options = {"steps": 800, "batch_size": 256, "learning_rate": 0.005, "clip": 5.0}
    pgm.fit(flow, seen, schedule="cosine", seed=0, **options)
    return flow


def test_a_flow_learns_the_three_rungs_of_the_nonlinear_triangle(trained: CausalFlow) -> None:
    known = published("triangle_nonlinear")
    x = known.sample(2000, seed=1)
    gap = known.log_prob(x).mean() - pgm.log_prob(trained, x).value.mean()
    assert 0 < gap < 0.05  # held-out nats a row, of an entropy of 4.28
    drawn = pgm.sample(trained, 1000, seed=0)
    ours, true = (
        torch.stack([batch[node].double() for node in known.graph], -1)[:1000]
        for batch in (drawn, x)
    )
    assert mmd(ours / ours.std(0), true / ours.std(0), seed=0).p_value > 0.01
    for value in (-0.67, 0.0, 0.67):
        truth = known.counterfactual(x, do={"x1": value})
        answer = causal.counterfactual(trained, x, do={"x1": value})
        error = torch.stack([answer.draws[n][0] - truth[n] for n in ("x2", "x3")])
        assert error.square().mean().sqrt() < 0.3
    found = causal.effect(trained, "x3", do={"x1": 1.0}, versus={"x1": 0.0}, seed=0)
    worlds = [known.sample(10_000, do={"x1": v}, seed=0)["x3"].mean() for v in (1.0, 0.0)]
    assert found.difference.item() == pytest.approx((worlds[0] - worlds[1]).item(), abs=0.3)


def test_missing_cells_are_integrated_out(trained: CausalFlow) -> None:
    x = published("triangle_nonlinear").sample(50, seed=2)
    holes = x | {"x3": torch.where(torch.arange(50) < 25, torch.nan, x["x3"])}
    answer = pgm.log_prob(trained, holes)
    whole = pgm.log_prob(trained, x)
    torch.testing.assert_close(answer.value[25:], whole.value[25:], atol=1e-5, rtol=0)
    part = {"x1": x["x1"], "x2": x["x2"]}
    expected = whole.value - terms(trained, Batch({n: v.float() for n, v in x.items()}))["x3"]
    torch.testing.assert_close(pgm.log_prob(trained, part).value, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(answer.value[:25], expected[:25], atol=1e-4, rtol=0)
    with pytest.raises(pgm.Unsupported, match="every cell"):
        pgm.encode(trained, holes)


def test_a_flow_in_a_file_and_a_copy_are_the_flow(tmp_path: Path) -> None:
    flow = rough(DIAMOND).float()
    x = rows(flow)
    pgm.save(flow, tmp_path / "flow.pt")
    read = pgm.load(tmp_path / "flow.pt")
    assert torch.equal(pgm.log_prob(read, x).value, pgm.log_prob(flow, x).value)
    assert read.nodes == flow.nodes
    other = copy.deepcopy(flow)
    with torch.no_grad():
        other.conditioner.heads[0].bias.add_(1.0)
    assert other.mechanism("A").dist({}).loc != flow.mechanism("A").dist({}).loc


def test_a_frame_is_read_in_its_units() -> None:
    generator = np.random.default_rng(0)
    frame = pd.DataFrame({"age": generator.normal(50, 20, 400)})
    frame["score"] = 2 * frame["age"] + generator.normal(0, 10, 400)
    before = frame.copy()
    flow = CausalFlow.from_data("age -> score", frame)
    pgm.fit(flow, frame, steps=150, batch_size=200, learning_rate=0.02, seed=0)
    pd.testing.assert_frame_equal(frame, before)
    found = causal.effect(flow, "score", do={"age": 60}, versus={"age": 40}, seed=0)
    assert found.difference.item() == pytest.approx(40, abs=6)


def test_what_a_flow_cannot_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'U\(A,B\)' is latent"):
        CausalFlow("A -> B; A <-> B")
    mixed = pgm.Schema({"A": pgm.Continuous(), "B": pgm.Categorical(("no", "yes"))})
    with pytest.raises(ValueError, match=r"'B' holds levels or counts.*not identified"):
        CausalFlow("A -> B", schema=mixed)
    with pytest.raises(ValueError, match="graph nodes A, B"):
        CausalFlow("A -> B", schema=pgm.Schema({"A": pgm.Continuous()}))
    codes = {"A": torch.randn(40), "B": torch.arange(40) % 2}
    with pytest.raises(ValueError, match="'B' holds levels"):
        CausalFlow.from_data("A -> B", codes)
    with pytest.raises(ValueError, match="'B' holds levels"):
        pgm.fit(CausalFlow("A -> B"), codes, steps=1)
    with pytest.raises(ValueError, match="'B' is 0 in 20 of 40 rows"):
        CausalFlow.from_data("A -> B", codes | {"B": codes["B"].float()})
    with pytest.raises(ValueError, match="columns A, and the graph nodes A, B"):
        CausalFlow.from_data("A -> B", {"A": torch.randn(40)})
    with pytest.raises(ValueError, match="std is positive"):
        CausalFlow("A -> B", std=[1.0, 0.0])
    with pytest.raises(ValueError, match="1 means"):
        CausalFlow("A -> B", mean=[1.0])
    with pytest.raises(ValueError, match="two bins"):
        CausalFlow("A -> B", bins=1)
    with pytest.raises(ValueError, match="'Z'"):
        CausalFlow("A -> B").mechanism("Z")
    with pytest.raises(ValueError, match="of A, B are as they were made"):
        causal.effect(CausalFlow("A -> B"), "B", do={"A": 1.0})
    with pytest.raises(ValueError, match="one number a node"):
        pgm.decode(CausalFlow("A -> B"), torch.zeros(3, 4))
