"""Missing cells and latent nodes: against the normal law in closed form, and exact enumeration."""

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import causal
import pgm
from causal import SCM, CategoricalTable, Kind, LinearGaussian

BINARY = Kind(levels=2)
TRAIN = {"learning_rate": 0.05, "schedule": "cosine", "seed": 0, "progress": False}


def moments(scm: SCM, clamped: list[str]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all nodes where some were set to zero, by x = (I - W)^-1 (b + s u)."""
    d = len(scm.nodes)
    b, W, s = torch.zeros(d), torch.zeros(d, d), torch.zeros(d)
    for i, node in enumerate(scm.nodes):
        mechanism = scm.mechanism(node)
        if node in clamped:
            continue
        b[i], s[i] = mechanism.intercept, mechanism.log_scale.exp()
        for parent, w in zip(mechanism.inputs, mechanism.weight, strict=True):
            W[i, scm.nodes.index(parent)] = w
    A = torch.linalg.inv(torch.eye(d) - W)
    return A @ b, A @ torch.diag(s**2) @ A.T


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_missing_cells_of_a_linear_scm_are_integrated_out_exactly(seed: int) -> None:
    """Against the marginal normal of the seen cells of each row."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(6, generator=g).tolist()
    scm = SCM(
        "A -> {B C}; B -> {C D}; C -> D; A -> D",
        A=LinearGaussian(intercept=0.5),
        B=LinearGaussian({"A": weight[0]}, scale=0.5),
        C=LinearGaussian({"A": weight[1], "B": weight[2]}, scale=1.5),
        D=LinearGaussian({"B": weight[3], "C": weight[4], "A": weight[5]}, intercept=-1.0),
    ).double()
    x = torch.randn(8, 4, generator=g, dtype=torch.float64)
    seen = torch.rand(8, 4, generator=g) < 0.6
    rows = {v: torch.where(seen[:, i], x[:, i], torch.nan) for i, v in enumerate("ABCD")}
    found = pgm.log_prob(scm, rows)
    assert found.kind == "exact"
    mean, covariance = moments(scm, [])
    for i in range(8):
        k = seen[i]
        law = torch.distributions.MultivariateNormal(mean[k].double(), covariance[k][:, k].double())
        want = law.log_prob(x[i, k]) if k.any() else torch.tensor(0.0)
        assert found.value[i].item() == pytest.approx(want.item(), abs=1e-4)


def test_a_clamped_cell_cuts_its_mechanism_where_others_are_missing() -> None:
    """B was set to 0 in row 0, where A is missing: C given do(B=0), and nothing is told of A."""
    scm = SCM(
        "A -> B -> C; A -> C",
        A=LinearGaussian(),
        B=LinearGaussian({"A": 2.0}),
        C=LinearGaussian({"A": 1.0, "B": 3.0}),
    )
    nan, zero = torch.tensor([torch.nan]), torch.zeros(1)
    clamped = torch.tensor([[False, True, False]])
    rows = {"A": nan, "B": zero, "C": torch.ones(1), "clamped": clamped}
    want = torch.distributions.Normal(0.0, 2**0.5).log_prob(torch.tensor(1.0))
    assert pgm.log_prob(scm, rows).value.item() == pytest.approx(want.item(), abs=1e-5)


@pytest.mark.parametrize("kind", [Kind(), BINARY])
def test_a_cell_that_was_set_and_not_measured_is_refused(kind: Kind) -> None:
    scm = SCM("A -> B", A=kind)
    rows = {"A": torch.zeros(2), "B": torch.ones(2), "A_seen": torch.tensor([True, False])}
    rows["clamped"] = torch.tensor([[True, False], [True, False]])
    for ask in (pgm.log_prob, pgm.objective):
        with pytest.raises(ValueError, match="'A' are clamped and missing"):
            ask(scm, rows)


def binary(seed: int) -> SCM:
    g = torch.Generator().manual_seed(seed)
    p = torch.rand(8, generator=g)
    table = torch.stack([p, 1 - p], -1)
    return SCM(
        "A -> {B C}; B -> C; C -> D",
        A=CategoricalTable(table[0].tolist()),
        B=CategoricalTable(table[1:3].tolist(), ["A"]),
        C=CategoricalTable(table[3:7].reshape(2, 2, 2).tolist(), ["A", "B"]),
        D=LinearGaussian({"C": [0.0, 2.0]}),
    )


@settings(max_examples=10)
@given(st.integers(0, 10_000))
def test_missing_levels_are_summed_out_exactly(seed: int) -> None:
    """Against the sum over all completions of each row, clamped cells without their own term."""
    scm, g = binary(seed), torch.Generator().manual_seed(seed)
    x = {v: torch.randint(2, (6,), generator=g) for v in "ABC"}
    d = torch.randn(6, generator=g)
    seen = torch.rand(6, 3, generator=g) < 0.6
    clamped = (torch.rand(6, 4, generator=g) < 0.3) & torch.cat([seen, seen[:, :1] & False], 1)
    rows = {v: x[v] for v in "ABC"} | {"D": d, "clamped": clamped}
    rows |= {v + "_seen": seen[:, i] for i, v in enumerate("ABC")}
    found = pgm.log_prob(scm, rows)
    assert found.kind == "exact"
    for i in range(6):
        total = torch.zeros(())
        for cells in itertools.product((0, 1), repeat=3):
            full = dict(zip("ABC", map(torch.tensor, cells), strict=True)) | {"D": d[i]}
            if any(seen[i, j] and full[v] != x[v][i] for j, v in enumerate("ABC")):
                continue
            terms = [
                scm.mechanism(v).dist({p: full[p] for p in scm.parents(v)}).log_prob(full[v])
                for j, v in enumerate("ABCD")
                if not clamped[i, j]
            ]
            total = total + torch.stack([*terms, torch.zeros(())]).sum().exp()
        assert found.value[i].item() == pytest.approx(total.log().item(), abs=1e-4)


def holes(x: Tensor, share: float) -> Tensor:
    return torch.where(torch.rand(len(x)) < share, torch.nan, x)


def test_a_chain_with_missing_cells_is_fitted_without_bias() -> None:
    """The evidence bound makes 1.0 of the effect 1.5 of A where 40 % are missing."""
    A = torch.randn(3000)
    B = 1.5 * A + torch.randn(3000)
    C = -0.8 * B + 0.5 * torch.randn(3000)
    rows = {"A": holes(A, 0.4), "B": holes(B, 0.4), "C": holes(C, 0.4)}
    scm = SCM("A -> B -> C")
    pgm.fit(scm, rows, steps=250, batch_size=1000, **TRAIN)
    b, c = scm.mechanism("B"), scm.mechanism("C")
    assert b.weight.item() == pytest.approx(1.5, abs=0.12)
    assert b.log_scale.exp().item() == pytest.approx(1.0, abs=0.12)
    assert c.weight.item() == pytest.approx(-0.8, abs=0.06)


def test_where_nothing_is_exact_the_bound_is_of_many_draws() -> None:
    scm = SCM("A -> B", B=causal.AdditiveNoise({"A": Kind()}))
    rows = {"A": torch.tensor([torch.nan, 0.0]), "B": torch.ones(2)}
    assert causal.exact_log_prob(scm, pgm.batch.as_batch(rows)) is None
    assert pgm.log_prob(scm, rows, seed=0).kind == "bound"
    losses = torch.stack([pgm.objective(scm, rows, seed=i).detach() for i in range(20)])
    law = torch.distributions.Normal(0.0, 1.0)  # B does not hear A yet
    b, a = law.log_prob(torch.tensor(1.0)).item(), law.log_prob(torch.tensor(0.0)).item()
    assert (-losses.mean(0)).tolist() == pytest.approx([b, b + a], abs=0.01)


def confounded(n: int) -> dict[str, Tensor]:
    Z, U = torch.randn(n), torch.randn(n)
    X = Z + U + 0.5 * torch.randn(n)
    return {"Z": Z, "X": X, "Y": 0.7 * X - 1.2 * U + 0.5 * torch.randn(n)}


def test_a_latent_confounder_has_the_marginal_covariance_and_an_exact_guide() -> None:
    scm = SCM(
        "Z -> X -> Y; X <-> Y",
        Z=LinearGaussian(),
        X=LinearGaussian({"Z": 1.0, "U(X,Y)": 1.0}, scale=0.5),
        Y=LinearGaussian({"X": 0.7, "U(X,Y)": -1.2}, scale=0.5),
    )
    rows = confounded(20)
    mean, covariance = moments(scm, [])
    i = [scm.nodes.index(v) for v in ("Z", "X", "Y")]
    law = torch.distributions.MultivariateNormal(mean[i], covariance[i][:, i])
    want = law.log_prob(torch.stack([rows[v] for v in ("Z", "X", "Y")], 1))
    assert pgm.log_prob(scm, rows).value == pytest.approx(want.detach(), abs=1e-4)
    weight = pgm.log_weight(scm, pgm.batch.as_batch(rows), particles=3)
    assert weight.rows.detach() == pytest.approx(want.detach().expand(3, 20), abs=1e-4)
    u = pgm.encode(scm, rows, seed=0)["U(X,Y)"]
    assert u.shape == (20,)


def test_an_instrument_identifies_the_effect_of_a_confounded_cause() -> None:
    """The fitted effect is the ratio of covariances with the instrument, and not the regression."""
    rows = confounded(4000)
    scm = SCM("Z -> X -> Y; X <-> Y")
    pgm.fit(scm, rows, steps=300, batch_size=1000, **TRAIN)
    answer = causal.effect(scm, "Y", do={"X": 1.0}, versus={"X": 0.0})
    Z, X, Y = (rows[v] - rows[v].mean() for v in ("Z", "X", "Y"))
    assert answer.difference.item() == pytest.approx(
        float((Z * Y).mean() / (Z * X).mean()), abs=0.03
    )
    assert abs(float((X * Y).mean() / (X * X).mean()) - 0.7) > 0.3


def test_front_door_with_a_summed_out_confounder() -> None:
    """The fitted do() is the front-door formula on the same rows, and not the naive contrast."""
    n = 8000
    U = (torch.rand(n) < 0.4).long()
    X = (torch.rand(n) < torch.tensor([0.2, 0.8])[U]).long()
    M = (torch.rand(n) < torch.tensor([0.1, 0.7])[X]).long()
    Y = (torch.rand(n) < torch.tensor([[0.2, 0.6], [0.5, 0.9]])[M, U]).long()
    kinds = dict.fromkeys(("X", "M", "Y", "U(X,Y)"), BINARY)
    scm = SCM("X -> M -> Y; X <-> Y", **kinds)
    assert not scm.latent
    pgm.fit(scm, {"X": X, "M": M, "Y": Y}, steps=500, batch_size=2000, **TRAIN)
    answer = causal.effect(scm, "Y", do={"X": 1}, versus={"X": 0}, level=1)

    def front_door(x: int) -> float:
        total = 0.0
        for m, z in itertools.product((0, 1), repeat=2):
            p_m = (M[x == X] == m).double().mean()
            p_y = Y[(m == M) & (z == X)].double().mean()
            total += float(p_m * p_y * (z == X).double().mean())
        return total

    assert answer.treated.item() == pytest.approx(front_door(1), abs=0.015)
    assert answer.control.item() == pytest.approx(front_door(0), abs=0.015)
    assert abs(float(Y[X == 1].double().mean()) - front_door(1)) > 0.08


def test_a_latent_of_a_nonlinear_child_gets_a_network_as_guide() -> None:
    scm = SCM("U [latent]; U -> {X Y}", Y=causal.AdditiveNoise)
    rows = {"X": torch.randn(30), "Y": torch.randn(30)}
    rows["Y"][0] = torch.nan
    assert scm.encoder is not None
    assert scm.latent
    pgm.fit(scm, rows, steps=3, seed=0, progress=False)
    assert set(pgm.sample(scm, 4, seed=0)) == {"X", "Y"}
    assert torch.isfinite(pgm.log_prob(scm, rows, seed=0).value).all()


def test_latent_scms_are_saved_with_their_graph(tmp_path: Path) -> None:
    made = {"X": causal.LinearSoftmax, "U(X,Y)": Kind(), "Y": causal.AdditiveNoise}
    schema = pgm.Schema({"X": pgm.Categorical((0, 1)), "Y": pgm.Continuous()})
    scm = SCM("X -> Y; X <-> Y", schema=schema, **made)
    pgm.save(scm, tmp_path / "scm.pt")
    back = pgm.load(tmp_path / "scm.pt")
    rows = {"X": torch.tensor([0, 1]), "Y": torch.zeros(2)}
    assert isinstance(back, SCM)
    assert causal.graph.latents(back.graph) == ["U(X,Y)"]
    frozen = [p.requires_grad for p in back.mechanism("U(X,Y)").parameters()]
    assert frozen == [p.requires_grad for p in scm.mechanism("U(X,Y)").parameters()]
    one, two = (pgm.log_prob(m, rows, seed=0).value for m in (scm, back))
    assert torch.equal(one, two)
    assert causal.scm.untrained(back) == ["X", "Y"]


def test_latent_nodes_are_refused_where_there_is_no_closed_form() -> None:
    rows = confounded(50)
    with pytest.raises(pgm.Unsupported, match=r"'U\(X,Y\)' is latent"):
        causal.estimate(SCM("Z -> X -> Y; X <-> Y"), rows)
    schema = pgm.Schema({"U": pgm.Continuous(), "X": pgm.Continuous()})
    with pytest.raises(ValueError, match="U is a latent node"):
        SCM("U [latent]; U -> X", schema=schema)


def test_clamped_has_a_column_a_node_or_an_observed_node() -> None:
    scm, rows = SCM("Z -> X -> Y; X <-> Y"), confounded(5)
    clamped = torch.zeros(5, 3, dtype=torch.bool)
    clamped[:, 1] = True
    wide = torch.zeros(5, 4, dtype=torch.bool)
    wide[:, scm.nodes.index("X")] = True
    one, two = (pgm.log_prob(scm, rows | {"clamped": c}).value for c in (clamped, wide))
    assert torch.equal(one, two)
    assert not torch.allclose(one, pgm.log_prob(scm, rows).value)
