"""Counts with a log link: E[x | pa] = exp(b + w x_pa + h(pa)), Poisson or negative binomial.

The negative binomial has variance mu + mu^2 / r (McCullagh & Nelder 1989, sec. 6.2.3); a Poisson is
its limit of large r. The mean is linear in the parents on the log scale, plus a network h where
`hidden` is not empty.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from pyro.distributions import NegativeBinomial as NegativeBinomialLaw
from pyro.distributions import Poisson as PoissonLaw
from torch import Tensor, nn

from causal.mechanisms.additive import begin_again, shaken
from causal.mechanisms.kind import Kind
from causal.mechanisms.maximum import maximise, train
from causal.mechanisms.mechanism import Inputs, Mechanism, Values, refuse_kind
from causal.mechanisms.predictor import Predictor, blocks_of, vectors_of, zeros


class Poisson(Mechanism):
    """x ~ Poisson(exp(b + sum_p w_p x_p + h(pa))).

    Args:
        coefficients: w_p by parent: a number, or one a level or a component.
        intercept: b.
        vectors: the parents that are vectors.
        hidden: sizes of the hidden layers of h; none for a linear predictor.
        seed: of the initial weights of h.

    Example:
        >>> visits = Poisson({"age": 0.5}, intercept=1.0)
        >>> visits.dist({"age": torch.tensor([0.0, 2.0])}).mean
        tensor([2.7183, 7.3891], grad_fn=<ExpBackward0>)
    """

    def __init__(
        self,
        coefficients: Mapping[str, float | Sequence[float]] | None = None,
        *,
        intercept: float = 0.0,
        vectors: Sequence[str] = (),
        hidden: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.seed = seed
        self.inputs, blocks = blocks_of(coefficients, 1, vectors)
        self.predictor = Predictor(self.inputs, 1, hidden=hidden, seed=seed)
        self.predictor.set_linear(blocks, torch.tensor([float(intercept)]))

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "Poisson":
        """Mean 1, whatever the parents."""
        if not kind.is_number:
            refuse_kind(cls, kind, "a count", "CategoricalTable, LinearSoftmax or LinearVector")
        return cls(zeros(inputs, 1), vectors=vectors_of(inputs), **options)

    @classmethod
    def example(cls) -> "Poisson":
        """Of a number and levels, with a network."""
        made = cls({"a": 0.3, "t": [0.0, 0.5, -0.5]}, intercept=1.0, hidden=(8,), seed=1)
        return shaken(made, by=0.1)

    def dist(self, parents: Values) -> Any:
        """Poisson(exp(eta))."""
        return PoissonLaw(self.predictor(parents)[..., 0].exp())

    def estimate(
        self, x: Shaped[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """The linear predictor by L-BFGS; then the network, by `pgm.fit` with rows held out."""
        check_counts(x)
        begin_again(self)
        with torch.no_grad():
            self.predictor.fit_to(parents, weight)
            self.predictor.weight.zero_()
            mean = (weight * x).sum() / weight.sum()
            self.predictor.intercept.fill_(mean.clamp(min=1e-3).log())
        if self.predictor.net is None:
            maximise(self, x, parents, weight)
            self.predictor.unscale()
        else:
            train(self, x, parents, weight, seed=self.seed)

    def extra_repr(self) -> str:
        """What it is a function of."""
        return f"log mean {self.predictor.terms()}"


class NegativeBinomial(Poisson):
    """x with mean mu = exp(b + sum_p w_p x_p + h(pa)) and variance mu + mu^2 / r.

    Args:
        coefficients: w_p by parent: a number, or one a level or a component.
        intercept: b.
        size: r; the smaller, the wider. It stays between e^-12 and e^12.
        vectors: the parents that are vectors.
        hidden: sizes of the hidden layers of h; none for a linear predictor.
        seed: of the initial weights of h.

    Raises:
        ValueError: a size that is not between e^-12 and e^12.

    Example:
        >>> visits = NegativeBinomial(intercept=1.0, size=2.0).dist({})
        >>> visits.mean.item(), visits.variance.item()
        (2.7183, 6.4128)
    """

    def __init__(
        self,
        coefficients: Mapping[str, float | Sequence[float]] | None = None,
        *,
        intercept: float = 0.0,
        size: float = 1.0,
        vectors: Sequence[str] = (),
        hidden: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(
            coefficients, intercept=intercept, vectors=vectors, hidden=hidden, seed=seed
        )
        log_size = torch.tensor(float(size)).log()
        if not float(log_size.abs()) < _WIDE:
            raise ValueError(
                f"size is {size}; it is positive, and mean^2 / size is what the variance has more "
                "than a Poisson's. For a very large size use Poisson."
            )
        self.free_size = nn.Parameter(_WIDE * torch.atanh(log_size / _WIDE))

    @classmethod
    def example(cls) -> "NegativeBinomial":
        """Linear in a number and levels."""
        return cls({"a": 0.3, "t": [0.0, 0.5, -0.5]}, intercept=1.0, size=3.0)

    def dist(self, parents: Values) -> Any:
        """The law of mean exp(eta) and size r."""
        log_size = _WIDE * torch.tanh(self.free_size / _WIDE)
        eta = self.predictor(parents)[..., 0]
        return NegativeBinomialLaw(log_size.exp(), logits=eta - log_size)


_WIDE = 12.0


def check_counts(x: Shaped[Tensor, " n"]) -> None:
    """Refuses what is no count.

    Raises:
        ValueError: a value below zero, or between two whole numbers.
    """
    wrong = (x < 0) | (x != x.round())
    if bool(wrong.any()):
        raise ValueError(
            f"A count is 0, 1, 2, ..., but the node holds {x[wrong][0].item():g} "
            f"({int(wrong.sum())} such cells). Use LinearGaussian or AdditiveNoise for a number."
        )
