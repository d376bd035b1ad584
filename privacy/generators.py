"""Generators of noise that are as hard to guess as their seed.

On a processor, torch's Mersenne twister takes 32 bits of a seed and drops the others: whoever sees
a noisy sum and can make the sum without a row tries out all four billion streams in an hour or
two, and then has the row. So its state of 624 words is filled here from all bits of the seed
(numpy's `SeedSequence`; O'Neill 2015). On a GPU torch's Philox takes 64 bits by itself.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import UInt64

WORDS = slice(24, 24 + 8 * 624)
"""Where the twister's words are in the state of a generator, as 64-bit integers."""


def seed_all(generator: torch.Generator, seed: int) -> torch.Generator:
    """Seeds a generator with every bit of a seed.

    Raises:
        RuntimeError: this version of torch keeps the words of its state elsewhere.

    Example:
        >>> a, b = (seed_all(torch.Generator(), seed) for seed in (7, 7 + 2**32))
        >>> bool((torch.randn(3, generator=a) == torch.randn(3, generator=b)).any())
        False
    """
    generator.manual_seed(seed)
    if generator.device.type != "cpu":
        return generator
    state = generator.get_state()
    words: UInt64[np.ndarray, " 624"] = state.numpy()[WORDS].view(np.uint64)
    known: Any = np.random.RandomState(seed % 2**32).get_state(legacy=True)
    if not np.array_equal(words, known[1]):
        raise RuntimeError(
            f"torch {torch.__version__} keeps the state of its generator in another form, so that "
            "it cannot be given more than 32 bits, and noise from those can be guessed. Pass "
            "secure=True, or train on a GPU."
        )
    words[:] = np.random.SeedSequence(seed).generate_state(624)
    generator.set_state(state)
    return generator
