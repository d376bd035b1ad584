"""One handler that runs a program: it gives the sites their values and keeps what they were.

A site's value comes, in this order, from the draws handed in, from the batch, from enumeration, or
from its own distribution. Cells that the batch misses are drawn from the site's distribution, so
that what stands downstream of a missing cell never sees a filler.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.distributions import Independent, MaskedDistribution, TorchDistribution
from pyro.distributions.util import scale_and_mask
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, OneHotCategorical

from pgm.batch import SEEN
from pgm.enumeration import Factor
from pgm.model import ROWS
from pgm.verb import Unsupported

MAX_PLATES = 4
"""Plates have the dimensions -1 (rows) to -4; enumerated sites those left of them."""


class Marginalisable(TorchDistribution):
    """A joint density of the cells of a row that can be integrated over any of them.

    A site of such a distribution may miss single cells, if it is the last: they are drawn without
    a look at those that were seen.
    """

    def marginal(self, seen: Tensor) -> Any:
        """The distribution whose density is that of the seen cells, whatever the others hold."""
        raise NotImplementedError


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
    plate_names: Mapping[int, str] = field(default_factory=dict, repr=False)

    def log_prob(self) -> Tensor:
        """Log density of the value, in nats, one number an element of the batch shape.

        A mask does not reach an enumerated site: without its probabilities, a sum over its values
        would count them.
        """
        fn = self.fn if self.enumerated is None else _unmasked(self.fn)
        try:
            log_prob = fn.log_prob(self.value)
        except ValueError as error:
            raise ValueError(f"Site {self.name!r}: {error}") from error
        plain = type(self.scale) is float and self.scale == 1.0
        if self.enumerated is not None:
            return log_prob if plain else _refuse_scale(self.name)
        return log_prob if plain and self.mask is None else self._masked(log_prob)

    @property
    def rows_first(self) -> Tensor:
        """The value with the rows, which are the last dimension of the plates, in front."""
        return self.value.movedim(-1 - self.fn.event_dim, 0) if self.plates else self.value

    @property
    def shared(self) -> bool:
        """Whether it is a latent of all rows together."""
        return not self.rows and not self.observed and not self.deterministic

    @property
    def left_out(self) -> bool:
        """Whether it was drawn from its own distribution: density and proposal cancel."""
        return self.drawn is not None and self.drawn is self.fn

    def factor(self) -> Factor:
        """The site's term of the joint, with the rows in the last dimension.

        Raises:
            ValueError: a dimension that is neither the rows, a plate nor enumerated.
        """
        log_value = self.log_prob()
        if self.clamp is not None and self.enumerated is not None:
            # where the value was seen nothing is summed, and a mask acts as it does elsewhere
            known = self.clamp.any(self.enumerated, keepdim=True)
            masked = self._masked(self.fn.log_prob(self.value))
            log_value = torch.where(known, masked, log_value).masked_fill(self.clamp, -torch.inf)
        for dim in range(-min(log_value.dim(), MAX_PLATES), -1):
            if log_value.shape[dim] > 1 and dim not in self.plates:
                raise ValueError(
                    f"Site {self.name!r} has log densities of shape {tuple(log_value.shape)}, "
                    "where a row has one: every dimension left of the rows must be a plate. "
                    "Add .to_event(k) for the k dimensions that belong to one example."
                )
        return Factor(log_value, self.plates)

    def score(self) -> Tensor | None:
        """Log density of what was drawn without a reparameterised gradient; None if nothing was.

        Scales and masks do not reach it: they change what is weighed, not how it was drawn.
        """
        if self.drawn is None or self.drawn.has_rsample:
            return None
        drawn = _unmasked(self.drawn) if self.drawn is self.fn else self.drawn
        score: Tensor = drawn.log_prob(self.value.detach())
        return score

    def _masked(self, log_prob: Tensor) -> Tensor:
        masked: Tensor = scale_and_mask(log_prob, self.scale, self.mask)
        return masked


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
        self._unfinished: str | None = None
        self._next_dim = -MAX_PLATES - 1

    @property
    def upstream(self) -> list[Site]:
        """The drawn sites that a later term of the joint may depend on, by the program's order.

        What was drawn after the last term weighs nothing: the density does not depend on it.
        """
        sites = list(self.sites.values())
        terms = [i for i, s in enumerate(sites) if not (s.left_out or s.deterministic)]
        return [s for s in sites[: max(terms, default=0)] if s.drawn is not None]

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
        if self._unfinished is not None and not msg["infer"].get("_deterministic"):
            _refuse_downstream(self._unfinished, name)
        if name in self.observed:
            _check_data(msg, self.observed[name], in_values=name in self.values)
        if name in self.values:
            _check_value(msg, self.values[name])
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
            plate_names={f.dim: f.name for f in frames if f.vectorized},
        )

    def _observe(self, msg: Any) -> None:
        name, fn = msg["name"], msg["fn"]
        x, seen = self.observed[name], self.observed.get(name + SEEN)
        msg["is_observed"], msg["done"] = True, True
        if seen is None:
            msg["value"] = _cast(msg, x, _dtype(fn, x))
            return
        if isinstance(fn, Marginalisable) and _in_part(fn, seen):
            self._unfinished = name
        draw = fn()
        msg["fn"], rest = _cells(name, fn, seen)
        msg["value"] = torch.where(seen, _cast(msg, x, draw.dtype, seen), draw)
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
            seen = self.observed[name + SEEN]
            x = _cast(msg, self.observed[name], value.dtype, seen)
            other = (value != x) & seen
            clamp = other.flatten(-fn.event_dim).any(-1) if fn.event_dim else other
            msg["infer"]["_clamp"] = clamp


def _check_value(msg: Any, value: Tensor) -> None:
    """A draw of another shape than the site's would be repeated along its dimensions."""
    fn, batch_dim = msg["fn"], value.dim() - msg["fn"].event_dim
    if msg["infer"].get("_deterministic"):
        return
    last = next((f.size for f in msg["cond_indep_stack"] if f.vectorized and f.dim == -1), 1)
    came = value.shape[batch_dim - 1] if batch_dim > 0 else 1
    if batch_dim < 0 or value.shape[batch_dim:] != fn.event_shape or came not in (1, last):
        raise ValueError(
            f"The value for site {msg['name']!r} has shape {tuple(value.shape)}, but the model "
            f"draws it with batch shape {tuple(fn.batch_shape)} and event shape "
            f"{tuple(fn.event_shape)}. Give it, in the guide too, the same plates and the same "
            ".to_event(k)."
        )


def _check_data(msg: Any, x: Tensor, *, in_values: bool) -> None:
    """Data of another shape would be repeated along the dimensions of their site, or ignored."""
    name, fn = msg["name"], msg["fn"]
    frames = {f.name: f for f in msg["cond_indep_stack"] if f.vectorized}
    if in_values:
        raise ValueError(
            f"The batch has {name!r}, and the guide draws it too: the data would be ignored. Let "
            f"the guide take `{name}=None` and sample {name!r} only where None came; rows with and "
            "without it are separate batches, unless the site is enumerated."
        )
    if ROWS not in frames or len(frames) > 1 or msg["infer"].get("_deterministic"):
        why = "is computed from other sites, and has no density"
        if ROWS not in frames:
            why = "stands outside `rows`, and its data would belong to no row"
        elif len(frames) > 1:
            why = "stands in a plate inside `rows`, so that rows are not its first axis"
        raise ValueError(
            f"The batch has data for {name!r}, which {why}. Leave it out of the batch, or sample "
            "it inside `with pgm.rows(n):` with all that belongs to a row in its event, "
            ".to_event(k)."
        )
    n, came, expected = frames[ROWS].size, tuple(x.shape[1:]), tuple(fn.event_shape)
    if len(x) != n or came != expected:
        shape = ", ".join(["n", *map(str, came)])
        raise ValueError(
            f"Data for {name!r} have shape ({shape}) with n = {len(x)}, but a row of it has shape "
            f"{expected} (the site's event shape is {expected}) and the model {n} rows: other "
            "numbers than came would be scored. Reshape the data, or build the model for them."
        )


def _dtype(fn: Any, x: Tensor) -> torch.dtype:
    """What data of a site become: levels int64 and truth values floats, as they are drawn."""
    while isinstance(fn, Independent | MaskedDistribution):
        fn = fn.base_dist
    if isinstance(fn, Categorical):
        return torch.int64
    if isinstance(fn, Bernoulli | OneHotCategorical) and not x.is_floating_point():
        return fn.probs.dtype
    return x.dtype


def _cast(msg: Any, x: Tensor, dtype: torch.dtype, seen: Tensor | None = None) -> Tensor:
    """Data in the dtype of the site's draws; a fraction is no level (validation permitting)."""
    if x.dtype == dtype:
        return x
    value = x.to(dtype)
    if msg["fn"]._validate_args and x.is_floating_point() and not dtype.is_floating_point:
        bad = x[(value != x) if seen is None else (value != x) & seen]
        if len(bad):
            raise ValueError(
                f"Data for {msg['name']!r} hold {float(bad[0])}, but the site's values are whole "
                f"numbers ({type(msg['fn']).__name__}). Pass its levels as 0, 1, 2, ..."
            )
    return value


def _refuse_scale(name: str) -> Any:
    raise Unsupported(
        f"Site {name!r} is enumerated under a scale (pyro.poutine.scale, or a subsampled plate): "
        "its probabilities to a power do not sum to one. Scale the losses of the rows instead, or "
        "give the site a place in the guide."
    )


def _unmasked(fn: Any) -> Any:
    while isinstance(fn, MaskedDistribution):
        fn = fn.base_dist
    return fn


def _cells(name: str, fn: Any, seen: Tensor) -> tuple[Any, Any]:
    """`fn` with its density restricted to the seen cells, and to the unseen ones."""
    if isinstance(fn, MaskedDistribution):
        known, rest = _cells(name, fn.base_dist, seen)
        return known.mask(fn._mask), rest
    if isinstance(fn, Independent) and fn.base_dist.event_dim == 0:
        inner = fn.reinterpreted_batch_ndims
        return tuple(fn.base_dist.mask(cells).to_event(inner) for cells in (seen, ~seen))
    if isinstance(fn, Marginalisable):
        return fn.marginal(seen), fn.marginal(~seen)
    if fn.event_dim == 0:
        return fn.mask(seen), fn.mask(~seen)
    if _in_part(fn, seen):
        raise Unsupported(
            f"Some cells of site {name!r} are missing, and its {type(fn).__name__} is a joint "
            "density that cannot leave single cells out. Drop those rows, hide whole rows, use a "
            "model with a factorised likelihood (PPCA, VAE, mixture), or pgm.impute where "
            "`pgm.abilities(model)` lists it as the family's own."
        )
    rows = seen.flatten(-fn.event_dim).all(-1)
    return fn.mask(rows), fn.mask(~rows)


def _in_part(fn: Any, seen: Tensor) -> bool:
    """Whether a row misses some of its cells and has others."""
    flat = seen.flatten(-fn.event_dim)
    return bool((flat.any(-1) & ~flat.all(-1)).any())


def _refuse_downstream(unfinished: str, name: str) -> None:
    raise Unsupported(
        f"Some cells of site {unfinished!r} are missing, and site {name!r} comes after it: what "
        "stands there would be drawn without a look at the cells that were seen, and may reach "
        f"{name!r}. Sample {unfinished!r} last, or drop the rows that are seen in part."
    )
