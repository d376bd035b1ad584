"""NUTS by nutpie, over the replayed density: an optional extra, `pip install hotplate[nutpie]`.

nutpie's sampler (Seyboldt, Carlson & Carpenter) is NUTS with a metric from draws and gradients;
here it walks over `pgm.inference.traced`, one chain after the other.
"""

import importlib
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pgm.inference.constrain import constrain
from pgm.inference.posterior import Posterior
from pgm.inference.precision import double
from pgm.inference.progress import warn
from pgm.inference.runs import read
from pgm.inference.traced import Density
from pgm.inference.unconstrained import log_joint
from pgm.model import Model
from pgm.randomness import fresh_seed, seeded


def nutpie(
    model: Model,
    data: Any,
    *,
    draws: int = 1000,
    warmup: int = 400,
    chains: int = 4,
    seed: int | None = None,
    target_accept: float = 0.8,
    progress: bool = False,
) -> Posterior:
    """Draws from the posterior of all latents of a model by nutpie's NUTS, in float64.

    Args:
        model: any model with continuous latents; it is not changed.
        data: all rows, in any form.
        draws: kept draws a chain.
        warmup: draws a chain that adapt the sampler and are thrown away.
        chains: how many.
        seed: of starts and moves.
        target_accept: acceptance that the step size is tuned to.
        progress: whether nutpie shows its bar.

    Raises:
        ImportError: nutpie is not installed.
        ValueError: no continuous latent, or data that do not fit the model.
        BadStart: no start with a finite density; the message names the site.
        Unsupported: discrete latents that are not enumerated, or a density that is itself random.

    Warns:
        InferenceWarning: divergences, chains that disagree.
    """
    try:
        package: Any = importlib.import_module("nutpie")
    except ImportError as error:
        raise ImportError(
            "nutpie is not installed; it is an optional extra: pip install hotplate[nutpie]. "
            "pgm.inference.chees and mcmc need no extra."
        ) from error
    began = time.perf_counter()
    batch = read(model, data)
    base = fresh_seed() if seed is None else seed
    with double(model, batch) as (precise, rows), seeded(base):
        density = Density(log_joint(precise, rows))
        starts = [density.density.start() for _ in range(chains)]
        trace = package.sample(
            _compiled(package, density),
            draws=draws,
            tune=warmup,
            chains=chains,
            cores=1,
            seed=base,
            target_accept=target_accept,
            init_mean=torch.stack(starts).mean(0).numpy(),
            save_warmup=False,
            progress_bar=progress,
            return_raw_trace=False,
        )
        u = torch.from_numpy(np.array(trace.posterior["u"].values))
        values, dims = constrain(density.density, u)
    return warn(
        Posterior(
            draws=values,
            sample_stats=_statistics(trace),
            model=model,
            batch=batch,
            seconds=time.perf_counter() - began,
            method="nutpie",
            dims=dims,
        )
    )


def _compiled(package: Any, density: Density) -> Any:
    """The density as nutpie takes one."""

    def make() -> Any:
        def log_p(u: Any) -> tuple[float, Any]:
            value, gradient = density(torch.from_numpy(np.array(u))[None])
            return float(value), gradient[0].numpy()

        return log_p

    return package.compiled_pyfunc.from_pyfunc(
        density.d, make, lambda *_: lambda u: {"u": u}, [np.dtype("float64")], [(density.d,)], ["u"]
    )


def _statistics(trace: Any) -> dict[str, Tensor]:
    """nutpie's statistics by ArviZ's names."""
    names = {
        "diverging": "diverging",
        "energy": "energy",
        "logp": "lp",
        "n_steps": "n_steps",
        "depth": "tree_depth",
        "maxdepth_reached": "reached_max_treedepth",
        "mean_tree_accept": "acceptance_rate",
        "step_size": "step_size",
    }
    stats = trace.sample_stats
    return {
        ours: torch.from_numpy(np.array(stats[theirs].values))
        for theirs, ours in names.items()
        if theirs in stats
    }
