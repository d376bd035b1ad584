"""The ladder: what was not seen, by every rung, against closed forms and brute force."""

import itertools

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from torch import Tensor

import causal
import pgm
from causal import SCM, CategoricalTable, LinearGaussian, condition, counterfactual

NAN = float("nan")
PART = {"A": torch.tensor([1.0]), "E": torch.tensor([3.0])}
MEAN, VARIANCE = 3.152778, 0.236111
"""Issue 3: from A = 1, E = 3 alone, E under do(B=0) ~ N(3.152778, .236111)."""


def test_partial_evidence_in_a_linear_scm_is_exact(linear: SCM) -> None:
    found = counterfactual(linear, PART, do={"B": 0.0}, seed=0)
    assert found.rung == "linear-Gaussian"
    assert abs(float(found.mean()["E"]) - MEAN) < 1e-6
    assert abs(float(found.variance()["E"]) - VARIANCE) < 1e-6
    assert abs(float(found.draws["E"].mean()) - MEAN) < 4 * (VARIANCE / 200) ** 0.5
    assert "exact law" in str(found)


def test_importance_agrees_with_the_exact_rung(linear: SCM) -> None:
    asked = {"method": "importance", "particles": 1500, "seed": 0}
    found = counterfactual(linear, PART, do={"B": 0.0}, **asked)  # type: ignore[arg-type]
    assert found.rung == "importance"
    assert abs(float(found.mean()["E"]) - MEAN) < 0.06
    assert abs(float(found.variance()["E"]) - VARIANCE) < 0.04


FEW_DRAWS = pytest.mark.filterwarnings("ignore::pgm.inference.posterior.InferenceWarning")
"""Chains are short here to be quick, and may say so."""


@FEW_DRAWS
def test_nuts_agrees_with_the_exact_rung_for_rows_that_lack_other_sites() -> None:
    scm = SCM("z -> y", z=LinearGaussian(intercept=1.0), y=LinearGaussian({"z": 2.0})).double()
    rows = {"z": torch.tensor([NAN, 0.0]), "y": torch.tensor([3.0, NAN])}
    exact = counterfactual(scm, rows, do={"z": 0.0}, seed=0)
    found = counterfactual(scm, rows, do={"z": 0.0}, method="NUTS", particles=400, seed=0)
    assert (found.rung, exact.rung) == ("NUTS", "linear-Gaussian")
    error = (found.mean()["y"] - exact.mean()["y"]).abs()
    assert bool((error < 0.2 * exact.variance()["y"].sqrt()).all())
    assert exact.variance()["y"].tolist() == pytest.approx([0.8, 1.0])


def test_a_plain_program_with_partial_evidence(program: pgm.Model) -> None:
    found = counterfactual(program, PART, do={"B": 0.0}, particles=6000, seed=1)
    assert (found.rung, found.law) == ("importance", None)
    assert abs(float(found.mean()["E"]) - MEAN) < 0.04
    assert abs(float(found.variance()["E"]) - VARIANCE) < 0.02
    assert float(found.k.max()) < 0.7
    assert "k-hat" in str(found)


@settings(max_examples=30)
@given(
    st.lists(st.floats(-2, 2), min_size=7, max_size=7),
    st.lists(st.sets(st.sampled_from("ABCDE")), min_size=1, max_size=4),
    st.sampled_from("ABCDE"),
)
def test_twin_networks_by_brute_force(w: list[float], seen: list[set[str]], done: str) -> None:
    """The joint normal of both worlds, built on the same noises, conditioned by its formula."""
    scm = SCM(
        "A -> {B C}; B -> {C D}; C -> {D E}; D -> E",
        A=LinearGaussian(intercept=w[6]),
        B=LinearGaussian({"A": w[0]}, scale=0.5),
        C=LinearGaussian({"A": w[1], "B": w[2]}),
        D=LinearGaussian({"B": w[3], "C": w[4]}, intercept=-1.0),
        E=LinearGaussian({"C": w[5], "D": 1.0}, scale=2.0),
    ).double()
    n = len(seen)
    x = pgm.sample(scm, n, seed=0)
    batch = {
        node: torch.where(torch.tensor([node in s for s in seen]), x[node], NAN) for node in "ABCDE"
    }
    batch = {node: v for node, v in batch.items() if not bool(v.isnan().all())}
    if not batch:
        return
    found = counterfactual(scm, batch, do={done: 1.5}, particles=3, seed=0)
    means, variances = found.mean(), found.variance()
    for i in range(n):
        known = {node: float(x[node][i]) for node in "ABCDE" if node in seen[i]}
        for node in "ABCDE":
            mean, variance = _twin(w, known, done, 1.5, node)
            assert abs(float(means[node][i]) - mean) < 1e-6 * (1 + abs(mean))
            assert abs(float(variances[node][i]) - variance) < 1e-6 * (1 + variance)


def _twin(
    w: list[float], known: dict[str, float], done: str, value: float, node: str
) -> tuple[float, float]:
    """Mean and variance of a node of the other world; each value is a vector (1, u_A, ..., u_E)."""

    def world(do: dict[str, float]) -> dict[str, Tensor]:
        eye, s = torch.eye(6).double(), [1.0, 0.5, 1.0, 1.0, 2.0]
        u = {k: s[i] * eye[i + 1] for i, k in enumerate("ABCDE")}
        one, v = eye[0], dict[str, Tensor]()
        v["A"] = w[6] * one + u["A"] if "A" not in do else do["A"] * one
        v["B"] = w[0] * v["A"] + u["B"] if "B" not in do else do["B"] * one
        v["C"] = w[1] * v["A"] + w[2] * v["B"] + u["C"] if "C" not in do else do["C"] * one
        v["D"] = w[3] * v["B"] + w[4] * v["C"] - one + u["D"] if "D" not in do else do["D"] * one
        v["E"] = w[5] * v["C"] + v["D"] + u["E"] if "E" not in do else do["E"] * one
        return v

    before, after = world({}), world({done: value})
    y = after[node]
    if not known:
        return float(y[0]), float(y[1:] @ y[1:])
    M = torch.stack([before[k] for k in known])
    gain = torch.linalg.solve(M[:, 1:] @ M[:, 1:].T, M[:, 1:] @ y[1:])
    residual = torch.tensor(list(known.values())).double() - M[:, 0]
    return float(y[0] + gain @ residual), float(y[1:] @ y[1:] - gain @ (M[:, 1:] @ y[1:]))


TABLES = {
    "a": torch.tensor([0.3, 0.7]),
    "b": torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]]),
    "c": torch.tensor([[[0.9, 0.1], [0.5, 0.5], [0.3, 0.7]], [[0.4, 0.6], [0.2, 0.8], [0.6, 0.4]]]),
}


def discrete() -> SCM:
    return SCM(
        "a -> b -> c; a -> c",
        a=CategoricalTable(TABLES["a"]),
        b=CategoricalTable(TABLES["b"], parents=["a"]),
        c=CategoricalTable(TABLES["c"], parents=["a", "b"]),
    )


def _monotone(p: Tensor, q: Tensor, i: int) -> Tensor:
    """P(would be j | was i) of the inverse-CDF coupling: shares of the interval of i."""
    F, G = torch.cat([torch.zeros(1), p.cumsum(0)]), torch.cat([torch.zeros(1), q.cumsum(0)])
    low, high = torch.maximum(F[i], G[:-1]), torch.minimum(F[i + 1], G[1:])
    return (high - low).clamp(min=0) / p[i]


def test_discrete_sites_that_were_not_seen_are_enumerated() -> None:
    """Seen c = 1 alone: P(c would be 1 under do(a=0)), summed over a and b by hand."""
    weight, answer = 0.0, torch.zeros(2)
    for a, b in itertools.product(range(2), range(3)):
        joint = float(TABLES["a"][a] * TABLES["b"][a, b] * TABLES["c"][a, b, 1])
        other = _monotone(TABLES["b"][a], TABLES["b"][0], b)
        c = sum(other[k] * _monotone(TABLES["c"][a, b], TABLES["c"][0, k], 1) for k in range(3))
        weight, answer = weight + joint, answer + joint * c
    found = counterfactual(
        discrete(),
        {"c": torch.tensor([1])},
        do={"a": 0},
        coupling="monotone",
        particles=20_000,
        seed=0,
    )
    assert found.rung == "enumeration"
    assert found.ess is None
    assert (found.mean()["c"][0] - answer / weight).abs().max() < 0.015
    b = found.draws["b"][:, 0]
    assert set(b.tolist()) == {0, 1, 2}


def test_some_cells_missing_and_some_seen() -> None:
    """Rows whose b was seen keep it where a did not change; c alone is drawn given the rest."""
    rows = {"a": torch.tensor([1.0, NAN]), "b": torch.tensor([2, 0]), "c": torch.tensor([1, 0])}
    found = condition(discrete(), rows, particles=2000, seed=0)
    p = TABLES["a"] * TABLES["b"][:, 0] * TABLES["c"][:, 0, 0]
    assert abs(float(found.mean()["a"][1, 1]) - float(p[1] / p.sum())) < 1e-6
    assert abs(float(found.draws["a"][:, 1].double().mean()) - float(p[1] / p.sum())) < 0.05
    assert found.mean()["a"][0].tolist() == [0.0, 1.0]
    assert bool((found.draws["a"][:, 0] == 1).all())
    assert (found.how["a"], found.how["b"]) == ("drawn: enumeration", "seen")


def test_evidence_after_an_intervention(linear: SCM) -> None:
    """D given do(B=2), E=1: by the joint normal of A, C, D, E with B = 2 fixed."""
    world = causal.do(linear, B=2.0)
    found = condition(world, {"E": 1.0})
    # A = a, C = a - 1.6 + c, D = 1.4 + .5 C + d, E = C + D + e
    C, D = torch.tensor([1.0, 1, 0, 0]), torch.tensor([0.5, 0.5, 1, 0])
    E = C + D + torch.tensor([0, 0, 0, 1.0])
    mean_D, mean_E = 1.4 - 0.8, -1.6 + 1.4 - 0.8
    gain = float(D @ E / (E @ E))
    assert abs(float(found.mean()["D"]) - (mean_D + gain * (1 - mean_E))) < 1e-6
    assert abs(float(found.variance()["D"]) - float(D @ D - gain * (D @ E))) < 1e-6
    drawn = condition(world, {"E": 1.0}, method="importance", particles=4000, seed=0)
    assert abs(float(drawn.mean()["D"] - found.mean()["D"])) < 0.1
    assert drawn.how["B"] == "set by do"


def test_kidney_stones_given_the_outcome_of_a_treatment(
    stones: dict[str, Tensor], stones_scm: SCM
) -> None:
    """P(large | do(open), success), by Bayes' rule on the fitted tables (Charig et al. 1986)."""
    causal.estimate(stones_scm, stones)
    found = condition(causal.do(stones_scm, treatment="open"), {"success": 1}, particles=10)
    small, large = 357 / 700 * 81 / 87, 343 / 700 * 192 / 263
    assert abs(float(found.mean()["size"][0, 1]) - large / (small + large)) < 1e-5


class Banana(pgm.Model):
    """A latent whose likelihood is far from its prior."""

    def __init__(self, scale: float = 0.01) -> None:
        super().__init__()
        self.scale = scale

    def model(self, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(0.0, 3.0))
            pyro.sample("y", dist.Normal(z.exp(), self.scale))


@FEW_DRAWS
def test_a_heavy_tail_climbs_to_nuts_and_warns_where_it_may_not() -> None:
    """z | y is close to log y, which draws from the prior never hit."""
    seen = {"y": torch.tensor([5.0])}
    found = counterfactual(Banana(), seen, do={"y": 0.0}, seed=0)
    assert found.rung == "NUTS"
    assert found.size == (200, 1)
    assert abs(float(found.mean()["z"]) - 1.6094) < 0.01
    assert found.r_hat is not None
    with pytest.warns(RuntimeWarning, match="too uneven"):
        counterfactual(Banana(), seen, do={"y": 0.0}, method="importance", seed=0)


@FEW_DRAWS
def test_chains_take_over_in_the_rows_where_the_weights_fail() -> None:
    """z is likely under its prior in the first rows, and never drawn in the last."""
    seen = {"y": torch.tensor([1.0, 1.1, 90.0])}
    model = Banana(scale=0.5)
    found = counterfactual(model, seen, do={"y": 0.0}, particles=400, seed=0)
    assert found.rung == "importance"
    assert found.r_hat is not None
    assert abs(float(found.mean()["z"][2]) - 4.4998) < 0.02
    assert "in the rows whose weights failed" in str(found)


def test_a_rung_that_does_not_apply_is_refused(program: pgm.Model) -> None:
    with pytest.raises(ValueError, match="linear-Gaussian an SCM of LinearGaussian"):
        counterfactual(program, PART, do={"B": 0.0}, method="linear-Gaussian")
    with pytest.raises(ValueError, match="density zero"):
        condition(Impossible(), {"b": torch.tensor([1])})


class Impossible(pgm.Model):
    """b is never 1."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            logits = torch.stack([z * 0, z * 0 - torch.inf], -1)
            pyro.sample("b", dist.Categorical(logits=logits))
