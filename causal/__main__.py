"""`python -m causal draw | identify | effect | discover`: graphs, and what they say of a table.

GRAPH is text such as "U -> {X Y}; X -> Y; X <-> Z", or a file of DOT, GML, dagitty or such text.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from causal.discovery import discover
from causal.effects import effect
from causal.fitting.estimation import estimate
from causal.graph import as_graph, latents, observed
from causal.identification import NotIdentifiable, identify
from causal.scm import SCM
from pgm import Categorical, Schema
from pgm.schema.checks import refuse_free_text
from pgm.schema.columns import listing

if TYPE_CHECKING:
    import pandas


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of the commands; returns the exit status, 1 where an effect is not identified.

    Example:
        >>> main(["identify", "X -> Z -> Y; X <-> Y", "--outcome", "Y", "--do", "X"])
        P(Y | do(X)) = Σ_Z P(Z | X) Σ_X' P(Y | X', Z) P(X')
          strategy: front door through Z
        0
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    commands = {"draw": _draw, "identify": _identify, "effect": _effect}
    try:
        if options.command == "discover":
            print(_discover(options))
        else:
            print(commands[options.command](options, as_graph(_source(options.graph))))
    except NotIdentifiable as error:
        print(error)
        return 1
    except FileNotFoundError as error:
        parser.error(
            f"there is no file or folder {str(error.filename)!r}. A table is a file; a graph is a "
            "file, or text with an arrow, such as 'X -> Y'."
        )
    except (MemoryError, OSError, TypeError, ValueError) as error:
        parser.error(str(error))
    return 0


def _source(text: str) -> str | Path:
    """A file where there is one of that name, else the text of a graph."""
    path = Path(text)
    looks_like_text = any(mark in text for mark in ("->", "{", "<-", ";", "\n"))
    return text if looks_like_text and not path.is_file() else path


def _draw(options: argparse.Namespace, graph: nx.DiGraph) -> str:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from causal.plots import draw_graph

    figure, ax = plt.subplots(layout="constrained")
    draw_graph(graph, do=options.do, ax=ax)
    figure.savefig(options.out)
    plt.close(figure)
    return f"{len(graph)} nodes, {len(graph.edges)} arrows: {options.out}"


def _identify(options: argparse.Namespace, graph: nx.DiGraph) -> str:
    found = identify(graph, options.outcome, do=options.do, given=options.given)
    return str(found)


def _effect(options: argparse.Namespace, graph: nx.DiGraph) -> str:
    import pandas as pd

    if latents(graph):
        raise ValueError(
            f"The graph has nodes that no table holds ({listing(latents(graph))}): the effect is "
            "read off fitted mechanisms of observed ones. See what `identify` says of it, and use "
            "causal.identify(...).evaluate(frame), or an SCM with latent nodes, from Python."
        )
    frame = pd.read_csv(options.table)
    absent = [node for node in observed(graph) if node not in frame]
    if absent:
        raise ValueError(
            f"{options.table} has no column for the nodes {listing(absent)}. Its columns are "
            f"{listing(list(frame.columns))}."
        )
    frame = frame[observed(graph)]
    schema = _schema(frame, options.levels)
    do, versus = _values(options.do, schema), _values(options.versus, schema)
    estimand = identify(graph, options.outcome, do=list(do))
    scm = SCM(graph, schema=schema)
    estimate(scm, frame)
    found = effect(
        scm, options.outcome, do=do, versus=versus or None, data=frame, seed=options.seed
    )
    if options.out is not None:
        _picture(found, options.out)
    return f"{estimand}\n{found}"


def _discover(options: argparse.Namespace) -> str:
    import pandas as pd

    frame = pd.read_csv(options.table)
    if options.levels:
        frame = frame.astype(dict.fromkeys(options.levels, "category"))
    found = discover(
        frame,
        clamped=options.clamped,
        prior=options.prior,
        max_parents=options.parents,
        seed=options.seed,
    )
    if options.out is not None:
        _picture(found, options.out)
    return str(found)


def _picture(found: Any, out: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    figure = found.plot().figure
    figure.savefig(out, bbox_inches="tight")


def _schema(frame: "pandas.DataFrame", levels: Sequence[str]) -> Schema:
    """The kinds of the columns, those of `levels` being names though they are numbers."""
    unknown = [name for name in levels if name not in frame]
    if unknown:
        raise ValueError(f"--levels names {listing(unknown)}, which are no nodes with a column.")
    refuse_free_text(frame)
    columns = dict(Schema.infer(frame, site=None).columns)
    for name in levels:
        columns[name] = Categorical(tuple(sorted(frame[name].dropna().unique().tolist())))
    return Schema(columns)


def _values(pairs: Sequence[str], schema: Schema) -> Mapping[str, Any]:
    """Interventions of the form NODE=VALUE; a value is read as its column's labels are."""
    done = {}
    for pair in pairs:
        name, sign, text = pair.partition("=")
        if not sign:
            raise ValueError(f"{pair!r} sets nothing; write NODE=VALUE, such as dose=2.")
        column = schema.columns.get(name)
        labels = {str(k): k for k in column.levels} if isinstance(column, Categorical) else {}
        done[name] = labels.get(text, text if labels else _number(name, text))
    return done


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(f"{name}={text!r} is no number, and {name!r} holds numbers.") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m causal", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    draw = commands.add_parser("draw", help="a picture of the graph")
    draw.add_argument("graph", metavar="GRAPH")
    draw.add_argument("--do", nargs="*", default=[], metavar="NODE", help="nodes that are set")
    draw.add_argument("--out", type=Path, default=Path("graph.png"))
    said = commands.add_parser("identify", help="the effect in terms of what is observed")
    said.add_argument("graph", metavar="GRAPH")
    said.add_argument("--outcome", required=True, nargs="+", metavar="NODE")
    said.add_argument("--do", required=True, nargs="+", metavar="NODE")
    said.add_argument("--given", nargs="*", default=[], metavar="NODE")
    found = commands.add_parser("effect", help="an average effect, estimated from a table")
    found.add_argument("table", metavar="CSV")
    found.add_argument("graph", metavar="GRAPH")
    found.add_argument("--outcome", required=True, metavar="NODE")
    found.add_argument("--do", required=True, nargs="+", metavar="NODE=VALUE")
    found.add_argument("--versus", nargs="*", default=[], metavar="NODE=VALUE")
    found.add_argument("--levels", nargs="*", default=[], metavar="NODE", help="numbers as names")
    found.add_argument("--seed", type=int, default=0)
    found.add_argument("--out", type=Path, help="a picture of the effect")
    search = commands.add_parser("discover", help="the posterior of graphs, from a table")
    search.add_argument("table", metavar="CSV")
    search.add_argument("--clamped", metavar="COLUMN", help="which node was set in each row")
    search.add_argument("--levels", nargs="*", default=[], metavar="NODE", help="numbers as names")
    search.add_argument("--parents", type=int, default=3, help="at most so many of a node")
    search.add_argument("--prior", choices=("uniform", "order"), default="uniform")
    search.add_argument("--seed", type=int, default=0)
    search.add_argument("--out", type=Path, help="a picture of the probabilities")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
