"""The tour's chapter on privacy: one variational autoencoder, trained openly and at epsilon 3."""

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import torch
from torch import Tensor

import pgm
import pgm.data
import privacy
from pgm import plots
from pgm.evaluation import bits_per_dimension, c2st
from pgm.families.vae import VAE
from pgm.report import Chapter, Note, Picture, Table, code, picture
from pgm.tour import scaled
from privacy.record import PrivateFit

OPEN, PRIVATE = "open", "epsilon 3"


def chapters(effort: float) -> Iterator[Chapter]:
    """The open model beside the private one."""
    openly, run = private(**scaled(private, effort))
    models: dict[str, pgm.Model] = {OPEN: openly, PRIVATE: run.model}
    x = (pgm.data.load("digits").test.x >= 8).float()
    samples = {name: pgm.sample(model, len(x), seed=0)["x"] for name, model in models.items()}
    yield Chapter(
        "Private training",
        "The same autoencoder of black-and-white digits twice: trained openly, and with a proven "
        "bound on what the model can tell about any single digit.",
        code(private),
        [_gallery(samples), _scores(models, samples, x, run), Note(_terms(run))],
    )


def private(steps: int = 500) -> tuple[VAE, PrivateFit]:
    """Trains the two models, from the same weights."""
    digits = pgm.data.load("digits").train.x
    x = (digits >= 8).float()

    with pgm.seeded(0):
        openly = VAE(64, latents=8, hidden=(64,))
    options: dict[str, Any] = {"steps": steps, "learning_rate": 3e-3, "seed": 0}
    pgm.fit(openly, x, **options)

    with pgm.seeded(0):
        model = VAE(64, latents=8, hidden=(64,))
    run = privacy.fit(
        model, x, epsilon=3.0, delta=1e-5, expected_batch_size=250, ema=0.98, **options
    )
    return openly, run


def _scores(
    models: dict[str, pgm.Model], samples: dict[str, Tensor], x: Tensor, run: PrivateFit
) -> Table:
    rows = []
    for name, model in models.items():
        bits = bits_per_dimension(pgm.log_prob(model, x, seed=0), x.shape[1], discrete=True)
        apart = c2st(x, samples[name], seed=0)
        spent = f"{run.epsilon:.2f}" if name == PRIVATE else "infinity"
        rows.append(
            [
                name,
                f"{bits.value:.3f} ± {bits.error:.3f}",
                bits.kind,
                f"{apart.accuracy:.3f} ± {apart.error:.3f}",
                spent,
            ]
        )
    caption = "On 447 held-out digits in black and white; a thousand rows are few to be private on."
    return Table(["", "bits/pixel", "kind", "told apart", "epsilon"], rows, caption)


def _terms(run: PrivateFit) -> str:
    release = run.report.release
    return (
        f"Spent: epsilon {run.epsilon:.2f} at delta {run.delta:g} for one row, added or removed; "
        f"{release.steps} steps on Poisson lots at rate {release.rate:g}, gradients clipped to "
        f"{release.clip:g}, noise multiplier {release.noise_multiplier:.2f}. The seed is printed "
        "here so that the page repeats: on data that are secret, leave seed= out, or whoever "
        "knows it can take the noise away."
    )


def _gallery(samples: dict[str, Tensor]) -> Picture:
    figure, ax = plt.subplots(figsize=(6.6, 2.2))
    most = 16
    x = torch.cat([x[: 2 * most] for x in samples.values()])
    plots.images(x, shape=(8, 8), columns=most, ax=ax)
    for i, name in enumerate(samples):
        ax.text(-2, 18 * i + 8.5, name, ha="right", va="center", fontsize=8, color=plots.INK)
    return picture(figure, "Samples of both models, not chosen.")
