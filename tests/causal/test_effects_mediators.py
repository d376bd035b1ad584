"""Direct, indirect and path-specific effects: paths of linear models, enumeration by hand."""

import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import causal
import pgm
from causal import SCM, CategoricalTable, LinearGaussian, mediation, path_effect
from causal.effects.question import ask, means, play
from causal.effects.twins import BEFORE

DO: dict[str, Any] = {"do": {"x": 1}, "versus": {"x": 0}}
UNIT: dict[str, Any] = {"do": {"B": 1.0}, "versus": {"B": 0.0}}


def test_paths_of_the_linear_model(linear: SCM) -> None:
    """B -> D -> E .7, B -> C -> E -.8, B -> C -> D -> E -.4 by hand; all of it -.5."""
    paths = {"B -> D -> E": 0.7, "B -> C -> E": -0.8, "B -> C -> D -> E": -0.4}
    for path, product in paths.items():
        found = path_effect(linear, "E", along=path, **UNIT)
        assert float(found["along"]) == pytest.approx(product, abs=1e-6)
        assert float(found["total"]) == pytest.approx(-0.5, abs=1e-6)
        assert float(found["other"]) == pytest.approx(-0.5 - product, abs=1e-6)
    both = path_effect(linear, "E", along="B -> D -> E; B -> C -> E", **UNIT)
    assert float(both["along"]) == pytest.approx(-0.1, abs=1e-6)


def test_mediation_in_the_linear_model(linear: SCM) -> None:
    found = mediation(linear, "E", **UNIT)
    assert "through C, D" in found.title
    assert found["natural direct"].item() == pytest.approx(0.0, abs=1e-9)
    found = mediation(linear, "E", through=["D"], **UNIT)
    assert found["natural indirect"].item() == pytest.approx(0.3, abs=1e-6), ".7 - .8 * .5"
    assert found["natural direct"].item() == pytest.approx(-0.8, abs=1e-6)
    assert "C in two worlds at once" in str(found), "C answers to B, and causes D and E"
    assert found.bounds is None, "there is no coupling"


def binary(p: Any) -> Tensor:
    p = torch.as_tensor(p)
    return torch.stack([1 - p, p], -1)


def mediated(seed: int) -> tuple[SCM, dict[str, Tensor]]:
    """z -> {x m y}, x -> m -> y, x -> y, binary."""
    g = torch.Generator().manual_seed(seed)
    p = {"z": torch.rand((), generator=g), "x": torch.rand(2, generator=g)}
    p |= {"m": torch.rand(2, 2, generator=g), "y": torch.rand(2, 2, 2, generator=g)}
    scm = SCM(
        "z -> {x m y}; x -> {m y}; m -> y",
        z=CategoricalTable(binary(p["z"])),
        x=CategoricalTable(binary(p["x"]), ["z"]),
        m=CategoricalTable(binary(p["m"]), ["z", "x"]),
        y=CategoricalTable(binary(p["y"]), ["z", "x", "m"]),
    )
    return scm, {name: v.double() for name, v in p.items()}


@settings(max_examples=8)
@given(st.integers(0, 1000))
def test_natural_effects_by_enumeration(seed: int) -> None:
    """Pearl (2001), eqs. 6 to 12: sums over the confounder and the mediator's law."""
    scm, p = mediated(seed)

    def nested(x: int, of: int) -> float:
        """E[Y(x, M(of))]."""
        total = 0.0
        for z, m in itertools.product((0, 1), (0, 1)):
            law_z = p["z"] if z else 1 - p["z"]
            law_m = p["m"][z, of] if m else 1 - p["m"][z, of]
            total += float(law_z * law_m * p["y"][z, x, m])
        return total

    found = mediation(scm, "y", level=1, **DO)
    assert float(found["total"]) == pytest.approx(nested(1, 1) - nested(0, 0), abs=1e-6)
    assert float(found["natural direct"]) == pytest.approx(nested(1, 0) - nested(0, 0), abs=1e-6)
    assert float(found["natural indirect"]) == pytest.approx(nested(0, 1) - nested(0, 0), abs=1e-6)
    assert found.bounds is None, "no coupling decides it"
    path = path_effect(scm, "y", along="x -> m -> y", level=1, **DO)
    assert float(path["along"]) == pytest.approx(float(found["natural indirect"]), abs=1e-6)


def kite() -> SCM:
    """x -> w -> {m y}, m -> y: w is a recanting witness for x -> w -> y."""
    return SCM(
        "x -> w -> {m y}; m -> y",
        x=CategoricalTable([0.5, 0.5]),
        w=CategoricalTable(binary([0.3, 0.8]), ["x"]),
        m=CategoricalTable(binary([0.2, 0.9]), ["w"]),
        y=CategoricalTable(binary([[0.1, 0.5], [0.4, 0.7]]), ["w", "m"]),
    )


def test_a_recanting_witness_is_named_and_bounded() -> None:
    """Avin, Shpitser & Pearl (2005), sec. 5: E[Y(W(1), M(W(0)))] needs the law of (W(1), W(0)).

    P(W(1) = 1, W(0) = 1) lies in [.1, .3]; the coupling of one threshold takes the upper end.
    """
    y = torch.tensor([[0.1, 0.5], [0.4, 0.7]])
    m = torch.tensor([[0.8, 0.2], [0.1, 0.9]])

    def value(both: float) -> float:
        law = torch.tensor([[0.2 - 0.3 + both, 0.3 - both], [0.8 - both, both]])  # W(1), W(0)
        return float(torch.einsum("ab,bm,am->", law, m, y))

    at_rest = float(torch.einsum("b,bm,bm->", torch.tensor([0.7, 0.3]), m, y))
    found = path_effect(kite(), "y", along="x -> w -> y", level=1, **DO)
    assert float(found["along"]) == pytest.approx(value(0.3) - at_rest, abs=1e-6)
    assert found.bounds is not None
    ends = sorted([value(0.1) - at_rest, value(0.3) - at_rest])
    assert [float(b[0]) for b in found.bounds] == pytest.approx(ends, abs=1e-6)
    assert "not identified: w in two worlds at once" in str(found)
    whole = path_effect(kite(), "y", along="x -> w -> y; x -> w -> m -> y", level=1, **DO)
    assert whole.bounds is None
    assert float(whole["along"]) == pytest.approx(float(whole["total"]))


def test_enumeration_and_common_noise_agree() -> None:
    """Nested worlds of three levels with a witness, by tables and by draws."""
    g = torch.Generator().manual_seed(12)

    def table(*shape: int) -> Tensor:
        return (2 * torch.randn(shape, generator=g)).softmax(-1)

    scm = SCM(
        "x -> w -> {m y}; m -> y",
        x=CategoricalTable(table(2)),
        w=CategoricalTable(table(2, 3), ["x"]),
        m=CategoricalTable(table(3, 2), ["w"]),
        y=CategoricalTable(table(3, 2, 3), ["w", "m"]),
    )
    found = []
    for coupling in ("gumbel", "monotone"):
        question = ask(scm, "y", draws=20_000, coupling=coupling, **DO)
        pair = (question.versus, {**question.do, ("w", "m"): BEFORE})
        exact, nothing = means(question, scm, {}, [pair], 0)
        assert nothing is None
        drawn = question.coded(play(question, scm, {}, [pair], 0)[0])
        error = drawn.std(0) / len(drawn) ** 0.5
        assert bool(((drawn.mean(0) - exact[0]).abs() < 4.5 * error + 1e-9).all())
        found.append(exact[0])
    assert float((found[0] - found[1]).abs().max()) > 0.05, "the couplings differ here"


def test_mediation_by_draws_where_nothing_is_linear() -> None:
    """y = m + x with m = exp(x + u) by a policy: draws on common noise, and their error."""

    class Program(pgm.Model):
        def model(self, n: int) -> None:
            import pyro
            from pyro import distributions as dist

            with pgm.rows(n):
                x = pyro.sample("x", dist.Normal(0.0, 1.0))
                m = pyro.sample("m", dist.LogNormal(0.5 * x, 0.5))
                pyro.sample("y", dist.Normal(m * (1 + x), 1.0))

    asked: dict[str, Any] = {"do": {"x": 1.0}, "versus": {"x": 0.0}, "draws": 4000, "seed": 0}
    with pytest.raises(TypeError, match="no graph in which mediators"):
        mediation(Program(), "y", **asked)
    found = mediation(Program(), "y", through=["m"], **asked)
    low, high = torch.tensor([0.125, 0.625]).double().exp()  # E[M(0)], E[M(1)]
    truth = [2 * high - low, 2 * low - low, high - low]
    names = ("total", "natural direct", "natural indirect")
    for i, (name, value) in enumerate(zip(names, truth, strict=True)):
        assert abs(float(found[name]) - float(value)) < 4.5 * float(found.error[i])
    assert float(found.error[1]) < 0.02, "units are the same in all worlds"


def sobel(data: dict[str, Tensor]) -> tuple[float, float]:
    """a b and its standard error by the delta method, b^2 var(a) + a^2 var(b) (Sobel 1982)."""
    found = []
    for y, names in (("m", ["x"]), ("y", ["m", "x"])):
        X = torch.stack([data[k] for k in names] + [torch.ones_like(data["x"])], 1).double()
        beta = torch.linalg.lstsq(X, data[y].double()[:, None]).solution
        noise = (data[y].double()[:, None] - X @ beta).square().mean()
        found.append((float(beta[0]), float(noise * torch.linalg.inv(X.T @ X)[0, 0])))
    (a, var_a), (b, var_b) = found
    return a * b, (b**2 * var_a + a**2 * var_b) ** 0.5


def test_the_interval_of_the_product_is_that_of_the_delta_method_and_covers() -> None:
    """NIE = a b over ten data sets of 200 rows, 95% intervals of 60 draws each."""
    a, b, n = 0.8, 0.7, 200
    scm, covered, widths = SCM("x -> m -> y; x -> y"), 0, []
    for seed in range(10):
        g = torch.Generator().manual_seed(100 + seed)
        x = torch.randn(n, generator=g)
        m = a * x + torch.randn(n, generator=g)
        data = {"x": x, "m": m, "y": 0.5 * x + b * m + torch.randn(n, generator=g)}
        causal.estimate(scm, data)
        asked: dict[str, Any] = {"do": {"x": 1.0}, "versus": {"x": 0.0}, "data": data}
        found = mediation(scm, "y", posterior="laplace", refits=60, seed=seed, **asked)
        covered += bool(float(found.lower[2]) < a * b < float(found.upper[2]))
        value, error = sobel(data)
        assert float(found["natural indirect"]) == pytest.approx(value, abs=1e-4)
        widths.append(float(found.draws[:, 2].std()) / error)
    assert covered >= 7
    assert sum(widths) / 10 == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("along", "message"),
    [
        ("B -> A", "no arrow B -> A"),
        ("C -> E", "make no path from B to 'E'"),
        ("B -> C -> E; B -> C -> D -> E; B -> D -> E", None),
        ("B -> C -> D -> E; B -> D -> E", None),
        ([("B", "C"), ("C", "D"), ("D", "E"), ("B", "D")], None),
    ],
)
def test_arrows_and_paths(linear: SCM, along: Any, message: str | None) -> None:
    if message is None:
        path_effect(linear, "E", along=along, **UNIT)
        return
    with pytest.raises(ValueError, match=message):
        path_effect(linear, "E", along=along, **UNIT)


def test_paths_that_arrows_cannot_tell_apart() -> None:
    w = LinearGaussian()
    scm = SCM("x -> {a b}; {a b} -> m; m -> {c d}; {c d} -> y", x=w)
    causal.estimate(scm, {k: torch.randn(50) for k in scm.nodes})
    with pytest.raises(ValueError, match="also make x -> a -> m -> d -> y"):
        path_effect(scm, "y", along="x -> a -> m -> c -> y; x -> b -> m -> d -> y", **DO)


def test_mediators_that_are_none(linear: SCM) -> None:
    with pytest.raises(ValueError, match="A lies on no directed path from B to 'E'"):
        mediation(linear, "E", through=["A"], **UNIT)
    with pytest.raises(ValueError, match="No node lies between D and 'E'"):
        mediation(linear, "E", do={"D": 1.0}, versus={"D": 0.0})
    with pytest.raises(ValueError, match="two values of the same sites, but name B and A"):
        mediation(linear, "E", do={"B": 1.0}, versus={"A": 0.0})
    with pytest.raises(ValueError, match="name sites"):
        mediation(linear, "E", do={("B", "C"): 1.0}, versus={("B", "C"): 0.0})


def test_the_answer_prints_plots_and_gives_its_draws(linear: SCM) -> None:
    data = pgm.sample(linear, 100, seed=0)
    causal.estimate(linear, data)
    found = mediation(linear, "E", data=data, refits=40, seed=0, **UNIT)
    assert found.to_xarray()["natural indirect"].sizes == {"chain": 1, "draw": 40, "level": 1}
    ax = found.plot()
    assert [t.get_text() for t in ax.get_yticklabels()] == list(found.names[::-1])
    with pytest.raises(KeyError, match="No effect 'NIE'"):
        found["NIE"]
