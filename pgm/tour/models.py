"""The digits' models: for every family how it is made and trained, as a user would type it.

Rows are 8 x 8 digits in one of three forms: whole numbers 0 .. 16, the same dequantised to
(x + u) / 8.5 - 1, or binarised at half ink.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

import pgm
import pgm.data
from pgm.data import Dataset
from pgm.evaluation import dequantise
from pgm.families.autoregressive import MADE
from pgm.families.diffusion import Diffusion
from pgm.families.factor import PPCA
from pgm.families.flow import SplineFlow
from pgm.families.gan import GAN
from pgm.families.mixture import GaussianMixture
from pgm.families.rbm import RBM
from pgm.families.vae import VAE

SCALE = 8.5
"""Of the dequantised digits, which brings them to [-1, 1)."""

Form = Literal["levels", "dequantised", "binary"]


@dataclass(frozen=True)
class Entrant:
    """A model of the digits.

    Attributes:
        name: in the table.
        train: makes and trains it on the digits; whole-numbered defaults can be scaled.
        form: which form of the digits it is a model of.
        particles: draws of its latents for each log density, where it has any.
    """

    name: str
    train: Callable[..., pgm.Model]
    form: Form
    particles: int = 100


def formed(x: Tensor, form: Form, *, seed: int = 0) -> Tensor:
    """Digits of whole numbers in the form that a model takes."""
    if form == "dequantised":
        return dequantise(x, scale=SCALE, seed=seed) - 1
    return (x >= 8).float() if form == "binary" else x


def whole(x: Tensor, form: Form) -> Tensor:
    """Samples of a model as whole numbers; those of a dequantised form are rounded down."""
    return ((x + 1) * SCALE).floor().clamp(0, 16) if form == "dequantised" else x.float()


def load() -> Dataset:
    """The digits that come with scikit-learn."""
    digits = pgm.data.load("digits")
    return digits


def ppca(digits: Dataset) -> PPCA:
    """Sixteen latents in closed form."""
    x = dequantise(digits.train.x, scale=8.5, seed=0) - 1
    model = PPCA.closed_form(x, latents=16)
    return model


def mixture(digits: Dataset, steps: int = 300) -> GaussianMixture:
    """Thirty Gaussians, from k-means on."""
    x = dequantise(digits.train.x, scale=8.5, seed=0) - 1
    model = GaussianMixture.from_data(x, components=30, floor=0.04, seed=0)
    pgm.fit(model, x, steps=steps, learning_rate=0.01, seed=0)
    return model


def vae(digits: Dataset, steps: int = 1200) -> VAE:
    """Sixteen latents; every pixel categorical given the code."""
    model = VAE(64, latents=16, hidden=(256,), likelihood="categorical", levels=17, dropout=0.2)
    x, validation = digits.train.x, digits.validation.x
    pgm.fit(model, x, steps=steps, validation=validation, evaluate_every=100, seed=0)
    return model


def made(digits: Dataset, steps: int = 400) -> MADE:
    """Every pixel given the ones before it."""
    model = MADE(64, levels=17, hidden=(500,), dropout=0.5)
    x, validation = digits.train.x, digits.validation.x
    pgm.fit(
        model,
        x,
        steps=steps,
        learning_rate=2e-2,
        schedule="cosine",
        validation=validation,
        evaluate_every=100,
        seed=0,
    )
    return model


def flow(digits: Dataset, steps: int = 600) -> SplineFlow:
    """Two autoregressive layers of splines, with dequantisation of its own."""
    model = SplineFlow.from_data(digits.train.x, levels=17, transforms=2, hidden=(128, 128))
    x, validation = digits.train.x, digits.validation.x
    pgm.fit(
        model, x, steps=steps, learning_rate=3e-3, validation=validation, evaluate_every=100, seed=0
    )
    return model


def diffusion(digits: Dataset, steps: int = 3000) -> Diffusion:
    """A chain of 200 steps, of which training draws one at a time."""
    x = dequantise(digits.train.x, scale=8.5, seed=0) - 1
    model = Diffusion(features=64, steps=200, hidden=(256, 256))
    pgm.fit(model, x, steps=steps, schedule="cosine", ema=0.995, seed=0)
    return model


def gan(digits: Dataset, steps: int = 2500) -> GAN:
    """A generator and its critic."""
    x = dequantise(digits.train.x, scale=8.5, seed=0) - 1
    model = GAN(features=64, latents=32, hidden=(256, 256))
    adam = partial(torch.optim.Adam, betas=(0.5, 0.99))
    pgm.fit(model, x, steps=steps, optimiser=adam, ema=0.995, seed=0)
    return model


def rbm(digits: Dataset, steps: int = 2000) -> RBM:
    """128 hidden units by contrastive divergence, on digits in black and white."""
    x = (digits.train.x >= 8).float()
    model = RBM(visible=64, hidden=128, cd_steps=5)
    pgm.fit(model, x, steps=steps, batch_size=100, learning_rate=3e-3, seed=0)
    return model


ENTRANTS = (
    Entrant("PPCA", ppca, "dequantised"),
    Entrant("Gaussian mixture", mixture, "dequantised"),
    Entrant("VAE", vae, "levels", particles=200),
    Entrant("MADE", made, "levels"),
    Entrant("spline flow", flow, "levels", particles=10),
    Entrant("diffusion", diffusion, "dequantised", particles=4),
    Entrant("GAN", gan, "dequantised"),
    Entrant("RBM", rbm, "binary"),
)
