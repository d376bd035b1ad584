"""What is asked of a conditional Gaussian network, its data and its evidence before any answer."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from pgm.batch import SEEN, Batch
from pgm.inference.cg.network import Structure
from pgm.schema import Schema
from pgm.schema.columns import listing, suggestion

_MOST = 2**27
"""Numbers in the covariances of all configurations, 1 GiB of them."""


def code_of(schema: Schema | None, name: str, value: Any) -> Tensor:
    """A value in the user's words as a tensor of the model's numbers, rows first."""
    if schema is None or isinstance(value, Tensor) or name not in schema.columns:
        x = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.float64)
        return torch.atleast_1d(x)
    import pandas as pd

    single = value is None or isinstance(value, str | bool | int | float)
    column = pd.Series([value] if single else value)
    return torch.from_numpy(schema.columns[name].encode(name, column)).clone()


def one_value_each(structure: Structure, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values of do(), one a node."""
    for name, value in found.items():
        k = structure.levels.get(name)
        if value.numel() != 1 or not bool(value.isfinite().all()):
            raise ValueError(
                f"do() sets {name!r} to {value.tolist()}; it takes one finite value a node. Ask "
                "again for each of several values."
            )
        if k is not None and value.item() not in range(k):
            raise ValueError(
                f"do() sets {name!r} to {value.item():g}; its levels are 0 .. {k - 1}."
            )
    return {name: value.reshape(()) for name, value in found.items()}


def check_known(structure: Structure, names: Sequence[str]) -> None:
    """Refuses names that are no nodes."""
    for name in names:
        if name not in structure.parents:
            raise ValueError(
                f"The network has no node {name!r}.{suggestion(name, structure.parents)} Its nodes "
                f"are {listing(list(structure.parents))}. Rename it, or leave it out."
            )


def check_batch(structure: Structure, batch: Batch, *, every: bool = False) -> None:
    """Known nodes, one number a row, levels that exist; with `every`, each node somewhere seen."""
    check_known(structure, [name.removesuffix(SEEN) for name in batch])
    for name in structure.parents if every else ():
        if name not in batch or (name + SEEN in batch and not bool(batch[name + SEEN].any())):
            raise ValueError(
                f"The data hold no value of node {name!r}: nothing can be learned of it. Leave it "
                "out of the graph, or train it as a latent node of causal.SCM."
            )
    for name, x in batch.items():
        if x.dim() != 1:
            raise ValueError(
                f"Data for {name!r} have shape {tuple(x.shape)}; a node is one value a row, shape "
                "(n,). Split a matrix into its columns."
            )
        k = structure.levels.get(name)
        if k is not None and bool(((x < 0) | (x >= k) | (x != x.round())).any()):
            raise ValueError(
                f"{name!r} holds values from {x.min().item():g} to {x.max().item():g}, but its "
                f"levels are 0 .. {k - 1}, whole numbers. Recode it, or build the network for the "
                "levels that came."
            )


def check_columns(nodes: list[str], schema: Schema) -> None:
    """Refuses a schema whose columns are not just the nodes."""
    absent = [name for name in nodes if name not in schema.columns]
    more = [name for name in schema.columns if name not in nodes]
    if absent or more:
        raise ValueError(
            f"The graph has {listing(absent) or 'no node'} beyond the schema, and the schema "
            f"{listing(more) or 'no column'} beyond the graph: every column is a node. Take a part "
            "of the schema, schema.select([...]), or drop the nodes."
        )


def causes_first(graph: "nx.DiGraph[str]") -> tuple[str, ...]:
    """Causes before effects, otherwise as the nodes were named."""
    if not nx.is_directed_acyclic_graph(graph):
        cycle = [a for a, _ in nx.find_cycle(graph)]
        raise ValueError(
            f"The parents go round in a circle: {' -> '.join([*cycle, cycle[0]])}. A Bayesian "
            "network is acyclic: drop one of these arrows."
        )
    place = {name: i for i, name in enumerate(graph)}
    return tuple(nx.lexicographical_topological_sort(graph, key=place.__getitem__))


def check_structure(structure: Structure) -> None:
    """A number somewhere, levels that vary, no arrow from a number into levels, and room for all.

    Raises:
        ValueError: one of these fails.
    """
    levels, numbers = structure.levels, structure.numbers
    if not numbers:
        raise ValueError(
            "No node of the network is a number. Use a discrete Bayesian network for levels alone."
        )
    for name, k in levels.items():
        if k < 2:
            raise ValueError(f"{name!r} has {k} levels; a node that varies has two or more.")
        if from_numbers := [parent for parent in structure.parents[name] if parent not in levels]:
            raise ValueError(
                f"{name!r} has levels, and {listing(from_numbers)} among its parents are numbers: "
                "given the levels the numbers would no longer be normal, and no exact law is known "
                "(Lauritzen & Wermuth 1989). Turn the arrow round, cut the number into "
                "levels, or use causal.SCM with a LinearSoftmax."
            )
    if (size := math.prod(levels.values()) * len(numbers) ** 2) > _MOST:
        raise ValueError(
            f"The levels have {math.prod(levels.values())} configurations, each with a covariance "
            f"of {len(numbers)} numbers: {size * 8 / 2**30:.3g} GiB for one row. Merge levels, or "
            "use causal.SCM, which answers by importance weights."
        )
