"""Where mixtures start, and how they go on from where they stop: k-means++, merges and splits."""

import warnings
from collections.abc import Callable, Iterator
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pgm.batch import SEEN, Batch


def kmeans(x: Float[Tensor, "n d"], clusters: int, seed: int) -> Int[Tensor, " n"]:
    """The cluster of every row (Arthur & Vassilvitskii 2007), the best of four runs.

    There are fewer where fewer rows differ.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # "fewer distinct clusters"
        search = KMeans(clusters, n_init=4, random_state=seed % 2**32)
        found = search.fit(x.detach().cpu().numpy())
    return torch.from_numpy(found.labels_).to(x.device, torch.int64)


def standard_units(
    batch: Batch, clusters: int
) -> tuple[Float[Tensor, "n d"], Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Rows in standard units, zero where a cell is missing, and mean and scale of the columns.

    Raises:
        ValueError: no matrix at "x", fewer rows than clusters, or a column without variation.
    """
    x = batch.get("x", torch.zeros(1))
    if x.dim() != 2 or set(batch) - {"x", "x" + SEEN} or len(x) < clusters:
        raise ValueError(
            f"{clusters} components start from clusters of rows of shape (n, d), at least as "
            f"many, but {batch} came. Use fewer components, or pass the rows as x."
        )
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    mask = batch.get("x" + SEEN, torch.ones_like(x, dtype=torch.bool)).to(x)
    count = mask.sum(0).clamp(min=1)
    m = (mask * x).sum(0) / count
    s = ((mask * (x - m).square()).sum(0) / count).sqrt()
    if not bool((varies := s > 1e-12 * m.abs()).all()):
        raise ValueError(
            f"Column {int((~varies).nonzero()[0])} is constant, or was never seen: it has no "
            "clusters. Leave it out."
        )
    return mask * (x - m) / s, m, s


def merge_and_split(
    climb: Callable[[Tensor], tuple[list[float], Tensor]],
    x: Float[Tensor, "n d"],
    r: Float[Tensor, "n T"],
    bound: float,
    moves: int,
    least: float,
) -> tuple[list[float], Float[Tensor, "n T"]]:
    """Out of an optimum by merging or splitting clusters, while the bound rises.

    After Ueda & Ghahramani (2002), "Bayesian model search for mixture models based on optimizing
    variational bounds": every cluster with its nearest, and every cluster in two while one is
    empty; the first that is better is kept.

    Args:
        climb: a few sweeps from responsibilities: the bounds on the way, and the last ones.
        x: the rows in units of which their distances make sense, zero where a cell is missing.
        r: responsibilities where the sweeps stopped.
        bound: the bound there.
        moves: the most that are kept.
        least: by how much a move must raise the bound.

    Returns:
        The bound after each move that was kept, and the responsibilities.
    """
    history = list[float]()
    for _ in range(moves):
        found = map(climb, chain(_merges(x, r), _splits(x, r)))
        better = next(((b, new) for b, new in found if b[-1] > bound + least), None)
        if better is None:
            break
        bound, r = better[0][-1], better[1]
        history.append(bound)
    return history, r


def _merges(x: Float[Tensor, "n d"], r: Float[Tensor, "n T"]) -> Iterator[Float[Tensor, "n T"]]:
    """Each cluster with the nearest other one, by squared distance over variances."""
    filled = (r.sum(0) > 0.5).nonzero()[:, 0]
    weight = r[:, filled] / r[:, filled].sum(0)
    m = weight.T @ x
    variance = (weight.T @ x.square() - m.square()).clamp(min=1e-9)
    far = ((m.unsqueeze(1) - m).square() / (variance.unsqueeze(1) + variance)).sum(-1)
    far.fill_diagonal_(torch.inf)
    pairs = {tuple(sorted(p)) for p in enumerate(far.argmin(1).tolist())} if len(m) > 1 else set()
    for a, b in filled[torch.tensor(sorted(pairs), dtype=torch.int64).view(-1, 2)].tolist():
        merged = r.clone()
        merged[:, a], merged[:, b] = r[:, a] + r[:, b], 0.0
        yield merged


def _splits(x: Float[Tensor, "n d"], r: Float[Tensor, "n T"]) -> Iterator[Float[Tensor, "n T"]]:
    """Each cluster cut in two across its longest axis, if there is an empty one."""
    count = r.sum(0)
    if count.min() > 0.5:
        return
    empty = int(count.argmin())
    for a in (count > 1.5).nonzero()[:, 0].tolist():
        weight = r[:, a] / count[a]
        apart = x - weight @ x
        axis = torch.linalg.eigh((weight * apart.T) @ apart).eigenvectors[:, -1]
        beyond = apart @ axis > 0
        split = r.clone()
        split[:, empty] += torch.where(beyond, r[:, a], 0.0)
        split[:, a] = torch.where(beyond, 0.0, r[:, a])
        yield split
