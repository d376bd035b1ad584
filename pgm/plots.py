"""Pictures of models and of rows: every function takes a matplotlib `ax`, draws, and returns it.

Figures are made by whoever calls; loss curves are drawn by `pgm.Fit.plot`, posteriors by ArviZ.
"""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float, Real
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from torch import Tensor

from pgm.model import Model
from pgm.verbs import log_prob

INK, ACCENT, HIDDEN = "#1f2933", "#c2410c", "#f3d9cc"
"""Colours: of what is drawn, of what is pointed at, and of cells that were not seen."""


def images(
    x: Real[Tensor, "n pixels"],
    *,
    shape: tuple[int, int],
    columns: int | None = None,
    limits: tuple[float, float] | None = None,
    titles: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A grid of pictures, row by row, dark on light.

    Args:
        x: pictures as rows; NaN cells are drawn in the colour of what is hidden.
        shape: height and width of a picture.
        columns: pictures in a row; by default about a square.
        limits: values of white and black; by default those of `x`.
        titles: a word above each picture.
        ax: where to draw; by default a new figure.

    Example:
        >>> ax = images(torch.rand(10, 64), shape=(8, 8), columns=5)
        >>> ax.images[0].get_array().shape  # two rows of five, with a gap between pictures
        (17, 44, 4)
    """
    height, width = shape
    if x.shape[1] != height * width:
        raise ValueError(
            f"Rows of {x.shape[1]} numbers are no pictures of {height} x {width}. Pass shape=, "
            "the height and the width of the pictures."
        )
    columns = columns or math.ceil(math.sqrt(len(x)))
    low, high = limits or (float(x.nan_to_num(torch.inf).min()), float(x.nan_to_num().max()))
    gap = 1 if titles is None else 1 + height // 3
    ax = ax or plt.subplots()[1]
    ax.imshow(_ink(_mosaic(x, shape, columns, gap), low, high), interpolation="nearest")
    ax.set_axis_off()
    for i, title in enumerate(titles or ()):
        row, column = divmod(i, columns)
        middle, top = column * (width + 1) + (width - 1) / 2, row * (height + gap) - 0.8
        ax.text(middle, top, title, ha="center", va="bottom", fontsize=7, color=INK)
    return ax


def inpainting(
    hidden: Real[Tensor, "n pixels"],
    draws: Real[Tensor, "draws n pixels"],
    truth: Real[Tensor, "n pixels"],
    *,
    shape: tuple[int, int],
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """A column a picture: what was seen, the completions below it, the truth at the bottom.

    Args:
        hidden: rows with NaN where cells are hidden.
        draws: completions, as `pgm.impute` returns them.
        truth: the rows as they were.
        shape: height and width of a picture.
        limits: values of white and black; by default those of the truth.
        ax: where to draw; by default a new figure.
    """
    limits = limits or (float(truth.min()), float(truth.max()))
    layers = torch.cat([hidden, draws.flatten(0, 1), truth])
    ax = images(layers, shape=shape, columns=len(truth), limits=limits, ax=ax)
    height, levels = shape[0], len(draws) + 2
    for level, word in [(0, "seen"), ((levels - 1) / 2, "completed"), (levels - 1, "truth")]:
        y = (level + 0.5) * (height + 1)
        ax.text(-1.5, y, word, ha="right", va="center", fontsize=8, color=INK)
    return ax


def strip(
    x: Real[Tensor, "steps pixels"],
    *,
    shape: tuple[int, int],
    limits: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Pictures in one row, such as the path of `pgm.interpolate`."""
    return images(x, shape=shape, columns=len(x), limits=limits, ax=ax)


def outliers(
    x: Real[Tensor, "n pixels"],
    surprise: Float[Tensor, " n"],
    *,
    shape: tuple[int, int],
    count: int = 8,
    ax: Axes | None = None,
) -> Axes:
    """The least surprising rows above, the most surprising ones below, with their scores in nats.

    Args:
        x: pictures as rows.
        surprise: their scores, as `pgm.surprise` returns them.
        shape: height and width of a picture.
        count: pictures in a row.
        ax: where to draw; by default a new figure.
    """
    order = surprise.argsort()
    chosen = torch.cat([order[:count], order[-count:].flip(0)])
    scores = [f"{value:.0f}" for value in surprise[chosen].tolist()]
    limits = (float(x.min()), float(x.max()))
    return images(x[chosen], shape=shape, columns=count, limits=limits, titles=scores, ax=ax)


def density(
    model: Model,
    *,
    x: Float[Tensor, "n 2"] | None = None,
    bounds: tuple[float, float, float, float] | None = None,
    points: int = 120,
    particles: int = 100,
    seed: int | None = 0,
    ax: Axes | None = None,
) -> Axes:
    """The density of a model of the plane as a heat map, with rows as dots.

    Args:
        model: a model of a site "x" of two numbers.
        x: rows to draw on top, such as data or samples.
        bounds: left, right, bottom, top; by default those of `x` and a tenth more.
        points: the map is points x points.
        particles: as in `pgm.log_prob`.
        seed: of the draws of `pgm.log_prob`, where there are any.
        ax: where to draw; by default a new figure.
    """
    if bounds is None:
        if x is None:
            raise ValueError("Neither bounds= nor x= came: which part of the plane is drawn?")
        low, high = x.min(0).values, x.max(0).values
        low, high = low - (high - low) / 10, high + (high - low) / 10
        bounds = (float(low[0]), float(high[0]), float(low[1]), float(high[1]))
    grid = torch.cartesian_prod(
        torch.linspace(*bounds[2:], points), torch.linspace(*bounds[:2], points)
    ).flip(-1)
    value = log_prob(model, grid, particles=particles, seed=seed).value.exp().cpu()
    ax = ax or plt.subplots()[1]
    ax.imshow(
        value.reshape(points, points).numpy(),
        extent=bounds,
        origin="lower",
        aspect="auto",
        cmap="Greys",
        vmin=0,
    )
    if x is not None:
        ax.plot(*x.detach().cpu().T.numpy(), ".", ms=2, alpha=0.5, color=ACCENT)
    ax.set(xticks=[], yticks=[])
    return ax


def curve(
    model: Model,
    *,
    bounds: tuple[float, float],
    x: Float[Tensor, "n 1"] | None = None,
    points: int = 500,
    ax: Axes | None = None,
    **line: Any,
) -> Axes:
    """The density of a model of the line as a curve, with rows as ticks below it.

    Args:
        model: a model of a site "x" of one number.
        bounds: left and right.
        x: rows to mark.
        points: where the density is computed.
        ax: where to draw; by default a new figure.
        line: options of matplotlib's `plot`.
    """
    grid = torch.linspace(*bounds, points)[:, None]
    value = log_prob(model, grid).value.exp().cpu()
    ax = ax or plt.subplots()[1]
    ax.plot(grid.flatten().numpy(), value.numpy(), **{"color": INK, "lw": 1.2, **line})
    if x is not None:
        marks = x.flatten().numpy()
        ax.plot(marks, [0] * len(marks), "x", color=ACCENT, ms=6, clip_on=False, zorder=3)
    ax.set(ylim=(0, None), xlim=bounds)
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _mosaic(x: Tensor, shape: tuple[int, int], columns: int, gap: int) -> Tensor:
    """The pictures side by side; -inf between them, `gap` cells below and one to the right."""
    height, width = shape
    rows = math.ceil(len(x) / columns)
    tiles = torch.full((rows * columns, height + gap, width + 1), -torch.inf)
    tiles[: len(x), :height, :width] = x.detach().cpu().reshape(-1, height, width)
    grid = tiles.reshape(rows, columns, height + gap, width + 1).transpose(1, 2)
    return grid.reshape(rows * (height + gap), -1)[:-gap, :-1]


def _ink(mosaic: Tensor, low: float, high: float) -> Any:
    """Colours (height, width, 4): ink by value, hidden cells marked, gaps transparent."""
    share = ((mosaic.nan_to_num(low) - low) / ((high - low) or 1.0)).clamp(0, 1)[..., None]
    ink, paper, unseen = (torch.tensor(to_rgb(c)) for c in (INK, "#f7f6f3", HIDDEN))
    colour = paper + share * (ink - paper)
    colour = torch.where(mosaic.isnan()[..., None], unseen, colour)
    alpha = (~torch.isneginf(mosaic)).to(colour)[..., None]
    return torch.cat([colour, alpha], -1).numpy()
