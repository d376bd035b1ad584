"""Chapters: what trained models of digits answer: in-painting, interpolation, outliers."""

from collections.abc import Iterator, Mapping

import torch
from matplotlib.axes import Axes
from torch import Tensor

import pgm
from pgm import plots
from pgm.report import Chapter, Note, code, picture
from pgm.tour.models import formed


def questions(models: Mapping[str, pgm.Model], held_out: Tensor) -> Iterator[Chapter]:
    """Three questions to the models by name, about held-out digits."""
    yield _inpainting(models["Gaussian mixture"], formed(held_out, "dequantised", seed=1))
    yield _interpolation(models["VAE"], held_out)
    yield _outliers(models["MADE"], held_out)


def _inpainting(model: pgm.Model, x: Tensor) -> Chapter:
    ax, done = inpainting(model, x[:12])
    return Chapter(
        "In-painting",
        "The lower half of held-out digits is hidden; the model completes it several times over, "
        "by draws from its distribution given the upper half.",
        code(
            inpainting,
            given="model: the Gaussian mixture above; x: twelve dequantised held-out digits",
        ),
        [picture(ax.figure, "Seen, four completions, and the truth."), Note(f"{done}.")],
    )


def inpainting(model: pgm.Model, x: Tensor) -> tuple[Axes, pgm.Imputation]:
    """Completions of digits whose lower half is hidden."""
    hidden = x.clone()
    hidden[:, 32:] = torch.nan
    done = pgm.impute(model, hidden, draws=4, seed=0)
    ax = plots.inpainting(hidden, done.draws["x"], x, shape=(8, 8), limits=(-1, 1))
    return ax, done


def _interpolation(model: pgm.Model, x: Tensor) -> Chapter:
    ax = interpolation(model, x)
    return Chapter(
        "Interpolation",
        "From one held-out digit to another through the latent space of a VAE: both are encoded, "
        "their codes joined along a great circle and decoded.",
        code(interpolation, given="model: the VAE above; x: held-out digits"),
        [picture(ax.figure, "Nine steps each, both ends included.")],
    )


def interpolation(model: pgm.Model, x: Tensor) -> Axes:
    """Three paths between pairs of digits."""
    path = pgm.interpolate(model, x[0:3], x[3:6], steps=9, seed=0)["x"]
    ax = plots.images(path.transpose(0, 1).flatten(0, 1), shape=(8, 8), columns=9)
    return ax


def _outliers(model: pgm.Model, x: Tensor) -> Chapter:
    ax = outliers(model, x)
    return Chapter(
        "Outliers",
        "Which held-out digits does a model find strange? Surprise is -log p(x), in nats.",
        code(outliers, given="model: the MADE above; x: held-out digits"),
        [picture(ax.figure, "The least surprising digits above, the most surprising ones below.")],
    )


def outliers(model: pgm.Model, x: Tensor) -> Axes:
    """The most ordinary and the strangest digits."""
    surprise = pgm.surprise(model, x, seed=0)
    ax = plots.outliers(x, surprise, shape=(8, 8), count=12)
    return ax
