"""Graphs as adjacency matrices: the row is the cause, the column the effect.

This is the axis of networkx, pandas' adjacency and NOTEARS. LiNGAM and causal-learn put the effect
in the row: transpose theirs.
"""

from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
from torch import Tensor

from pgm.schema.columns import listing


def from_matrix(matrix: np.ndarray | Tensor, names: Sequence[str] | None = None) -> nx.DiGraph:
    """Reads a graph from a square matrix: `matrix[i, j]` is not zero where node i causes node j.

    Args:
        matrix: booleans, zeros and ones, or weights; shape (d, d).
        names: the nodes, in the order of rows and columns; None makes X0, X1, ...

    Raises:
        ValueError: no square, entries that are no numbers, names that do not fit, or arrows both
            ways, as in matrices of end marks.

    Example:
        >>> list(from_matrix(np.array([[0, 1], [0, 0]]), ["dose", "recovery"]).edges)
        [('dose', 'recovery')]
    """
    values = matrix.detach().cpu().numpy() if isinstance(matrix, Tensor) else matrix
    if values.ndim != 2 or values.shape[0] != values.shape[1]:
        raise ValueError(
            f"The adjacency matrix has shape {tuple(values.shape)}; it is square, with a row and a "
            "column for each node, and matrix[i, j] says that node i causes node j."
        )
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise ValueError(
            f"The adjacency matrix (dtype {values.dtype}) has entries that are no finite numbers, "
            "which neither are an arrow nor say that there is none. Put 0 where there is no arrow."
        )
    nodes = [f"X{i}" for i in range(len(values))] if names is None else list(names)
    if len(nodes) != len(values) or len(set(nodes)) != len(nodes):
        raise ValueError(
            f"{len(nodes)} names ({listing([str(name) for name in nodes])}) came for the "
            f"{len(values)} nodes of the matrix. Each row and column has one name of its own."
        )
    _check_one_way(values, nodes)
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from((nodes[i], nodes[j]) for i, j in np.argwhere(values != 0).tolist())
    return graph


def from_frame(frame: Any) -> nx.DiGraph:
    """Reads a graph from a pandas frame: rows are causes, columns effects, both with their names.

    Raises:
        ValueError: rows and columns with different names.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame([[0, 1], [0, 0]], index=["A", "B"], columns=["A", "B"])
        >>> list(from_frame(frame).edges)
        [('A', 'B')]
    """
    rows, columns = list(frame.index), list(frame.columns)
    if set(rows) != set(columns) or len(rows) != len(columns):
        raise ValueError(
            f"The frame has rows {listing([str(r) for r in rows])} and columns "
            f"{listing([str(c) for c in columns])}. An adjacency frame has the nodes' names at "
            "both. For a frame with an arrow in each row pass its pairs: "
            "list(frame[['cause', 'effect']].itertuples(index=False, name=None))."
        )
    return from_matrix(frame[rows].to_numpy(), rows)


def _check_one_way(values: np.ndarray, nodes: list[str]) -> None:
    both = np.argwhere((values != 0) & (values.T != 0)).tolist()
    if both:
        i, j = both[0]
        raise ValueError(
            f"The adjacency matrix has arrows both from {nodes[i]!r} to {nodes[j]!r} and back "
            f"({values[i, j]} and {values[j, i]}). A cause is no effect of its effect. Some "
            "libraries write end marks (-1 and 1) into both entries; turn them into one arrow, and "
            "an unseen common cause into a latent node of its own."
        )
