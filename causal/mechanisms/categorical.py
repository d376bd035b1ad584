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

from causal.mechanisms.kind import Kind
from causal.mechanisms.mechanism import Inputs, Mechanism, Values, check_codes, refuse_kind
from causal.mechanisms.predictor import blocks_of, design, part, vectors_of, zeros

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
        sizes = zip(parents, table.shape[:-1], strict=True)
        self.inputs = {name: Kind(levels=k) for name, k in sizes}
        self.kind = Kind(levels=table.shape[-1])
        self.logits = nn.Parameter(table.log().clamp(min=_FLOOR))

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "CategoricalTable":
        """All levels alike."""
        sizes = [k.levels for k in inputs.values()]
        if kind.levels == 1:
            refuse_kind(cls, kind, "a node with levels", "LinearGaussian or LinearVector")
        if numbers := [name for name, k in inputs.items() if k.levels == 1]:
            raise ValueError(
                f"A table has a row for every level of the parents, but {', '.join(numbers)} has "
                "none: it is a number. Use LinearSoftmax or NetworkSoftmax for this node."
            )
        if math.prod(sizes) * kind.levels > _LARGEST:
            raise ValueError(
                f"A table over {', '.join(inputs)} has {math.prod(sizes)} configurations, far "
                "more than rows could fill. Pass LinearSoftmax for this node, or drop parents."
            )
        return cls(torch.full((*sizes, kind.levels), 1 / kind.levels), list(inputs), **options)

    @classmethod
    def example(cls) -> "CategoricalTable":
        """Three levels given three."""
        return cls([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]], parents=["t"])

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
        given = ", ".join(f"{name} ({k.levels})" for name, k in self.inputs.items())
        return f"{self.levels} levels" + (f" | {given}" if given else "")

    def _counts(self, x: Tensor, parents: Values, weight: Tensor) -> Float[Tensor, "*k levels"]:
        check_codes("The node", x, self.levels)
        cell = x.long() * 0
        for name, kind in self.inputs.items():
            check_codes(f"Parent {name!r}", parents[name], kind.levels)
            cell = cell * kind.levels + parents[name].long()
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
            level for a parent with levels, or a component for a vector.
        intercept: b, k numbers, one a level of the node.
        vectors: the parents that are vectors.

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
        vectors: Sequence[str] = (),
    ) -> None:
        super().__init__()
        k = len(intercept)
        self.kind = Kind(levels=k)
        self.inputs, blocks = blocks_of(coefficients, k, vectors)
        weight = torch.cat([torch.zeros(0, k), *blocks.values()])
        self.weight = nn.Parameter(weight, requires_grad=bool(blocks))
        self.intercept = nn.Parameter(torch.tensor([float(b) for b in intercept]))

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "LinearSoftmax":
        """All levels alike, whatever the parents."""
        if kind.levels == 1:
            refuse_kind(cls, kind, "a node with levels", "LinearGaussian or LinearVector")
        k, row = kind.levels, [0.0] * kind.levels
        return cls(zeros(inputs, k), intercept=row, vectors=vectors_of(inputs), **options)

    @classmethod
    def example(cls) -> "LinearSoftmax":
        """Three levels given a number, levels and a vector."""
        t = [[0.0, 0.5, 0.0], [0.0, 0.0, 0.5], [0.5, 0.0, 0.0]]
        coefficients: dict[str, Any] = {
            "a": [0.0, 1.0, -1.0],
            "t": t,
            "v": [[0.5, 0.0, 0.0], [0.0, -0.5, 0.5]],
        }
        return cls(coefficients, intercept=[0.1, 0.0, -0.1], vectors=["v"])

    def dist(self, parents: Values) -> Any:
        """Categorical(softmax(b + sum_p w_p x_p))."""
        weights = self.weight.split([kind.width for kind in self.inputs.values()])
        logits: Tensor = self.intercept
        for (name, kind), w in zip(self.inputs.items(), weights, strict=False):
            logits = logits + part(parents[name], w, kind)
        return Categorical(logits=logits)

    def estimate(
        self, x: Shaped[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """The weighted maximum by L-BFGS, on standardised columns.

        A prior N(0, 30^2) on their weights keeps the maximum finite where the levels separate.
        """
        check_codes("The node", x, self.levels)
        for name, kind in self.inputs.items():
            if kind.levels > 1:
                check_codes(f"Parent {name!r}", parents[name], kind.levels)
        X = design(self.inputs, parents, x)[:, 1:]
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
