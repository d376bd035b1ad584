"""Chapters: models of every kind on the same digits, compared and questioned."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import pgm
from pgm import plots
from pgm.data import Dataset
from pgm.evaluation import C2ST, MMD, BitsPerDimension, bits_per_dimension, c2st, mmd
from pgm.randomness import seeded
from pgm.report import Chapter, Picture, Table, code, picture
from pgm.tour import scaled
from pgm.tour.models import ENTRANTS, SCALE, Entrant, Form, formed, load, whole
from pgm.tour.questions import questions
from pgm.verb import Unsupported


@dataclass(frozen=True, eq=False)
class Result:
    """A trained model with its scores on held-out digits."""

    entrant: Entrant
    model: pgm.Model
    samples: Tensor
    bits: BitsPerDimension | None
    apart: C2ST
    distance: MMD
    seconds: float


def chapters(effort: float) -> Iterator[Chapter]:
    """The comparison, and what the models answer."""
    digits = load()
    results = [result(entrant, digits, effort) for entrant in ENTRANTS]
    yield comparison(results, digits)
    yield from questions({r.entrant.name: r.model for r in results}, digits.test.x)


def result(entrant: Entrant, digits: Dataset, effort: float) -> Result:
    """Trains a model and scores it on held-out digits."""
    start = time.perf_counter()
    with seeded(0):
        model = entrant.train(digits, **scaled(entrant.train, effort))
    seconds = time.perf_counter() - start
    held_out = formed(digits.test.x, entrant.form, seed=1)
    bits, samples = score(model, held_out, entrant)
    truth = whole(held_out, entrant.form)
    apart, distance = c2st(truth, samples, seed=0), mmd(truth, samples, seed=0)
    return Result(entrant, model, samples, bits, apart, distance, seconds)


def score(
    model: pgm.Model, held_out: Tensor, entrant: Entrant
) -> tuple[BitsPerDimension | None, Tensor]:
    """Bits a pixel of held-out digits, where there are any, and as many samples."""
    samples = whole(pgm.sample(model, len(held_out), seed=0)["x"], entrant.form)
    try:
        log_prob = pgm.log_prob(model, held_out, particles=entrant.particles, seed=0)
    except Unsupported:
        return None, samples
    scale = SCALE if entrant.form == "dequantised" else None
    bits = bits_per_dimension(log_prob, 64, dequantised=scale, discrete=scale is None)
    return bits, samples


def comparison(results: Sequence[Result], digits: Dataset) -> Chapter:
    """One table of the models of 17 levels, and one of those of binarised digits."""
    grey = [r for r in results if r.entrant.form != "binary"]
    binary = [r for r in results if r.entrant.form == "binary"]
    return Chapter(
        "One comparison",
        "Models of every kind are trained on 1000 digits of 8 x 8 pixels and 17 grey levels, and "
        "scored on 447 held-out ones by other writers.",
        code(load, *(r.entrant.train for r in results)),
        [
            _table(
                grey,
                "Lower bits are better. A bound is never below the true value. All rows are of the "
                "whole numbers 0 .. 16: densities of dequantised digits (x + u) / 8.5 - 1 are "
                "converted, which makes them bounds; models without a density have none. Told "
                "apart: how often a random forest tells samples from held-out digits (0.5: never). "
                "MMD² x 1000, unbiased, with the kernel of the median distance. Each is trained "
                "for seconds: the table ranks these runs, not the families.",
                reference=_reference(digits, "levels"),
            ),
            _table(
                binary,
                "Of digits binarised at half ink: other data on another measure, not to be "
                "compared with the bits above. The constant is estimated by annealed importance "
                "sampling.",
                reference=_reference(digits, "binary"),
            ),
            _gallery(results, digits),
        ],
    )


def _table(results: Sequence[Result], caption: str, *, reference: list[str]) -> Table:
    header = ["", "bits/pixel", "kind", "told apart", "MMD² x 1000", "seconds"]
    return Table(header, [*map(_row, results), reference], caption)


def _row(r: Result) -> list[str]:
    bits, kind = (
        ("none", "no density")
        if r.bits is None
        else (
            f"{r.bits.value:.3f} ± {r.bits.error:.3f}",
            r.bits.kind,
        )
    )
    return [r.entrant.name, bits, kind, *_scores(r.apart, r.distance), f"{r.seconds:.1f}"]


def _scores(apart: C2ST, distance: MMD) -> list[str]:
    return [f"{apart.accuracy:.3f} ± {apart.error:.3f}", f"{1000 * distance.squared:.2f}"]


def _reference(digits: Dataset, form: Form) -> list[str]:
    """Training digits in the place of samples: the writers differ, so they can be told apart."""
    test = formed(digits.test.x, form)
    train = formed(digits.train.x, form)[: len(test)]
    scores = _scores(c2st(test, train, seed=0), mmd(test, train, seed=0))
    return ["training digits", "", "", *scores, ""]


def _gallery(results: Sequence[Result], digits: Dataset) -> Picture:
    """Twelve samples of each model, and twelve held-out digits."""
    most = 12
    full = {"binary": 16}
    rows = [(r.entrant.name, r.samples[:most] * full.get(r.entrant.form, 1)) for r in results]
    rows.append(("held-out digits", digits.test.x[:most]))
    figure, ax = plt.subplots(figsize=(6.6, 0.5 * len(rows)))
    x = torch.cat([samples for _, samples in rows])
    plots.images(x, shape=(8, 8), columns=most, limits=(0.0, 16.0), ax=ax)
    for i, (name, _) in enumerate(rows):
        ax.text(-2, 9 * i + 3.5, name, ha="right", va="center", fontsize=8, color=plots.INK)
    return picture(figure, "The first twelve samples of each model, not chosen.")
