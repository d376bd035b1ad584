"""What the one-timestep objective of a diffusion saves against the explicit chain.

Prints milliseconds of processor time a training step (objective, gradient, Adam), both sides by
turns on copies of one model in one process on one thread, the median ratio of the turns, and the
two losses with their standard errors: they estimate the same bound.
"""

import copy
import math
import statistics
import time
from collections.abc import Callable

import pyro
import torch
from torch import Tensor

import pgm
from pgm.batch import Batch
from pgm.families.diffusion import Diffusion
from pgm.randomness import seeded

BATCH, TURNS = 128, 7


def main() -> None:
    """The table."""
    torch.set_num_threads(1)
    pyro.enable_validation(False)  # as in `pgm.fit` after its first step
    print(f"{'a step of':<34}{'one t':>10}{'chain':>10}{'ratio':>8}   limit")
    for features, steps, hidden in (
        (2, 100, (128, 128)),
        (64, 100, (256, 256)),
        (64, 200, (256, 256)),
    ):
        compare(features, steps, hidden)


def compare(features: int, steps: int, hidden: tuple[int, ...]) -> None:
    """One line on time, one on the losses."""
    model = Diffusion(features, steps=steps, hidden=hidden)
    x = torch.randn(BATCH, features, generator=torch.Generator().manual_seed(0)) / 2
    pgm.fit(model, x, steps=100, seed=0, progress=False)
    one = trainer(copy.deepcopy(model), x, pgm.objective)
    chain = trainer(copy.deepcopy(model), x, explicit)
    turns = [(clock(one, 60), clock(chain, 2)) for _ in range(TURNS)]
    fast, slow = (statistics.median(side) for side in zip(*turns, strict=True))
    ratio = statistics.median(b / a for a, b in turns)
    title = f"{features} features, T = {steps}, {'-'.join(map(str, hidden))}"
    print(f"{title:<34}{fast:>7.2f} ms{slow:>7.1f} ms{ratio:>7.1f}x   >= 20")
    with torch.no_grad(), seeded(0):
        losses = [repeated(pgm.objective, model, x, 200), repeated(explicit, model, x, 10)]
    print("  bound, nats a row: {} against {}".format(*losses))


def explicit(model: Diffusion, batch: Batch) -> Tensor:
    """The bound by the chain of T sites and its guide."""
    return -pgm.log_weight(model, batch).rows


def trainer(model: Diffusion, x: Tensor, loss: Callable[..., Tensor]) -> Callable[[], None]:
    """A function that makes one step, called a few times already."""
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    batch = Batch(x=x)

    def step() -> None:
        optimiser.zero_grad()
        loss(model, batch).mean().backward()
        optimiser.step()

    step()
    step()
    return step


def clock(step: Callable[[], None], times: int) -> float:
    """Milliseconds of processor time a call."""
    start = time.process_time()
    for _ in range(times):
        step()
    return 1000 * (time.process_time() - start) / times


def repeated(loss: Callable[..., Tensor], model: Diffusion, x: Tensor, times: int) -> str:
    """The mean loss over the rows and its Monte Carlo standard error."""
    drawn = torch.stack([loss(model, Batch(x=x)).mean() for _ in range(times)])
    return f"{float(drawn.mean()):.3f} ± {float(drawn.std()) / math.sqrt(times):.3f}"


if __name__ == "__main__":
    main()
