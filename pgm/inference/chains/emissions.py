"""What a hidden state emits at a step: one of some levels, a Gaussian, or a mixture of Gaussians.

An emission is a module that knows the log density of a step in every state, with the cells that
were not seen left out, draws steps of given states, and its own maximum likelihood given how much
of each step belongs to each state (Rabiner 1989, eq. 40c, 52-54).
"""

import math
from typing import Any

import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.distributions import Categorical, constraints

from pgm.inference.chains.kernels import FLOOR, finite_logs

__all__ = ["Emission", "Gaussians", "Levels"]

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


class Emission(nn.Module):
    """The distribution of a step given the state.

    Attributes:
        step: the shape of what is seen at one step.
        support: of one cell.
    """

    step: tuple[int, ...]
    support: constraints.Constraint

    def log_prob(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """Log densities of steps (..., T, *step) in every state, (..., T, S), of seen cells."""
        raise NotImplementedError

    def at(self, z: Tensor) -> Any:
        """The distribution of a step in states, one for each."""
        raise NotImplementedError

    def sample(self, z: Tensor) -> Tensor:
        """Steps of states (..., T)."""
        raise NotImplementedError

    def complete(self, z: Tensor, x: Tensor, seen: Tensor) -> Tensor:
        """Steps x with their missing cells drawn given the states (draws, ..., T) and the rest."""
        raise NotImplementedError

    def mean(self) -> Tensor:
        """The mean of a step in every state, (S, ...); of levels, their probabilities."""
        raise NotImplementedError

    def variance(self) -> Tensor:
        """The variance of a step in every state, cell by cell, of the shape of the mean."""
        raise NotImplementedError

    def maximise(self, x: Tensor, seen: Tensor | None, states: Tensor, prior: float) -> None:
        """Sets the parameters of highest likelihood where states are shares of the steps."""
        raise NotImplementedError


class Levels(Emission):
    """One of `levels` symbols, 0 .. levels - 1, by a table.

    Attributes:
        logits: log B up to a constant for each state, (S, levels).
    """

    def __init__(self, states: int, levels: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.randn(states, levels))
        self.step, self.support = (), constraints.integer_interval(0, levels - 1)

    def log_prob(
        self, x: Shaped[Tensor, "*n T"], seen: Bool[Tensor, "*n T"] | None
    ) -> Float[Tensor, "*n T S"]:
        """log B[s, x_t]; `FLOOR` where x_t is no level."""
        level = self.support.check(x)
        k = torch.where(level, x, torch.zeros_like(x)).long()
        log_b = nn.functional.embedding(k, finite_logs(self.logits).mT)
        log_b = torch.where(level.unsqueeze(-1), log_b, FLOOR)
        return log_b if seen is None else torch.where(seen.unsqueeze(-1), log_b, 0.0)

    def at(self, z: Int[Tensor, "*n"]) -> Any:
        """The rows of the table."""
        return dist.Categorical(logits=self.logits[z])

    def sample(self, z: Int[Tensor, "*n T"]) -> Int[Tensor, "*n T"]:
        """Symbols of states."""
        return Categorical(logits=self.logits[z]).sample()

    def complete(
        self, z: Int[Tensor, "draws *n T"], x: Shaped[Tensor, "*n T"], seen: Bool[Tensor, "*n T"]
    ) -> Int[Tensor, "draws *n T"]:
        """Missing symbols are those of the states."""
        return torch.where(seen, x.long(), self.sample(z))

    def mean(self) -> Float[Tensor, "S V"]:
        """The table B."""
        return self.logits.softmax(-1)

    def variance(self) -> Float[Tensor, "S V"]:
        """The variances of the symbols' indicators."""
        return self.mean() * (1 - self.mean())

    def maximise(
        self,
        x: Shaped[Tensor, "n T"],
        seen: Bool[Tensor, "n T"] | None,
        states: Float[Tensor, "n T S"],
        prior: float,
    ) -> None:
        """B[s, k] in proportion to the expected count of k in s, plus the prior's."""
        levels = self.logits.shape[-1]
        shown = states if seen is None else states * seen.unsqueeze(-1)
        k = nn.functional.one_hot(x.long(), levels).to(shown)
        counts = shown.flatten(0, 1).mT @ k.flatten(0, 1)
        self.logits.copy_(log_shares(counts + prior, self.logits))


class Gaussians(Emission):
    """A mixture of `components` Gaussians with diagonal covariances; with one, a Gaussian.

    Args:
        states: S.
        features: d, the cells of a step; None for steps that are single numbers.
        components: K.
        floor: the smallest standard deviation.

    Attributes:
        logits: log weights of the components in each state up to a constant, (S, K).
        means: (S, K, d).
        log_scales: of the standard deviations above the floor, (S, K, d).
    """

    support = constraints.real

    def __init__(self, states: int, features: int | None, components: int, floor: float) -> None:
        super().__init__()
        d = 1 if features is None else features
        self.step, self.floor = () if features is None else (features,), floor
        self.logits = nn.Parameter(torch.zeros(states, components))
        self.means = nn.Parameter(torch.randn(states, components, d))
        self.log_scales = nn.Parameter(torch.zeros(states, components, d))

    @property
    def scales(self) -> Float[Tensor, "S K d"]:
        """The standard deviations."""
        return self.floor + self.log_scales.exp()

    def log_prob(
        self, x: Float[Tensor, "*n"], seen: Bool[Tensor, "*n"] | None
    ) -> Float[Tensor, "*m"]:
        """log sum_k w_sk N(x_t; mu_sk, diag sigma_sk^2) over the seen cells."""
        log_parts = self.log_components(x, seen)
        return log_parts.squeeze(-1) if log_parts.shape[-1] == 1 else log_parts.logsumexp(-1)

    def log_components(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """The log weight and density of every component, (..., T, S, K)."""
        scales = self.scales
        cell = self._cells(x)[..., None, None, :]
        log_cells = -0.5 * ((cell - self.means) / scales).square() - scales.log() - _HALF_LOG_TAU
        if seen is not None:
            log_cells = torch.where(self._cells(seen)[..., None, None, :], log_cells, 0.0)
        return log_cells.sum(-1) + finite_logs(self.logits)

    def at(self, z: Int[Tensor, "*n"]) -> Any:
        """Gaussians, or mixtures of them."""
        means, scales = self.means[z], self.scales[z]
        if not self.step:
            means, scales = means.squeeze(-1), scales.squeeze(-1)
        event = len(self.step)
        if self.logits.shape[-1] == 1:
            return dist.Normal(means.select(-1 - event, 0), scales.select(-1 - event, 0)).to_event(
                event
            )
        weights = dist.Categorical(logits=self.logits[z])
        return dist.MixtureSameFamily(weights, dist.Normal(means, scales).to_event(event))

    def sample(self, z: Int[Tensor, "*n"]) -> Float[Tensor, "*m"]:
        """Steps of states: a component, then its Gaussian."""
        k = Categorical(logits=self.logits[z]).sample()
        x = torch.normal(self.means[z, k], self.scales[z, k])
        return x if self.step else x.squeeze(-1)

    def complete(self, z: Int[Tensor, "draws *n"], x: Tensor, seen: Tensor) -> Tensor:
        """A component that fits the cells of the step that were seen, then the others from it."""
        log_parts = self.log_components(x, seen).expand(*z.shape, -1, -1)
        index = z[..., None, None].expand(*z.shape, 1, log_parts.shape[-1])
        k = Categorical(logits=log_parts.gather(-2, index).squeeze(-2)).sample()
        drawn = torch.normal(self.means[z, k], self.scales[z, k])
        return torch.where(seen, x, drawn if self.step else drawn.squeeze(-1))

    def mean(self) -> Float[Tensor, "S *step"]:
        """The mean of each state's mixture."""
        mean = (self.logits.softmax(-1).unsqueeze(-1) * self.means).sum(1)
        return mean if self.step else mean.squeeze(-1)

    def variance(self) -> Float[Tensor, "S *step"]:
        """The variance of each state's mixture, cell by cell."""
        w, mean = self.logits.softmax(-1).unsqueeze(-1), self.mean().reshape(len(self.means), 1, -1)
        spread = (w * (self.scales.square() + (self.means - mean).square())).sum(1)
        return spread if self.step else spread.squeeze(-1)

    def maximise(self, x: Tensor, seen: Tensor | None, states: Tensor, prior: float) -> None:
        """Weighted means and variances of the seen cells; scales stay above the floor."""
        r = states.unsqueeze(-1) * self.log_components(x, seen).softmax(-1)
        r = r.flatten(0, 1)
        cells = self._cells(x).flatten(0, 1)
        shown = torch.ones_like(cells) if seen is None else self._cells(seen).flatten(0, 1).to(x)
        any_seen = shown.amax(-1)
        weight = torch.einsum("tsk,td->skd", r, shown).clamp(min=torch.finfo(x.dtype).tiny)
        means = torch.einsum("tsk,td->skd", r, shown * cells) / weight
        gap = (cells[:, None, None] - means).square() * shown[:, None, None]
        scales = (torch.einsum("tsk,tskd->skd", r, gap) / weight).sqrt()
        empty = weight < 1e-8
        means, scales = means.where(~empty, self.means), scales.where(~empty, self.scales)
        self.means.copy_(means)
        tiny = 1e-6 * self.floor
        self.log_scales.copy_((scales - self.floor).clamp(min=tiny).log())
        counts = torch.einsum("tsk,t->sk", r, any_seen)
        self.logits.copy_(log_shares(counts + prior, self.logits))

    def _cells(self, x: Tensor) -> Tensor:
        return x if self.step else x.unsqueeze(-1)


def log_shares(counts: Float[Tensor, "*n k"], otherwise: Float[Tensor, "*n k"]) -> Any:
    """Logs of counts in proportion to their sum; `otherwise` where nothing was counted."""
    total = counts.sum(-1, keepdim=True)
    counted = total > 0
    return torch.where(counted, (counts / torch.where(counted, total, 1.0)).log(), otherwise)
