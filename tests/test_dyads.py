"""Networks as data: dyads, the latent space model and the graph autoencoder."""

import math

import networkx as nx
import pytest
import torch
from sklearn.metrics import roc_auc_score

import pgm
import privacy
from pgm.dyads import Dyadic, align, dyads, hold_out
from pgm.families.graph_autoencoder import GraphAutoencoder
from pgm.families.latent_space import LatentSpace
from pgm.weights import log_weight


def simulated(nodes: int, seed: int) -> tuple[nx.Graph, torch.Tensor]:
    """A network drawn from the latent space model at intercept 1, and its positions."""
    model = LatentSpace(nodes)
    g = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(nodes, 2, generator=g)
    pair = torch.triu_indices(nodes, nodes, 1).T
    p = torch.sigmoid(1 + model.logits(z, pair))
    edges = pair[torch.rand(len(p), generator=g) < p].tolist()
    graph = nx.empty_graph(nodes)
    graph.add_edges_from(edges)
    return graph, z


def test_every_pair_is_a_row_once_whatever_the_nodes_are_called() -> None:
    graph = nx.Graph([("b", "a"), ("a", "c")])
    batch = dyads(graph)  # b, a, c
    assert batch["pair"].tolist() == [[0, 1], [0, 2], [1, 2]]
    assert batch["y"].tolist() == [1.0, 0.0, 1.0]


def test_what_is_held_out_is_neither_trained_on_nor_in_the_graph() -> None:
    graph = nx.les_miserables_graph()
    names = list(graph)
    rest, train, test = hold_out(graph, 0.2, seed=1)
    assert list(rest) == names
    assert int(test["y"].sum()) == len(test["y"]) / 2 == round(0.2 * graph.number_of_edges())
    seen = {tuple(p) for p in train["pair"].tolist()}
    assert not seen & {tuple(p) for p in test["pair"].tolist()}
    assert len(seen) + len(test["y"]) == math.comb(len(graph), 2)
    for (i, j), y in zip(test["pair"].tolist(), test["y"].tolist(), strict=True):
        assert not rest.has_edge(names[i], names[j])
        assert graph.has_edge(names[i], names[j]) == bool(y)
    assert rest.number_of_edges() == int(train["y"].sum())


def test_the_joint_density_by_hand() -> None:
    model = LatentSpace(3, scale=2.0)
    batch = dyads(nx.path_graph(3))
    found = log_weight(model, batch, particles=1)
    z, a = found.values["z"][0], found.values["intercept"][0]
    apart = torch.stack([(z[i] - z[j]).norm() for i, j in batch["pair"].tolist()])
    odds = a - apart
    by_hand = batch["y"] * odds - torch.log1p(odds.exp())
    torch.testing.assert_close(found.rows[0], by_hand, rtol=1e-4, atol=1e-5)


def test_the_convolution_by_hand() -> None:
    """Kipf & Welling 2016, sec. 1, node by node."""
    graph = nx.path_graph(3)
    model = GraphAutoencoder.of(graph, 1, hidden=4)
    degree = torch.tensor([2.0, 3.0, 2.0])  # with the loop that is added
    near = [[0, 1], [0, 1, 2], [1, 2]]

    def spread(x: torch.Tensor) -> torch.Tensor:
        rows = [sum(x[j] / (degree[i] * degree[j]).sqrt() for j in near[i]) for i in range(3)]
        return torch.stack([torch.as_tensor(row) for row in rows])

    h = torch.relu(spread(torch.eye(3)) @ model.first)
    guide = model.propose()
    torch.testing.assert_close(guide.mean, spread(h) @ model.to_mu)
    torch.testing.assert_close(guide.base_dist.scale.log(), spread(h) @ model.to_log_sigma)


@pytest.mark.parametrize("kind", [LatentSpace, GraphAutoencoder])
def test_the_odds_know_no_turn(kind: type[Dyadic]) -> None:
    graph = nx.karate_club_graph()
    model = kind.of(graph)  # type: ignore[attr-defined]
    pair, g = dyads(graph)["pair"], torch.Generator().manual_seed(0)
    z = torch.randn(34, 2, generator=g)
    turn = torch.linalg.qr(torch.randn(2, 2, generator=g))[0]
    moved = z @ turn + (0 if model.turns_only else torch.tensor([3.0, -1.0]))
    torch.testing.assert_close(
        model.logits(moved, pair), model.logits(z, pair), atol=1e-4, rtol=1e-4
    )
    back = align(moved[None], z, moves=not model.turns_only)[0]
    torch.testing.assert_close(back, z, atol=1e-4, rtol=1e-4)


def test_links_that_were_held_out_are_told_from_pairs_without_one() -> None:
    graph, z = simulated(80, seed=0)
    rest, train, test = hold_out(graph, 0.15, seed=0)
    model = LatentSpace.of(rest)
    n = len(train["y"])
    options = {"steps": 500, "learning_rate": 0.05, "schedule": "cosine", "batch_size": n}
    pgm.fit(model, train, seed=0, progress=False, **options)
    found = roc_auc_score(test["y"], model.probabilities(test["pair"], seed=0))
    known = roc_auc_score(test["y"], model.logits(z, test["pair"]))
    assert found > 0.5 * (0.5 + known)  # more than half of what the true positions tell
    assert abs(float(model.intercept_location.detach()) - 1.0) < 0.4
    pair = dyads(graph)["pair"]
    sd = model.embedding(seed=0).sd
    assert 0.2 < float(sd.mean()) < 1.5  # some 79 dyads a node leave a position open
    apart = torch.stack([model.logits(model.location.detach(), pair), model.logits(z, pair)])
    assert torch.corrcoef(apart)[0, 1] > 0.6


def test_minibatches_of_dyads_estimate_the_same_bound() -> None:
    model, batch = LatentSpace.of(nx.karate_club_graph()), dyads(nx.karate_club_graph())
    with torch.no_grad():
        model.log_scale.fill_(-20.0)
        model.intercept_log_scale.fill_(-20.0)  # a guide without spread: no noise of draws
        whole = pgm.objective(model, batch, size=561, seed=0).mean()
        parts = [{k: x[i::3] for k, x in batch.items()} for i in range(3)]
        mean = torch.stack([pgm.objective(model, p, size=561, seed=0).mean() for p in parts]).mean()
    torch.testing.assert_close(mean, whole, rtol=1e-4, atol=1e-4)


def test_a_private_fit_takes_dyads_as_rows_but_no_model_that_keeps_its_graph() -> None:
    graph = nx.karate_club_graph()
    batch = dyads(graph)
    options = {"epsilon": 5.0, "delta": 1e-4, "rows": 561, "steps": 3, "seed": 0}
    report = privacy.fit(LatentSpace(34), batch, **options).report
    assert report.epsilon <= 5.0
    for model in (LatentSpace.of(graph), GraphAutoencoder.of(graph)):
        with pytest.raises(ValueError, match="keeps"):
            privacy.fit(model, batch, **options)


def test_the_embedding_by_name_and_as_a_picture() -> None:
    graph = nx.les_miserables_graph()
    found = LatentSpace.of(graph).embedding(particles=50, seed=0)
    frame = found.frame(graph)
    assert list(frame.columns) == ["z_0", "z_1", "sd_0", "sd_1"]
    assert frame.loc["Valjean", "z_0"] == pytest.approx(
        float(found.mean[list(graph).index("Valjean"), 0])
    )
    assert len(found.plot(graph).patches) >= 77
    assert "77 nodes in 2 dimensions" in str(found)


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.DiGraph([(0, 1)]), "directed"),
        (nx.MultiGraph([(0, 1), (0, 1)]), "parallel"),
        (nx.Graph([(0, 0), (0, 1)]), "loops at"),
        (nx.empty_graph(1), "1 nodes"),
    ],
    ids=["directed", "parallel", "loops", "one node"],
)
def test_graphs_that_are_no_dyads_are_refused(graph: nx.Graph, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dyads(graph)


@pytest.mark.parametrize("pair", [[0, 5], [1, 1], [-1, 0]])
def test_pairs_that_there_are_not_are_refused(pair: list[int]) -> None:
    with pytest.raises(ValueError, match=r"below 5|with itself"):
        LatentSpace(5).probabilities(torch.tensor([pair]), seed=0)
    with pytest.raises(ValueError, match="no pair"):
        GraphAutoencoder([pair], 5)


def test_impossible_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="two nodes"):
        LatentSpace(1)
    with pytest.raises(ValueError, match="one coordinate"):
        LatentSpace(5, 0)
    with pytest.raises(ValueError, match="row for each"):
        GraphAutoencoder([[0, 1]], 5, features=torch.zeros(4, 2))
    with pytest.raises(ValueError, match="needs some of both"):
        hold_out(nx.complete_graph(5), 0.1)
