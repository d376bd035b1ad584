"""What a training step costs beside the same model and optimiser in plain torch.

Prints milliseconds of processor time a step, both sides by turns in one process on one thread, and
the median ratio of the turns. The last line is a density as one site against one site a cell.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import repeat

import pyro
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

import pgm
from pgm.families.autoregressive import MADE
from pgm.families.vae import VAE

BATCH = 128


def main() -> None:
    """The table."""
    torch.set_num_threads(1)
    print(f"{'a step of':<42}{'pgm':>10}{'beside':>10}{'ratio':>8}   limit")
    with_vae("VAE 784-400-20, batch 128, / plain torch", 784, 400, 20, steps=15, limit="<= 1.3")
    with_vae("VAE 8-16-2, batch 128, / plain torch", 8, 16, 2, steps=100, limit="<= 3")
    with_chain("MADE 64-500, 17 levels: 64 sites / one site", limit=">= 30")


def with_vae(
    title: str, features: int, hidden: int, latents: int, *, steps: int, limit: str
) -> None:
    """`pgm.training` against the loop that a reader of the paper would write."""
    x = torch.rand(4000, features, generator=torch.Generator().manual_seed(0)).round()
    model = VAE(features, latents=latents, hidden=(hidden,))
    ours = pgm.training(model, x, steps=10**6, batch_size=BATCH, seed=0)
    plain = plain_training(VAE(features, latents=latents, hidden=(hidden,)), x)
    report(title, *by_turns(ours, plain, steps), limit)


def plain_training(model: VAE, x: Tensor) -> Iterator[float]:
    """Kingma & Welling (2014), eq. 10, on the same two networks: no program, no verb."""
    encoder, decoder = model.encoder, model.decoder
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    while True:
        for index in torch.randperm(len(x)).split(BATCH):
            optimiser.zero_grad()
            loss = negative_bound(encoder, decoder, x[index])
            loss.backward()
            optimiser.step()
            yield loss.item()


def negative_bound(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> Tensor:
    """Minus the evidence lower bound, with the divergence in closed form."""
    mu, log_sigma = encoder(x).chunk(2, -1)
    z = mu + log_sigma.exp() * torch.randn_like(mu)
    misfit = binary_cross_entropy_with_logits(decoder(z), x, reduction="sum")
    divergence = 0.5 * (mu**2 + (2 * log_sigma).exp() - 1 - 2 * log_sigma).sum()
    return (misfit + divergence) / len(x)


class Chain(pgm.Model):
    """The same autoregression, a site a cell: the network runs before each of them."""

    def __init__(self, made: MADE) -> None:
        super().__init__()
        self.made = made

    def model(self, n: int) -> None:
        """x_i ~ p(x_i | x_{<i}), a statement each."""
        x = torch.zeros(n, self.made.features)
        with pgm.rows(n):
            for i in self.made.order.tolist():
                cell = pyro.sample(f"x{i}", self.made.cells(self.made.logits(x)[:, i]))
                x = x.index_copy(1, torch.tensor([i]), cell.to(x.dtype).unsqueeze(1))


def with_chain(title: str, *, limit: str) -> None:
    """One site whose density is one pass, against one pass a site."""
    x = pgm.data.load("digits").train.x
    cells = {f"x{i}": x[:, i] for i in range(64)}
    made = MADE(64, levels=17)
    same = pgm.objective(Chain(made), cells), pgm.objective(made, x)
    assert torch.allclose(*same, rtol=1e-4)
    one = pgm.training(MADE(64, levels=17), x, steps=10**6, batch_size=BATCH, seed=0)
    chain = pgm.training(Chain(MADE(64, levels=17)), cells, steps=10**6, batch_size=BATCH, seed=0)
    report(title, *by_turns(chain, one, 1), limit)


def by_turns(
    first: Iterator[object], second: Iterator[object], steps: int, rounds: int = 9
) -> tuple[float, float, float]:
    """Seconds a step of both, and the median over rounds of their ratio."""
    sides = [seconds_of(side, steps) for side in (first, second)]
    for side in sides:
        side()
    turns = [tuple(side() for side in sides) for _ in repeat(None, rounds)]
    medians = [statistics.median(side) for side in zip(*turns, strict=True)]
    return medians[0], medians[1], statistics.median(a / b for a, b in turns)


def seconds_of(side: Iterator[object], steps: int) -> Callable[[], float]:
    """Processor time of a step, over so many of them."""

    def measure() -> float:
        start = time.process_time()
        for _ in repeat(None, steps):
            next(side)
        return (time.process_time() - start) / steps

    return measure


def report(title: str, first: float, second: float, ratio: float, limit: str) -> None:
    """One line of the table."""
    milliseconds = f"{first * 1e3:>7.2f} ms{second * 1e3:>7.2f} ms"
    print(f"{title:<42}{milliseconds}{ratio:>8.2f}   {limit}", flush=True)


if __name__ == "__main__":
    main()
