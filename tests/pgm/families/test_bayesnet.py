"""Discrete Bayesian networks: the chest clinic's published numbers, surgery, learning, draws."""

import math
from pathlib import Path

import networkx as nx
import pandas as pd
import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

import causal
import pgm
import privacy
from pgm.families.bayesnet import DiscreteBayesNet, asia, estimate
from pgm.randomness import seeded

SEEN = {"xray": "yes", "dysp": "yes"}


def random_net(seed: int) -> DiscreteBayesNet:
    """Up to five variables with two or three states, each with up to two parents."""
    with seeded(seed):
        names = list("abcde")
        states = {name: 2 + int(torch.randint(2, ())) for name in names}
        parents, tables = {}, {}
        for i, name in enumerate(names):
            some = torch.randperm(i)[: int(torch.randint(3, ()))].tolist()
            parents[name] = [names[j] for j in some]
            shape = [states[v] for v in (*parents[name], name)]
            tables[name] = torch.rand(shape, dtype=torch.float64).add(0.05)
            tables[name] = tables[name] / tables[name].sum(-1, keepdim=True)
    return DiscreteBayesNet(parents, states, tables)


def every_state(net: DiscreteBayesNet) -> dict[str, Tensor]:
    grid = torch.cartesian_prod(*(torch.arange(len(s)) for s in net.states.values()))
    return dict(zip(net.states, grid.T, strict=True))


def hide(rows: dict[str, Tensor], fraction: float, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        name: x.double().masked_fill(torch.rand(len(x), generator=g) < fraction, math.nan)
        for name, x in rows.items()
    }


def test_the_chest_clinic_gives_its_published_answers() -> None:
    """Lauritzen & Spiegelhalter (1988); digits by enumeration of the 256 states."""
    net = asia()
    row = net.schema.encode(
        pd.DataFrame({name: [SEEN.get(name)] for name in net.states}), all_missing="keep"
    )
    assert pgm.log_prob(net, row).value.item() == pytest.approx(-2.649732646992, abs=1e-11)
    found = net.marginals(SEEN)
    assert found.log_p.item() == pytest.approx(-2.649732646992, abs=1e-11)
    expected = {"lung": 0.621252796678, "tub": 0.113933325391, "bronc": 0.681868538459}
    for name, p in expected.items():
        assert found.of(name, "yes").item() == pytest.approx(p, abs=1e-11)
    assert net.marginals(do={"smoke": "yes"}).of("dysp", "yes").item() == pytest.approx(0.552808)
    assert net.marginals(do={"tub": "yes"}).of("asia", "yes").item() == pytest.approx(0.01)
    assert net.marginals({"tub": "yes"}).of("asia", "yes").item() > 0.045


def test_the_program_and_the_handlers_say_the_same() -> None:
    net = asia()
    seen = causal.condition(net, SEEN).mean()
    found = net.marginals(SEEN)
    assert all(torch.allclose(seen[v].double(), found[v], atol=1e-6) for v in net.states)
    world = causal.do(net, smoke="yes")
    done = causal.condition(world, {"xray": "yes"}).mean()["lung"]
    expected = net.marginals({"xray": "yes"}, do={"smoke": "yes"})["lung"]
    assert torch.allclose(done.double(), expected, atol=1e-6)
    drawn = pgm.sample(world, 20000, seed=0)["dysp"]
    assert (drawn == 0).double().mean().item() == pytest.approx(0.552808, abs=0.015)


def test_a_frame_of_evidence_is_answered_row_by_row() -> None:
    net = asia()
    frame = pd.DataFrame({"xray": ["yes", "no", None], "smoke": ["no", None, None]})
    found = net.marginals(frame)
    for i, row in enumerate(frame.to_dict("records")):
        one = net.marginals({name: x for name, x in row.items() if isinstance(x, str)})
        for name in net.states:
            assert torch.allclose(found[name][i], one[name][0], atol=1e-14)


def test_the_most_probable_state_is_found_under_evidence() -> None:
    net = asia()
    state, log_p = net.most_probable(SEEN)
    every = every_state(net)
    value = pgm.log_prob(net, every).value
    agree = (every["xray"] == 0) & (every["dysp"] == 0)
    best = value.masked_fill(~agree, -math.inf).argmax()
    assert log_p.item() == pytest.approx(value[best].item())
    assert all(state[name].item() == every[name][best] for name in net.states)


@over(st.integers(0, 10**6))
def test_densities_with_missing_cells_are_sums_over_them(seed: int) -> None:
    net = random_net(seed)
    every = every_state(net)
    p = pgm.log_prob(net, every).value.exp()
    assert p.sum().item() == pytest.approx(1.0)
    rows = hide(pgm.sample(net, 6, seed=seed), 0.4, seed)
    found = pgm.log_prob(net, rows).value
    loss = pgm.objective(net, rows)
    for i in range(6):
        agrees = torch.ones(len(p), dtype=torch.bool)
        for name, x in rows.items():
            agrees &= (every[name] == x[i]) | x[i].isnan()
        assert found[i].item() == pytest.approx(p[agrees].sum().log().item(), abs=1e-10)
        assert loss[i].item() == pytest.approx(-found[i].item(), abs=1e-10)


def test_imputation_draws_from_the_exact_posterior() -> None:
    net = asia()
    rows = {"xray": torch.tensor([0, 1]), "lung": torch.tensor([math.nan, math.nan])}
    rows |= {"smoke": torch.tensor([math.nan, 0.0])}
    done = pgm.impute(net, rows, draws=40000, seed=0)
    assert done.draws["lung"].dtype == torch.int64
    given = {name: torch.as_tensor(x) for name, x in rows.items()}
    p = net.marginals(given, targets=[("lung", "smoke")])["lung", "smoke"]
    both = done.draws["lung"] * 2 + done.draws["smoke"]
    for i in range(2):
        frequency = torch.bincount(both[:, i], minlength=4) / 40000
        assert torch.allclose(frequency.double(), p[i].flatten(), atol=0.012)


def test_counts_are_the_posterior_mean_of_the_dirichlet_prior() -> None:
    net = DiscreteBayesNet({"b": ["a"]}, {"a": 2, "b": 3})
    rows = {"a": torch.tensor([0, 0, 0, 1]), "b": torch.tensor([0, 1, 1, 2])}
    how = estimate(net, rows, prior=6.0)
    assert how.converged
    assert torch.allclose(net.tables["a"], torch.tensor([6.0, 4.0]) / 10)
    assert torch.allclose(net.tables["b"][0], torch.tensor([2.0, 3.0, 1.0]) / 6)
    assert torch.allclose(net.tables["b"][1], torch.tensor([1.0, 1.0, 2.0]) / 4)


def test_parents_that_no_row_has_need_a_prior() -> None:
    net = DiscreteBayesNet({"b": ["a"]}, {"a": 2, "b": 2})
    rows = {"a": torch.tensor([0, 0]), "b": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=r"1 of the 2 configurations of the parents of 'b' \(a\)"):
        estimate(net, rows, prior=0.0)
    assert torch.equal(net.tables["b"], torch.full((2, 2), 0.5))
    estimate(net, rows)
    assert torch.allclose(net.tables["b"][1], torch.full((2,), 0.5))


@settings(max_examples=5)
@over(st.integers(0, 10**6))
def test_em_climbs_and_ends_where_the_gradient_is_that_of_the_prior(seed: int) -> None:
    """At a maximum the gradient of log p(data) + sum a log theta in the free logits is zero."""
    true = random_net(seed)
    rows = hide(pgm.sample(true, 60, seed=seed), 0.3, seed)
    net = DiscreteBayesNet(true.parents, {k: list(s) for k, s in true.states.items()}).double()
    how = estimate(net, rows, prior=5.0, steps=2000, tolerance=1e-12)
    rises = [b - a for a, b in zip(how.log_posterior, how.log_posterior[1:], strict=False)]
    assert min(rises) > -1e-9
    assert how.converged
    log_p = -pgm.objective(net, rows).sum()
    prior = sum(5.0 / t.numel() * t.log_softmax(-1).sum() for t in net.logits)
    gradients = torch.autograd.grad(log_p + prior, list(net.logits))
    assert all(g.abs().max() < 1e-3 for g in gradients)


def test_em_and_gradients_find_the_same_maximum() -> None:
    true = asia()
    rows = hide(pgm.sample(true, 400, seed=0), 0.2, 0)
    two = [DiscreteBayesNet(true.parents, true.states).double() for _ in range(2)]
    estimate(two[0], rows, prior=1e-3, steps=500, tolerance=1e-9)
    pgm.fit(two[1], rows, steps=250, learning_rate=0.1, batch_size=400, seed=0, progress=False)
    means = [pgm.log_prob(net, rows).mean[0] for net in two]
    assert means[1] == pytest.approx(means[0], abs=2e-3)
    assert means[0] > pgm.log_prob(true, rows).mean[0]


def test_a_latent_variable_is_learned_from_what_it_causes() -> None:
    """Three binary effects of one binary cause are identified (Lazarsfeld 1950), up to a swap."""
    tables = {"h": [0.4, 0.6]} | {name: [[0.9, 0.1], [0.2, 0.8]] for name in "abc"}
    above = {name: ["h"] for name in "abc"}
    true = DiscreteBayesNet(above, dict.fromkeys("habc", 2), tables)
    rows = pgm.sample(true, 5000, seed=0)
    del rows["h"]
    net = DiscreteBayesNet(above, dict.fromkeys("habc", 2))
    estimate(net, rows, steps=2000, tolerance=1e-8)
    assert net.tables["h"].max().item() == pytest.approx(0.6, abs=0.06)
    assert net.tables["a"].amax(0).tolist() == pytest.approx([0.9, 0.8], abs=0.06)


def test_a_private_fit_learns() -> None:
    true = asia()
    rows = pgm.sample(true, 500, seed=0)
    net = DiscreteBayesNet(true.parents, true.states)
    before = pgm.log_prob(net, rows).mean[0]
    options = {"epsilon": 3.0, "delta": 1e-4, "accountant": "rdp", "seed": 0}
    privacy.fit(net, rows, steps=20, learning_rate=0.2, **options)
    assert pgm.log_prob(net, rows).mean[0] > before + 0.5
    privacy.fit(net, hide({name: x[:60] for name, x in rows.items()}, 0.3, 0), steps=2, **options)


def test_a_file_comes_back(tmp_path: Path) -> None:
    net = asia()
    net.to_bif(tmp_path / "asia.bif")
    again = DiscreteBayesNet.from_bif(tmp_path / "asia.bif")
    assert again.states == net.states
    assert set(again.graph.edges) == set(net.graph.edges)
    assert all(torch.allclose(again.tables[v], net.tables[v], atol=1e-15) for v in net.states)


def test_a_graph_and_its_network() -> None:
    graph = nx.DiGraph([("a", "c"), ("b", "c")])
    net = DiscreteBayesNet.from_graph(graph, {"a": 2, "b": 3, "c": 2})
    assert net.tables["c"].shape == (2, 3, 2)
    assert nx.utils.graphs_equal(net.graph, graph)


CYCLE = {"a": ["c"], "b": ["a"], "c": ["b"]}


@pytest.mark.parametrize(
    ("parents", "states", "tables", "message"),
    [
        (CYCLE, {"a": 2, "b": 2, "c": 2}, None, "circle: .* -> "),
        ({"a": ["b"]}, {"a": 2}, None, "'b', which is no variable"),
        ({"d": ["a"]}, {"a": 2}, None, "'d', which is no variable"),
        ({}, {"a": 2}, {"a": [0.5, 0.3, 0.2]}, r"shape \(3,\); it needs \(2,\)"),
        ({}, {"a": 2}, {"a": [0.5, 0.6]}, r"such as 1\.1 came"),
        ({}, {"a": 2}, {"a": [1.5, -0.5]}, "no probabilities"),
    ],
)
def test_bad_networks_are_errors(parents, states, tables, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        DiscreteBayesNet(parents, states, tables)


def test_bad_questions_are_errors() -> None:
    net = asia()
    with pytest.raises(ValueError, match="no level 'maybe'"):
        net.marginals({"xray": "maybe"})
    with pytest.raises(ValueError, match="Did you mean 'xray'"):
        net.marginals({"x-ray": "yes"})
    with pytest.raises(ValueError, match="row 0 has probability zero"):
        net.marginals({"either": "no", "lung": "yes"})
    with pytest.raises(ValueError, match="targets names 'asthma'"):
        net.marginals(targets=["asthma"])
    with pytest.raises(ValueError, match="'asthma' is no variable"):
        net.marginals(do={"asthma": "yes"})
    with pytest.raises(ValueError, match="2 levels"):
        pgm.log_prob(net, {"xray": torch.tensor([2])})
    with pytest.raises(ValueError, match="prior is -1"):
        estimate(net, pgm.sample(net, 3), prior=-1.0)
    with pytest.raises(KeyError, match="was not asked for"):
        net.marginals(targets=["lung"])["tub"]


def test_a_code_that_is_none_has_an_infinite_loss() -> None:
    net = asia()
    rows = {"xray": torch.tensor([0, 2, -1]), "dysp": torch.tensor([0.0, 1.0, math.nan])}
    assert pgm.objective(net, rows).isinf().tolist() == [False, True, True]


def test_columns_that_a_frame_leaves_out_are_latent_as_those_of_a_batch_are() -> None:
    frame = pd.DataFrame({"smoke": ["yes", "no", None] * 4, "lung": ["no", "no", "yes"] * 4})
    codes = {"smoke": torch.tensor([0.0, 1.0, torch.nan] * 4), "lung": torch.tensor([1, 1, 0] * 4)}
    ours, theirs = asia(), asia()
    runs = [estimate(net, data, steps=20) for net, data in ((ours, frame), (theirs, codes))]
    assert runs[0].log_posterior == pytest.approx(runs[1].log_posterior)
    assert list(frame) == ["smoke", "lung"]
