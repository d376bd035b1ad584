"""Noise is as hard to guess as its seed: all of its bits count.

Planted: torch's own seeding on a processor, which drops all bits but 32 (its Mersenne twister is
that of Matsumoto & Nishimura 1998, started from one word).
"""

import pytest
import torch
from scipy import stats

import privacy
from pgm.families.factor import PPCA
from privacy import generators
from privacy.generators import seed_all
from privacy.gradients import PerRow
from privacy.learner import PrivateLearner


def noise(seed: int, size: int = 4) -> torch.Tensor:
    return torch.randn(size, generator=seed_all(torch.Generator(), seed))


def test_seeds_that_differ_in_any_bit_give_other_noise() -> None:
    first = noise(7)
    for bit in range(63):
        assert not bool((noise(7 ^ (1 << bit)) == first).any()), bit


def test_the_same_seed_gives_the_same_noise_and_it_is_normal() -> None:
    assert torch.equal(noise(2**62 + 1), noise(2**62 + 1))
    assert stats.kstest(noise(3, 20_000).numpy(), "norm").pvalue > 1e-4


def test_the_noise_of_a_step_has_all_bits_of_its_seed() -> None:
    model = PPCA(2, 1)
    release = privacy.Release("test", "a", 1.0, 0.5, 1, 1.0, 40, 1e-5)
    options = {"release": release, "ledger": privacy.Ledger(), "steps": 1, "learning_rate": 1.0}

    def of(seed: int, *, renewed: bool) -> torch.Tensor:
        step = PrivateLearner(model, PerRow(model, size=40), seed=seed * (not renewed), **options)
        if renewed:
            step.renew(release, seed=seed, made=0)
        return torch.randn(4, generator=step.optimiser.generator)

    for renewed in (False, True):
        assert not bool((of(7, renewed=renewed) == of(7 + 2**32, renewed=renewed)).any())


def test_another_layout_of_the_state_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generators, "WORDS", slice(16, 16 + 8 * 624))
    with pytest.raises(RuntimeError, match="32 bits"):
        noise(7)
