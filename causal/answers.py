"""The answers to causal questions: small frozen records that print and say how they were found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from causal.outcomes import frequencies
from pgm import Schema
from pgm.batch import Batch

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """What would have been, in every row that was seen.

    Attributes:
        draws: every site under the intervention, in the model's numbers, shape (particles, n, ...);
            one particle where the answer is exact.
        how: by site, how its noise was found.
        do: what was done, in words.
        levels: by site, the number of its levels, 0 for a number.
        ess: effective number of particles behind each row, where latents were resampled.
        schema: that of the model.
        note: that of the model.
    """

    draws: Batch
    how: Mapping[str, str]
    do: Mapping[str, str]
    levels: Mapping[str, int]
    ess: Float[Tensor, " n"] | None = None
    schema: Schema | None = None
    note: str | None = None

    @property
    def exact(self) -> bool:
        """Whether the evidence fixes the answer, given the model."""
        fixed = ("exact inversion", "set by do", "computed from the others")
        return all(way in fixed for way in self.how.values())

    def mean(self) -> dict[str, Tensor]:
        """The mean over particles, (n, ...); of a site with k levels their probabilities (n, k)."""
        means = {}
        for name, x in self.draws.items():
            k = self.levels[name]
            coded = frequencies(x, k) if k else x.to(torch.get_default_dtype())
            means[name] = coded.mean(0) if k or not x.is_floating_point() else x.mean(0)
        return means

    def frame(self) -> "pandas.DataFrame":
        """The draws as a frame in the user's words, one row each, by particle and row.

        Sites of several numbers a row, and sites outside the rows, are left to `draws`.
        """
        import pandas as pd

        n = next(x.shape[1] for x in self.draws.values() if x.dim() > 1)
        flat = {k: x.flatten() for k, x in self.draws.items() if x.shape[1:] == (n,)}
        if self.schema is None or self.schema.site is not None:
            frame = pd.DataFrame({name: x.cpu().numpy() for name, x in flat.items()})
        else:
            known = {name: x for name, x in flat.items() if name in self.schema.columns}
            frame = self.schema.decode(known, counts="nearest")
        particles = len(frame) // n
        index = pd.MultiIndex.from_product([range(particles), range(n)], names=["particle", "row"])
        frame.index = index if particles > 1 else pd.RangeIndex(n, name="row")
        return frame

    def __str__(self) -> str:
        particles, n = next(x.shape[:2] for x in self.draws.values() if x.dim() > 1)
        done = ", ".join(f"{name}={value}" for name, value in self.do.items())
        kind = "exact" if self.exact else f"{particles} particles"
        wide = max(map(len, self.how))
        lines = [f"Counterfactual under do({done}): {n} row{'s' if n > 1 else ''}, {kind}"]
        lines += [f"  {name:<{wide}}  {way}" for name, way in self.how.items()]
        if self.ess is not None:
            median, least = float(self.ess.median()), float(self.ess.min())
            lines.append(f"  effective particles: median {median:.1f}, least {least:.1f}")
        if any("not identified" in way for way in self.how.values()):
            lines.append(
                "  Another coupling may answer otherwise, and no data can tell them apart."
            )
        return "\n".join([*lines, *([self.note] if self.note else [])])


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
        samples: draws of the outcome in both worlds.
        note: that of the model.
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
    samples: tuple[Shaped[Tensor, " draws"], Shaped[Tensor, " draws"]]
    note: str | None = None

    def plot(self, ax: Any = None) -> Any:
        """Draws the difference with its interval; returns the matplotlib axes."""
        from causal.plots import draw_effect

        return draw_effect(self, ax=ax)

    @property
    def worlds(self) -> tuple[str, str]:
        """The two worlds in words."""
        return _world(self.do), _world(self.versus)

    def __str__(self) -> str:
        head = ("", "do", "versus", "difference", f"{self.confidence:.0%} interval")
        rows: list[tuple[str, ...]] = [head]
        for i, label in enumerate(self.levels or ("mean",)):
            means = (f"{float(t[i]):.4g}" for t in (self.treated, self.control, self.difference))
            lower, upper = float(self.lower[i]), float(self.upper[i])
            ends = "none" if lower != lower else f"[{lower:.4g}, {upper:.4g}]"
            rows.append((str(label), *means, ends))
        wide = [max(len(row[j]) for row in rows) for j in range(5)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, wide, strict=True)).rstrip() for r in rows]
        first, second = self.worlds
        return "\n".join(
            [f"Effect of {first} versus {second} on {self.outcome}"]
            + [f"  {line}" for line in lines]
            + [f"  interval: {self.source}", *([self.note] if self.note else [])]
        )


def _world(done: Mapping[str, str]) -> str:
    inside = ", ".join(f"{name}={value}" for name, value in done.items())
    return f"do({inside})" if done else "no intervention"
