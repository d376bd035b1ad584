"""Two-sample scores: do samples of a model differ from data it has not seen?

The maximum mean discrepancy compares means in the space of a kernel (Gretton, Borgwardt, Rasch,
Schölkopf & Smola 2012); the classifier two-sample test asks whether a classifier can tell the two
apart (Lopez-Paz & Oquab 2017). Both need no density, so that any two models can be compared.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pgm.randomness import fresh_seed, seeded


@dataclass(frozen=True)
class MMD:
    """The maximum mean discrepancy of two samples.

    Attributes:
        squared: unbiased estimate of MMD^2; about 0, or a little below, where they agree.
        p_value: share of relabellings of the pooled rows with at least this value.
        bandwidth: sigma of the kernel exp(-|x - y|^2 / 2 sigma^2).
        rows: rows of x and of y.
    """

    squared: float
    p_value: float
    bandwidth: float
    rows: tuple[int, int]

    def __str__(self) -> str:
        return f"MMD^2 = {self.squared:.5f}, p = {self.p_value:.3g} ({_rows(*self.rows)})"


@dataclass(frozen=True)
class C2ST:
    """A classifier's accuracy at telling two samples apart.

    Attributes:
        accuracy: on held-out rows; 0.5 where it cannot tell, 1 where it always can.
        error: standard error of the accuracy.
        p_value: chance of at least this accuracy where both samples have one distribution.
        rows: rows of x and of y that were held out.
    """

    accuracy: float
    error: float
    p_value: float
    rows: tuple[int, int]

    def __str__(self) -> str:
        return (
            f"told apart {self.accuracy:.3f} ± {self.error:.3f} of the time, "
            f"p = {self.p_value:.3g} ({_rows(*self.rows)})"
        )


def mmd(
    x: Float[Tensor, "n *shape"],
    y: Float[Tensor, "m *other"],
    *,
    bandwidth: float | None = None,
    permutations: int = 500,
    seed: int | None = None,
) -> MMD:
    """The unbiased squared MMD under a Gaussian kernel, with a permutation test.

    Args:
        x: rows of data.
        y: rows of samples.
        bandwidth: sigma of the kernel; by default the median distance of the pooled rows
            (Gretton et al. 2012, Sec. 8).
        permutations: random relabellings behind the p-value, whose least is 1 / (1 + permutations).
        seed: of the relabellings.

    Returns:
        Gretton et al. (2012), eq. 3, and its p-value.

    Raises:
        ValueError: fewer than two rows, rows of different shapes, or values that are not finite.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(2, 200, 3, generator=generator)
        >>> print(mmd(x, y + 1.0, seed=0))
        MMD^2 = 0.19781, p = 0.002 (200 and 200 rows)
    """
    x, y = _flat(x, y)
    pooled = torch.cat([x, y]).double()
    distance = torch.cdist(pooled, pooled).square()
    if bandwidth is None:
        bandwidth = math.sqrt(float(_off_diagonal(distance).median())) or 1.0
    kernel = torch.exp(-distance / (2 * bandwidth**2)).fill_diagonal_(0.0)
    n, m = len(x), len(y)
    first = torch.arange(n + m) < n
    observed = _unbiased(kernel, first[None])
    with seeded(seed):
        relabelled = torch.stack([first[torch.randperm(n + m)] for _ in range(permutations)])
    null = _unbiased(kernel, relabelled)
    at_least = int((null >= observed - 1e-12).sum())
    return MMD(float(observed), (1 + at_least) / (1 + permutations), bandwidth, (n, m))


def c2st(
    x: Float[Tensor, "n *shape"],
    y: Float[Tensor, "m *other"],
    *,
    classifier: object = None,
    seed: int | None = None,
) -> C2ST:
    """The classifier two-sample test: fitted on half of the rows, judged on the other half.

    The larger sample is cut to the size of the smaller, so that guessing is right half of the time.
    Given the classifier and its predictions the held-out labels are exchangeable where the two
    distributions are one, so the p-value is Fisher's exact one.

    Args:
        x: rows of data.
        y: rows of samples.
        classifier: any scikit-learn classifier; by default a random forest.
        seed: of the split and of the default classifier.

    Raises:
        ValueError: fewer than four rows, rows of different shapes, or values that are not finite.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x, y = torch.randn(2, 200, 3, generator=generator)
        >>> print(c2st(x, y + 1.0, seed=0))
        told apart 0.745 ± 0.031 of the time, p = 2.13e-12 (100 and 100 rows)
    """
    from scipy.stats import hypergeom
    from sklearn.base import clone
    from sklearn.ensemble import RandomForestClassifier

    x, y = _flat(x, y, least=4)
    seed = fresh_seed() if seed is None else seed
    model = clone(classifier) if classifier else RandomForestClassifier(200, random_state=seed)
    n = min(len(x), len(y))
    half = n // 2
    with seeded(seed):
        x, y = x[torch.randperm(len(x))[:n]], y[torch.randperm(len(y))[:n]]
    labels = torch.arange(2).repeat_interleave(n - half)
    model.fit(torch.cat([x[half:], y[half:]]).numpy(), labels.numpy())
    said = torch.as_tensor(model.predict(torch.cat([x[:half], y[:half]]).numpy())).bool()
    right_y, said_y = int(said[half:].sum()), int(said.sum())
    accuracy = (right_y + half - (said_y - right_y)) / (2 * half)
    p_value = float(hypergeom.sf(right_y - 1, 2 * half, half, said_y))
    error = math.sqrt(accuracy * (1 - accuracy) / (2 * half))
    return C2ST(accuracy, error, p_value, (half, half))


def _unbiased(
    kernel: Float[Tensor, "rows rows"], first: Bool[Tensor, "times rows"]
) -> Float[Tensor, " times"]:
    """MMD_u^2 for each labelling of the rows, from a kernel with an empty diagonal."""
    a = first.to(kernel)
    n, m = a.sum(-1), (1 - a).sum(-1)
    to_first = a @ kernel
    within_x, between = (to_first * a).sum(-1), (to_first * (1 - a)).sum(-1)
    within_y = kernel.sum() - within_x - 2 * between
    return within_x / (n * (n - 1)) + within_y / (m * (m - 1)) - 2 * between / (n * m)


def _off_diagonal(square: Float[Tensor, "n n"]) -> Float[Tensor, " pairs"]:
    i, j = torch.triu_indices(len(square), len(square), offset=1)
    return square[i, j]


def _flat(x: Tensor, y: Tensor, *, least: int = 2) -> tuple[Tensor, Tensor]:
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"Rows of shape {tuple(x.shape[1:])} and {tuple(y.shape[1:])} came: two samples of one "
            "space are compared. Bring both to the same shape and the same units."
        )
    if min(len(x), len(y)) < least:
        raise ValueError(f"{_rows(len(x), len(y))} came; it takes {least} of each or more.")
    x, y = x.detach().cpu().reshape(len(x), -1), y.detach().cpu().reshape(len(y), -1)
    for name, value in {"x": x, "y": y}.items():
        if bad := int((~torch.isfinite(value)).sum()):
            raise ValueError(
                f"{name} holds {bad} values that are NaN or infinite, which have no distance to "
                "others. Leave those rows out, or impute them first (pgm.impute)."
            )
    return x, y


def _rows(n: int, m: int) -> str:
    return f"{n} and {m} rows"
