"""Runs a model's programs once and explains every rule they break, before anything is trained.

`check(model, data)` draws from the model, runs guide and model on a few rows of the data, changes
one row to see whether another feels it, and reports what would make a number wrong: a site outside
`rows`, a latent without a guide, a missing `to_event`, a layer that mixes rows, a loose parameter.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pgm.batch import SEEN, Batch, rows_of, take
from pgm.model import ROWS, Model, arguments
from pgm.randomness import seeded
from pgm.sites import Marginalisable, Run, Site
from pgm.verb import Unsupported, prepare
from pgm.weights import log_weight, run_programs

_MIXING = (nn.modules.batchnorm._BatchNorm,)


class BrokenModel(ValueError):
    """A program breaks a rule of the contract; the message lists all of them."""


@dataclass(frozen=True)
class Check:
    """What `check` found.

    Attributes:
        model: the name of the model's class.
        sites: the sites of the joint program, with their roles and shapes.
        problems: the broken rules, each with its remedy; empty if all is well.
    """

    model: str
    sites: tuple[str, ...]
    problems: tuple[str, ...]

    def __str__(self) -> str:
        found = [f"  * {problem}" for problem in self.problems] or ["  no broken rule"]
        return "\n".join([f"{self.model}", *(f"  {site}" for site in self.sites), *found])

    def raise_if_broken(self) -> None:
        """Stops here if there are problems.

        Raises:
            BrokenModel: with all of them listed.
        """
        if self.problems:
            listed = "\n".join(f"  * {problem}" for problem in self.problems)
            raise BrokenModel(f"{self.model} cannot be trusted as it stands:\n{listed}")


def check(model: Model, data: Any) -> Check:
    """Runs both programs on a few rows of `data` and explains every broken rule.

    Args:
        model: the model; it is not changed.
        data: a batch in any form; three rows are used.

    Returns:
        The report; `fit` calls it and raises `BrokenModel` if there are problems.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> print(check(PPCA(3, 1), torch.zeros(2, 3)))
        PPCA
          z latent (1,)
          x observed (3,)
          no broken rule
    """
    whole = prepare(model, data)
    batch = take(whole, slice(0, min(3, rows_of(whole))))
    with torch.no_grad(), seeded(0):
        problems = [*_layers(model)]
        try:
            guide, joint = _runs(model, batch)
            problems += _columns(whole, joint)
            problems += _programs(model, batch, guide, joint)
            problems = problems or [*_weights(model, batch)]
        except Unsupported:
            raise
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
            joint = Run()
            problems += _columns(whole, joint)
            problems.append(f"The programs do not run on these data: {error}")
    found = [site for site in joint.sites.values() if not site.deterministic]
    sites = tuple(_describe(site, batch) for site in found)
    return Check(type(model).__name__, sites, tuple(problems))


def _runs(model: Model, batch: Batch) -> tuple[Run, Run]:
    """The guide on the data, and the joint program with its own draws."""
    n = rows_of(batch)
    with Run() as guide:
        model.guide(n, **arguments(model, "guide", batch))
    with Run() as joint:
        model.model(n, **arguments(model, "model", batch))
    return guide, joint


def _layers(model: Model) -> Iterator[str]:
    for name, layer in model.named_modules():
        if isinstance(layer, _MIXING):
            yield (
                f"Layer {name!r} is a {type(layer).__name__}: it normalises across rows, so that "
                "no row has a density, or a gradient, of its own. Use nn.LayerNorm or nn.GroupNorm."
            )


def _columns(batch: Batch, joint: Run) -> Iterator[str]:
    """Cells that no row has; one of a joint density is drawn from the others, as in a series."""
    for name in batch:
        if not name.endswith(SEEN):
            continue
        empty = ~batch[name].flatten(1).any(0) if batch[name].dim() > 1 else ~batch[name].any()
        site = joint.sites.get(name.removesuffix(SEEN))
        if site is not None and isinstance(site.fn, Marginalisable) and not bool(empty.all()):
            continue
        if bool(empty.any()):
            where = empty.nonzero().flatten().tolist() if batch[name].dim() > 1 else "all"
            yield (
                f"Every cell of {name.removesuffix(SEEN)!r} is missing (columns: {where}), so that "
                "nothing can be learned of it. Leave it out, or see how it was read."
            )


def _programs(model: Model, batch: Batch, guide: Run, joint: Run) -> Iterator[str]:
    if not any(site.rows for site in joint.sites.values()):
        yield (
            f"No site stands inside the plate {ROWS!r}: rows have no density of their own. Write "
            "`with pgm.rows(n):` around what belongs to one example."
        )
        return
    yield from _parameters(model, guide, joint)
    yield from _latents(batch, guide, joint)
    yield from shapes(joint, batch)


def shapes(joint: Run, batch: Batch) -> Iterator[str]:
    """What is wrong with the shapes of the sites, and of their data."""
    for site in joint.sites.values():
        yield from _shape(site, rows_of(batch))
        yield from _data(site, batch)


def _parameters(model: Model, guide: Run, joint: Run) -> Iterator[str]:
    own = {name for name, _ in model.named_parameters()}
    own |= {name.removesuffix("_unconstrained") for name in own}
    for name in dict.fromkeys(guide.params + joint.params):
        if name not in own:
            yield (
                f"pyro.param({name!r}) is loose: no module holds it, so it would be neither "
                "trained nor saved. Make it an nn.Parameter or a PyroParam of the model."
            )


def _latents(batch: Batch, guide: Run, joint: Run) -> Iterator[str]:
    for name, site in joint.sites.items():
        enumerated = "enumerate" in site.infer
        given = site.observed or site.drawn is None
        if given or name in batch or name in guide.sites or enumerated:
            continue
        yield (
            f"Site {name!r} is neither in the data nor in the guide. If it is observed, pass it in "
            f"the batch; if it is latent, sample {name!r} in the guide"
            + (", or mark it infer={'enumerate': 'parallel'}" if _finite(site) else "")
            + "."
        )
    for name, site in guide.sites.items():
        if name not in joint.sites and not site.infer.get("is_auxiliary"):
            yield (
                f"The guide samples {name!r}, which the model does not have (it has "
                f"{', '.join(joint.sites)}): its density would be subtracted from nothing. Rename "
                "it or remove it."
            )


def _finite(site: Site) -> bool:
    return bool(getattr(site.fn, "has_enumerate_support", False))


def _shape(site: Site, n: int) -> Iterator[str]:
    if not site.rows:
        return
    expected = -min(site.plates, default=-1)
    batch_shape = tuple(site.fn.batch_shape)
    if len(batch_shape) > expected or batch_shape[-1:] != (n,):
        yield (
            f"Site {site.name!r} has batch shape {batch_shape} for {n} rows: every dimension left "
            "of a row's event must be a plate. Add .to_event(k) for the k dimensions that belong "
            "to one example, and put the rows first."
        )


def _data(site: Site, batch: Batch) -> Iterator[str]:
    if site.name not in batch or not site.rows:
        return
    if site.plates:
        yield (
            f"Site {site.name!r} is observed inside a plate within the rows, so that its rows are "
            "not its first axis. Declare that plate's dimension as part of the event: .to_event(1)."
        )
        return
    came, expected = tuple(batch[site.name].shape[1:]), tuple(site.fn.event_shape)
    if came != expected:
        yield (
            f"Data for {site.name!r} have shape (n, {', '.join(map(str, came))}), but the site's "
            f"event shape is {expected}. Reshape the data to (n, *{expected}), or build the model "
            "for the shape that came."
        )


def _weights(model: Model, batch: Batch) -> Iterator[str]:
    """Whether weights are finite, and whether a row feels its neighbour.

    Both are weighed at the same latents of rows: drawn anew, those of other rows could differ
    because the first took more random numbers (a Poisson's does). Shared latents are drawn anew: a
    guide that looks at rows for them is felt by all.
    """
    with seeded(0):
        guide, _ = run_programs(model, batch)
        latents = {name: site.value for name, site in guide.sites.items() if site.rows}
    with seeded(0):
        before = log_weight(model, batch, shared=latents).rows
    if not bool(torch.isfinite(before).all()):
        yield f"The log weights of the first rows are {before.tolist()}: {blame(model, batch)}"
        return
    if rows_of(batch) < 2:
        return
    with seeded(0):
        after = log_weight(model, _disturbed(batch), shared=latents).rows
    if not torch.allclose(before[1:], after[1:], rtol=1e-4, atol=1e-4):
        yield (
            "Changing the first row changes the log weight of the others: something mixes rows (a "
            "mean over the batch, attention across rows, a batch statistic). Compute each row from "
            "itself alone."
        )


def _disturbed(batch: Batch) -> Batch:
    """The batch with its first row replaced by a copy of the last."""
    return Batch({k: torch.cat([v[-1:], v[1:]]) for k, v in batch.items()})


def blame(model: Model, batch: Batch) -> str:
    """Names the first site whose value or density is not finite."""
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return f"parameter {name!r} is not finite. Lower the learning rate, or clip gradients."
    for program, run in zip(("guide", "model"), run_programs(model, batch), strict=True):
        for site in run.sites.values():
            if (why := _not_finite(site)) is not None:
                return (
                    f"site {site.name!r} of the {program} has {why}. Look at its parameters and at "
                    "the scale of the data; standardise, bound scales away from zero, or lower the "
                    "learning rate."
                )
    return "every site is finite on these rows, so the objective's own arithmetic is at fault."


def _not_finite(site: Site) -> str | None:
    tensors: dict[str, Tensor] = {"values": site.value, "log densities": site.log_prob()}
    for what, tensor in tensors.items():
        bad = ~torch.isfinite(tensor)
        if bool(bad.any()):
            return f"{what} such as {float(tensor[bad][0])} ({type(site.fn).__name__})"
    return None


def _describe(site: Site, batch: Batch) -> str:
    role = "enumerated" if "enumerate" in site.infer else "latent"
    role = "observed" if site.observed or site.name in batch else role
    return f"{site.name} {role} {tuple(site.fn.event_shape)}" + ("" if site.rows else " shared")
