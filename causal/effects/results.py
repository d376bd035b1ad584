"""What effects are answered by: small frozen records that print, plot and give up their draws."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from causal.counterfactuals.answers import world_in_words

if TYPE_CHECKING:
    import xarray

_ROWS = 12
"""Rows of evidence that are printed one by one."""


@dataclass(frozen=True, eq=False)
class Effect:
    """An average effect; numbers are in the unit of the outcome, or probabilities of its levels.

    Attributes:
        outcome: the site.
        do: the intervention, in words.
        versus: what it is compared with; empty for the model left alone.
        levels: the levels reported, k of them; none for a number, k = 1.
        treated: mean under `do`, shape (k,).
        control: mean under `versus`.
        difference: treated - control; the mean of draws where parameters are latent sites.
        lower: lower end of the interval of the difference; NaN where there is none.
        upper: upper end.
        confidence: of the interval.
        source: what the interval accounts for.
        samples: draws of the outcome in both worlds; none where the effect is of some units.
        note: that of the model.
        units: of whom, in words; empty for all.
        error: standard error of the draws; zero where the means are exact.
        bounds: the least and the largest difference over all couplings, where it depends on them;
            outer ones where both worlds do.
        means: under every draw of the parameters, in the two worlds and n rows of evidence (one
            for a population), shape (draws, 2, n, k); one draw where there are none.
        by_row: the difference in every row of evidence, shape (n, k).
        how: by which rung of `causal.counterfactual` the evidence was taken in.
        remarks: what the answer rests on, besides the model.
    """

    outcome: str
    do: Mapping[str, str]
    versus: Mapping[str, str]
    levels: tuple[Any, ...]
    treated: Float[Tensor, " k"]
    control: Float[Tensor, " k"]
    difference: Float[Tensor, " k"]
    lower: Float[Tensor, " k"]
    upper: Float[Tensor, " k"]
    confidence: float
    source: str
    samples: tuple[Shaped[Tensor, " draws"], Shaped[Tensor, " draws"]] | None
    units: str
    error: Float[Tensor, " k"]
    bounds: tuple[Float[Tensor, " k"], Float[Tensor, " k"]] | None
    means: Float[Tensor, "refits 2 n k"]
    by_row: Float[Tensor, "n k"]
    how: str = ""
    remarks: tuple[str, ...] = ()
    note: str | None = None

    def plot(self, ax: Any = None) -> Any:
        """Draws the difference with its interval; returns the matplotlib axes."""
        from causal.effects.pictures import draw_effect

        return draw_effect(self, ax=ax)

    @property
    def worlds(self) -> tuple[str, str]:
        """The two worlds in words."""
        return world_in_words(self.do), world_in_words(self.versus)

    def to_xarray(self) -> "xarray.Dataset":
        """Draws of the means, (chain, draw, world, rows, level), and of the effect, for ArviZ."""
        import xarray as xr

        labels = [str(level) for level in self.levels or ("mean",)]
        effect = (self.means[:, 0] - self.means[:, 1]).mean(1)
        arrays = {
            self.outcome: (("chain", "draw", "world", "rows", "level"), self.means[None].numpy()),
            "effect": (("chain", "draw", "level"), effect[None].numpy()),
        }
        draws, _, n, _ = self.means.shape
        coords = {"chain": [0], "draw": range(draws), "rows": range(n), "level": labels}
        return xr.Dataset(arrays, {**coords, "world": list(self.worlds)})

    def __str__(self) -> str:
        head: tuple[str, ...] = (
            "",
            "do",
            "versus",
            "difference",
            f"{self.confidence:.0%} interval",
        )
        rows = [head]
        for i, label in enumerate(self.levels or ("mean",)):
            means = (_number(t[i]) for t in (self.treated, self.control, self.difference))
            rows.append((str(label), *means, _ends(self.lower[i], self.upper[i])))
        first, second = self.worlds
        whom = f" {self.units}" if self.units else ""
        lines = [f"Effect of {first} versus {second} on {self.outcome}{whom}", *_table(rows)]
        lines.append(f"  interval: {self.source}")
        lines += [f"  {self.how}"] if self.how else []
        if self.bounds is not None:
            lines += _bounds(self.levels or ("mean",), *self.bounds)
        return "\n".join([*lines, *self._rows(), *_remarks(self.remarks, self.note)])

    def _rows(self) -> Iterator[str]:
        """The difference in every row of evidence, if there are a few."""
        if 1 < len(self.by_row) <= _ROWS:
            yield "  by row:"
            for i, row in enumerate(self.by_row.tolist()):
                yield f"    {i}: " + "  ".join(map(_number, row))


@dataclass(frozen=True, eq=False)
class Effects:
    """Several effects, or probabilities, found together; an effect is had by its name.

    Attributes:
        title: what was asked.
        outcome: the site.
        names: of the m effects.
        levels: of the outcome that are reported, k of them; none for a number, k = 1.
        values: shape (m, k).
        lower: lower ends of the intervals; NaN where there are none.
        upper: upper ends.
        error: standard errors of the draws; zero where the values are exact.
        bounds: the least and largest value over all couplings, (m, k) each; NaN where they are not
            known, None where nothing depends on a coupling.
        draws: the effects under every draw of the parameters, (draws, m, k).
        confidence: of the intervals.
        source: what the intervals account for.
        remarks: what the answer rests on, besides the model.
        note: that of the model.
    """

    title: str
    outcome: str
    names: tuple[str, ...]
    levels: tuple[Any, ...]
    values: Float[Tensor, "m k"]
    lower: Float[Tensor, "m k"]
    upper: Float[Tensor, "m k"]
    error: Float[Tensor, "m k"]
    bounds: tuple[Float[Tensor, "m k"], Float[Tensor, "m k"]] | None
    draws: Float[Tensor, "refits m k"]
    confidence: float
    source: str
    remarks: tuple[str, ...] = ()
    note: str | None = None

    def __getitem__(self, name: str) -> Float[Tensor, " k"]:
        """One effect, by its name."""
        if name not in self.names:
            raise KeyError(f"No effect {name!r}; there are {', '.join(self.names)}.")
        return self.values[self.names.index(name)]

    def plot(self, ax: Any = None) -> Any:
        """Draws the effects with their intervals; returns the matplotlib axes."""
        from causal.effects.pictures import draw_effects

        return draw_effects(self, ax=ax)

    @property
    def labels(self) -> tuple[str, ...]:
        """What every value is called, m k of them."""
        if len(self.levels) < 2:
            return self.names
        return tuple(f"{name}, {level}" for name in self.names for level in self.levels)

    def to_xarray(self) -> "xarray.Dataset":
        """Draws of every effect, (chain, draw, level), for ArviZ."""
        import xarray as xr

        labels = [str(level) for level in self.levels or ("mean",)]
        dims = ("chain", "draw", "level")
        arrays = {name: (dims, self.draws[None, :, i].numpy()) for i, name in enumerate(self.names)}
        coords = {"chain": [0], "draw": range(len(self.draws)), "level": labels}
        return xr.Dataset(arrays, coords)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("", "value", f"{self.confidence:.0%} interval")]
        flat = (t.flatten() for t in (self.values, self.lower, self.upper))
        for label, value, low, high in zip(self.labels, *flat, strict=True):
            rows.append((label, _number(value), _ends(low, high)))
        lines = [self.title, *_table(rows), f"  interval: {self.source}"]
        if self.bounds is not None:
            lines += _bounds(self.labels, *(b.flatten() for b in self.bounds))
        return "\n".join([*lines, *_remarks(self.remarks, self.note)])


def _number(value: Tensor | float) -> str:
    """Four digits; what rounding leaves of zero is zero."""
    x = float(value)
    return f"{0.0 if abs(x) < 1e-12 else x:.4g}"


def _ends(low: Tensor, high: Tensor) -> str:
    if not bool(torch.isfinite(low)):
        return "none"
    return f"[{_number(low)}, {_number(high)}]"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    wide = [max(len(row[j]) for row in rows) for j in range(len(rows[0]))]
    padded = ("  ".join(c.ljust(w) for c, w in zip(r, wide, strict=True)).rstrip() for r in rows)
    return [f"  {line}" for line in padded]


def _bounds(labels: Sequence[Any], lower: Tensor, upper: Tensor) -> Iterator[str]:
    known = [
        f"{label} [{_number(low)}, {_number(high)}]"
        for label, low, high in zip(labels, lower.tolist(), upper.tolist(), strict=True)
        if low == low
    ]
    if known:
        yield f"  bounds over all couplings: {', '.join(known)}"
    else:
        yield "  bounds over all couplings are not known here"


def _remarks(remarks: Sequence[str], note: str | None) -> list[str]:
    return [*(f"  {remark}" for remark in remarks), *([note] if note else [])]
