"""Two outcomes on one noise: closed forms against the noise forms, extremes against both."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyro.distributions import Categorical
from torch import Tensor

from causal.effects.transport import joint_law, least
from pgm import noise
from pgm.randomness import seeded


def law(k: int, seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(k, generator=g).double()).softmax(-1)


@settings(max_examples=12)
@given(st.integers(2, 5), st.integers(0, 1000), st.sampled_from(["gumbel", "monotone"]))
def test_joint_laws_are_those_of_the_noise_forms(k: int, seed: int, coupling: str) -> None:
    p, q, n = law(k, seed), law(k, seed + 1), 40_000
    joint = joint_law(p, q, coupling)
    assert torch.allclose(joint.sum(1), p) and torch.allclose(joint.sum(0), q)
    with seeded(seed):
        u = noise.noise(Categorical(p), (n,), coupling=coupling)
    i, j = (noise.push(Categorical(each), u, coupling=coupling) for each in (p, q))
    seen = torch.zeros(k, k).double()
    seen.index_put_((i, j), torch.ones(n).double(), accumulate=True)
    error = (joint * (1 - joint) / n).sqrt()
    assert bool(((seen / n - joint).abs() <= 5 * error + 1e-4).all())


@settings(max_examples=12)
@given(st.integers(2, 4), st.integers(0, 1000))
def test_extremes_hold_every_coupling(k: int, seed: int) -> None:
    p, q = law(k, seed), law(k, seed + 1)
    cost = torch.randn(k, k, generator=torch.Generator().manual_seed(seed)).double()
    apart, alike = torch.tensor(False), torch.tensor(True)
    low, high = float(least(cost, p, q, apart)), -float(least(-cost, p, q, apart))
    for joint in (*(joint_law(p, q, c) for c in ("gumbel", "monotone")), torch.outer(p, q)):
        assert low - 1e-6 <= float((joint * cost).sum()) <= high + 1e-6
    assert torch.allclose(least(cost, p, p, alike), (cost.diagonal() * p).sum())


def test_an_impossible_outcome_stays_impossible() -> None:
    p, q = torch.tensor([0.0, 0.4, 0.6]).double(), torch.tensor([0.5, 0.5, 0.0]).double()
    for coupling in ("gumbel", "monotone"):
        joint = joint_law(p, q, coupling)
        assert torch.allclose(joint.sum(1), p) and torch.allclose(joint.sum(0), q)
