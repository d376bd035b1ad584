"""The digits' models: for every family how it is made and trained, as a user would type it.

Rows are 8 x 8 digits: as whole numbers 0 .. 16, dequantised to (x + u) / 8.5 - 1, or binarised.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

import pgm
import pgm.data
from pgm.evaluation import dequantise
from pgm.families.diffusion import Diffusion
from pgm.families.factor import PPCA
from pgm.families.mixture import GaussianMixture
from pgm.families.rbm import RBM

SCALE = 8.5
"""Of the dequantised digits, which brings them to [-1, 1)."""

Space = Literal["levels", "dequantised", "binary"]


@dataclass(frozen=True)
class Entrant:
    """A model of the digits.

    Attributes:
        name: in the table.
        train: makes and trains it on rows of its space; whole-numbered defaults can be scaled.
        space: which form of the digits it is a model of.
        particles: draws of its latents for each log density, where it has any.
    """

    name: str
    train: Callable[..., pgm.Model]
    space: Space
    particles: int = 100


def forms(split: str = "train", seed: int = 0) -> dict[Space, Tensor]:
    """The digits of a split in the three forms that models take."""
    levels = pgm.data.load("digits").split(split).x
    dequantised = dequantise(levels, scale=8.5, seed=seed) - 1
    binary = (levels >= 8).float()
    return {"levels": levels, "dequantised": dequantised, "binary": binary}


def whole(x: Tensor, space: Space) -> Tensor:
    """Samples of a space as whole numbers; those of a dequantised model are rounded down."""
    return ((x + 1) * SCALE).floor().clamp(0, 16) if space == "dequantised" else x


def ppca(dequantised: Tensor) -> PPCA:
    """Sixteen latents in closed form."""
    model = PPCA.closed_form(dequantised, latents=16)
    return model


def mixture(dequantised: Tensor, steps: int = 300) -> GaussianMixture:
    """Thirty Gaussians, from k-means on."""
    model = GaussianMixture.from_data(dequantised, components=30, floor=0.04, seed=0)
    pgm.fit(model, dequantised, steps=steps, learning_rate=0.01, seed=0)
    return model


def rbm(binary: Tensor, steps: int = 2000) -> RBM:
    """128 hidden units by contrastive divergence."""
    model = RBM(visible=64, hidden=128, cd_steps=1)
    pgm.fit(model, binary, steps=steps, batch_size=100, learning_rate=3e-3, seed=0)
    return model


def diffusion(dequantised: Tensor, steps: int = 3000) -> Diffusion:
    """A chain of 200 steps, of which training draws one at a time."""
    model = Diffusion(features=64, steps=200, hidden=(256, 256))
    pgm.fit(model, dequantised, steps=steps, schedule="cosine", ema=0.995, seed=0)
    return model


ENTRANTS = (
    Entrant("PPCA", ppca, "dequantised"),
    Entrant("Gaussian mixture", mixture, "dequantised"),
    Entrant("diffusion", diffusion, "dequantised", particles=4),
    Entrant("RBM", rbm, "binary"),
)
