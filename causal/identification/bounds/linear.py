"""The least and largest value of a linear function of response types that fit what was observed.

min and max of c q over distributions q with A q = b, by HiGHS (Huangfu & Hall 2018) through scipy.
Where no q fits, the data contradict the assumptions; the least change of b that mends it measures
how much.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_ROUNDING, _EXACT = 1e-6, 1e-12
"""Contradictions below the first are rounding, and below the second none at all."""


class Contradiction(ValueError):
    """No distribution of response types fits.

    Attributes:
        miss: the least t for which some q has |A q - b| <= t in every row.
    """

    def __init__(self, miss: float) -> None:
        super().__init__(f"The probabilities miss every model by at least {miss:.2g}.")
        self.miss = miss


@dataclass(frozen=True, eq=False)
class Polytope:
    """The distributions q of response types with A q = b.

    Attributes:
        A: 0 and 1, which types make which observation.
        b: what was observed.
        slack: by how much A q may differ from b.
    """

    A: Float[Tensor, "observations types"]
    b: Float[Tensor, " observations"]
    slack: float = 0.0

    def range(self, c: Float[Tensor, " types"]) -> tuple[float, float]:
        """The least and largest c q.

        Raises:
            Contradiction: no q fits.

        Example:
            >>> A = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
            >>> Polytope(A, torch.tensor([0.3, 0.7])).range(torch.tensor([1.0, 0.0, 1.0]))
            (0.7, 1.0)
        """
        slack = self.slack
        miss = self.miss()
        if miss > max(slack, _ROUNDING):
            raise Contradiction(miss)
        if _EXACT < miss > slack:
            slack = 2 * miss
        low, high = (self._minimum(sign * c, slack) for sign in (1, -1))
        return low, -high

    def miss(self) -> float:
        """The least t for which some q has |A q - b| <= t."""
        k = self.A.shape[1]
        A = torch.cat([self.A, torch.ones(1, k)])
        one = torch.ones(len(A), 1)
        one[-1] = 0.0  # q sums to one exactly
        rows = torch.cat([torch.cat([A, -one], 1), torch.cat([-A, -one], 1)])
        b = torch.cat([self.b, torch.ones(1)])
        cost = torch.zeros(k + 1)
        cost[-1] = 1.0
        return _solve(cost, rows, torch.cat([b, -b]))

    def _minimum(self, c: Tensor, slack: float) -> float:
        one = torch.ones(1, self.A.shape[1])
        if slack == 0.0:
            return _solve(c, equal=(torch.cat([self.A, one]), torch.cat([self.b, one[0, :1]])))
        limits = torch.cat([self.b + slack, slack - self.b])
        return _solve(c, torch.cat([self.A, -self.A]), limits, (one, torch.ones(1)))


def _solve(
    c: Tensor,
    A: Tensor | None = None,
    b: Tensor | None = None,
    equal: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
) -> float:
    """min c q over q >= 0, A q <= b, and the equations."""
    from scipy.optimize import linprog

    def plain(x: Tensor | None) -> object:
        return None if x is None else x.double().numpy()

    result = linprog(plain(c), plain(A), plain(b), plain(equal[0]), plain(equal[1]), method="highs")
    if result.status == 2:
        raise Contradiction(float("nan"))
    if result.status != 0:
        raise RuntimeError(f"The linear program was not solved: {result.message}")
    return float(result.fun)
