"""Ordered levels: P(x <= j | pa) = F(c_j - eta(pa)), F logistic or normal.

The cumulative (proportional odds) model of McCullagh (1980, Regression models for ordinal data,
eq. 2.1); its noise is one latent number, so that the natural coupling is the monotone one.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from pyro.distributions import Categorical
from torch import Tensor, nn

from causal.mechanisms.additive import begin_again, shaken
from causal.mechanisms.kind import Kind
from causal.mechanisms.maximum import maximise, train
from causal.mechanisms.mechanism import Inputs, Mechanism, Values, check_codes, refuse_kind
from causal.mechanisms.predictor import Predictor, blocks_of, vectors_of, zeros
from pgm.noise import couplings

_TINY = 1e-30


class Ordered(Categorical):
    """Levels cut from one number; their natural coupling is the monotone one.

    Example:
        >>> Ordered(cut(torch.tensor(0.0), torch.tensor([0.0]), "probit")).probs
        tensor([0.5000, 0.5000])
    """


couplings.register(Ordered, lambda fn: ("monotone", "gumbel"))


def cut(
    eta: Float[Tensor, "*n"], cutpoints: Float[Tensor, " cuts"], link: str
) -> Float[Tensor, "*n k"]:
    """The probabilities F(c_j - eta) - F(c_(j-1) - eta)."""
    F = torch.special.ndtr if link == "probit" else torch.sigmoid
    c = cutpoints - eta[..., None]
    end = torch.full_like(c[..., :1], torch.inf)
    a, b = torch.cat([-end, c], -1), torch.cat([c, end], -1)
    upper = a > 0  # a difference of the smaller tails keeps its digits
    low, high = torch.where(upper, -b, a), torch.where(upper, -a, b)
    return (F(high) - F(low)).clamp(min=_TINY)


class Ordinal(Mechanism):
    """P(x <= j | pa) = F(c_j - sum_p w_p x_p - h(pa)).

    Args:
        coefficients: w_p by parent: a number, or one a level or a component.
        cutpoints: c_0 < c_1 < ..., one less than the levels.
        link: "logit" for a logistic F, "probit" for a normal one.
        vectors: the parents that are vectors.
        hidden: sizes of the hidden layers of h; none for a linear predictor.
        seed: of the initial weights of h.

    Raises:
        ValueError: cut points that do not increase, or another link.

    Example:
        >>> pain = Ordinal({"dose": -1.0}, cutpoints=[-1.0, 1.0])
        >>> pain.dist({"dose": torch.tensor([0.0])}).probs
        tensor([[0.2689, 0.4621, 0.2689]], grad_fn=<...>)
    """

    def __init__(
        self,
        coefficients: Mapping[str, float | Sequence[float]] | None = None,
        *,
        cutpoints: Sequence[float],
        link: Literal["logit", "probit"] = "logit",
        vectors: Sequence[str] = (),
        hidden: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check(cutpoints, link)
        self.kind, self.link, self.seed = Kind(levels=len(cutpoints) + 1), link, seed
        self.inputs, blocks = blocks_of(coefficients, 1, vectors)
        self.predictor = Predictor(self.inputs, 1, hidden=hidden, seed=seed)
        self.predictor.set_linear(blocks, torch.zeros(1))
        self.predictor.intercept.requires_grad_(False)  # the cut points move instead
        c = torch.tensor([float(v) for v in cutpoints])
        self.first = nn.Parameter(c[0])
        self.log_gaps = nn.Parameter(c.diff().log(), requires_grad=len(c) > 1)

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "Ordinal":
        """All levels alike under the logit link, whatever the parents."""
        if kind.levels == 1:
            refuse_kind(cls, kind, "a node with levels", "LinearGaussian")
        cutpoints = torch.logit(torch.arange(1, kind.levels) / kind.levels).tolist()
        return cls(zeros(inputs, 1), cutpoints=cutpoints, vectors=vectors_of(inputs), **options)

    @classmethod
    def example(cls) -> "Ordinal":
        """Three levels given a number and levels, by the probit link."""
        made = cls({"a": 0.8, "t": [0.0, 0.5, -0.5]}, cutpoints=[-0.5, 0.7], link="probit")
        return shaken(made, by=0.1)

    @property
    def cutpoints(self) -> Float[Tensor, " cuts"]:
        """The cut points, in order."""
        return torch.cat([self.first[None], self.first + self.log_gaps.exp().cumsum(0)])

    def dist(self, parents: Values) -> Any:
        """The law of the cumulative probabilities."""
        return Ordered(cut(self.predictor(parents)[..., 0], self.cutpoints, self.link))

    def estimate(
        self, x: Shaped[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """The linear predictor by L-BFGS; then the network, by `pgm.fit` with rows held out."""
        check_codes("The node", x, self.levels)
        begin_again(self)
        counts = torch.zeros(self.levels, device=x.device, dtype=torch.float64)
        counts.index_add_(0, x.long(), weight.double())
        below = ((counts + 0.5).cumsum(0) / (counts + 0.5).sum())[:-1]
        c = torch.special.ndtri(below) if self.link == "probit" else below.logit()
        with torch.no_grad():
            self.predictor.fit_to(parents, weight)
            self.predictor.weight.zero_()
            self.first.copy_(c[0])
            self.log_gaps.copy_(c.diff().log())
        if self.predictor.net is None:
            maximise(self, x, parents, weight)
            self.predictor.unscale()
            with torch.no_grad():  # the intercept belongs to the cut points
                self.first.sub_(self.predictor.intercept[0])
                self.predictor.intercept.zero_()
        else:
            train(self, x, parents, weight, seed=self.seed)

    def extra_repr(self) -> str:
        """Link and predictor."""
        return f"{self.levels} levels | {self.link}, {self.predictor.terms()}"


def _check(cutpoints: Sequence[float], link: str) -> None:
    if link not in ("logit", "probit"):
        raise ValueError(f"link is {link!r}; there are 'logit' and 'probit'.")
    if not cutpoints or any(b <= a for a, b in pairwise(cutpoints)):
        raise ValueError(
            f"The cut points are {list(cutpoints)}: there is one fewer than levels, at least one, "
            "and each is above the one before."
        )
