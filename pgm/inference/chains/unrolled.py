"""A hidden Markov model written out step by step, so that single steps can be asked about.

The chain as one site answers fast; as a program with a site a step, its states and steps are sites
like any other: handlers such as `causal.do` reach them, and what a graph says of it is seen.
"""

import pyro
from pyro import distributions as dist

from pgm.inference.chains.emissions import Emission
from pgm.inference.chains.hidden_markov import HiddenMarkov
from pgm.model import Model, rows

__all__ = ["Unrolled"]


class Unrolled(Model):
    """The sites z0, x0, z1, x1, ... of a hidden Markov model; the states are summed out exactly.

    Every step costs a site, so that this is for short chains and for questions about their steps.
    It shares the parameters of the model it is made of.

    Args:
        source: a model whose `chain` is a `HiddenMarkov`, such as `pgm.families.hmm.HMM`.

    Raises:
        TypeError: its chain is another one.

    Example:
        >>> import torch
        >>> from pgm.families.hmm import HMM
        >>> from pgm.verbs import sample
        >>> model = Unrolled(HMM(2, length=3, levels=4))
        >>> sorted(sample(model, 5, seed=0))
        ['x0', 'x1', 'x2']
    """

    def __init__(self, source: Model) -> None:
        super().__init__()
        chain = getattr(source, "chain", None)
        if not isinstance(chain, HiddenMarkov):
            raise TypeError(
                f"{type(source).__name__} has no chain of a few states to write out. Pass a "
                "pgm.families.hmm.HMM."
            )
        self.source = source

    def model(self, n: int) -> None:
        """z_t ~ A[z_{t-1}], x_t ~ b(z_t), one after the other."""
        chain: HiddenMarkov = self.source.chain
        emission: Emission = chain.emission
        logits = chain.initial
        with rows(n):
            for t in range(chain.length):
                state = dist.Categorical(logits=logits)
                z = pyro.sample(f"z{t}", state, infer={"enumerate": "parallel"}).long()
                pyro.sample(f"x{t}", emission.at(z))
                logits = chain.transition[z]
