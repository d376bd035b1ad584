"""The tour: every kind of model on real data, from fit to picture, on one page.

Its chapters are found as entry points of the group "hotplate.tour", so that packages above this
one, or a user's own, add theirs without being named here. An entry point is a generator function
`chapters(effort)` that yields a `Chapter` after another; `effort` scales the training steps, 1 in a
real run and a hundredth in a test.
"""

import inspect
import io
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pgm.report import Chapter, write

GROUP = "hotplate.tour"
"""The group of entry points, in pyproject.toml, that are generators of chapters."""

Chapters = Callable[[float], Iterator[Chapter]]

LEAD = (
    "A model is two Pyro programs over rows; verbs ask it questions. Here models of every kind are "
    "trained on real data, questioned, intervened on and trained in private. The code of each "
    "chapter is the code that ran."
)


def run(folder: Path, *, effort: float = 1.0, processes: int = 2) -> Path:
    """Runs every chapter, prints it when its group is done, and writes `index.html`.

    Args:
        folder: where the page is written.
        effort: what training steps are multiplied by.
        processes: how many groups of chapters run at a time, one thread each.

    Returns:
        The page.
    """
    start = time.perf_counter()
    workers = min(processes, os.cpu_count() or 1)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_one_thread) as pool:
        groups = [pool.submit(_chapters, entry, effort) for entry in entries()]
        for group in as_completed(groups):
            print(*group.result(), "", sep="\n\n", flush=True)
    chapters = [chapter for group in groups for chapter in group.result()]
    page = write(folder / "index.html", "Hotplate, a tour", LEAD, chapters)
    seconds = time.perf_counter() - start
    print(f"{len(chapters)} chapters in {seconds:.0f} s: {page.resolve()}")
    return page


def entries() -> list[EntryPoint]:
    """The entry points of the tour, in the order of their names."""
    return sorted(entry_points(group=GROUP), key=lambda entry: entry.name)


def chapters_of(entry: EntryPoint, *, effort: float) -> Iterator[Chapter]:
    """The chapters of one entry point, each with the seconds it took."""
    start = time.perf_counter()
    for chapter in entry.load()(effort):
        now = time.perf_counter()
        yield chapter.timed(now - start)
        start = time.perf_counter()


def scaled(function: Callable[..., Any], effort: float) -> dict[str, int]:
    """The whole-numbered defaults of a function times `effort`, at least 1: shorter training.

    Example:
        >>> def fit(steps=200, draws=10, name="vae"): ...
        >>> scaled(fit, 0.05)
        {'steps': 10, 'draws': 1}
    """
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items()}
    return {
        name: max(1, round(value * effort))
        for name, value in defaults.items()
        if isinstance(value, int) and not isinstance(value, bool)
    }


def _chapters(entry: EntryPoint, effort: float) -> list[Chapter]:
    """The chapters of one entry point; bars of two processes would overwrite each other."""
    with redirect_stderr(io.StringIO()):
        return list(chapters_of(entry, effort=effort))


def _one_thread() -> None:
    """Small models gain nothing from a second thread; the second core has its own chapters."""
    import matplotlib
    import torch

    matplotlib.use("Agg")
    torch.set_num_threads(1)
