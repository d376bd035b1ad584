"""Where a hidden Markov model starts from: known tables, or clusters of the steps."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pgm.batch import SEEN
from pgm.inference.chains.emissions import Gaussians

__all__ = ["check_sizes", "check_tables", "complete_steps", "moments", "probabilities", "start"]

_OFF = 1e-4


def probabilities(name: str, table: Any) -> Tensor:
    """A table whose last axis holds probabilities, in floating point, its rows adding up to 1.

    Raises:
        ValueError: a row that is no distribution; it is not renormalised, since a row that adds up
            to something else is as often the wrong axis as a rounded one.

    Example:
        >>> probabilities("initial", [0.25, 0.75])
        tensor([0.2500, 0.7500])
    """
    p = torch.as_tensor(table)
    p = p if p.is_floating_point() else p.to(torch.get_default_dtype())
    if p.dim() == 0 or not p.numel():
        raise ValueError(f"{name} has shape {tuple(p.shape)}; it is a table of probabilities.")
    total = p.sum(-1)
    bad = ((total - 1).abs() > _OFF) | (p < 0).any(-1) | ~p.isfinite().all(-1)
    if bool(bad.any()):
        row = tuple(bad.nonzero()[0].tolist())
        where = f"row {row[0]} of {name}" if row else name
        columns = p.dim() == 2 and bool(((p.sum(0) - 1).abs() <= _OFF).all())
        raise ValueError(
            f"{where} is {p[row].tolist()}, which adds up to {float(total[row]):g} and is no "
            "probability distribution: each row holds what may happen from one state. "
            + ("Its columns add up to 1: transpose it." if columns else "Divide by its sum.")
        )
    return p / total.unsqueeze(-1)


def check_tables(states: int, **tables: Tensor) -> None:
    """Tables of as many states as `initial` has.

    Raises:
        ValueError: their shapes do not fit together.
    """
    shapes = {"initial": 1, "transition": 2, "emission": 2}
    square = tables["transition"].shape == (states, states)
    if not square or any(t.dim() != shapes[k] or len(t) != states for k, t in tables.items()):
        came = ", ".join(f"{name} {tuple(table.shape)}" for name, table in tables.items())
        raise ValueError(
            f"Tables of shapes {came} came; with S states they are initial (S,), transition "
            "(S, S) and emission (S, levels)."
        )


def moments(means: Any, scales: Any, states: int) -> tuple[Tensor, Tensor]:
    """The means and standard deviations of Gaussian steps.

    Raises:
        ValueError: one is absent, of another shape, not finite or not positive.
    """
    if means is None or scales is None:
        raise ValueError(
            "Neither emission= came, the table of the symbols, nor both means= and scales= of "
            "Gaussian steps. Pass what the states emit."
        )
    dtype = torch.get_default_dtype()
    mu, sigma = (torch.as_tensor(t) for t in (means, scales))
    mu, sigma = (t if t.is_floating_point() else t.to(dtype) for t in (mu, sigma))
    if mu.shape != sigma.shape or mu.dim() not in (1, 2) or len(mu) != states:
        raise ValueError(
            f"means have shape {tuple(mu.shape)} and scales {tuple(sigma.shape)}; with {states} "
            f"states both are ({states},), or ({states}, features)."
        )
    if not bool(mu.isfinite().all() and sigma.isfinite().all() and (sigma > 0).all()):
        raise ValueError("means and scales are finite numbers, and scales are positive.")
    return mu, sigma


def complete_steps(batch: Mapping[str, Tensor], states: int) -> Float[Tensor, "t d"]:
    """The steps of all sequences without a missing cell, one under the other.

    Raises:
        ValueError: no sequences of numbers, or fewer complete steps than states.
    """
    x = batch.get("x")
    if x is None or x.dim() not in (2, 3):
        raise ValueError(
            f"Sequences of numbers, (n, T) or (n, T, features), are clustered, but {batch} came."
        )
    cells = (x if x.dim() == 3 else x.unsqueeze(-1)).flatten(0, 1)
    seen = batch.get("x" + SEEN, torch.ones_like(x, dtype=torch.bool)).reshape(len(cells), -1)
    steps = cells[seen.all(-1)]
    if len(steps) < states:
        raise ValueError(
            f"{states} states were asked for, but only {len(steps)} complete steps came, and every "
            "state starts from a cluster of them. Use fewer states, or HMM(...) from random."
        )
    return steps if steps.is_floating_point() else steps.to(torch.get_default_dtype())


def check_sizes(
    states: int,
    length: int,
    levels: int | None,
    features: int | None,
    components: int,
    floor: float,
) -> None:
    """The sizes of a hidden Markov model.

    Raises:
        ValueError: one is below 1, symbols and numbers at once, or a floor that is not positive.
    """
    sizes = {"states": states, "length": length, "components": components}
    sizes |= {k: v for k, v in {"levels": levels, "features": features}.items() if v is not None}
    if min(sizes.values()) < 1:
        raise ValueError(
            f"An HMM of {', '.join(f'{k} {v}' for k, v in sizes.items())} was asked for; every "
            "size is 1 or more."
        )
    if levels is not None and (features is not None or components > 1):
        raise ValueError(
            f"levels is {levels}, so that a step is one of so many symbols, but features "
            f"{features} and components {components} speak of Gaussian numbers. Leave out one."
        )
    if not 0 < floor < math.inf:
        raise ValueError(
            f"floor is {floor}; it is the smallest standard deviation, positive and finite: "
            "without one a state can shrink onto a single step, where the likelihood is infinite."
        )


def start(emission: Gaussians, steps: Float[Tensor, "t d"], seed: int) -> None:
    """Gives every state a cluster of the steps, and its components a place in it."""
    from sklearn.cluster import KMeans

    S, K, _ = emission.means.shape
    found = KMeans(S, n_init=4, random_state=seed % 2**32).fit(steps.detach().cpu().numpy())
    member = F.one_hot(torch.from_numpy(found.labels_).long(), S).to(steps)
    count = member.sum(0).clamp(min=1).unsqueeze(-1)
    means = member.mT @ steps / count
    within = (member.mT @ (steps - member @ means).square() / count).sqrt() + 2 * emission.floor
    places = torch.randn_like(emission.means) if K > 1 else torch.zeros_like(emission.means)
    with torch.no_grad():
        emission.means.copy_(means.unsqueeze(1) + places * within.unsqueeze(1))
        emission.log_scales.copy_((within - emission.floor).log().unsqueeze(1).expand(-1, K, -1))
