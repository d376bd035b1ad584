"""Mechanisms of nodes with levels: a table over parents with levels, and a linear softmax.

The table's estimate is relative frequency. Its posterior draw puts a Dirichlet prior of one
observation in all on each configuration of the parents, so that a configuration that was hardly
ever seen has a wide posterior and not a narrow guess.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from pyro.distributions import Categorical
from torch import Tensor, nn

from causal.mechanisms.mechanism import Mechanism, Values, check_codes, design, part

_LARGEST = 2**20
_FLOOR = -80.0
"""The logit of what was never seen: as good as impossible, and finite in float32."""


class CategoricalTable(Mechanism):
    """P(x = j | parents) read off a table.

    Args:
        probs: shape (levels of parent 1, ..., levels of parent m, levels); rows sum to 1.
        parents: the names of the parents, in that order.

    Raises:
        ValueError: a table of another shape, or rows that are no probabilities.

    Example:
        >>> treatment = CategoricalTable([[0.76, 0.24], [0.25, 0.75]], parents=["size"])
        >>> treatment.dist({"size": torch.tensor([0, 1])}).probs[:, 0]
        tensor([0.7600, 0.2500], grad_fn=<SelectBackward0>)
    """

    def __init__(self, probs: Any, parents: Sequence[str] = ()) -> None:
        super().__init__()
        table = torch.as_tensor(probs, dtype=torch.get_default_dtype())
        _check_table(table, parents)
        self.inputs = dict(zip(parents, table.shape[:-1], strict=True))
        self.levels = table.shape[-1]
        self.logits = nn.Parameter(table.log().clamp(min=_FLOOR))

    @classmethod
    def start(cls, inputs: Mapping[str, int], levels: int) -> "CategoricalTable":
        """All levels alike."""
        if math.prod(inputs.values()) * levels > _LARGEST:
            raise ValueError(
                f"A table over {dict(inputs)} has {math.prod(inputs.values())} configurations, far "
                "more than rows could fill. Pass LinearSoftmax for this node, or drop parents."
            )
        return cls(torch.full((*inputs.values(), levels), 1 / levels), list(inputs))

    def dist(self, parents: Values) -> Any:
        """The row of the table."""
        index = tuple(parents[name].long() for name in self.inputs)
        return Categorical(logits=self.logits[index] if index else self.logits)

    def estimate(
        self, x: Shaped[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Relative frequencies; configurations of the parents that never occur stay uniform."""
        self._set(self._counts(x, parents, weight))

    def resample(
        self, x: Shaped[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Dirichlet(counts + 1/levels), as exponential weights add up to gamma variables."""
        counts = self._counts(x, parents, weight)
        prior = torch.distributions.Gamma(torch.full_like(counts, 1 / self.levels), 1.0)
        self._set(counts + prior.sample())

    def extra_repr(self) -> str:
        """The shape of the table."""
        given = ", ".join(f"{name} ({k})" for name, k in self.inputs.items())
        return f"{self.levels} levels" + (f" | {given}" if given else "")

    def _counts(self, x: Tensor, parents: Values, weight: Tensor) -> Float[Tensor, "*k levels"]:
        check_codes("The node", x, self.levels)
        cell = x.long() * 0
        for name, k in self.inputs.items():
            check_codes(f"Parent {name!r}", parents[name], k)
            cell = cell * k + parents[name].long()
        counts = torch.zeros(self.logits.numel(), dtype=torch.float64, device=x.device)
        counts.index_add_(0, cell * self.levels + x.long(), weight.double())
        return counts.reshape(self.logits.shape)

    def _set(self, counts: Float[Tensor, "*k levels"]) -> None:
        total = counts.sum(-1, keepdim=True)
        probs = torch.where(total > 0, counts / total, 1 / self.levels)
        with torch.no_grad():
            self.logits.copy_(probs.log().clamp(min=_FLOOR))


class LinearSoftmax(Mechanism):
    """P(x = j | parents) = softmax_j(b_j + sum_p w_pj x_p), multinomial logistic regression.

    Args:
        coefficients: by parent: k numbers for a parent that is a number, one list of k numbers a
            level for a parent with levels.
        intercept: b, k numbers, one a level of the node.

    Example:
        >>> relapse = LinearSoftmax({"age": [0.0, 1.0]}, intercept=[0.0, 0.0])
        >>> relapse.dist({"age": torch.tensor([0.0, 2.0])}).probs[:, 1]
        tensor([0.5000, 0.8808], grad_fn=<SelectBackward0>)
    """

    def __init__(
        self,
        coefficients: Mapping[str, Sequence[float] | Sequence[Sequence[float]]] | None = None,
        *,
        intercept: Sequence[float],
    ) -> None:
        super().__init__()
        self.levels = len(intercept)
        blocks = {p: _block(p, w, self.levels) for p, w in (coefficients or {}).items()}
        self.inputs = {name: len(w) for name, w in blocks.items()}
        empty = torch.zeros(0, self.levels)
        self.weight = nn.Parameter(torch.cat([empty, *blocks.values()]), requires_grad=bool(blocks))
        self.intercept = nn.Parameter(torch.tensor([float(b) for b in intercept]))

    @classmethod
    def start(cls, inputs: Mapping[str, int], levels: int) -> "LinearSoftmax":
        """All levels alike, whatever the parents."""
        row = [0.0] * levels
        return cls({p: row if k == 1 else [row] * k for p, k in inputs.items()}, intercept=row)

    def dist(self, parents: Values) -> Any:
        """Categorical(softmax(b + sum_p w_p x_p))."""
        weights = self.weight.split(list(self.inputs.values())) if self.inputs else ()
        logits: Tensor = self.intercept
        for name, w in zip(self.inputs, weights, strict=True):
            logits = logits + part(parents[name], w)
        return Categorical(logits=logits)

    def estimate(
        self, x: Shaped[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """The weighted maximum by L-BFGS, on standardised columns.

        A prior N(0, 30^2) on their weights keeps the maximum finite where the levels separate.
        """
        check_codes("The node", x, self.levels)
        for name, k in self.inputs.items():
            if k > 1:
                check_codes(f"Parent {name!r}", parents[name], k)
        X = design(self.inputs, parents, len(x), torch.float64)[:, 1:]
        mean, std = X.mean(0), X.std(0).clamp(min=1e-12)
        beta = _maximise((X - mean) / std, x.long(), weight.double(), self.levels)
        w = beta[1:] / std[:, None]
        with torch.no_grad():
            self.weight.copy_(w)
            self.intercept.copy_(beta[0] - mean @ w)

    def extra_repr(self) -> str:
        """What it is linear in."""
        return f"{self.levels} levels | linear in {', '.join(self.inputs) or 'nothing'}"


def _maximise(
    Z: Float[Tensor, "n p"], x: Shaped[Tensor, " n"], weight: Float[Tensor, " n"], levels: int
) -> Float[Tensor, "q levels"]:
    """The intercepts, and below them the weights of the columns of Z."""
    beta = torch.zeros(Z.shape[1] + 1, levels, dtype=Z.dtype, device=Z.device, requires_grad=True)
    search = torch.optim.LBFGS(
        [beta], max_iter=500, line_search_fn="strong_wolfe", tolerance_grad=1e-9
    )

    def loss() -> Tensor:
        search.zero_grad()
        log_p = torch.log_softmax(beta[0] + Z @ beta[1:], -1)
        own = log_p.gather(1, x[:, None])[:, 0]
        value = (-(weight * own).sum() + 0.5 * beta.square().sum() / 30**2) / weight.sum()
        value.backward()
        return value

    with torch.enable_grad():
        search.step(loss)
    return beta.detach()


def _check_table(table: Tensor, parents: Sequence[str]) -> None:
    if table.dim() != len(parents) + 1:
        raise ValueError(
            f"The table has {table.dim()} axes for {len(parents)} parents ({', '.join(parents)}): "
            "it needs one axis a parent, in that order, and a last one for the levels of the node."
        )
    if bool((table < 0).any()) or not torch.allclose(table.sum(-1), torch.ones(()), atol=1e-4):
        sums = table.sum(-1).flatten()[:4].tolist()
        raise ValueError(
            "The rows of the table are no probabilities: each is >= 0 and sums to 1 over the last "
            f"axis, the levels of the node; sums came such as {sums}."
        )


def _block(name: str, w: Any, levels: int) -> Float[Tensor, "k levels"]:
    block = torch.as_tensor(w, dtype=torch.get_default_dtype())
    block = block[None] if block.dim() == 1 else block
    if block.dim() != 2 or block.shape[1] != levels:
        raise ValueError(
            f"The coefficients of {name!r} have shape {tuple(block.shape)} for a node of {levels} "
            "levels: they are one number a level, and for a parent with levels one such list each."
        )
    return block
