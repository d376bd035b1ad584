"""Evidence: rows of which something was seen, and their completion by draws of what was not."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from jaxtyping import Float
from pyro.poutine.messenger import Messenger
from torch import Tensor

from causal.interventions.handler import INTERVENED, LEVELS
from causal.outcomes import categories
from pgm import Model
from pgm.batch import SEEN, Batch, rows_of
from pgm.handlers import Handled
from pgm.model import arguments
from pgm.sites import Run, Site
from pgm.weights import check_keys

Rung = Literal["inversion", "linear-Gaussian", "enumeration", "importance", "guide", "NUTS"]
"""How what was not seen is found, from exact to approximate: see `abduction`."""


@dataclass(frozen=True, eq=False)
class Abduction:
    """Rows completed by draws of what was not seen.

    Attributes:
        rung: how they were drawn.
        unseen: the sites that were not seen, or not in every row.
        proposed: those of them that the guide proposes.
        n: rows of the evidence.
        sites: all sites of one run of the program on the evidence.
        batch: the evidence without the unseen sites, n rows.
        draws: values of the unseen sites, one dict a run of the program; row i of copy k is row
            k n + i.
        particles: draws a row.
        ess: effective number of particles behind each row, where draws were weighted.
        k: Pareto's k-hat of the weights of each row, where it was computed, else NaN.
        noise: mean and covariance of the noise in a linear-Gaussian model.
        r_hat: the largest R-hat of the chains.
    """

    rung: Rung
    unseen: tuple[str, ...]
    proposed: tuple[str, ...]
    n: int
    sites: Mapping[str, Site]
    batch: Batch
    draws: tuple[Mapping[str, Tensor], ...] = field(default=({},))
    particles: int = 1
    ess: Float[Tensor, " n"] | None = None
    k: Float[Tensor, " n"] | None = None
    noise: tuple[Tensor, Tensor] | None = None
    r_hat: float | None = None

    @property
    def copies(self) -> int:
        """How many times each row stands in one run of the program."""
        return self.particles // len(self.draws)


def factual(
    model: Model, batch: Mapping[str, Tensor], latents: Mapping[str, Tensor]
) -> dict[str, Site]:
    """The sites of the program, run on the evidence and on draws of what was not seen."""
    with Run(latents, observed=batch) as run:
        model.model(rows_of(batch or latents), **arguments(model, "model", batch))
    check_keys(model, Batch(batch), run)
    return run.sites


def without(batch: Batch, names: list[str]) -> Batch:
    """The batch without some sites and their masks."""
    gone = {key for name in names for key in (name, name + SEEN)}
    return Batch({key: x for key, x in batch.items() if key not in gone})


def is_open(site: Site) -> bool:
    """Whether a site is random, and so has a noise."""
    return not site.deterministic and site.infer.get(INTERVENED) != "value"


def is_finite(site: Site) -> bool:
    """Whether a site can be summed out: it has finitely many levels, a row at a time.

    What is shifted has no density to sum, and is drawn.
    """
    shifted = site.infer.get(INTERVENED) == "shift"
    return categories(site.fn) > 0 and site.rows and not site.plates and not shifted


def levels_of(site: Site) -> int:
    """The number of levels of a site, also where it is set; 0 if its values are numbers."""
    said = site.infer.get(LEVELS)
    return categories(site.fn) if said is None else int(said)


class Enumerated(Handled):
    """A model in which some discrete sites are summed out.

    Args:
        base: the model.
        names: the sites.
    """

    def __init__(self, base: Model, names: list[str]) -> None:
        super().__init__(base)
        self.names = names

    def handler(self, program: str) -> AbstractContextManager[Any]:
        """Marks the sites for enumeration."""
        return _Marked(self.names)


class _Marked(Messenger):
    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] in self.names:
            msg["infer"] = msg["infer"] | {"enumerate": "parallel"}
