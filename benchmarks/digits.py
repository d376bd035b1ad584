"""Held-out digits: 8 x 8 pixels of 17 grey levels under three families, trained as a user would.

Rows 0-999 train, 1000-1349 decide when to stop, 1350-1796 are the test that is printed. The VAE's
figure is an importance-weighted bound, the flow's a bound by uniform dequantisation; MADE's is
exact. Bounds are worse than what they bound, so a row beats another only if its bound is lower.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import pgm
from pgm.families.autoregressive import MADE
from pgm.families.flow import SplineFlow
from pgm.families.vae import VAE

Trained = tuple[pgm.Model, dict[str, Any], int]
"""A model, the options of `pgm.fit`, and the particles of its density."""


def made() -> Trained:
    """Germain et al. (2015): one wide layer, half of it silenced, weights decayed."""
    model = MADE(64, levels=17, hidden=(500,), dropout=0.5)
    fit = {"epochs": 120, "learning_rate": 3e-3, "schedule": "cosine", "evaluate_every": 100}
    return model, fit | decayed(0.3), 1


def vae() -> Trained:
    """Kingma & Welling (2014), measured as in Burda et al. (2016)."""
    options: dict[str, Any] = {"likelihood": "categorical", "levels": 17, "dropout": 0.2}
    model = VAE(64, latents=16, hidden=(256,), **options)
    fit = {"epochs": 200, "learning_rate": 2e-3, "evaluate_every": 80, "patience": 10}
    return model, fit | decayed(1e-2), 500


def flow() -> Trained:
    """Durkan et al. (2019): two autoregressive layers of splines.

    The standardisation is that of uniform levels, not of the data: pixels that are nearly always
    blank would be stretched beyond the splines by their rare ink.
    """
    model = SplineFlow(64, levels=17, transforms=2, hidden=(256,), dropout=0.2)
    fit = {"steps": 1000, "schedule": "cosine", "evaluate_every": 100}
    return model, fit | decayed(0.0) | {"batch_size": 100}, 20


def decayed(weight_decay: float) -> dict[str, Any]:
    """What the three have in common."""
    optimiser = partial(torch.optim.AdamW, weight_decay=weight_decay, fused=True)
    return {"optimiser": optimiser, "batch_size": 50, "ema": 0.99}


def line(make: Callable[[], Trained], target: float) -> str:
    """Trains one family and measures it."""
    digits = pgm.data.load("digits")
    torch.manual_seed(0)
    model, options, particles = make()
    start = time.process_time()
    pgm.fit(model, digits.train.x, validation=digits.validation.x, seed=0, **options)
    seconds = time.process_time() - start
    density = pgm.log_prob(model, digits.test.x, particles=particles, seed=0)
    mean, error = density.mean
    return (
        f"{type(model).__name__:<12}{density.kind:<8}{particles:>9}{-mean:>9.2f} ±{error:>5.2f}"
        f"{density.bits(64):>10.3f}{seconds:>9.0f}   <= {target}"
    )


def main() -> None:
    """The table; seconds of processor time on one thread, for training."""
    torch.set_num_threads(1)
    print("family      kind    particles   nats an image  bits/dim  seconds   target")
    for make, target in ((made, 97.9), (vae, 95.7), (flow, 96.5)):
        print(line(make, target), flush=True)


if __name__ == "__main__":
    main()
