"""What a private training step costs beside the open step of the same model on the same rows.

Prints milliseconds of processor time a step, both sides by turns in one process on one thread, the
median ratio of the turns, and the ratio of the memory that five steps take at their peak, each side
in a process of its own, three times, of which the median counts. Lots have 256 rows on average;
open minibatches have 256. "compiled" steps are replayed (`compile=True`), and stand beside open
steps that are not.

By the ghost route a step holds no more than an open one: at the end of the pass backwards it has
the input of every layer and the gradient at its output, which weigh less than the losses by cell
did before, then sums, one by one, for factors, and noise is added in place. In bytes of tensors the
VAE needs 4.23 MB on 251 rows, and an open step 4.21 MB on 256 (tests/test_privacy_memory.py).
"""

import ctypes
import gc
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import pgm
import privacy
from pgm.families.flow import SplineFlow
from pgm.families.mixture import GaussianMixture
from pgm.families.vae import VAE

LOT, ROWS = 256, 4000
CASES = (
    ("vae", "ghost", 4, "<= 3, memory <= 1.1"),
    ("vae", "vmap", 1, ""),
    ("small vae", "ghost", 30, ""),
    ("small vae", "vmap", 30, ""),
    ("flow", "ghost", 4, ""),
    ("flow", "vmap", 4, "<= 6"),
    ("mixture", "vmap", 30, "<= 6"),
    ("small vae", "ghost, compiled", 30, "<= 1.5"),
    ("small vae", "vmap, compiled", 30, "<= 1.5"),
    ("flow", "ghost, compiled", 4, ""),
    ("mixture", "vmap, compiled", 30, "<= 1.5"),
)


def main() -> None:
    """The table."""
    torch.set_num_threads(1)
    print(f"{'a private step of':<30}{'private':>10}{'open':>10}{'ratio':>7}{'memory':>8}   limit")
    for name, route, steps, limit in CASES:
        private, plain, ratio = by_turns(name, route, steps)
        memory = peak(name, route) / max(1.0, peak(name, "open"))
        times = f"{private * 1e3:>7.2f} ms{plain * 1e3:>7.2f} ms{ratio:>7.2f}"
        print(f"{f'{name}, {route}':<30}{times}{memory:>8.2f}   {limit}", flush=True)


def model_and_rows(name: str) -> tuple[pgm.Model, Tensor]:
    """The models of the table."""
    generator = torch.Generator().manual_seed(0)
    bits = torch.rand(ROWS, 784, generator=generator).round()
    points = torch.randn(ROWS, 2, generator=generator)
    torch.manual_seed(0)
    if name == "vae":
        return VAE(784, latents=20, hidden=(400,)), bits
    if name == "small vae":
        return VAE(8, latents=2, hidden=(16,)), bits[:, :8]
    if name == "flow":
        return SplineFlow(2), points
    return GaussianMixture(2, 8), points


def steps_of(name: str, route: str) -> Iterator[object]:
    """The steps of a fit: private by a route, or open."""
    model, x = model_and_rows(name)
    if route == "open":
        return pgm.training(model, x, steps=10**6, batch_size=LOT, seed=0)
    route, _, compiled = route.partition(", ")
    options: dict[str, Any] = {"epsilon": 3.0, "delta": 1e-5, "accountant": "rdp", "seed": 0}
    options["compile"] = bool(compiled)
    run = privacy.PrivateTraining(
        model, x, steps=1000, expected_batch_size=LOT, route=route, **options
    )
    return iter(run)


def by_turns(name: str, route: str, steps: int, rounds: int = 9) -> tuple[float, float, float]:
    """Seconds a step of both, and the median over rounds of their ratio."""
    sides = [steps_of(name, route), steps_of(name, "open")]
    for side in sides:
        seconds(side, 2)
    turns = [tuple(seconds(side, steps) for side in sides) for _ in repeat(None, rounds)]
    medians = [statistics.median(side) for side in zip(*turns, strict=True)]
    return medians[0], medians[1], statistics.median(a / b for a, b in turns)


def seconds(side: Iterator[object], steps: int) -> float:
    """Processor time of a step, over so many of them."""
    start = time.process_time()
    for _ in repeat(None, steps):
        next(side)
    return (time.process_time() - start) / steps


def peak(name: str, route: str) -> float:
    """Kilobytes that five steps add at their peak, each time in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return float(statistics.median(pool.starmap(added, [(name, route)] * 3, chunksize=1)))


def added(name: str, route: str) -> int:
    """The rise of the largest resident size over five steps, after three others (Linux, glibc)."""
    torch.set_num_threads(1)
    side = steps_of(name, route)
    for _ in repeat(None, 3):
        next(side)
    for kept in gc.get_objects():  # an open step leaves its gradients, a private one does not
        if type(kept) is torch.nn.Parameter:
            kept.grad = None
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what is free goes back
    Path("/proc/self/clear_refs").write_text("5")  # and the peak starts anew
    before = kilobytes("VmRSS")
    for _ in repeat(None, 5):
        next(side)
    return kilobytes("VmHWM") - before


def kilobytes(entry: str) -> int:
    """An entry of the process's status."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(entry))
    return int(line.split()[1])


if __name__ == "__main__":
    main()
