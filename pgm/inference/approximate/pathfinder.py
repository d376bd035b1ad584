"""Multi-path Pathfinder: draws from normals along many climbs, with their weights."""

import time
from typing import Any

import torch

from pgm.inference.approximate.paths import find_paths
from pgm.inference.approximate.weighed import weighed
from pgm.inference.posterior import Posterior
from pgm.inference.precision import double
from pgm.inference.runs import read
from pgm.inference.starts import uniform
from pgm.inference.traced import Density
from pgm.inference.unconstrained import log_joint
from pgm.model import Model
from pgm.randomness import fresh_seed, seeded
from pgm.tracing import Backend


def pathfinder(
    model: Model,
    data: Any,
    *,
    draws: int = 1000,
    paths: int = 16,
    seed: int | None = None,
    backend: Backend | None = None,
) -> Posterior:
    """Draws from the normals of Pathfinder, each path's best (Zhang et al. 2022, Alg. 1 and 2).

    Args:
        model: any model with continuous latents; it is not changed.
        data: all rows, in any form.
        draws: in all, spread evenly over the paths.
        paths: climbs from different starts; with one, this is the single-path algorithm.
        seed: of starts and draws.
        backend: what replays the density; by default the fastest that runs here.

    Returns:
        The draws, in one chain, weighed against the mixture of all paths' normals; `resample`
        makes of them the importance-resampled posterior of the paper.

    Raises:
        ValueError: fewer draws than paths, or as in `chees`.
        BadStart: no start with a finite density.
        Unsupported: as in `chees`.

    Warns:
        InferenceWarning: k-hat is above 0.7.

    Example:
        >>> from pgm.data import load
        >>> from pgm.families.hierarchical import Hierarchical
        >>> import warnings; warnings.simplefilter("ignore")  # k-hat is above 0.7 here
        >>> schools = dict(load("eight_schools").tensors)
        >>> pathfinder(Hierarchical(), schools, draws=320, seed=0, backend="graph").size
        (1, 320)
    """
    if paths < 1 or draws < paths:
        raise ValueError(f"draws is {draws} and paths {paths}: each path takes a draw or more.")
    began = time.perf_counter()
    batch = read(model, data)
    base = fresh_seed() if seed is None else seed
    with double(model, batch) as (precise, rows), seeded(base):
        density = Density(log_joint(precise, rows), backend=backend or "auto")
        generator = torch.Generator().manual_seed(base)
        u = uniform(density.density, density, paths, generator)
        found = find_paths(density, u, draws=-(-draws // paths), generator=generator)
        points, log_weight = found.u.flatten(0, 1)[:draws], found.log_weight().flatten()[:draws]
        return weighed(
            model, batch, density.density, points, log_weight, method="pathfinder", began=began
        )
