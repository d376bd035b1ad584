"""Tensors as data sets with named axes: rows, plates, the columns of a frame, and what you name."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pgm.batch import SEEN
from pgm.inference.posterior import Posterior
from pgm.model import ROWS
from pgm.schema import Categorical

if TYPE_CHECKING:
    import xarray

COLUMNS = "columns"
"""The axis of a matrix whose columns are those of a frame."""


class Groups:
    """Makes the data sets of a posterior.

    Args:
        posterior: whose they are.
        dims: names for the axes of a site, after chain and draw, in the place of its own.
        coords: labels along an axis, by its name.
    """

    def __init__(
        self,
        posterior: Posterior,
        dims: Mapping[str, Sequence[str]],
        coords: Mapping[str, Sequence[Any]],
    ) -> None:
        self.posterior, self.dims, self.coords = posterior, dims, coords
        schema = posterior.model.schema
        self._columns = {} if schema is None else schema.columns
        self._matrix = None if schema is None else schema.site
        self._used = set[str]()

    def draws(
        self, values: Mapping[str, Tensor], dims: Mapping[str, tuple[str, ...]]
    ) -> "xarray.Dataset":
        """Tensors (chains, draws, ...) whose further axes are named by `dims`.

        Raises:
            ValueError: names or labels for another number of axes or places than there are.
        """
        first = next(iter(values.values())).shape[:2] if values else self.posterior.size
        arrays = {}
        for name, value in values.items():
            plain = tuple(f"{name}_dim_{i}" for i in range(value.dim() - 2))
            axes = self._axes(name, dims.get(name, plain))
            arrays[name] = (("chain", "draw", *axes), value.detach().cpu().numpy())
        sample = {"chain": range(first[0]), "draw": range(first[1])}
        return self._labelled(arrays, sample)

    def data(self, names: Sequence[str]) -> "xarray.Dataset":
        """Entries of the batch, rows first, with NaN where a cell is missing."""
        arrays = {}
        for name in names:
            value, seen = self.posterior.batch[name], self.posterior.batch.get(name + SEEN)
            if seen is not None:
                value = value.to(torch.float64).masked_fill(~seen, math.nan)
            axes = (ROWS, *(f"{name}_dim_{i}" for i in range(1, value.dim())))
            arrays[name] = (self._axes(name, axes), value.cpu().numpy())
        return self._labelled(arrays, {})

    def check(self) -> None:
        """Refuses names of a site, and labels of an axis, that nothing had.

        Raises:
            ValueError: there are such.
        """
        unknown = [name for name in (*self.dims, *self.coords) if name not in self._used]
        if unknown:
            raise ValueError(
                f"Nothing is called {', '.join(map(repr, unknown))}: dims names the axes of sites, "
                f"and coords labels an axis by its name. There are {', '.join(sorted(self._used))}."
            )

    def _axes(self, name: str, axes: tuple[str, ...]) -> tuple[str, ...]:
        self._used |= {name, *axes}
        if name in self.dims:
            if len(self.dims[name]) != len(axes):
                raise ValueError(
                    f"dims has {len(self.dims[name])} names for {name!r}, which has {len(axes)} "
                    f"axes after chain and draw: {axes}. Name each."
                )
            axes = tuple(self.dims[name])
        elif name == self._matrix and len(axes) > 1:
            axes = (*axes[:-1], COLUMNS)
        self._used |= set(axes)
        return axes

    def _labelled(
        self, arrays: Mapping[str, tuple[Any, Any]], labels: Mapping[str, Sequence[Any]]
    ) -> "xarray.Dataset":
        """The data set, with labels along its axes and the levels of codes beside them."""
        import xarray as xr

        made = xr.Dataset(dict(arrays), dict(labels))
        known: dict[str, Sequence[Any]] = {COLUMNS: list(self._columns), **self.coords}
        if ROWS in made.sizes:
            known = {ROWS: range(made.sizes[ROWS]), **known}
        for axis, names in known.items():
            if axis in made.sizes and len(names) != made.sizes[axis]:
                raise ValueError(
                    f"coords has {len(names)} labels for {axis!r}, which has {made.sizes[axis]} "
                    "places. Give each one."
                )
        made = made.assign_coords({k: list(v) for k, v in known.items() if k in made.sizes})
        for name in made.data_vars:
            kind = self._columns.get(str(name))
            if isinstance(kind, Categorical) and self._matrix is None:
                made[name].attrs["levels"] = [str(level) for level in kind.levels]
        return made
