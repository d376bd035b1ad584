"""The choice of mechanisms by held-out log-density."""

from functools import partial

import pandas as pd
import pytest
import torch

import causal
import pgm
from causal import AdditiveNoise, KernelRoot, LinearGaussian, MixtureRoot, NegativeBinomial, Poisson

FEW = {"hidden": (16,)}


def test_linear_truth_keeps_the_simplest_and_nonlinear_truth_does_not() -> None:
    a = torch.randn(200)
    rows = {"a": a, "b": 2 * a + torch.randn(200), "c": a.square() + 0.3 * torch.randn(200)}
    net = partial(AdditiveNoise, **FEW)
    options = {"a": [LinearGaussian], "b": [LinearGaussian, net], "c": [LinearGaussian, net]}
    scm, record = causal.auto("a -> {b c}", rows, candidates=options, folds=2, seed=0)
    assert record.chosen["b"] == "LinearGaussian"
    assert isinstance(scm.mechanism("b"), LinearGaussian)
    assert isinstance(scm.mechanism("c"), AdditiveNoise)
    gain, error = record.gain()
    assert gain > 5 * error > 0
    assert "against the simplest at every node" in str(record)


def test_held_out_scores_are_those_of_a_hand_made_split() -> None:
    a = torch.randn(40)
    record = causal.auto("a", {"a": a}, candidates={"a": [LinearGaussian]}, folds=2, seed=3)[1]
    with pgm.randomness.seeded(3):
        part = torch.randperm(40) % 2
    want = torch.empty(40)
    for k in (0, 1):
        train = a[part != k]
        law = torch.distributions.Normal(train.mean(), train.std(correction=0))
        want[part == k] = law.log_prob(a[part == k])
    assert record.scores["a"][0].log_prob == pytest.approx(want, abs=1e-4)


def test_a_frame_of_counts_and_levels_gets_its_candidates() -> None:
    n = 300
    rate = torch.distributions.Gamma(0.7, 0.7).sample((n,)) * 4
    frame = pd.DataFrame(
        {"visits": torch.poisson(rate).int().numpy(), "arm": ["a", "b", "b"] * 100}
    )
    schema = pgm.Schema({"visits": pgm.Count(), "arm": pgm.Categorical(("a", "b"))})
    scm, record = causal.auto("arm -> visits", frame, schema=schema, folds=3, seed=0)
    assert [s.name for s in record.scores["visits"]] == ["Poisson", "NegativeBinomial"]
    assert isinstance(scm.mechanism("visits"), NegativeBinomial)
    assert not issubclass(Poisson, NegativeBinomial)


def test_two_modes_are_no_normal() -> None:
    a = torch.cat([torch.randn(150) - 3, torch.randn(150) + 3])
    record = causal.auto("a", {"a": a}, folds=3, seed=0)[1]
    assert record.chosen["a"] in ("MixtureRoot", "KernelRoot")
    assert {s.name for s in record.scores["a"]} >= {MixtureRoot.__name__, KernelRoot.__name__}


def test_what_cannot_be_chosen() -> None:
    rows = {"a": torch.randn(10), "b": torch.ones(10)}
    with pytest.raises(ValueError, match="No candidate fits node 'b'"):
        causal.auto("a -> b", rows, candidates={"b": [LinearGaussian]}, folds=2, seed=0)
    with pytest.raises(ValueError, match="folds is 9 for 10 rows"):
        causal.auto("a", {"a": rows["a"]}, folds=9)
    with pytest.raises(pgm.Unsupported, match="is latent"):
        causal.auto("a -> b; a <-> b", rows)
