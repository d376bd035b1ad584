"""Where mixtures start: clusters of the rows by k-means++ (Arthur & Vassilvitskii 2007)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pgm.batch import SEEN, Batch


def kmeans(x: Float[Tensor, "n d"], clusters: int, seed: int) -> Int[Tensor, " n"]:
    """The cluster of every row, the best of four runs."""
    from sklearn.cluster import KMeans

    found = KMeans(clusters, n_init=4, random_state=seed % 2**32).fit(x.detach().cpu().numpy())
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
