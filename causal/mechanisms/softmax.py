"""Levels by a network: P(x = j | pa) = softmax_j(eta(pa))."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float, Shaped
from pyro.distributions import Categorical
from torch import Tensor

from causal.mechanisms.additive import HIDDEN, begin_again, shaken
from causal.mechanisms.kind import NUMBER, Kind
from causal.mechanisms.maximum import train
from causal.mechanisms.mechanism import Inputs, Mechanism, Values, check_codes, refuse_kind
from causal.mechanisms.predictor import Predictor


class NetworkSoftmax(Mechanism):
    """P(x = j | pa) = softmax_j(eta(pa)), eta a network with one output a level.

    Args:
        inputs: the kind of each parent.
        levels: k, two or more.
        hidden: sizes of the hidden layers.
        seed: of the initial weights.

    Example:
        >>> import torch
        >>> NetworkSoftmax({"a": Kind()}, levels=2).dist({"a": torch.zeros(1)}).probs.tolist()
        [[0.5, 0.5]]
    """

    def __init__(
        self,
        inputs: Inputs | None = None,
        *,
        levels: int,
        hidden: Sequence[int] = HIDDEN,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.inputs, self.kind, self.seed = dict(inputs or {}), Kind(levels=levels), seed
        self.predictor = Predictor(self.inputs, levels, hidden=hidden, seed=seed)

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "NetworkSoftmax":
        """All levels alike, whatever the parents."""
        if kind.levels == 1:
            refuse_kind(cls, kind, "a node with levels", "AdditiveNoise")
        return cls(inputs, levels=kind.levels, **options)

    @classmethod
    def example(cls) -> "NetworkSoftmax":
        """Three levels given a number and levels."""
        return shaken(cls({"a": NUMBER, "t": Kind(levels=3)}, levels=3, hidden=(8,), seed=1))

    def dist(self, parents: Values) -> Any:
        """Categorical(softmax(eta))."""
        return Categorical(logits=self.predictor(parents))

    def estimate(
        self, x: Shaped[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Trains anew by `pgm.fit` with a tenth of the rows held out."""
        check_codes("The node", x, self.levels)
        begin_again(self)
        self.predictor.fit_to(parents, weight)
        train(self, x, parents, weight, seed=self.seed)

    def extra_repr(self) -> str:
        """What it is a function of."""
        return f"{self.levels} levels | {self.predictor.terms()}"
