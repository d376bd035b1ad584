"""Log densities of a kernel density estimate, beside scikit-learn's.

Prints milliseconds on one thread, both sides by turns, the median ratio of the turns, and how far
each is from float64 differences added up one by one, in nats. scikit-learn is asked for no
tolerance (rtol = atol = 0) by its kd tree; its ball tree is asked once for its error.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.neighbors import KernelDensity
from torch import Tensor

import pgm
from pgm.families.kde import KDE

TURNS = 5
CASES = [(5000, 2000, 1, 0.1), (5000, 2000, 2, 0.1), (5000, 2000, 2, 0.5)]
CASES += [(2000, 2000, 5, 0.5), (10_000, 1000, 10, 0.5), (10_000, 1000, 10, 0.1)]


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'points, rows, d, h':<28}{'pgm':>9}{'kd tree':>9}{'ratio':>8}", end="")
    print(f"{'error: pgm':>14}{'kd tree':>11}{'ball tree':>11}")
    for case in CASES:
        report(*case)


def report(N: int, n: int, d: int, h: float) -> None:
    noise = torch.Generator().manual_seed(0)
    points, x = (torch.randn(m, d, generator=noise, dtype=torch.float64) for m in (N, n))
    model = KDE(points, bandwidth=h)
    trees = [tree(points, h, name) for name in ("kd_tree", "ball_tree")]
    truth = one_by_one(points, x[:50], h)
    answers = [pgm.log_prob(model, x).value, *(torch.from_numpy(t.score_samples(x)) for t in trees)]
    errors = [float((answer[:50] - truth).abs().max()) for answer in answers]
    sides: tuple[Callable[[], object], ...] = (
        lambda: pgm.log_prob(model, x),
        lambda: trees[0].score_samples(x),
    )
    times = [tuple(clock(side) for side in sides) for _ in range(TURNS)]
    ours, theirs = (statistics.median(side) * 1e3 for side in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    title = f"{N}, {n}, {d}, {h}"
    print(f"{title:<28}{ours:>9.1f}{theirs:>9.1f}{ratio:>7.1f}x", end="")
    print(f"{errors[0]:>14.1e}{errors[1]:>11.1e}{errors[2]:>11.1e}", flush=True)


def tree(points: Tensor, h: float, algorithm: str) -> KernelDensity:
    return KernelDensity(bandwidth=h, algorithm=algorithm, rtol=0, atol=0).fit(points.numpy())


def one_by_one(points: Tensor, x: Tensor, h: float) -> Tensor:
    constant = points.shape[1] * (np.log(h) + 0.5 * np.log(2 * np.pi)) + np.log(len(points))
    logs = [torch.logsumexp(-((row - points) ** 2).sum(1) / (2 * h * h), 0) for row in x]
    return torch.stack(logs) - constant


def clock(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
