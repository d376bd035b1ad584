"""Synthetic tables under differential privacy, from a frame or from a privately trained model.

Of a frame, noisy marginals of one and two columns are measured, the distribution of largest entropy
that explains them is found, and a table is drawn from it ("select, measure, generate": McKenna,
Miklau & Sheldon 2021; rounds as in AIM, McKenna et al. 2022; estimation by Private-PGM, McKenna,
Sheldon & Miklau 2019). Of a model that `privacy.fit` trained, rows are drawn: post-processing.
"""

import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

import pgm
from pgm.families.bayesnet import DiscreteBayesNet
from pgm.model import Model
from pgm.schema import Continuous, Schema
from pgm.schema.checks import check_frame, check_names
from privacy.accounting import Accountant, check_accountant, check_delta
from privacy.batches import derive
from privacy.budget import Budget
from privacy.ledger import Ledger, Release
from privacy.options import goal, refuse_old_noise, refuse_text
from privacy.report import statement
from privacy.synthesis.cells import Cells, Edges, domain
from privacy.synthesis.curator import Curator
from privacy.synthesis.generation import Tables, conditionals, spread
from privacy.synthesis.plan import Plan
from privacy.synthesis.result import SynthesisReport, Synthetic, table
from privacy.synthesis.rounds import learn

if TYPE_CHECKING:
    import pandas


def synthesize(
    source: "pandas.DataFrame | Model",
    *,
    schema: Schema | None = None,
    epsilon: float | None = None,
    delta: float | None = None,
    n: int | None = None,
    missing: Sequence[str] = (),
    edges: Edges | None = None,
    bins: int = 16,
    pairs: int | None = None,
    largest: int = 50_000,
    ledger: Ledger | None = None,
    budget: Budget | None = None,
    accountant: Accountant = "prv",
    seed: int | None = None,
) -> Synthetic:
    """Makes a synthetic table with differential privacy for each row.

    Args:
        source: a table, or a model trained by `privacy.fit`, of which rows are drawn.
        schema: of the table, with levels and bounds from what is known beforehand, never from the
            rows; of a model, instead of its own.
        epsilon: of this table; with a `budget`, what is left of it unless given.
        delta: the probability outside the guarantee; below 1 / rows; by default the budget's.
        n: rows to draw; by default as many as the table has, as far as the noisy counts tell.
        missing: the columns that may have missing cells, from what is known beforehand.
        edges: by column of numbers the inner edges of its cells, or a number of equal cells between
            its bounds; other columns are cut privately into cells with about as many rows in each.
            Inside a cell, numbers are drawn uniformly.
        bins: how many cells a column that is cut privately gets, a power of two.
        pairs: marginals of two columns that are measured; by default 3 for every 2 columns.
        largest: cells of all cliques of exact inference together: what time and memory go with.
        ledger: of these rows; by default a new one, which knows nothing of earlier releases.
        budget: of these rows, instead of their ledger: a table that would exceed it is refused.
        accountant: "prv" (tight), "pld" or "rdp", by which epsilon is kept.
        seed: of noise and draws. It undoes the privacy for whoever knows it: by default it comes
            from the system's entropy and is forgotten.

    Returns:
        The table, the distribution behind it, and the report.

    Raises:
        BudgetExceeded: the budget does not allow it; nothing was computed and nothing spent.
        ValueError: a column without levels or bounds, values that the schema does not know, an
            option outside its range; a model that was not trained privately.
        TypeError: neither a frame nor a model.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"dose": ["low", "high"] * 2000, "better": [False, True] * 2000})
        >>> schema = Schema({
        ...     "dose": pgm.Categorical(("low", "high")), "better": pgm.Categorical((False, True))
        ... })
        >>> made = synthesize(frame, schema=schema, epsilon=1.0, delta=1e-6, n=4000, seed=0)
        >>> made.frame.value_counts(sort=False).round(-3).to_dict()
        {('high', True): 2000, ('low', False): 2000}
        >>> made.report.epsilon <= 1.0
        True
    """
    if isinstance(source, Model):
        given = {"epsilon": epsilon, "delta": delta, "ledger": ledger, "budget": budget}
        return _from_model(source, schema, n, seed, [k for k, v in given.items() if v is not None])
    check_frame(source)
    delta, kept = _terms(epsilon, delta, ledger, budget, accountant, n, rows=len(source))
    cells = _domain(source, schema, bins, edges, missing)
    secret = secrets.randbits(63) if seed is None else seed
    plan = _plan(cells, bins, pairs)
    curator = Curator(
        source,
        cells,
        generator=np.random.default_rng(derive(secret, "noise of a synthetic table")),
        uses={"cut": plan.cuts, "measure": plan.columns + plan.pairs, "choose": plan.pairs},
    )
    plan = plan.calibrated(epsilon, delta, accountant, budget)
    planned = plan.releases(f"{derive(secret, 'synthesis'):016x}", delta)
    kept = Ledger() if kept is None else kept
    _enter(planned, kept, budget)
    learned = learn(curator, cells, plan, largest=largest)
    tables = spread(conditionals(learned.estimate.factors), learned.mergings)
    report = SynthesisReport(
        tuple(planned),
        asked=epsilon,
        delta=delta,
        accountant=accountant,
        pairs=learned.pairs,
        rows=learned.estimate.rows,
        domain={name: column.size for name, column in learned.cells.items()},
        cut=tuple(name for name, column in cells.items() if column.cuts is None),
        seeded=seed is not None,
        together=kept.releases,
        seal=kept.head,
    )
    rows = round(learned.estimate.rows) if n is None else n
    model = _network(tables, learned.cells)
    spent = kept.epsilon(delta, accountant=accountant)
    model.note = statement(spent, delta, accountant, len(kept.releases))
    frame = table(tables, learned.cells, rows, seed=derive(secret, "draws of a synthetic table"))
    return Synthetic(frame, model, report, learned.cells)


def _terms(
    epsilon: float | None,
    delta: float | None,
    ledger: Ledger | None,
    budget: Budget | None,
    accountant: str,
    n: int | None,
    *,
    rows: int,
) -> tuple[float, Ledger | None]:
    """Delta, and the ledger that was passed, when all numbers are in their range."""
    refuse_text(epsilon=epsilon, delta=delta, n=n)
    delta, kept = goal(epsilon, delta, ledger, budget)
    check_accountant(accountant)
    check_delta(delta, rows=rows)
    if n is not None and n < 1:
        raise ValueError(f"n is {n}; a table has one row or more.")
    return delta, kept


def _domain(
    frame: "pandas.DataFrame",
    schema: Schema | None,
    bins: int,
    edges: Edges | None,
    missing: Sequence[str],
) -> dict[str, Cells]:
    """The cells of a table's columns."""
    if schema is None:
        raise ValueError(
            "schema= is missing: levels and bounds read off the rows would be released without "
            "noise. Declare them beforehand, from what is publicly known: "
            'schema=pgm.Schema({"age": pgm.Continuous(lower=0, upper=120), ...}).'
        )
    check_names(frame, schema.columns)
    if bins < 2 or bins & (bins - 1):
        raise ValueError(
            f"bins is {bins}; a column is halved, and its halves again, into 2, 4, 8, ... cells. "
            "For others declare the edges."
        )
    if isinstance(missing, str):
        raise TypeError(f"missing={missing!r} is one name; pass a list of them: [{missing!r}].")
    return domain(schema, bins=bins, edges=edges, missing=missing)


def _plan(cells: Mapping[str, Cells], bins: int, pairs: int | None) -> Plan:
    """The uses of every mechanism, from public numbers alone."""
    d = len(cells)
    most = d * (d - 1) // 2
    wanted = min(most, 3 * d // 2) if pairs is None else pairs
    if not 0 <= wanted <= most:
        raise ValueError(
            f"pairs is {pairs}; of {d} columns there are 0 to {most} pairs to measure."
        )
    depth = bins.bit_length() - 1
    return Plan(d, wanted, depth * sum(column.cuts is None for column in cells.values()))


def _enter(planned: list[Release], ledger: Ledger, budget: Budget | None) -> None:
    """Enters all mechanisms in the ledger, or refuses all of them."""
    refuse_old_noise(planned[0], ledger)
    if budget is not None:
        budget.check([*ledger.committed, *planned], planned=len(planned))
    for release in planned:
        ledger.begin(release)
        ledger.add(release)
    ledger.end(planned[0].run)


def _network(tables: Tables, cells: Mapping[str, Cells]) -> DiscreteBayesNet:
    """The distribution over the cells, each under its label."""
    return DiscreteBayesNet(
        {name: parents for name, (parents, _) in tables.items()},
        {name: column.labels for name, column in cells.items()},
        {name: p for name, (_, p) in tables.items()},
    )


def _from_model(
    model: Model, schema: Schema | None, n: int | None, seed: int | None, given: list[str]
) -> Synthetic:
    """Rows of a privately trained model, brought within the bounds of its schema."""
    if given:
        raise ValueError(
            f"A trained model and {', '.join(f'{name}=' for name in given)} came: its epsilon was "
            "spent when it was trained, and drawing from it spends nothing. Leave them out."
        )
    if model.note is None:
        raise ValueError(
            f"This {type(model).__name__} has no note of a private fit, so that a table drawn from "
            "it is not private. Train it by privacy.fit, or draw with pgm.sample if it needs no "
            "protection."
        )
    schema = model.schema if schema is None else schema
    if schema is None:
        raise ValueError(
            f"This {type(model).__name__} has no schema, which turns its draws into a table. Pass "
            "schema=."
        )
    if n is None:
        raise ValueError("n= is missing: how many rows to draw from the model.")
    frame = schema.decode(pgm.sample(model, n, seed=seed), counts="nearest")
    for name in frame:
        kind = schema.columns[str(name)]
        if isinstance(kind, Continuous):
            frame[name] = frame[name].clip(kind.lower, kind.upper)
    return Synthetic(frame, model, model.note)
