"""`do`: truncated factorisation, on SCMs and on any program, and every way to ask it wrongly."""

import math
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro import distributions as dist
from pyro.nn import PyroSample
from torch import Tensor

import causal
import pgm
from causal import SCM, LinearGaussian, do
from pgm.sites import Run

N = 40_000


def close(x: Tensor, mean: float, variance: float) -> bool:
    """Whether mean and variance of normal draws are as stated, within 4.5 standard errors."""
    error = math.sqrt(variance / len(x)) + 1e-6
    spread = variance * math.sqrt(2 / len(x)) + 1e-6
    return abs(x.mean() - mean) < 4.5 * error and abs(x.var() - variance) < 4.5 * spread


@pytest.mark.parametrize("kind", ["linear", "program"])
def test_means_and_variances_under_do(kind: str, request: pytest.FixtureRequest) -> None:
    """Issue 3's answer by path tracing: do(B=1) gives (0, 1, -.8, .3, -.5), (1, 0, 2, 1.5, 6.5)."""
    x = pgm.sample(do(request.getfixturevalue(kind), B=1.0), N, seed=0)
    means, variances = (0.0, 1.0, -0.8, 0.3, -0.5), (1.0, 0.0, 2.0, 1.5, 6.5)
    for name, mean, variance in zip("ABCDE", means, variances, strict=True):
        assert close(x[name], mean, variance), name


def test_do_is_not_conditioning(linear: SCM) -> None:
    """E[E | B=1] = +.1 but E[E | do(B=1)] = -.5: regress E on B in draws left alone."""
    x = pgm.sample(linear, N, seed=0)
    slope = (x["B"] * x["E"]).mean() / x["B"].square().mean()
    assert abs(slope - 0.1) < 0.1 < abs(slope + 0.5)


@settings(max_examples=10)
@given(node=st.sampled_from("ABCDE"), value=st.floats(-3, 3), seed=st.integers(0, 99))
def test_density_under_do_lacks_just_the_term_of_the_node(
    node: str, value: float, seed: int
) -> None:
    scm = SCM("A -> {B C}; B -> {C D}; C -> {D E}; D -> E").double()
    x = pgm.sample(do(scm, {node: value}), 3, seed=seed)
    own = scm.mechanism(node).dist({p: x[p] for p in scm.parents(node)}).log_prob(x[node])
    found = pgm.log_prob(do(scm, {node: value}), x).value
    assert torch.allclose(found, pgm.log_prob(scm, x).value - own)
    without = {name: v for name, v in x.items() if name != node}
    assert torch.allclose(found, pgm.log_prob(do(scm, {node: value}), without).value)


def test_do_on_a_root_is_conditioning(linear: SCM) -> None:
    x = pgm.sample(do(linear, A=2.0), 5, seed=0)
    given_a = pgm.log_prob(linear, x).value - dist.Normal(0.0, 1.0).log_prob(x["A"])
    assert torch.allclose(pgm.log_prob(do(linear, A=2.0), x).value, given_a)


def test_do_cuts_what_comes_from_the_parents(linear: SCM) -> None:
    x = pgm.sample(do(linear, B=dist.Normal(torch.tensor(0.0).double(), 1.0)), N, seed=0)
    assert abs((x["A"] * x["B"]).mean()) < 4.5 / math.sqrt(N)


def test_a_policy_reads_the_parents_and_no_others(linear: SCM) -> None:
    x = pgm.sample(do(linear, C=lambda parents: parents["A"] + parents["B"]), 5, seed=0)
    assert torch.equal(x["C"], x["A"] + x["B"])
    noisy = do(linear, C=lambda parents: dist.Normal(parents["A"], 0.1))
    x = pgm.sample(noisy, N, seed=0)
    assert close(x["C"] - x["A"], 0.0, 0.01)
    with pytest.raises(ValueError, match="reads 'D', which is not one of its parents"):
        pgm.sample(do(linear, C=lambda parents: parents["D"]), 5)
    with pytest.raises(ValueError, match=r"reads 'A', which is not one of its parents \(B, C\)"):
        pgm.sample(do(linear, D=lambda parents: parents["A"]), 5)


def test_a_distribution_replaces_the_density(linear: SCM) -> None:
    x, law = pgm.sample(linear, 5, seed=0), dist.Normal(torch.tensor(3.0).double(), 2.0)
    own = linear.mechanism("B").dist({"A": x["A"]}).log_prob(x["B"])
    expected = pgm.log_prob(linear, x).value - own + law.log_prob(x["B"])
    assert torch.allclose(pgm.log_prob(do(linear, B=law), x).value, expected)


def test_values_by_row(linear: SCM) -> None:
    value = torch.arange(4.0).double()
    assert torch.equal(pgm.sample(do(linear, B=value), 4)["B"], value)
    with pytest.raises(ValueError, match=r"shape \(4,\); it needs shape \(\), .* n = 5 rows"):
        pgm.sample(do(linear, B=value), 5)
    with pytest.raises(pgm.Unsupported, match="training shuffles the rows"):
        pgm.fit(do(linear, B=value), dict.fromkeys("ACDE", value))


def test_do_composes_and_the_last_word_counts(linear: SCM) -> None:
    twice = do(do(linear, A=1.0, B=1.0), {"B": 2.0})
    x = pgm.sample(twice, 3, seed=0)
    assert x["A"].tolist() == [1.0] * 3
    assert x["B"].tolist() == [2.0] * 3
    assert twice.base is linear


def test_labels_and_units_are_the_schemas() -> None:
    schema = pgm.Schema(
        {
            "dose": pgm.Categorical(("low", "medium", "high")),
            "age": pgm.Continuous(lower=0, upper=120, mean=50, std=20),
        }
    )
    scm = SCM("dose; age", schema=schema)
    x = pgm.sample(do(scm, dose="high", age=80), 2)
    assert x["dose"].tolist() == [2, 2]
    assert x["age"].tolist() == [1.5, 1.5]
    assert pgm.sample(do(scm, age=torch.tensor(80.0)), 2)["age"].tolist() == [80.0, 80.0]
    with pytest.raises(ValueError, match=r"no level 'hgih'.*Did you mean 'high'"):
        do(scm, dose="hgih")
    with pytest.raises(ValueError, match=r"\[0, 120\]"):
        do(scm, age=130)
    with pytest.raises(ValueError, match=r"3 levels, coded 0 \.\. 2"):
        do(scm, dose=torch.tensor(3))


class Latent(pgm.Model):
    """z -> (x, y); the guide knows the posterior given x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            x = pyro.sample("x", dist.Normal(z[:, None] * self.w, 1.0).to_event(1))
            pyro.sample("y", dist.Bernoulli(logits=x.sum(-1)))

    def guide(self, n: int, x: Tensor) -> None:
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(x @ self.w / 6, 6**-0.5))


def test_a_latent_site_that_is_set_is_no_longer_proposed() -> None:
    model, x = Latent(), torch.randn(4, 2)
    found = pgm.log_prob(do(model, z=0.5), {"x": x})
    expected = dist.Normal(0.5 * model.w, 1.0).to_event(1).log_prob(x)
    assert torch.allclose(found.value, expected, atol=1e-5)
    assert set(pgm.sample(do(model, z=0.5), 2)) == {"x", "y"}


def test_a_latent_site_under_another_law_keeps_its_guide() -> None:
    model, x = Latent(), torch.randn(4, 2)
    same = pgm.log_prob(do(model, z=dist.Normal(0.0, 1.0)), {"x": x}, seed=0)
    assert torch.allclose(same.value, pgm.log_prob(model, {"x": x}, seed=0).value, atol=1e-5)
    with pytest.raises(pgm.Unsupported, match="function of its parents"):
        pgm.log_prob(do(model, z=lambda parents: 0.0), {"x": x})


class Mixture(pgm.Model):
    """A latent class that is summed out: k, then x ~ N(5k, 1), y ~ N(x, 1)."""

    def model(self, n: int) -> None:
        with pgm.rows(n):
            infer = {"enumerate": "parallel"}
            k = pyro.sample("k", dist.Categorical(torch.tensor([0.7, 0.3])), infer=infer)
            x = pyro.sample("x", dist.Normal(5.0 * k, 1.0))
            pyro.sample("y", dist.Normal(x, 1.0))


def test_enumerated_sites_are_set_and_policies_follow_them() -> None:
    x = torch.tensor([0.0, 5.0])
    found = pgm.log_prob(do(Mixture(), k=1, y=0.0), {"x": x})
    assert torch.allclose(found.value, dist.Normal(5.0, 1.0).log_prob(x))
    assert found.kind == "exact"
    shifted = do(Mixture(), x=lambda parents: 10.0 * parents["k"])
    found = pgm.log_prob(shifted, {"y": torch.tensor([0.0, 10.0])}).value
    expected = torch.stack(
        [
            w.log() + dist.Normal(10.0 * k, 1.0).log_prob(torch.tensor([0.0, 10.0]))
            for k, w in enumerate(torch.tensor([0.7, 0.3]))
        ]
    ).logsumexp(0)
    assert torch.allclose(found, expected)


def test_vectors_and_downstream_of_them() -> None:
    sample = pgm.sample(do(Latent(), x=torch.tensor([9.0, 9.0])), 3)
    assert sample["x"].tolist() == [[9.0, 9.0]] * 3
    assert sample["y"].tolist() == [1.0] * 3
    with pytest.raises(ValueError, match=r"shape \(\); it needs shape \(2,\)"):
        do(Latent(), x=0.0)


def test_the_wrapped_model_keeps_its_face_and_the_base_its_names() -> None:
    class Prior(pgm.Model):
        def __init__(self) -> None:
            super().__init__()
            self.slope = PyroSample(dist.Normal(0.0, 1.0))

        def model(self, n: int, c: Tensor | None = None) -> None:
            slope = self.slope
            with pgm.rows(n):
                pyro.sample("x", dist.Normal(slope.expand(n), 1.0))

    base = Prior().double()
    base.schema, base.note = pgm.Schema({"x": pgm.Continuous()}), "a note"
    wrapped = do(base, x=1.0)
    assert (wrapped.schema, wrapped.note, wrapped.context) == (base.schema, "a note", ("c",))
    assert (wrapped.dtype, wrapped.device, wrapped.latent) == (base.dtype, base.device, False)
    with Run() as run:
        base.model(2)
    assert set(run.sites) == {"slope", "x"}
    base.note = "another"
    assert wrapped.note == "another"


def test_context_is_passed_on_and_checked() -> None:
    class Given(pgm.Model):
        def model(self, n: int, c: Tensor) -> None:
            with pgm.rows(n):
                x = pyro.sample("x", dist.Normal(c, 1.0))
                pyro.sample("y", dist.Normal(x + c, 1.0))

    wrapped, c = do(Given(), x=5.0), torch.tensor([0.0, 100.0])
    y = pgm.sample(wrapped, 2, context={"c": c}, seed=0)["y"]
    assert (y - torch.tensor([5.0, 105.0])).abs().max() < 5
    with pytest.raises(ValueError, match="takes 'c'"):
        pgm.sample(wrapped, 2)
    with pytest.raises(ValueError, match="Cells of 'c' are missing"):
        pgm.log_prob(wrapped, {"c": torch.tensor([0.0, torch.nan]), "y": c})
    with pytest.raises(ValueError, match="did not draw"):
        pgm.sample(do(Given(), q=1.0), 2, context={"c": c})
    with pytest.raises(ValueError, match="is context"):
        do(Given(), c=1.0)


def test_save_and_load(linear: SCM, tmp_path: Path) -> None:
    wrapped = do(linear, B=torch.tensor(2.0).double())
    pgm.save(wrapped, tmp_path / "do.pt")
    back = pgm.load(tmp_path / "do.pt", into=do(linear, B=2.0))
    assert isinstance(pgm.load(tmp_path / "do.pt"), causal.Intervened)
    for name, x in pgm.sample(wrapped, 3, seed=0).items():
        assert torch.equal(pgm.sample(back, 3, seed=0)[name], x)


def test_a_refusal_of_the_base_holds_under_do() -> None:
    class Silent(pgm.Model):
        def model(self, n: int) -> None:
            with pgm.rows(n):
                pyro.sample("x", dist.Normal(0.0, 1.0))

    pgm.log_prob.refuse(Silent, "it has no density here")
    with pytest.raises(pgm.Unsupported, match="no density here"):
        pgm.log_prob(do(Silent(), x=0.0), {"x": torch.zeros(2)})


def test_evidence_against_what_was_set_is_refused(linear: SCM) -> None:
    x = pgm.sample(linear, 3, seed=0)
    with pytest.raises(ValueError, match=r"says .* for site 'B', but do\(\) sets it to 1"):
        pgm.log_prob(do(linear, B=1.0), x)


def test_outside_a_continuous_support_warns() -> None:
    class Positive(pgm.Model):
        def model(self, n: int) -> None:
            with pgm.rows(n):
                rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
                pyro.sample("x", dist.Normal(rate, 1.0))

    with pytest.warns(RuntimeWarning, match="outside the support of the site's"):
        do(Positive(), rate=-1.0)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({}, ValueError, "nothing to do"),
        ({"Q": 1.0}, ValueError, "no site 'Q'.*Its sites are: A, B, C, D, E"),
        ({"b": 1.0}, ValueError, "Did you mean 'B'"),
        ({"B": math.nan}, ValueError, "not finite"),
        ({"B": torch.tensor([1.0, math.inf])}, ValueError, "not finite"),
        ({"B": "high"}, TypeError, "labels are understood where"),
        ({"B": [1.0, 2.0]}, TypeError, "a list came"),
        ({"B": torch.zeros(3, 2)}, ValueError, r"shape \(3, 2\); it needs shape \(\)"),
        ({"B": dist.Categorical(torch.ones(3))}, ValueError, "but the site is a number"),
        ({"B": dist.Normal(torch.zeros(2), 1.0).to_event(1)}, ValueError, "event shape"),
        ({"B": torch.distributions.Normal(0.0, 1.0)}, TypeError, "pyro.distributions"),
    ],
)
def test_what_cannot_be_done(
    linear: SCM, values: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        do(linear, values)


def test_a_function_that_gives_no_value(linear: SCM) -> None:
    with pytest.raises(TypeError, match="gave a str"):
        pgm.sample(do(linear, B=lambda parents: "high"), 2)
    single = SCM("A", A=LinearGaussian())
    with pytest.raises(ValueError, match="it has none"):
        pgm.sample(do(single, A=lambda parents: parents["A"]), 2)


@pytest.mark.parametrize(
    "done",
    [
        {"X": lambda parents: -1},
        {"X": lambda parents: 0.7},
        {"X": lambda parents: dist.Normal(0.0, 1.0)},
        {"X": lambda parents: dist.Categorical(torch.ones(4))},
        {("X", "Y"): -1},
        {("X", "Y"): 0.7},
        {("X", "Y"): lambda x: x - 1},
        {("X", "Y"): lambda x: x / 2},
    ],
)
def test_what_a_policy_or_an_arrow_says_is_a_level(done: dict[Any, Any]) -> None:
    """-1 would be read as the last level, and 0.7 as the first."""
    scm = SCM(
        "X -> Y",
        X=causal.CategoricalTable([0.2, 0.3, 0.5]),
        Y=causal.CategoricalTable([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9]], parents=["X"]),
    )
    rows = {"X": torch.tensor([0, 1]), "Y": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match="levels"):
        pgm.sample(causal.do(scm, done), 100, seed=0)
    with pytest.raises(ValueError, match="levels"):
        pgm.sample.generic(causal.do(scm, done), 100)
    with pytest.raises(ValueError, match="levels"):
        causal.counterfactual(scm, rows, do=done)


@pytest.mark.parametrize("value", ["high", 1.0, None])
def test_a_name_that_is_none_is_told_before_its_value(value: Any) -> None:
    """A label of a misspelt column is no matter of labels."""
    scm = SCM(
        "treat -> bp",
        schema=pgm.Schema({"treat": pgm.Categorical(("none", "high")), "bp": pgm.Continuous()}),
    )
    with pytest.raises(ValueError, match=r"no site 'treatt' to intervene on\. Did you mean .treat"):
        do(scm, {"treatt": value})


class _Switching(pgm.Model):
    """A program whose site is a number or a level, by its parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(0.0))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(0.0, 1.0) if self.w < 1 else dist.Bernoulli(0.5))


def test_what_is_known_of_a_program_is_forgotten_when_its_parameters_change() -> None:
    model = _Switching()
    assert pgm.sample(do(model, x=3.0), 2)["x"].tolist() == [3.0, 3.0]
    with torch.no_grad():
        model.w.fill_(2.0)
    with pytest.raises(ValueError, match="2 levels"):
        do(model, x=3.0)
