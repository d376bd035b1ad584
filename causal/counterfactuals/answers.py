"""The answers to causal questions: small frozen records that print and say how they were found."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from causal.outcomes import frequencies, names
from pgm import Schema
from pgm.batch import Batch

if TYPE_CHECKING:
    import pandas

    from causal.counterfactuals.evidence import Rung
    from causal.counterfactuals.gaussian import Normals


@dataclass(frozen=True, eq=False)
class Draws:
    """Draws of all sites given evidence, and how far they can be trusted.

    Attributes:
        draws: every site, in the model's numbers, shape (particles, n, ...); one particle where
            the answer is exact.
        how: by site, how its value was found.
        do: what was done, in words.
        levels: by site, the number of its levels, 0 for a number.
        rung: how what was not seen was found.
        ess: effective number of particles behind each row, where draws were weighted.
        k: k-hat of those weights by row; above 0.7 they cannot be trusted.
        r_hat: the largest R-hat, where chains were run.
        law: the exact law of all nodes in every row of a linear-Gaussian world.
        schema: that of the model.
        note: that of the model.
        shared: the sites outside the rows, shape (particles, ...).
    """

    draws: Batch
    how: Mapping[str, str]
    do: Mapping[str, str]
    levels: Mapping[str, int]
    rung: "Rung" = "inversion"
    ess: Float[Tensor, " n"] | None = None
    k: Float[Tensor, " n"] | None = None
    r_hat: float | None = None
    law: "Normals | None" = None
    schema: Schema | None = None
    note: str | None = None
    shared: frozenset[str] = frozenset()

    @property
    def size(self) -> tuple[int, int]:
        """The numbers of particles and of rows."""
        by_row = (x for name, x in self.draws.items() if name not in self.shared)
        particles, n = next(x.shape[:2] for x in by_row if x.dim() > 1)
        return particles, n

    def mean(self) -> dict[str, Tensor]:
        """The mean given the evidence, (n, ...); of a site with k levels probabilities (n, k).

        Exact where there is a law, else the mean over particles.
        """
        means = {}
        for name, x in self.draws.items():
            k = self.levels[name]
            coded = frequencies(x, k) if k else x
            means[name] = coded.mean(0) if coded.is_floating_point() else coded.double().mean(0)
            if self.law is not None and not k:
                means[name] = self.law.of(name)[0].to(x)
        return means

    def variance(self) -> dict[str, Tensor]:
        """The variance given the evidence, (n, ...): what the evidence leaves open."""
        if self.law is not None:
            return {name: self.law.of(name)[1].to(x) for name, x in self.draws.items()}
        return {name: x.double().var(0, correction=0) for name, x in self.draws.items()}

    def frame(self) -> "pandas.DataFrame":
        """The draws as a frame in the user's words, one row each, by particle and row.

        Sites of several numbers a row, and sites outside the rows, are left to `draws`.
        """
        import pandas as pd

        particles, n = self.size
        by_row = {k: x for k, x in self.draws.items() if k not in self.shared}
        flat = {k: x.flatten() for k, x in by_row.items() if x.shape[1:] == (n,)}
        if self.schema is None or self.schema.site is not None:
            frame = pd.DataFrame({name: x.cpu().numpy() for name, x in flat.items()})
        else:
            known = {name: x for name, x in flat.items() if name in self.schema.columns}
            frame = self.schema.decode(known, counts="nearest")
        index = pd.MultiIndex.from_product([range(particles), range(n)], names=["particle", "row"])
        frame.index = index if particles > 1 else pd.RangeIndex(n, name="row")
        return frame

    def __str__(self) -> str:
        particles, n = self.size
        kind = f"{particles} particles" if particles > 1 else "exact"
        kind = "exact law" if self.law is not None else kind
        lines = [
            f"{type(self).__name__} under {world_in_words(self.do)}: {n} row{'s' * (n > 1)}, {kind}"
        ]
        wide = max(map(len, self.how))
        lines += [f"  {name:<{wide}}  {way}" for name, way in self.how.items()]
        said = [*lines, *self.caveats()]
        return "\n".join([*said, *([self.note] if self.note else [])])

    def caveats(self) -> Iterator[str]:
        """How far the draws can be trusted, a line each."""
        if self.ess is not None:
            median, least = float(self.ess.median()), float(self.ess.min())
            known = self.k[~self.k.isnan()] if self.k is not None else self.ess[:0]
            tail = f"; largest k-hat {float(known.max()):.2f}" if len(known) else ""
            yield f"  effective particles: median {median:.1f}, least {least:.1f}{tail}"
        if self.r_hat is not None:
            where = "" if self.rung == "NUTS" else " in the rows whose weights failed"
            yield f"  largest R-hat of the chains{where}: {self.r_hat:.3f}"


@dataclass(frozen=True, eq=False)
class Conditional(Draws):
    """All sites given evidence, in the world of the model, under its interventions.

    Attributes:
        probabilities: exact ones of the levels of sites that were summed out, shape (n, k).
    """

    probabilities: Mapping[str, Tensor] = field(default_factory=dict)

    def mean(self) -> dict[str, Tensor]:
        """The mean given the evidence; exact where there is a law or probabilities."""
        return super().mean() | dict(self.probabilities)


@dataclass(frozen=True, eq=False)
class Counterfactual(Draws):
    """What would have been, in every row that was seen.

    Attributes:
        bounds: by site, the least and the largest mean, or probability of each level, shape
            (n, k), under any coupling of discrete sites; None where nothing is open, or too much.
    """

    bounds: Mapping[str, tuple[Tensor, Tensor]] | None = None

    @property
    def exact(self) -> bool:
        """Whether the evidence fixes the answer, given the model."""
        return all(way in _FIXED for way in self.how.values())

    def caveats(self) -> Iterator[str]:
        """How far the draws can be trusted, and what no data can tell."""
        yield from super().caveats()
        if not any("not identified" in way for way in self.how.values()):
            return
        yield "  Another coupling may answer otherwise, and no data can tell them apart."
        if self.bounds is None:
            yield "  Bounds over all couplings are not known: too many configurations, or levels."
            return
        yield f"  Bounds over all couplings{', means over rows' * (self.size[1] > 1)}:"
        for name, (lower, upper) in self.bounds.items():
            low, high = lower.mean(0).tolist(), upper.mean(0).tolist()
            if float((upper - lower).max()) < 1e-6:
                continue
            labels = names(self.schema, name, len(low)) if self.levels[name] else ("mean",)
            ranges = zip(labels, low, high, strict=True)
            yield f"    {name}: " + ", ".join(f"{a} [{b:.3f}, {c:.3f}]" for a, b, c in ranges)


_FIXED = ("exact inversion", "set by do", "computed from the others", "as it was seen")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Counterfactuals of the same rows under several interventions, on the same noise.

    Attributes:
        answers: one a scenario.
        labels: what the scenarios are called.
    """

    answers: tuple[Counterfactual, ...]
    labels: tuple[Any, ...]

    def __len__(self) -> int:
        return len(self.answers)

    def __getitem__(self, label: Any) -> Any:
        """The counterfactual of a scenario, by its label."""
        if label not in self.labels:
            raise KeyError(f"No scenario {label!r}; there are {', '.join(map(repr, self.labels))}.")
        return self.answers[self.labels.index(label)]

    def __iter__(self) -> Iterator[Counterfactual]:
        return iter(self.answers)

    def stack(self, site: str) -> Tensor:
        """The draws of a site in all scenarios, shape (scenarios, particles, n, ...)."""
        return torch.stack([answer.draws[site] for answer in self.answers])

    def frame(self) -> "pandas.DataFrame":
        """The draws of all scenarios as one frame in the user's words."""
        import pandas as pd

        frames = [answer.frame() for answer in self.answers]
        return pd.concat(frames, keys=self.labels, names=["scenario"])

    def __str__(self) -> str:
        return "\n".join(f"{k}: {a}" for k, a in zip(self.labels, self.answers, strict=True))


def world_in_words(done: Mapping[str, str]) -> str:
    """A world, `do(x=1)`, from what was done."""
    inside = ", ".join(f"{name}={value}" for name, value in done.items())
    return f"do({inside})" if done else "no intervention"
