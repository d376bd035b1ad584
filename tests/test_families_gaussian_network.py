"""Gaussian networks against a joint law built by hand, a configuration at a time."""

import itertools
import math
from typing import Any

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Tensor

import causal
import pgm
from pgm.families.gaussian_network import GaussianNetwork, estimate
from pgm.inference.cg import ConditionalGaussian, divergence

NAN = float("nan")
PARENTS = {"g": [], "h": ["g"], "x": ["g"], "y": ["x", "h"], "z": ["y", "h", "x", "g"]}
LEVELS = {"g": 2, "h": 3}
NUMBERS = ("x", "y", "z")


def made(seed: int = 0, parents: Any = None, levels: Any = None) -> GaussianNetwork:
    """A network with parameters away from where they start, in double precision."""
    net = GaussianNetwork(parents or PARENTS, LEVELS if levels is None else levels).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))
    return net


def by_hand(net: GaussianNetwork, do: dict[str, float] | None = None) -> list[Any]:
    """(levels, log p, mean, covariance) of every configuration, node after node in NumPy.

    cov(j, i) = sum_p w_p cov(p, i) for i before j: no matrix is inverted.
    """
    do, out = do or {}, []
    for levels in itertools.product(*map(range, net.levels.values())):
        at = dict(zip(net.levels, levels, strict=True))
        log_p, d = 0.0, len(net.numbers)
        for name, logits in zip(net.levels, net.logits, strict=True):
            table = torch.log_softmax(logits, -1)[tuple(at[p] for p in net.parents[name])]
            set_ = 0.0 if at[name] == do.get(name) else -math.inf
            log_p += set_ if name in do else table[at[name]].item()
        mean, C = np.zeros(d), np.zeros((d, d))
        for j, name in enumerate(net.numbers):
            key = tuple(at[p] for p in net.parents[name] if p in at)
            c = net.coefficients[j][key].tolist()
            above = [net.numbers.index(p) for p in net.parents[name] if p not in at]
            s2 = math.exp(2 * net.log_scales[j][key].item())
            if name in do:
                c, above, s2 = [do[name]], [], 0.0
            mean[j] = c[0] + sum(w * mean[i] for w, i in zip(c[1:], above, strict=True))
            for i in range(j):
                C[j, i] = C[i, j] = sum(w * C[a, i] for w, a in zip(c[1:], above, strict=True))
            C[j, j] = s2 + sum(w * C[a, j] for w, a in zip(c[1:], above, strict=True))
        out.append((at, log_p, mean, C))
    return out


def scored(net: GaussianNetwork, row: dict[str, float], **options: Any) -> list[Any]:
    """log p(levels, seen), and mean and covariance of the numbers given the seen, by hand."""
    out = []
    for at, log_p, mean, C in by_hand(net, **options):
        s = [i for i, v in enumerate(net.numbers) if not math.isnan(row[v])]
        if any(not math.isnan(row[v]) and row[v] != at[v] for v in at):
            log_p = -math.inf
        x = np.array([row[net.numbers[i]] for i in s])
        if s:
            log_p += multivariate_normal.logpdf(x, mean[s], C[np.ix_(s, s)])
            G = C[:, s] @ np.linalg.inv(C[np.ix_(s, s)])
            mean, C = mean + G @ (x - mean[s]), C - G @ C[s]
        out.append((at, log_p, mean, C))
    return out


def hidden(net: GaussianNetwork, n: int, seed: int, share: float) -> dict[str, Tensor]:
    """Rows of the network with a share of the cells missing."""
    batch = pgm.sample(net, n, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: x.double().masked_fill(torch.rand(n, generator=generator) < share, NAN)
        for name, x in batch.items()
    }


@given(seed=st.integers(0, 200), share=st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_the_density_is_that_of_the_enumerated_joint(seed: int, share: float) -> None:
    net = made(seed)
    rows = hidden(net, 4, seed, share)
    answer = pgm.log_prob(net, rows)
    assert answer.kind == "exact"
    for i, value in enumerate(answer.value.tolist()):
        terms = scored(net, {name: x[i].item() for name, x in rows.items()})
        assert value == pytest.approx(logsumexp([term[1] for term in terms]), abs=1e-9)


@settings(max_examples=10)
@given(
    seed=st.integers(0, 200),
    share=st.sampled_from([0.3, 0.7]),
    do=st.sampled_from([{}, {"x": 1.5}, {"h": 2.0}, {"g": 1.0, "y": -0.4}]),
)
def test_the_marginals_are_those_of_the_enumerated_joint(
    seed: int, share: float, do: dict[str, float]
) -> None:
    net = made(seed)
    rows = {v: x for v, x in hidden(net, 3, seed, share).items() if v not in do}
    found = net.marginals(rows, do=do)
    for i in range(3):
        row = {v: rows[v][i].item() if v in rows else NAN for v in PARENTS}
        terms = scored(net, row, do=do)
        w = np.exp([t[1] for t in terms] - logsumexp([t[1] for t in terms]))
        for name, k in LEVELS.items():
            p = [sum(w[j] for j, t in enumerate(terms) if t[0][name] == v) for v in range(k)]
            assert np.allclose(found.probabilities(name)[i], p, atol=1e-9)
        for j, name in enumerate(NUMBERS):
            means = np.array([t[2][j] for t in terms])
            variances = np.array([t[3][j, j] for t in terms])
            mean, variance = (part[i].item() for part in found.moments(name))
            assert mean == pytest.approx(w @ means, abs=1e-9)
            spread = w @ (variances + (means - w @ means) ** 2)
            assert variance == pytest.approx(spread, abs=1e-9)


def test_the_law_of_an_open_number_is_the_mixture() -> None:
    net = made(3)
    found, y = net.marginals({"z": 0.3}), torch.linspace(-3, 3, 7).double()
    terms = scored(net, {"g": NAN, "h": NAN, "x": NAN, "y": NAN, "z": 0.3})
    total = logsumexp([t[1] for t in terms])
    for value in y.tolist():
        each = [
            t[1] - total + multivariate_normal.logpdf(value, t[2][1], t[3][1, 1]) for t in terms
        ]
        assert found.law("y").log_prob(torch.tensor(value)).item() == pytest.approx(logsumexp(each))
    with pytest.raises(ValueError, match="a point has no density"):
        found.law("z")


def test_the_program_has_the_same_density_and_gradient() -> None:
    net, batch = made(1), pgm.as_batch(dict(pgm.sample(made(1), 6, seed=0)))
    program = pgm.log_weight(net, batch).rows
    assert torch.allclose(pgm.log_prob(net, batch).value, program, atol=1e-12)
    hidden_ = pgm.as_batch(dict(batch) | {"g_seen": torch.zeros(6, dtype=torch.bool)})
    all_seen = {**batch, "g_seen": torch.ones(6, dtype=torch.bool)}
    assert torch.allclose(pgm.objective(net, all_seen), -program, atol=1e-12)
    summed = torch.stack(
        [
            pgm.log_weight(net, pgm.as_batch({**batch, "g": torch.full((6,), g)})).rows
            for g in (0, 1)
        ]
    ).logsumexp(0)
    ours = pgm.objective(net, hidden_)
    assert torch.allclose(ours, -summed, atol=1e-12)
    parameters = list(net.parameters())
    mine = torch.autograd.grad(ours.sum(), parameters)
    for a, b in zip(mine, torch.autograd.grad(-summed.sum(), parameters), strict=True):
        assert torch.allclose(a, b, atol=1e-9)


def test_completions_have_the_moments_of_the_posterior() -> None:
    net = made(5)
    row = {"g": NAN, "h": 1.0, "x": NAN, "y": 0.4, "z": NAN}
    given_ = {v: torch.tensor([value]) for v, value in row.items()}
    done, found = pgm.impute(net, given_, draws=20000, seed=0).draws, net.marginals(given_)
    p = found.probabilities("g")[0, 1].item()
    assert done["g"].mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / 20000) ** 0.5 + 1e-6)
    for name in ("x", "z"):
        mean, variance = (part.item() for part in found.moments(name))
        assert done[name].mean().item() == pytest.approx(mean, abs=4 * (variance / 20000) ** 0.5)
        assert done[name].var().item() == pytest.approx(variance, rel=0.05)
    x, z = (done[name][:, 0].double() for name in ("x", "z"))
    w, mu = found.log_p.exp()[0], found.mean[0]
    second = found.covariance[0, :, 0, 2] + mu[:, 0] * mu[:, 2]
    mean = [found.moments(name)[0] for name in ("x", "z")]
    covariance = ((w * second).sum() - mean[0] * mean[1]).item()
    sampled = ((x - x.mean()) * (z - z.mean())).mean().item()
    assert sampled == pytest.approx(covariance, abs=0.05 * float(x.std() * z.std()))


def test_do_cuts_the_arrows_and_counterfactuals_keep_the_noise() -> None:
    net = made(2)
    drawn = pgm.sample(causal.do(net, x=1.5), 20000, seed=0)
    ours = net.marginals(do={"x": 1.5})
    mean, variance = (part.item() for part in ours.moments("z"))
    assert drawn["z"].mean().item() == pytest.approx(mean, abs=4 * (variance / 20000) ** 0.5)
    seen = {v: x[:5] for v, x in drawn.items()}
    log_p = pgm.log_prob(causal.do(net, x=1.5), seen).value
    own = net.law("x", seen).log_prob(seen["x"])
    assert torch.allclose(log_p, pgm.log_prob(net, seen).value - own, atol=1e-9)
    line = made(4, {"b": ["a"], "c": ["b", "a"]}, {})
    unit = {"a": torch.tensor([0.5]), "b": torch.tensor([1.0]), "c": torch.tensor([-0.3])}
    answer = causal.counterfactual(line, unit, do={"b": 3.0})
    weight = line.coefficients[2][1].item()
    assert answer.draws["c"].mean().item() == pytest.approx(-0.3 + 2 * weight, abs=1e-5)


def test_complete_rows_are_regressed_in_every_configuration() -> None:
    """NumPy's least squares on the rows of each configuration; tables are relative frequencies."""
    rows = pgm.sample(made(6), 500, seed=1)
    net = GaussianNetwork(PARENTS, LEVELS).double()
    history = estimate(net, rows, prior=0.0)
    g, h, y = rows["g"], rows["h"], rows["y"].numpy()
    assert torch.allclose(net.logits[0].exp(), torch.bincount(g).double() / 500)
    for level in range(3):
        here = (h == level).numpy()
        X = np.stack([np.ones(here.sum()), rows["x"].numpy()[here]], 1)
        beta, residual = np.linalg.lstsq(X, y[here])[:2]
        assert np.allclose(net.coefficients[1][level].detach(), beta)
        scale = (residual[0] / here.sum()) ** 0.5
        assert net.log_scales[1][level].exp().item() == pytest.approx(scale)
    assert len(history) == 1
    assert history[0] == pytest.approx(float(pgm.log_prob(net, rows).value.mean()))
    for gradient in torch.autograd.grad(pgm.objective(net, rows).mean(), list(net.parameters())):
        assert gradient.abs().max() < 1e-9


def test_missing_cells_are_learned_by_a_climb_of_the_exact_likelihood() -> None:
    """EM stops where the gradient of the exact likelihood vanishes (Dempster et al. 1977)."""
    rows = hidden(made(6), 400, 1, 0.2)
    net = GaussianNetwork(PARENTS, LEVELS).double()
    history = estimate(net, rows, prior=0.0, tolerance=1e-11)
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(history))
    assert history[-1] == pytest.approx(float(pgm.log_prob(net, rows).value.mean()), abs=1e-9)
    loss = pgm.objective(net, rows).mean()
    for gradient in torch.autograd.grad(loss, list(net.parameters())):
        assert gradient.abs().max() < 2e-5


def test_entropy_and_divergence_are_means_of_log_densities() -> None:
    p, q = made(7), made(8)
    x = pgm.sample(p, 40000, seed=0)
    log_p, log_q = pgm.log_prob(p, x).value, pgm.log_prob(q, x).value
    error = float(log_p.std()) / 200
    assert p.joint().entropy.item() == pytest.approx(-float(log_p.mean()), abs=4 * error)
    kl, error = divergence(p.joint(), q.joint()).item(), float((log_p - log_q).std()) / 200
    assert kl == pytest.approx(float((log_p - log_q).mean()), abs=4 * error)
    assert divergence(p.joint(), p.joint()).item() == pytest.approx(0, abs=1e-12)
    line = made(1, {"y": ["x"]}, {})
    chain = 1 + math.log(2 * math.pi) + sum(s.item() for s in line.log_scales)
    assert line.joint().entropy.item() == pytest.approx(chain)


def test_a_frame_is_read_and_answered_in_words() -> None:
    rows = pgm.sample(made(6), 300, seed=1)
    frame = pd.DataFrame({v: x.numpy() for v, x in rows.items()})
    frame["g"] = np.where(frame["g"] == 0, "f", "m")
    frame["h"] = frame["h"].map({0: "low", 1: "mid", 2: "top"})
    frame["x"] = 170 + 10 * frame["x"]
    graph = nx.DiGraph([(p, v) for v, above in PARENTS.items() for p in above])
    net = GaussianNetwork.from_graph(graph, pgm.Schema.infer(frame)).double()
    estimate(net, frame)
    found = net.marginals({"g": "m", "x": 180.0})
    mean = found.moments("y")[0].item()
    shares = [((rows["g"] == 1) & (rows["h"] == k)).sum().item() for k in range(3)]
    p = (np.array(shares) + 1 / 6) / (sum(shares) + 1 / 2)
    c = net.coefficients[1].detach().numpy()
    assert mean == pytest.approx(p @ (c[:, 0] + c[:, 1] * 180), rel=1e-6)
    assert torch.equal(net.marginals(frame[["g", "x"]].head(2)).log_p[:, 0].isfinite(),
                       torch.tensor(frame["g"].head(2).eq("f").tolist()))  # fmt: skip
    assert list(graph) == list(net.parents)


BAD: list[tuple[Any, Any, str]] = [
    ({"a": ["b"], "b": ["a"]}, {}, "a -> b -> a|b -> a -> b"),
    ({"a": ["x"]}, {"a": 2}, "'a' has levels, and x among its parents are numbers"),
    ({"a": []}, {"a": 2}, "No node of the network is a number"),
    ({"x": ["a"]}, {"a": 1}, "'a' has 1 levels"),
    ({"x": [f"d{i}" for i in range(9)]}, {f"d{i}": 10 for i in range(9)}, "7.45 GiB for one row"),
]


@pytest.mark.parametrize(("parents", "levels", "message"), BAD)
def test_bad_networks_are_explained(parents: Any, levels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GaussianNetwork(parents, levels)


def test_bad_questions_are_explained() -> None:
    net = made(0)
    with pytest.raises(ValueError, match=r"no node 'X'\. Did you mean 'x'\?"):
        net.marginals({"X": 1.0})
    with pytest.raises(
        ValueError, match=r"'h' holds values from 3 to 3, but its levels are 0 \.\. 2"
    ):
        net.marginals({"h": 3})
    with pytest.raises(ValueError, match=r"x is set by do\(\) and given as evidence too"):
        net.marginals({"x": 1.0}, do={"x": 2.0})
    with pytest.raises(ValueError, match=r"do\(\) sets 'h' to 5; its levels are 0 \.\. 2"):
        net.marginals(do={"h": 5})
    with pytest.raises(ValueError, match="one finite value a node"):
        net.marginals(do={"x": torch.zeros(2)})
    with pytest.raises(ValueError, match=r"'x' is no discrete variable of this law"):
        net.marginals().probabilities("x")
    with torch.no_grad():
        net.logits[0].copy_(torch.tensor([0.0, -torch.inf]))
    with pytest.raises(ValueError, match="row 1 has probability zero"):
        net.marginals({"g": torch.tensor([0, 1])})
    with pytest.raises(ValueError, match=r"shape \(3, 2\); a node is one value a row"):
        pgm.log_prob(net, {"x": torch.zeros(3, 2)})


def test_bad_rows_for_an_estimate_are_explained() -> None:
    rows, net = dict(pgm.sample(made(6), 600, seed=1)), GaussianNetwork(PARENTS, LEVELS)
    with pytest.raises(ValueError, match="prior is -1"):
        estimate(net, rows, prior=-1)
    with pytest.raises(ValueError, match="no value of node 'z'"):
        estimate(net, {v: x for v, x in rows.items() if v != "z"})
    with pytest.raises(ValueError, match="0 rows have h = 2, too few for the 2 coefficients"):
        estimate(net, rows | {"h": rows["h"].clamp(max=1)})
    close = {"x": rows["x"], "y": 2 * rows["x"] + 1e-5 * rows["y"]}
    with pytest.raises(ValueError, match=r"parents of 'z' are constant or linearly dependent"):
        estimate(net, rows | close)
    with pytest.raises(ValueError, match="'z' follows from its parents without a residual"):
        estimate(net, rows | {"z": 2 * rows["x"] + rows["y"]})
    with pytest.raises(ValueError, match="The laws are of different variables"):
        divergence(net.joint(), GaussianNetwork({"y": ["x"]}).joint())
    assert isinstance(net.joint(), ConditionalGaussian)
