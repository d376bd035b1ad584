"""Sampling: new rows from a model.

The generic answer runs the joint program: latents from their priors, then the observed sites. The
shared latents of a model with a guide come from the guide, which is the posterior of what was
learned; all rows of one call share one draw of them.
"""

from collections.abc import Mapping
from typing import Any

from pgm.batch import SEEN, Batch
from pgm.model import Model, arguments
from pgm.sites import Run
from pgm.verb import prepare, verb


@verb()
def sample(model: Model, n: int, *, context: Any = None, seed: int | None = None) -> Batch:
    """Draws new rows.

    Args:
        model: any model with a program that can be run forwards.
        n: how many rows.
        context: the data that the program is conditional on, n rows of them.
        seed: of the draws.

    Returns:
        The observed sites, rows first; `model.schema.decode` turns them into a frame.

    Raises:
        ValueError: n below 1, or context that is missing, has other than n rows or is none.

    Example:
        >>> import torch
        >>> from pgm.families.kde import KDE
        >>> sample(KDE(torch.tensor([[0.0], [5.0]]), bandwidth=0.1), 3, seed=0)["x"].shape
        torch.Size([3, 1])
    """
    run = draw(model, n, context=context)
    return Batch(
        {name: run.sites[name].rows_first for name in observed_sites(model, run, n, context)}
    )


def draw(
    model: Model, n: int, *, context: Any = None, latents: Mapping[str, Any] | None = None
) -> Run:
    """Runs the joint program forwards; shared latents come from the guide unless given."""
    given = _context(model, n, context)
    with Run(latents) as run:
        model.model(n, **arguments(model, "model", given))
    _check_context(model, given, run)
    unknown = [s.name for s in run.sites.values() if s.shared and s.name not in (latents or {})]
    if not model.latent or not unknown:
        return run
    guide = _guide(model, n, run, given)
    learned = {name: guide.sites[name].value for name in unknown if name in guide.sites}
    with Run({**learned, **(latents or {})}) as again:
        model.model(n, **arguments(model, "model", given))
    return again


def observed_sites(model: Model, run: Run, n: int, context: Any = None) -> list[str]:
    """The sites of the joint that are neither latent, enumerated nor deterministic."""
    latent = set[str]()
    if model.latent:
        latent = set(_guide(model, n, run, _context(model, n, context)).sites)
    return [
        site.name
        for site in run.sites.values()
        if site.rows
        and site.name not in latent
        and not site.observed
        and "enumerate" not in site.infer
    ]


def _guide(model: Model, n: int, run: Run, context: Batch) -> Run:
    batch = {name: site.value for name, site in run.sites.items()} | context
    with Run() as guide:
        model.guide(n, **arguments(model, "guide", batch))
    return guide


def _context(model: Model, n: int, context: Any) -> Batch:
    if n < 1:
        raise ValueError(f"n is {n}; at least one row is drawn.")
    if context is None:
        return Batch()
    batch = prepare(model, context)
    wrong = {k: len(v) for k, v in batch.items() if len(v) != n}
    if wrong:
        raise ValueError(
            f"The context has {wrong} rows, but n = {n} rows are asked for: each row is drawn "
            "given its own context. Pass n rows of context."
        )
    return batch


def _check_context(model: Model, context: Batch, run: Run) -> None:
    """Context that nothing takes would be ignored: the sites of a model are not context."""
    known = {*model.context, *(name for name in model.wants if name not in run.sites)}
    known |= {name + SEEN for name in known}
    unknown = [name for name in context if name not in known]
    if unknown:
        raise ValueError(
            f"{', '.join(map(repr, unknown))} {'are' if len(unknown) > 1 else 'is'} not context of "
            f"{type(model).__name__}, which takes {', '.join(model.context) or 'none'}. To draw "
            "given some cells of a row, hide the others (NaN) and use pgm.impute."
        )
