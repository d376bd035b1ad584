"""What the values of a node are: a number, one of k levels, or a vector of d numbers."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """What the values of a node are.

    Args:
        levels: k, where the values are codes 0 .. k-1; 1 for numbers and vectors.
        size: d, where a value is a vector; None for a single number or level.

    Raises:
        ValueError: fewer than one level, a vector without components, or levels of a vector.

    Example:
        >>> print(Kind(), Kind(levels=3), Kind(size=2), sep="; ")
        a number; one of 3 levels; a vector of 2 numbers
        >>> [kind.width for kind in (Kind(), Kind(levels=3), Kind(size=2))]
        [1, 3, 2]
    """

    levels: int = 1
    size: int | None = None

    def __post_init__(self) -> None:
        if self.levels < 1 or (self.size is not None and (self.size < 1 or self.levels > 1)):
            raise ValueError(
                f"Kind(levels={self.levels}, size={self.size}): a value is a number, Kind(), one "
                "of two or more levels, Kind(levels=k), or a vector of numbers, Kind(size=d)."
            )

    @property
    def is_number(self) -> bool:
        """Whether a value is a single number."""
        return self.levels == 1 and self.size is None

    @property
    def width(self) -> int:
        """The columns of a value in a design: a level is coded one-hot."""
        return self.levels if self.size is None else self.size

    def __str__(self) -> str:
        if self.size is not None:
            return f"a vector of {self.size} numbers"
        return f"one of {self.levels} levels" if self.levels > 1 else "a number"


NUMBER = Kind()
"""The kind of a node whose values are single numbers."""
