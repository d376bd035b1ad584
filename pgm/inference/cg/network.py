"""The arrows of a conditional Gaussian network, and the joint law of its nodes.

With the numbers in the order of the graph, y = b + W y + s u under every configuration of the
levels, so that y ~ N(A b, A diag(s^2) A') with A = (I - W)^-1 (Shachter & Kenley 1989).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from pgm.inference.cg.law import ConditionalGaussian


@dataclass(frozen=True, eq=False)
class Line:
    """The law of a number given its parents: for every configuration of the discrete ones a line.

    Attributes:
        coefficients: the intercept and one weight a number among the parents, in the last axis.
        scale: standard deviation around the line.
    """

    coefficients: Float[Tensor, "*levels p"]
    scale: Float[Tensor, "*levels"]


@dataclass(frozen=True)
class Structure:
    """The arrows of a network.

    Attributes:
        parents: of every node.
        levels: of the discrete nodes, causes first.
        numbers: the others, causes first.
    """

    parents: Mapping[str, tuple[str, ...]]
    levels: Mapping[str, int]
    numbers: tuple[str, ...]

    @property
    def configurations(self) -> Int[Tensor, "K discrete"]:
        """All configurations of the levels, the last node's running fastest."""
        axes = [torch.arange(k) for k in self.levels.values()]
        grid = torch.meshgrid(*axes, indexing="ij") if axes else ()
        return torch.stack(grid, -1).flatten(0, -2) if axes else torch.zeros(1, 0).long()

    def above(self, name: str) -> list[str]:
        """The discrete parents of a node."""
        return [parent for parent in self.parents[name] if parent in self.levels]

    def axes(self, name: str) -> tuple[int, ...]:
        """How many levels each discrete parent of a node has."""
        return tuple(self.levels[parent] for parent in self.above(name))

    def at(self, *names: str) -> tuple[Tensor, ...]:
        """The levels of some nodes in every configuration."""
        every, known = self.configurations, list(self.levels)
        return tuple(every[:, known.index(name)] for name in names)

    def places(self, name: str) -> list[int]:
        """Where the parents of a node stand among the numbers."""
        return [self.numbers.index(p) for p in self.parents[name] if p not in self.levels]


def joint(
    structure: Structure,
    log_tables: list[Tensor],
    lines: list[Line],
    do: Mapping[str, Tensor] | None = None,
) -> ConditionalGaussian:
    """The law of all nodes, of one row; what is set has no density, and no arrows into it.

    Args:
        structure: the arrows.
        log_tables: log p of the discrete nodes given their parents, in the order of `levels`.
        lines: the laws of the numbers, in the order of `numbers`.
        do: values by node.
    """
    do, numbers = do or {}, structure.numbers
    configurations = structure.configurations
    log_p = torch.zeros(len(configurations), dtype=torch.float64)
    for name, table in zip(structure.levels, log_tables, strict=True):
        at = structure.at(*structure.above(name), name)
        log_p = log_p + (log_mass(at[-1], do[name]) if name in do else table[at])
    b, W, s = list[Tensor](), list[Tensor](), list[Tensor]()
    for name, line in zip(numbers, lines, strict=True):
        at = structure.at(*structure.above(name))
        c, scale = line.coefficients[at].expand(len(log_p), -1), line.scale[at].expand(len(log_p))
        if name in do:
            c, scale = torch.zeros_like(c), torch.zeros_like(scale)
            c[:, 0] = do[name].double()
        placed = torch.zeros(c.shape[1] - 1, len(numbers)).to(c)
        placed[range(len(placed)), structure.places(name)] = 1.0
        b, W, s = [*b, c[:, 0]], [*W, c[:, 1:] @ placed], [*s, scale]
    identity = torch.eye(len(numbers)).to(b[0])
    A = torch.linalg.solve_triangular(identity - torch.stack(W, -2), identity, upper=False)
    mean, root = A @ torch.stack(b, -1).unsqueeze(-1), A * torch.stack(s, -1).unsqueeze(-2)
    return ConditionalGaussian(
        structure.levels, numbers, configurations[None], log_p.to(b[0])[None],
        mean.squeeze(-1)[None], (root @ root.mT)[None],
    )  # fmt: skip


def log_mass(level: Int[Tensor, " K"], value: Tensor) -> Float[Tensor, " K"]:
    """The log table of a discrete node that is set."""
    return torch.where(level == value, 0.0, -torch.inf)
