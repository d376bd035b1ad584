"""Where the rows are in a tensor: found by running the program on two numbers of rows.

A tensor that belongs to rows has one dimension that grows with their number n: it has m n entries
on n rows, and m on one. With m = 1 that is the dimension of the rows, wherever it stands (first;
after time or particles; last, after enumerated values). With m > 1 the rows are repeated: copy
after copy (row i of copy k is entry k n + i, as `pgm.batch.repeat` does), or row after row (entry
i m + k, a flattened time axis). Which of the two is no matter of shapes, and is tried out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

SIZES = (2, 3)
"""The two numbers of rows."""


@dataclass(frozen=True)
class Axis:
    """The dimension of the rows in a tensor.

    Attributes:
        dim: counted from the left.
        times: m, the entries a row has along it.
        copies_outside: whether copy comes after copy, rather than row after row.
    """

    dim: int
    times: int = 1
    copies_outside: bool = True

    def rows_first(self, x: Tensor, n: int) -> Tensor:
        """(..., m n, ...) as (n, ..., m, ...).

        Example:
            >>> import torch
            >>> Axis(1, 2).rows_first(torch.tensor([[0, 1, 2, 10, 11, 12]]), 3)
            tensor([[[ 0, 10]],
                    [[ 1, 11]],
                    [[ 2, 12]]])
        """
        if self.copies_outside:
            return x.unflatten(self.dim, (self.times, n)).movedim(self.dim + 1, 0)
        return x.unflatten(self.dim, (n, self.times)).movedim(self.dim, 0)

    def in_place(self, x: Tensor) -> Tensor:
        """The inverse of `rows_first`."""
        after = self.dim + self.copies_outside
        return x.movedim(0, after).flatten(self.dim, self.dim + 1)

    def of_one_row(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape on one row."""
        return (*shape[: self.dim], self.times, *shape[self.dim + 1 :])

    def fits(self, shape: Sequence[int], n: int) -> bool:
        """Whether a tensor of that shape holds n rows along the axis."""
        return len(shape) > self.dim and shape[self.dim] == self.times * n


def find_axis(
    small: Sequence[int], large: Sequence[int], *, copies_outside: bool = True
) -> Axis | None:
    """The axis of the rows, from a tensor's shape on 2 rows and on 3; None if there is none.

    Example:
        >>> find_axis((7, 2, 5), (7, 3, 5)), find_axis((4, 5), (4, 5)), find_axis((2, 2), (3, 3))
        (Axis(dim=1, times=1, copies_outside=True), None, None)
    """
    if len(small) != len(large):
        return None
    grown = [d for d, (a, b) in enumerate(zip(small, large, strict=True)) if a != b]
    if len(grown) != 1:
        return None
    (d,) = grown
    times, rest = divmod(small[d], SIZES[0])
    if rest or large[d] != times * SIZES[1]:
        return None
    return Axis(d, times, copies_outside)
