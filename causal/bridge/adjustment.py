"""Effects straight from a table and a graph, without a model of every mechanism.

E[y | do(t)] = sum_w E[y | t, w] P(w) (Pearl 2009, Causality, eq. 3.19), where the graph has an
adjustment set w; else through the front door, or by an instrument. The graph decides how
(`causal.bridge.strategy`), DoWhy's estimators compute, and what makes the answer doubtful is
printed before it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from causal.bridge.estimators import METHODS, Estimator, Method, checked, first_stage, kind_of
from causal.bridge.intervals import interval
from causal.bridge.overlap import WHOM, Overlap, Units, overlap, propensity
from causal.bridge.strategy import Strategy, plan
from causal.bridge.table import Table, tabulate
from causal.graph import GraphLike
from pgm.randomness import fresh_seed

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, eq=False)
class Adjusted:
    """An average effect, read off a table.

    Attributes:
        value: the effect, in the unit of the outcome.
        lower: lower end of its interval.
        upper: upper end.
        confidence: of the interval.
        source: what the interval accounts for.
        estimator: how the value was computed.
        strategy: why it is an effect, by the graph.
        contrast: the two values of the treatment, do and versus.
        overlap: of the rows that were used; None where there are no two arms to compare.
        before: the overlap before rows were left out by `trim`.
        trim: the propensities that were kept; None for all.
        left_out: how many rows were left out by `trim`.
        first_stage: the F statistic of the instruments; None without.
        table: the rows that were used, in numbers.
    """

    value: float
    lower: float
    upper: float
    confidence: float
    source: str
    estimator: Estimator
    strategy: Strategy
    contrast: tuple[Any, Any]
    overlap: Overlap | None
    before: Overlap | None
    trim: tuple[float, float] | None
    left_out: int
    first_stage: float | None
    table: Table

    @property
    def whom(self) -> str:
        """Whom the effect is averaged over."""
        whom = WHOM[self.estimator.units]
        if self.strategy.kind == "instrument":
            whom = "those whom the instrument moves"
        if self.trim is None:
            return whom
        return f"{whom} with a propensity in [{self.trim[0]:g}, {self.trim[1]:g}]"

    def __str__(self) -> str:
        do, versus = (f"do({self.strategy.treatment}={v})" for v in self.contrast)
        n, ends = len(self.table.frame), f"[{self.lower:.4g}, {self.upper:.4g}]"
        lines = [str(self.overlap)] if self.overlap is not None else []
        if self.trim is not None:
            lines.append(
                f"Trimmed: {self.left_out} of {n + self.left_out} rows left out, so that the "
                f"effect is that of {self.whom}, and not of {WHOM[self.estimator.units]}"
            )
        if self.trim is not None and self.before is not None:
            lines.append(f"  before that, {self.before.outside:.1%} were outside [.05, .95]")
        if self.first_stage is not None:
            lines.append(f"Instrument: F = {self.first_stage:.1f} of the first stage")
            if self.first_stage < 10:
                lines.append("  ! weak (F < 10, Staiger & Stock 1997): biased, interval too narrow")
        return "\n".join(
            [
                *lines,
                f"Effect of {do} versus {versus} on {self.strategy.outcome}, over {self.whom}",
                f"  {self.value:.4g}  {self.confidence:.0%} interval {ends}",
                f"  by {self.estimator.method}, {n} rows",
                f"  {self.strategy}",
                f"  interval: {self.source}",
            ]
        )


def adjust(
    frame: "pandas.DataFrame",
    graph: GraphLike,
    *,
    treatment: str,
    outcome: str,
    do: Any = 1,
    versus: Any = 0,
    method: str | None = None,
    units: str = "ate",
    given: Iterable[str] | None = None,
    trim: tuple[float, float] | None = None,
    propensity_model: Any = None,
    strata: int = 5,
    confidence: float = 0.95,
    refits: int = 200,
    seed: int | None = None,
) -> Adjusted:
    """The average effect of a treatment, estimated from a table by what the graph allows.

    Nodes of the graph without a column count as unseen, like those marked `latent=True`.

    Args:
        frame: the data, complete in the columns that are read; it is not changed.
        graph: a DiGraph, or text for `causal.parse`.
        treatment: the cause, a column of numbers, truth values or two labels.
        outcome: a column of numbers.
        do: the value of the treatment whose effect is asked for.
        versus: the value that it is compared with.
        method: "regression", "weighting", "matching", "stratification" or "doubly robust" by
            adjustment; "front door"; "instrument". None takes the first that the graph allows, of
            adjustment "doubly robust" for a treatment of two values, else "regression".
        units: whom it is averaged over: "ate" all rows, "att" the treated, "atc" the untreated.
        given: an adjustment set of your own; it is checked.
        trim: keeps the rows whose propensity lies in this interval, such as (.1, .9). It changes
            whose effect is estimated, and the answer says so. None keeps all.
        propensity_model: a scikit-learn classifier, copied and fitted to the covariates, numbers
            standardised and levels as 0/1 columns; None for a logistic regression.
        strata: of stratification.
        confidence: of the interval.
        refits: draws of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The effect with its interval; printed, the overlap comes first.

    Raises:
        ValueError: no way to identify it, missing cells, arms that do not overlap at all, rows
            that do not determine the effect, or a method that does not fit.

    Example:
        >>> import pandas as pd
        >>> rows = [(0, 0, 81, 87), (1, 0, 192, 263), (0, 1, 234, 270), (1, 1, 55, 80)]
        >>> stones = pd.DataFrame(
        ...     [(s, t, float(i < good)) for s, t, good, n in rows for i in range(n)],
        ...     columns=["large", "treatment", "success"],
        ... )
        >>> graph = "large -> treatment -> success; large -> success"
        >>> found = adjust(stones, graph, treatment="treatment", outcome="success", do=0, versus=1,
        ...     refits=40, seed=0)
        >>> found.value
        0.0537
    """
    _check_options(method, units, trim, confidence, refits)
    wanted, whom = cast("Method | None", method), cast("Units", units)
    kind = None if wanted is None else kind_of(wanted)
    if given is not None and kind is None:
        kind = "adjustment"
    strategy = plan(graph, treatment, outcome, seen=map(str, frame), kind=kind, given=given)
    table = tabulate(frame, strategy, do, versus)
    how = Estimator(checked(wanted, strategy, table, whom), whom, propensity_model, strata)
    compared = strategy.kind == "adjustment" and table.binary
    if trim is not None and not compared:
        raise ValueError("trim= keeps rows by their propensity, which this effect does not use.")
    before = _compare(table, how) if compared else None
    kept = table if trim is None else _trimmed(table, how, trim)
    after = _compare(kept, how) if compared else None
    value = how(kept)
    low, high, source = interval(
        how,
        kept,
        value,
        confidence=confidence,
        refits=refits,
        seed=fresh_seed() if seed is None else seed,
    )
    return Adjusted(
        value=value,
        lower=low,
        upper=high,
        confidence=confidence,
        source=source + ("" if trim is None else "; which rows were kept is taken as given"),
        estimator=how,
        strategy=strategy,
        contrast=(do, versus),
        overlap=after,
        before=before,
        trim=trim,
        left_out=len(table.frame) - len(kept.frame),
        first_stage=first_stage(kept) if strategy.kind == "instrument" else None,
        table=kept,
    )


def _compare(table: Table, how: Estimator) -> Overlap:
    """The overlap of the arms; refuses arms that do not overlap at all."""
    treated = table.treated
    if min(treated.sum(), (~treated).sum()) < 2:
        raise ValueError(
            f"Of {len(treated)} rows {int(treated.sum())} are treated: one arm is empty, and "
            "nothing tells what would have been there."
        )
    found = overlap(table, propensity(table, how.model), how.units)
    low, high = found.support
    if low > high or (low == high and table.covariates):
        raise ValueError(
            "The arms do not overlap: every treated row has a higher propensity "
            f"(from {float(found.treated.min()):.3g}) than every untreated one (up to "
            f"{float(found.untreated.max()):.3g}). No row shows what would have been in the other "
            "arm, whatever the method. Adjust for fewer columns if the graph allows it, or find "
            "rows that were treated otherwise."
        )
    return found


def _trimmed(table: Table, how: Estimator, trim: tuple[float, float]) -> Table:
    e = propensity(table, how.model)
    kept = (e >= trim[0]) & (e <= trim[1])
    arms = [int((kept & arm).sum()) for arm in (table.treated, ~table.treated)]
    if min(arms) < 2:
        raise ValueError(
            f"trim={trim} keeps {arms[0]} treated and {arms[1]} untreated rows: too few to "
            "compare. Widen it; if that does not help, the arms do not overlap."
        )
    return table.rows(np.flatnonzero(kept))


def _check_options(
    method: str | None,
    units: str,
    trim: tuple[float, float] | None,
    confidence: float,
    refits: int,
) -> None:
    if method not in (None, *METHODS):
        raise ValueError(f"method={method!r}: there are {', '.join(map(repr, METHODS))}.")
    if units not in WHOM:
        raise ValueError(f"units={units!r}: there are {', '.join(map(repr, WHOM))}.")
    if trim is not None and not 0 <= trim[0] < trim[1] <= 1:
        raise ValueError(f"trim={trim}: two propensities, such as (.1, .9), the lower one first.")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it lies between 0 and 1, such as 0.95.")
    if refits * (1 - confidence) < 2 - 1e-9:
        raise ValueError(
            f"refits is {refits}: the ends of a {confidence:.0%} interval are quantiles of at "
            f"least {int(np.ceil(2 / (1 - confidence) - 1e-9))} of them."
        )
