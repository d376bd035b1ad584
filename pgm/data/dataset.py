"""Dataset: a named table with its licence and source, and the mark that makes a function a set."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ParamSpec

from torch import Tensor

if TYPE_CHECKING:
    import networkx
    import pandas

P = ParamSpec("P")
Edges = tuple[tuple[str, str], ...]


@dataclass(frozen=True, repr=False)
class Dataset:
    """Rows of data with what one must know to use and to cite them.

    Each tensor is an attribute: `data.x` is `data.tensors["x"]`.

    Args:
        tensors: arrays by name, rows first.
        table: the same rows as a pandas frame, where the set is a table of named columns; read it
            as `data.frame`.
        edges: published causal graphs over the columns, by name; read them with `graph`.
        splits: the rows of "train", "validation" and "test", where the set has fixed ones.
        image_shape: height and width, where a row of `x` is an image.
        levels: number of values a pixel may take, 0 .. levels-1.
        name: what `load` calls it.
        description: one line.
        licence: under which the data may be used.
        source: who made them, where and when.

    Example:
        >>> import torch
        >>> data = Dataset({"x": torch.arange(3.0)}, splits={"train": slice(2)}, name="mine")
        >>> data.train.x
        tensor([0., 1.])
    """

    tensors: Mapping[str, Tensor]
    table: "pandas.DataFrame | None" = None
    edges: Mapping[str, Edges] = field(default_factory=dict)
    splits: Mapping[str, slice] = field(default_factory=dict)
    image_shape: tuple[int, int] | None = None
    levels: int | None = None
    name: str = ""
    description: str = ""
    licence: str = ""
    source: str = ""

    def __getattr__(self, name: str) -> Tensor:
        tensors = self.__dict__.get("tensors", {})
        if name in tensors:
            return tensors[name]
        raise AttributeError(
            f'Set "{self.__dict__.get("name")}" holds no "{name}"; it holds {", ".join(tensors)}.'
        )

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(next(iter(self.tensors.values())))

    @property
    def frame(self) -> "pandas.DataFrame":
        """The rows as a pandas frame (yours: each call gives a copy)."""
        if self.table is None:
            raise ValueError(
                f'Set "{self.name}" is no table of named columns; its tensors are '
                f"{', '.join(self.tensors)}."
            )
        return self.table.copy()

    @property
    def train(self) -> "Dataset":
        """The rows to fit."""
        return self.split("train")

    @property
    def validation(self) -> "Dataset":
        """The rows for early stopping and choice."""
        return self.split("validation")

    @property
    def test(self) -> "Dataset":
        """The rows for the final number."""
        return self.split("test")

    def split(self, name: str) -> "Dataset":
        """The rows of one split.

        Args:
            name: "train", "validation" or "test".

        Raises:
            ValueError: the set has no such split.
        """
        if name not in self.splits:
            raise ValueError(
                f'Set "{self.name}" has no split "{name}"; it has '
                f"{', '.join(self.splits) or 'none'}. Take rows of your own: data.x[:1000]."
            )
        rows = self.splits[name]
        return replace(
            self,
            tensors={key: x[rows] for key, x in self.tensors.items()},
            table=None if self.table is None else self.table.iloc[rows],
            splits={},
        )

    def graph(self, name: str | None = None) -> "networkx.DiGraph[str]":
        """A published causal graph over the columns, as a new DiGraph.

        Args:
            name: which one; None takes the first.

        Raises:
            ValueError: the set has no such graph.
        """
        import networkx as nx

        name = next(iter(self.edges), "") if name is None else name
        if name not in self.edges:
            known = ", ".join(self.edges) or "none"
            raise ValueError(f'Set "{self.name}" has no graph "{name}"; it has {known}.')
        graph: networkx.DiGraph[str] = nx.DiGraph(name=f"{self.name}, {name}")
        graph.add_nodes_from(self.frame.columns)
        graph.add_edges_from(self.edges[name])
        return graph

    def __repr__(self) -> str:
        tensors = (f"{key} {tuple(x.shape)} {x.dtype}" for key, x in self.tensors.items())
        facts = {
            "holds": ", ".join(tensors),
            "frame": "" if self.table is None else " ".join(map(str, self.table.columns)),
            "graphs": ", ".join(f"{key} ({len(e)} edges)" for key, e in self.edges.items()),
            "splits": ", ".join(self.splits),
            "licence": self.licence,
            "source": self.source,
        }
        lines = [f"  {fact:<8} {text}" for fact, text in facts.items() if text]
        return "\n".join([f"{self.name}: {self.description} {self.n} rows.", *lines])


@dataclass(frozen=True)
class Card:
    """What is known of a set before it is loaded, and the function that loads it."""

    build: Callable[..., Dataset]
    description: str
    licence: str
    source: str


SETS: dict[str, Card] = {}


def dataset(*, licence: str, source: str) -> Callable[[Callable[P, Dataset]], Callable[P, Dataset]]:
    """Marks a function as the set of its name, described by its docstring's first line.

    Args:
        licence: under which the data may be used.
        source: who made them, where and when.
    """

    def mark(build: Callable[P, Dataset]) -> Callable[P, Dataset]:
        description = (build.__doc__ or "").partition("\n")[0]

        @functools.wraps(build)
        def labelled(*args: P.args, **kwargs: P.kwargs) -> Dataset:
            return replace(
                build(*args, **kwargs),
                name=build.__name__,
                description=description,
                licence=licence,
                source=source,
            )

        SETS[build.__name__] = Card(labelled, description, licence, source)
        return labelled

    return mark
