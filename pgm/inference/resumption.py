"""More draws of the chains that a posterior came from, as if they had never stopped."""

from dataclasses import replace

import torch
from torch import Tensor

from pgm.inference.posterior import Posterior
from pgm.inference.progress import warn
from pgm.verb import Unsupported


def resume(posterior: Posterior, *, draws: int = 500, progress: bool | None = None) -> Posterior:
    """The same posterior with more draws a chain: what one longer run would have given.

    Args:
        posterior: of `pgm.inference.chees` or `mcmc`; it stays as it is.
        draws: more of them a chain.
        progress: whether a bar is shown; by default where the output is a terminal.

    Raises:
        ValueError: fewer than 4 draws.
        Unsupported: the method keeps no sampler.

    Example:
        >>> from pgm.data import load
        >>> from pgm.families.hierarchical import Hierarchical
        >>> from pgm.inference import chees
        >>> import warnings; warnings.simplefilter("ignore")  # too few draws to trust
        >>> schools = dict(load("eight_schools").tensors)
        >>> short = chees(Hierarchical(), schools, draws=200, warmup=100, seed=0, backend="graph")
        >>> resume(short, draws=50).size
        (32, 250)
    """
    if draws < 4:
        raise ValueError(f"draws is {draws}; it takes 4 or more.")
    if posterior.state is None:
        raise Unsupported(
            f"Draws by {posterior.method} keep no sampler to go on with. Run it anew with more "
            "draws, or use pgm.inference.chees or mcmc."
        )
    more: Posterior = posterior.state.go_on(posterior, draws, progress=progress)
    return warn(
        replace(
            more,
            draws=_joined(posterior.draws, more.draws),
            sample_stats=_joined(posterior.sample_stats, more.sample_stats),
            seconds=posterior.seconds + more.seconds,
        )
    )


def _joined(first: dict[str, Tensor], second: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([first[name], second[name]], 1) for name in first}
