"""One handler that runs a program: it gives the sites their values and keeps what they were.

A site's value comes, in this order, from the draws handed in, from the batch, from enumeration, or
from its own distribution. Cells that the batch misses are drawn from the site's distribution, so
that what stands downstream of a missing cell never sees a filler.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.distributions import Independent
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor

from pgm.batch import SEEN
from pgm.enumeration import Factor
from pgm.model import ROWS
from pgm.verb import Unsupported

_INNERMOST = -5
"""Enumerated sites take the dimensions from here leftwards; plates have -1 (rows) to -4."""


@dataclass(eq=False)
class Site:
    """What one sample statement did."""

    name: str
    fn: Any
    value: Tensor
    rows: bool
    plates: frozenset[int]
    observed: bool
    scale: Any = 1.0
    mask: Any = None
    drawn: Any = None
    clamp: Tensor | None = None
    deterministic: bool = False
    enumerated: int | None = None
    infer: dict[str, Any] = field(default_factory=dict, repr=False)

    def log_prob(self) -> Tensor:
        """Log density of the value, in nats, one number an element of the batch shape."""
        try:
            log_prob = self.fn.log_prob(self.value)
        except ValueError as error:
            raise ValueError(f"Site {self.name!r}: {error}") from error
        return self._masked(log_prob)

    def factor(self) -> Factor:
        """The site's term of the joint, with the rows in the last dimension."""
        log_value = self.log_prob()
        if self.clamp is not None:
            log_value = log_value + self.clamp
        return Factor(log_value, self.plates)

    def score(self) -> Tensor | None:
        """Log density of what was drawn without a reparameterised gradient; None if nothing was."""
        if self.drawn is None or self.drawn.has_rsample:
            return None
        return self._masked(self.drawn.log_prob(self.value.detach()))

    def _masked(self, log_prob: Tensor) -> Tensor:
        if self.mask is None and type(self.scale) is float and self.scale == 1.0:
            return log_prob
        return scale_and_mask(log_prob, self.scale, self.mask)


class Run(Messenger):
    """Runs what stands inside `with Run(...)`: values given, values observed, the rest drawn.

    Args:
        values: draws for the latent sites.
        observed: the batch; a key `x_seen` masks `x`.
        enumerate_sites: whether sites marked for enumeration take all their values at once.
    """

    def __init__(
        self,
        values: Mapping[str, Tensor] | None = None,
        *,
        observed: Mapping[str, Tensor] | None = None,
        enumerate_sites: bool = False,
    ) -> None:
        super().__init__()
        self.values, self.observed = values or {}, observed or {}
        self.enumerate_sites = enumerate_sites
        self.sites: dict[str, Site] = {}
        self.params: list[str] = []
        self._next_dim = _INNERMOST

    @property
    def variables(self) -> dict[int, frozenset[int]]:
        """The enumerated dimensions, with the inner plates that each belongs to."""
        sites = self.sites.values()
        return {s.enumerated: s.plates for s in sites if s.enumerated is not None}

    def _pyro_param(self, msg: Any) -> None:
        self.params.append(msg["name"])

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        name = msg["name"]
        if name in self.values:
            msg["value"], msg["done"] = self.values[name], True
        elif self._enumerates(msg):
            self._enumerate(msg)
        elif name in self.observed:
            self._observe(msg)

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        name, frames = msg["name"], msg["cond_indep_stack"]
        known = name in self.values or msg["is_observed"] or "_enumerated" in msg["infer"]
        self.sites[name] = Site(
            name,
            msg["fn"],
            msg["value"],
            rows=any(frame.name == ROWS for frame in frames),
            plates=frozenset(f.dim for f in frames if f.vectorized and f.name != ROWS),
            observed=msg["is_observed"],
            scale=msg["scale"],
            mask=msg["mask"],
            drawn=msg["infer"].get("_drawn", None if known else msg["fn"]),
            clamp=msg["infer"].get("_clamp"),
            deterministic=bool(msg["infer"].get("_deterministic")),
            enumerated=msg["infer"].get("_enumerated"),
            infer=msg["infer"],
        )

    def _observe(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        x, seen = self.observed[name], self.observed.get(name + SEEN)
        msg["is_observed"], msg["done"] = True, True
        if seen is None:
            msg["value"] = x
            return
        draw = fn()
        msg["fn"], rest = _cells(name, fn, seen)
        msg["value"] = torch.where(seen, x.to(draw.dtype), draw)
        msg["infer"] = msg["infer"] | {"_drawn": rest}

    def _enumerates(self, msg: Any) -> bool:
        if not self.enumerate_sites or msg["infer"].get("enumerate") != "parallel":
            return False
        return not msg["is_observed"] and (
            msg["name"] not in self.observed or msg["name"] + SEEN in self.observed
        )

    def _enumerate(self, msg: Any) -> None:
        """Gives the site all values of its support, along a dimension of its own."""
        name, fn = msg["name"], msg["fn"]
        if not any(frame.name == ROWS for frame in msg["cond_indep_stack"]):
            raise Unsupported(
                f"Site {name!r} is enumerated but stands outside `rows`: it would tie all rows "
                "together. Move it inside `with pgm.rows(n):`, or give it a guide site."
            )
        support = fn.enumerate_support(expand=False)
        dim, self._next_dim = self._next_dim, self._next_dim - 1
        event = support.shape[support.dim() - fn.event_dim :]
        value = support.reshape(len(support), *[1] * (-dim - 1), *event)
        msg["value"], msg["done"] = value, True
        msg["infer"] = msg["infer"] | {"_enumerated": dim}
        if name in self.observed:
            msg["infer"]["_clamp"] = self._clamp(name, value, fn.event_dim)

    def _clamp(self, name: str, value: Tensor, event_dim: int) -> Tensor:
        """-inf at the values that rows with an observed label do not have, 0 elsewhere."""
        seen, x = self.observed[name + SEEN], self.observed[name]
        other = value != x.to(value.dtype)
        if event_dim:
            other = other.flatten(-event_dim).any(-1)
            seen = seen.flatten(-event_dim).all(-1)
        return torch.zeros_like(other, dtype=torch.get_default_dtype()).masked_fill(
            other & seen, -torch.inf
        )


def _cells(name: str, fn: Any, seen: Tensor) -> tuple[Any, Any]:
    """`fn` with its density restricted to the seen cells, and to the unseen ones."""
    if isinstance(fn, Independent) and fn.base_dist.event_dim == 0:
        inner = fn.reinterpreted_batch_ndims
        return tuple(fn.base_dist.mask(cells).to_event(inner) for cells in (seen, ~seen))
    if fn.event_dim == 0:
        return fn.mask(seen), fn.mask(~seen)
    flat = seen.flatten(-fn.event_dim)
    if bool((flat.any(-1) & ~flat.all(-1)).any()):
        raise Unsupported(
            f"Some cells of site {name!r} are missing, and its {type(fn).__name__} is a joint "
            "density that cannot leave single cells out. Drop those rows, hide whole rows, use a "
            "model with a factorised likelihood (PPCA, VAE, mixture), or pgm.impute where "
            "`pgm.abilities(model)` lists it as the family's own."
        )
    rows = flat.all(-1)
    return fn.mask(rows), fn.mask(~rows)
