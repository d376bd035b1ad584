"""One step of Baum and Welch against the closed forms of its four estimates."""

import itertools

import torch

from pgm.families.hmm import HMM, baum_welch
from pgm.inference.chains.questions import smooth_states
from pgm.randomness import seeded

NAN = float("nan")


def random(**shape: int) -> HMM:
    with seeded(0):
        model = HMM(2, 5, **shape).double()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn_like(p))
    return model


def test_a_step_takes_the_weighted_means_and_variances_around_them() -> None:
    """Rabiner (1989), eqs 52 to 54, of the cells that were seen; pi is the mean of gamma_0."""
    model = random(features=2)
    x = torch.randn(30, 5, 2, generator=torch.Generator().manual_seed(1)).double() + 3
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(2)) < 0.2] = NAN
    with torch.no_grad():
        gamma = smooth_states(model, x)
    baum_welch(model, x, steps=1)
    weight = gamma[..., None] * ~x.isnan()[:, :, None]
    y = x.nan_to_num()[:, :, None]
    mean = (weight * y).sum((0, 1)) / weight.sum((0, 1))
    variance = (weight * (y - mean).square()).sum((0, 1)) / weight.sum((0, 1))
    torch.testing.assert_close(model.emission.mean().detach(), mean)
    torch.testing.assert_close(model.emission.variance().detach(), variance)
    torch.testing.assert_close(model.initial.detach(), gamma[:, 0].mean(0))


def test_a_step_counts_symbols_and_moves_as_enumeration_does() -> None:
    """Rabiner (1989), eq. 40, with the posterior of whole paths written out."""
    model = random(levels=3)
    x = torch.tensor([[0, 2, 1, 1, 0], [2, 2, 0, 1, 2]])
    pi, A, B = model.initial, model.transition, model.emission.mean()
    moves, symbols = torch.zeros(2, 2).double(), torch.zeros(2, 3).double()
    with torch.no_grad():
        for row in x:
            paths = list(itertools.product(range(2), repeat=5))
            p = torch.stack([pi[z[0]] * B[z[0], row[0]] for z in paths])
            for i, z in enumerate(paths):
                for t in range(1, 5):
                    p[i] *= A[z[t - 1], z[t]] * B[z[t], row[t]]
            for share, z in zip(p / p.sum(), paths, strict=True):
                for t in range(5):
                    symbols[z[t], row[t]] += share
                    if t:
                        moves[z[t - 1], z[t]] += share
    baum_welch(model, x, steps=1)
    torch.testing.assert_close(model.transition.detach(), moves / moves.sum(1, keepdim=True))
    torch.testing.assert_close(
        model.emission.mean().detach(), symbols / symbols.sum(1, keepdim=True)
    )
