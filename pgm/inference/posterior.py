"""The result of inference: draws of every latent by chain, in plain dicts, and their origin."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Shaped
from torch import Tensor

from pgm.batch import Batch
from pgm.model import Model

if TYPE_CHECKING:
    import pandas

Method = Literal[
    "nuts", "chees", "nutpie", "variational", "laplace", "pathfinder", "smc", "sgld", "exact"
]

_SHOWN = 24
"""Rows of the table that are printed."""


class InferenceWarning(UserWarning):
    """There is a reason not to trust the draws; the message says which, and what to do."""


@dataclass(frozen=True, eq=False, repr=False)
class Posterior:
    """Draws from the posterior of a model's latents; prints its summary.

    Attributes:
        draws: the latent and deterministic sites by name, shape (chains, draws, ...), float64.
        sample_stats: what the method says of each draw, by ArviZ's names, shape (chains, draws).
        model: the model, as it was passed.
        batch: the data it was conditioned on.
        seconds: how long it took.
        method: what drew them.
        dims: the names of the axes of each site after (chains, draws); the rows' is "rows".
        remarks: what the reader must know of how it was computed: a fall-back, an interruption.
        state: what the sampler needs to go on: see `pgm.inference.resume`.
        held: latents that were held at one value, of those that have a posterior.
        how: which method was chosen, and why, where it was chosen for you.
    """

    draws: dict[str, Shaped[Tensor, "chains draws ..."]]
    sample_stats: dict[str, Shaped[Tensor, "chains draws ..."]]
    model: Model
    batch: Batch
    seconds: float
    method: Method
    dims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    state: Any = None
    held: tuple[str, ...] = ()
    how: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """The numbers of chains and of draws a chain."""
        chains, draws = next(iter(self.draws.values())).shape[:2]
        return chains, draws

    def summary(self) -> "pandas.DataFrame":
        """Mean, spread and diagnostics of every latent: see `pgm.inference.summary`."""
        from pgm.inference.diagnostics import summary

        return summary(self)

    def problems(self) -> tuple[str, ...]:
        """Reasons not to trust the draws, each with what to do; empty if there is none."""
        from pgm.inference.diagnostics import problems

        return problems(self)

    def to_arviz(self, **options: Any) -> Any:
        """All groups for ArviZ: see `pgm.inference.diagnostics.to_arviz`, also for the options."""
        from pgm.inference.diagnostics import to_arviz

        return to_arviz(self, **options)

    def __str__(self) -> str:
        table = self.summary()
        lines = [f"{self!r} in {self.seconds:.1f} s", *([self.how] if self.how else [])]
        lines += [table.head(_SHOWN).to_string(**_FORMAT)]
        if len(table) > _SHOWN:
            lines.append(f"... and {len(table) - _SHOWN} more: posterior.summary() has all of them")
        lines += [f"  * {text}" for text in (*self.remarks, *self.problems())]
        return "\n".join(lines + ([self.model.note] if self.model.note else []))

    def __repr__(self) -> str:
        chains, draws = self.size
        return (
            f"Posterior of {type(self.model).__name__} ({self.method}): {chains} "
            f"{'chain' if chains == 1 else 'chains'} of {draws} draws of {', '.join(self.draws)}"
        )


_FORMAT: dict[str, Any] = {
    "formatters": {
        **dict.fromkeys(("mean", "sd", "q05", "q95", "mcse_mean", "r_hat"), "{:.3f}".format),
        **dict.fromkeys(("ess_bulk", "ess_tail"), "{:.0f}".format),
    }
}
