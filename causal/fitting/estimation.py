"""The maximum of an SCM's likelihood, mechanism by mechanism, and draws around it.

The log-likelihood of complete rows is a sum over nodes of sum_i w_i log p(x_ij | parents), so that
each mechanism is estimated by itself, from the rows in which nothing clamped its node.
"""

import copy
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from causal.graph import latents
from causal.scm import SCM
from pgm import Schema, check
from pgm.batch import SEEN, Batch, rows_of
from pgm.randomness import seeded
from pgm.verb import Unsupported, prepare


def estimate(scm: SCM, data: Any) -> None:
    """Sets all mechanisms to their maximum likelihood in closed form, in place.

    It is what `pgm.fit` converges to: relative frequencies, least squares, logistic regression.

    Args:
        scm: changed in place; without a schema, it takes over that of a frame.
        data: complete rows in any form; `clamped` says what an experiment set.

    Raises:
        Unsupported: missing cells, or a mechanism without such a rule; `pgm.fit` takes both.
        ValueError: rows that do not determine a mechanism.

    Example:
        >>> scm = SCM("A -> B")
        >>> estimate(scm, {"A": torch.tensor([0.0, 1.0, 2.0]), "B": torch.tensor([1.0, 2.0, 5.0])})
        >>> scm.mechanism("B").weight
        Parameter containing:
        tensor([2.], requires_grad=True)
    """
    before = scm.schema
    if before is None and type(data).__module__.partition(".")[0] == "pandas":
        scm.schema = Schema.infer(data)
    try:
        batch = complete(scm, data)
    except (TypeError, ValueError):
        scm.schema = before
        raise
    _set(scm, batch, torch.ones(rows_of(batch), device=scm.device), "estimate")
    check(scm, batch).raise_if_broken()


def bootstrap(scm: SCM, batch: Batch, *, seeds: Iterable[int]) -> Iterator[SCM]:
    """Copies of the SCM with mechanisms drawn from their posterior (Rubin 1981).

    All mechanisms of a copy share the random weights of the rows, w_i ~ Exponential(1).

    Args:
        scm: it is not changed.
        batch: complete rows.
        seeds: of the weights, one a copy.
    """
    for seed in seeds:
        drawn = copy.deepcopy(scm)
        with seeded(seed):
            weight = torch.empty(rows_of(batch), device=scm.device).exponential_()
            _set(drawn, batch, weight, "resample")
        yield drawn


def complete(scm: SCM, data: Any) -> Batch:
    """The data as a batch that an SCM can be estimated from.

    Raises:
        Unsupported: cells are missing, or nodes are latent.
        ValueError: the SCM's programs do not fit the data.
    """
    if hidden := latents(scm.graph):
        raise Unsupported(
            f"{', '.join(map(repr, hidden))} is latent: the likelihood is no sum over nodes, and "
            "has no maximum in closed form. Train with pgm.fit, and for an interval pass "
            "refit={'steps': ...} to causal.effect."
        )
    batch = prepare(scm, data)
    holes = [name.removesuffix(SEEN) for name in batch if name.endswith(SEEN)]
    if holes:
        raise Unsupported(
            f"Cells of {', '.join(map(repr, holes))} are missing: there is no closed form, and "
            "dropping rows would bias it unless cells are missing at random. Train with pgm.fit, "
            "which integrates missing cells out."
        )
    if all(scm.mechanism(node).ready for node in scm.nodes):
        check(scm, batch).raise_if_broken()
    elif absent := [node for node in scm.nodes if node not in batch]:
        raise ValueError(
            f"The rows have no column for {', '.join(map(repr, absent))} (they have "
            f"{', '.join(map(repr, batch))}), and every node is estimated from its own."
        )
    return batch


def _set(
    scm: SCM, batch: Batch, weight: Float[Tensor, " n"], how: Literal["estimate", "resample"]
) -> None:
    free = free_rows(scm, batch)
    for node in scm.nodes:
        mechanism, i = scm.mechanism(node), free[node]
        values = {name: batch[name][i] for name in (node, *scm.parents(node))}
        rule = mechanism.estimate if how == "estimate" else mechanism.resample
        try:
            rule(values.pop(node), values, weight[i])
        except NotImplementedError as error:
            raise Unsupported(f"Node {node!r}: {error}") from error
        except ValueError as error:
            raise ValueError(f"Node {node!r} cannot be estimated. {error}") from error


def free_rows(scm: SCM, batch: Batch) -> dict[str, Tensor]:
    """The rows in which nothing set a node, by node."""
    free = ~batch["clamped"] if "clamped" in batch else None
    every = torch.ones(rows_of(batch), dtype=torch.bool, device=scm.device)
    found = {}
    for j, node in enumerate(scm.nodes):
        found[node] = every if free is None else free[:, j]
        if not bool(found[node].any()):
            raise ValueError(
                f"Node {node!r} was clamped in every row, so that nothing shows what makes it by "
                "itself. Add rows in which it was left alone."
            )
    return found
