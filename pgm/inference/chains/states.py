"""What a hidden Markov model knows of its states: posteriors, the best path, draws of paths.

Posterior marginals and expected counts are the gradient of log p(x) with respect to the log
parameters (Eisner 2016, "Inside-outside and forward-backward algorithms are just backprop"), so
that one backward pass gives all of them. The best path is Viterbi's (1967); draws of whole paths
come from filtering forwards and sampling backwards (Chib 1996, eq. 8).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Categorical

from pgm.inference.chains.kernels import POSSIBLE, forward, log_likelihood

__all__ = ["Counts", "backward_draws", "best_path", "expected_counts", "filtered", "futures"]


@dataclass(frozen=True, eq=False)
class Counts:
    """What the states are expected to have done, given the sequences.

    Attributes:
        log_likelihood: log p(x) of every sequence, in nats.
        states: gamma_t(s) = p(z_t = s | x), shape (n, T, S).
        transitions: expected numbers of moves from r to s, of all sequences together, (S, S).
    """

    log_likelihood: Float[Tensor, " n"]
    states: Float[Tensor, "n T S"]
    transitions: Float[Tensor, "S S"]


def expected_counts(
    log_pi: Float[Tensor, " S"], log_A: Float[Tensor, "S S"], log_b: Float[Tensor, "n T S"]
) -> Counts:
    """The posterior marginals of states, and the expected transitions.

    Raises:
        ValueError: a sequence that no path of states can emit.

    Example:
        >>> half = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
        >>> seen = torch.tensor([[[0.9, 0.1], [0.2, 0.8]]]).log()
        >>> expected_counts(half[0], half, seen).states
        tensor([[[0.9000, 0.1000], [0.2000, 0.8000]]])
    """
    with torch.enable_grad():
        A, b = (t.detach().requires_grad_() for t in (log_A, log_b))
        value = log_likelihood(log_pi.detach(), A, b)
        check_possible(value)
        xi, gamma = torch.autograd.grad(value.sum(), (A, b), materialize_grads=True)
    return Counts(value.detach(), gamma, xi)


def filtered(
    log_pi: Float[Tensor, " S"], log_A: Float[Tensor, "S S"], log_b: Float[Tensor, "n T S"]
) -> Float[Tensor, "n T S"]:
    """p(z_t | x_0 .. x_t), normalised step by step."""
    alpha = torch.stack(forward(log_pi, log_A, log_b)).permute(2, 0, 1)
    check_possible(log_likelihood(log_pi, log_A, log_b))
    return alpha.softmax(-1)


def best_path(
    log_pi: Float[Tensor, " S"], log_A: Float[Tensor, "S S"], log_b: Float[Tensor, "n T S"]
) -> tuple[Int[Tensor, "n T"], Float[Tensor, " n"]]:
    """The path of states of highest posterior probability, and log p(path, x).

    Example:
        >>> sticky = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> seen = torch.tensor([[[0.6, 0.4], [0.4, 0.6], [0.6, 0.4]]]).log()
        >>> best_path(torch.tensor([0.5, 0.5]).log(), sticky, seen)[0]
        tensor([[0, 0, 0]])
    """
    b = log_b.permute(1, 0, 2)
    score, came_from = log_pi + b[0], []
    for t in range(1, len(b)):
        score, best = (score.unsqueeze(-1) + log_A).max(-2)
        score = score + b[t]
        came_from.append(best)
    value, state = score.max(-1)
    check_possible(torch.where(value > POSSIBLE, value, -torch.inf))
    path = [state]
    for best in reversed(came_from):
        path.append(best.gather(-1, path[-1].unsqueeze(-1)).squeeze(-1))
    return torch.stack(path[::-1], -1), value


def backward_draws(
    log_pi: Float[Tensor, " S"],
    log_A: Float[Tensor, "S S"],
    log_b: Float[Tensor, "n T S"],
    *,
    draws: int,
) -> Int[Tensor, "draws n T"]:
    """Whole paths from p(z | x): the last state first, then each given the one after it."""
    check_possible(log_likelihood(log_pi, log_A, log_b))
    alphas = [alpha.mT for alpha in forward(log_pi, log_A, log_b)]
    path = [Categorical(logits=alphas[-1]).sample((draws,))]
    for alpha in reversed(alphas[:-1]):
        path.append(Categorical(logits=alpha + log_A.mT[path[-1]]).sample())
    return torch.stack(path[::-1], -1)


def futures(
    last: Float[Tensor, "n S"], A: Float[Tensor, "S S"], steps: int, draws: int
) -> tuple[Float[Tensor, "n steps S"], Int[Tensor, "draws n steps"]]:
    """The states after the last step: their probabilities p(z_T) A^h, and paths drawn from them."""
    z = Categorical(last).sample((draws,))
    p, path = [], []
    for _ in range(steps):
        last, z = last @ A, Categorical(A[z]).sample()
        p.append(last)
        path.append(z)
    return torch.stack(p, 1), torch.stack(path, -1)


def check_possible(log_likelihood: Float[Tensor, " n"]) -> None:
    """Refuses sequences that the model cannot emit: given them, no state has a probability.

    Raises:
        ValueError: there are some.
    """
    impossible = torch.isinf(log_likelihood).nonzero().flatten()
    if len(impossible):
        raise ValueError(
            f"{len(impossible)} sequences, the first in row {int(impossible[0])}, have probability "
            "zero: no path of states can emit them, so that their states have no posterior. Look "
            "for zeros in the initial, transition and emission probabilities, or hide (NaN) the "
            "steps that the model rules out."
        )
