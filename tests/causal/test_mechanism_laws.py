"""What every mechanism promises, asked of every subclass of Mechanism by its own example."""

from functools import partial
from pathlib import Path

import pytest
import torch
from scipy import stats
from sklearn.tree import DecisionTreeRegressor
from torch import Tensor
from torch.func import vmap

import causal
import pgm
from causal.mechanisms import CategoricalTable, Kind, LinearGaussian, LinearVector, Mechanism
from causal.mechanisms.learned import Learned
from causal.mechanisms.mechanism import _subclasses
from pgm import noise

EVERY = [
    cls
    for cls in _subclasses(Mechanism)
    if cls.__module__.startswith("causal.mechanisms.") and cls.dist is not Mechanism.dist
]
"""A new mechanism is tested as soon as it is imported by causal."""

ROOTS = {
    "a": LinearGaussian(intercept=0.3),
    "t": CategoricalTable([0.5, 0.2, 0.3]),
    "v": LinearVector(intercept=[0.0, 1.0], cholesky=[[1.0, 0.0], [0.4, 0.7]]),
}
every = pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)


def parents(n: int, seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "a": torch.randn(n, generator=g),
        "t": torch.randint(3, (n,), generator=g),
        "v": torch.randn(n, 2, generator=g),
    }


def scm_of(mechanism: Mechanism) -> causal.SCM:
    arrows = [f"{p} -> y" for p in mechanism.inputs]
    return causal.SCM(
        "; ".join([*arrows, "y"]), y=mechanism, **{p: ROOTS[p] for p in mechanism.inputs}
    )


def test_the_examples_cover_all_mechanisms_of_the_issue() -> None:
    assert len(EVERY) >= 17


@every
def test_noise_makes_the_value_and_the_value_the_noise(cls: type[Mechanism]) -> None:
    """push(pull(x)) = x; and pull(push(u)) = u where x fixes u."""
    mechanism, heard = cls.example().double(), parents(200)
    heard = {p: heard[p].double() if p != "t" else heard[p] for p in mechanism.inputs}
    fn = mechanism.dist(heard)
    u = noise.noise(fn.expand((200,)))
    x = mechanism.push(heard, u)
    assert x.shape == (200, *fn.event_shape)
    back = mechanism.push(heard, mechanism.pull(heard, x))
    assert torch.allclose(back.double(), x.double(), atol=1e-8)
    if not noise.couplings(fn):
        assert torch.allclose(mechanism.pull(heard, x), u, atol=1e-6)


@every
def test_pushed_noise_has_the_law_of_the_density(cls: type[Mechanism]) -> None:
    """Two samples of one law: by the noise, and by the distribution's own draws."""
    mechanism, n = cls.example(), 4000
    heard = {p: v[:1].expand(n, *v.shape[1:]) for p, v in parents(1).items()}
    fn = mechanism.dist(heard)
    whole = fn.expand((n,))
    torch.manual_seed(0)
    x, y = mechanism.push(heard, noise.noise(whole)), whole.sample()
    columns = zip(x.reshape(n, -1).T, y.reshape(n, -1).T, strict=True)
    assert all(stats.ks_2samp(a.detach(), b.detach()).pvalue > 1e-4 for a, b in columns)


@every
def test_the_density_is_that_of_the_draws(cls: type[Mechanism]) -> None:
    """E[p(x) / q(x)] = 1 under q: draws spread, or over all levels or counts, sum p to one."""
    mechanism = cls.example().double().requires_grad_(False)
    heard = {p: v.double() if v.is_floating_point() else v for p, v in parents(1).items()}
    fn = mechanism.dist(heard)
    if fn.event_shape:
        return  # the multivariate normal is torch's
    if isinstance(mechanism, causal.EmpiricalRoot):
        points = mechanism.values
        total = fn.log_prob(points).exp().sum()
    elif mechanism.levels > 1 or isinstance(mechanism, causal.Poisson):
        points = torch.arange(mechanism.levels if mechanism.levels > 1 else 400)
        total = fn.log_prob(points.reshape(-1, 1)).exp().sum()
    else:
        points = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
        total = torch.trapezoid(fn.expand((1,)).log_prob(points[:, None])[:, 0].exp(), points)
    assert float(total) == pytest.approx(1.0, abs=1e-3)


@every
def test_a_counterfactual_under_nothing_new_is_the_fact(cls: type[Mechanism]) -> None:
    scm = scm_of(cls.example())
    rows = pgm.sample(scm, 20, seed=1)
    mechanism = scm.mechanism("y")
    if not mechanism.inputs:
        found = causal.counterfactual(scm, rows, do={"y": rows["y"][0]}, seed=0).draws["y"]
        assert torch.equal(found[0], rows["y"][:1].expand(20))
        return
    first = next(iter(mechanism.inputs))
    found = causal.counterfactual(scm, rows, do={first: rows[first]}, seed=0).draws["y"][0]
    assert torch.allclose(found.to(rows["y"].dtype), rows["y"], atol=1e-4)


@every
def test_rows_can_be_vmapped_and_parents_enumerated(cls: type[Mechanism]) -> None:
    mechanism = cls.example()
    if isinstance(mechanism, Learned):
        return  # scikit-learn's arrays
    heard = {p: parents(6)[p] for p in mechanism.inputs}
    x = mechanism.dist(heard).expand((6,)).sample()
    whole = mechanism.dist(heard).log_prob(x)
    if heard and not isinstance(mechanism, causal.EmpiricalRoot):
        by_row = vmap(lambda row, v: mechanism.dist(row).log_prob(v))(heard, x)
        assert torch.allclose(by_row, whole, atol=1e-5)
    if "t" in heard:
        levels = torch.arange(3).reshape(3, 1)
        table = mechanism.dist(heard | {"t": levels}).log_prob(x)
        own = table.gather(0, heard["t"][None])[0]
        assert torch.allclose(own, whole, atol=1e-5)


@every
def test_save_and_load_round_trip(cls: type[Mechanism], tmp_path: Path) -> None:
    scm = scm_of(cls.example())
    rows = pgm.sample(scm, 10, seed=0)
    pgm.save(scm, tmp_path / "scm.pt")
    if isinstance(scm.mechanism("y"), Learned):
        with pytest.raises(ValueError, match="which a file cannot hold"):
            pgm.load(tmp_path / "scm.pt")
        back = pgm.load(tmp_path / "scm.pt", into=scm_of(cls.example()))
    else:
        back = pgm.load(tmp_path / "scm.pt")
    assert isinstance(back, causal.SCM)
    assert torch.equal(pgm.log_prob(back, rows).value, pgm.log_prob(scm, rows).value)
    assert causal.scm.untrained(back) == []


@every
def test_start_makes_an_untrained_one_and_estimate_improves_it(cls: type[Mechanism]) -> None:
    example, n = cls.example(), 400
    heard = {p: parents(n, seed=3)[p] for p in example.inputs}
    torch.manual_seed(0)
    x = example.dist(heard).expand((n,)).sample()
    options = {"estimator": example.estimator} if isinstance(example, Learned) else {}
    made = cls.start(example.inputs, example.kind, **options)
    assert (made.inputs, made.kind) == (example.inputs, example.kind)
    weight = torch.rand(n) + 0.5
    silent = isinstance(made, Learned | causal.EmpiricalRoot | causal.KernelRoot)
    before = None if silent else made.dist(heard).log_prob(x).mean().item()
    made.estimate(x, heard, weight)
    after = made.dist(heard).log_prob(x).mean().item()
    truth = example.dist(heard).log_prob(x).mean().item()
    assert before is None or after >= before - 1e-3
    assert after > truth - 0.15


@every
def test_estimates_are_deterministic_and_see_weights(cls: type[Mechanism]) -> None:
    """Rows of weight two are rows that stand twice, where the estimate is a closed form."""
    if cls not in (LinearGaussian, LinearVector, CategoricalTable, causal.Poisson):
        return
    example, n = cls.example(), 60
    if cls is causal.Poisson:
        example = cls({"a": 0.5}, intercept=1.0)
    heard = {p: parents(n)[p] for p in example.inputs}
    torch.manual_seed(5)
    x = example.dist(heard).expand((n,)).sample()
    weight = 1.0 + torch.arange(n).remainder(2)
    twice = torch.repeat_interleave(torch.arange(n), weight.long())
    one, two = (cls.start(example.inputs, example.kind) for _ in range(2))
    one.estimate(x, heard, weight)
    two.estimate(x[twice], {p: v[twice] for p, v in heard.items()}, torch.ones(len(twice)))
    first, second = (made.dist(heard).log_prob(x) for made in (one, two))
    assert torch.allclose(first, second, atol=1e-3)


def test_what_has_no_law_before_it_is_estimated() -> None:
    x, heard = causal.mechanisms.learned.made_up_rows()
    tree = partial(causal.Regressor, estimator=DecisionTreeRegressor(max_depth=2, random_state=0))
    made = {"a": causal.KernelRoot, "b": causal.EmpiricalRoot, "y": tree}
    rows = {"a": heard["a"], "b": heard["t"].float(), "y": x}
    scm = causal.SCM("a -> y; b -> y", **made)
    with pytest.raises(ValueError, match="read off rows"):
        pgm.log_prob(scm, rows)
    with pytest.raises(ValueError, match="no column for 'b'"):
        causal.estimate(scm, {"a": rows["a"], "y": x})
    causal.estimate(scm, rows)
    assert torch.isfinite(pgm.log_prob(scm, rows).value).all()
    answer = causal.effect(scm, "y", do={"b": 1.0}, versus={"b": 0.0}, data=rows, refits=40, seed=0)
    assert answer.lower < 1.0 < answer.upper


def test_a_forest_that_predicts_otherwise_is_not_read_back(tmp_path: Path) -> None:
    scm, other = scm_of(causal.Regressor.example()), scm_of(causal.Regressor.example())
    other.mechanism("y").estimator.set_params(max_depth=1)
    x, heard = causal.mechanisms.learned.made_up_rows()
    other.mechanism("y").estimate(x, heard, torch.ones(len(x)))
    pgm.save(scm, tmp_path / "scm.pt")
    with pytest.raises(ValueError, match="predicts otherwise"):
        pgm.load(tmp_path / "scm.pt", into=other)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: causal.Poisson.start({}, Kind(levels=2)), "Poisson is a mechanism for a count"),
        (lambda: causal.AdditiveNoise.start({}, Kind(size=2)), "but the node is a vector of 2"),
        (lambda: causal.KernelRoot.start({"a": Kind()}, Kind()), "nodes without parents"),
        (lambda: causal.Ordinal(cutpoints=[1.0, 0.0]), "each is above the one before"),
        (lambda: causal.NegativeBinomial(size=-1.0), "it is positive"),
        (lambda: causal.EmpiricalRoot().dist({}), "no values yet"),
        (lambda: LinearVector(intercept=[0.0]), "for a number use LinearGaussian"),
        (lambda: Kind(levels=0), "a value is a number"),
        (lambda: causal.SCM("a -> y", y=CategoricalTable, a=Kind()), "The mechanism of 'y'"),
    ],
)
def test_mechanisms_for_other_nodes_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_count_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="A count is 0, 1, 2"):
        causal.Poisson().estimate(torch.tensor([1.0, -1.0]), {}, torch.ones(2))


def test_carrying_a_value_is_going_through_its_noise() -> None:
    node = LinearGaussian({"a": 0.7, "b": -1.3}, intercept=0.2, scale=0.6).double()
    g = torch.Generator().manual_seed(0)
    a, b, a_now, x = 10 * torch.randn(4, 50, dtype=torch.float64, generator=g)
    was, now = {"a": a, "b": b}, {"a": a_now, "b": b}
    torch.testing.assert_close(node.carry(now, was, x), node.push(now, node.pull(was, x)))
    assert node.carry(was, was, x) is x  # nothing moved: not even rounding
