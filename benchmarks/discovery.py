"""Posteriors of graphs against causal-learn's exact search, on one thread.

Sachs' 5400 cells, known interventions, BDeu, at most four parents: the whole posterior, scores and
sums, under both priors; beside it causal-learn's exact search for one best graph (dynamic
programming and A*, Gaussian BIC: it has no discrete score there, and no interventions), where it is
installed. The contenders take turns; figures are medians. Then CHILD: twenty nodes, 2000 rows drawn
from the published network in $HOTPLATE_DATA, four parents, with the largest memory of the process.

    python benchmarks/discovery.py [rounds]
"""

import importlib.util
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import networkx as nx
import torch
from torch import Tensor

import causal
import pgm.data

Table = tuple[list[str], Tensor]


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    data = pgm.data.load("sachs")
    frame, clamped = data.frame, data.clamped
    contenders: dict[str, Callable[[], Any]] = {
        f"posterior, {prior} prior": lambda prior=prior: causal.discover(
            frame, clamped=clamped, max_parents=4, prior=prior
        )
        for prior in ("uniform", "order")
    }
    contenders |= peers(data.x.double().numpy())
    for name, seconds in timed(contenders, rounds).items():
        print(f"Sachs  {name:<32} {seconds:8.3f} s")
    if "HOTPLATE_DATA" in os.environ:
        child(Path(os.environ["HOTPLATE_DATA"], "networks", "child.bif"))


def peers(x: Any) -> dict[str, Callable[[], Any]]:
    """causal-learn's exact search, if it is installed."""
    if importlib.util.find_spec("causallearn") is None:
        return {}
    from causallearn.search.ScoreBased.ExactSearch import bic_exact_search

    return {
        f"causal-learn, best graph, {method}": lambda method=method: bic_exact_search(
            x, search_method=method, max_parents=4
        )
        for method in ("dp", "astar")
    }


def timed(contenders: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of processor time; contenders take turns."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return {name: median(each) for name, each in times.items()}


def child(path: Path) -> None:
    """CHILD: the posterior under the order-modular prior."""
    tables = read(path.read_text())
    rows = drawn(tables, 2000)
    start = time.process_time()
    found = causal.discover(rows, max_parents=4, prior="order")
    seconds = time.process_time() - start
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"CHILD  posterior, order prior {seconds:.1f} s, process at most {gigabytes:.2f} GiB")
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(rows)
    graph.add_edges_from((p, name) for name, (nodes, _) in tables.items() for p in nodes[:-1])
    print(found.compare(graph))


def read(text: str) -> dict[str, Table]:
    """The tables of a network in BIF: parents and node, and probabilities."""
    levels = {
        m[1]: [level.strip() for level in m[2].split(",")]
        for m in re.finditer(r"variable (\S+) \{\s*type discrete \[ \d+ \] \{ ([^}]*) \};", text)
    }
    found = {}
    head = r"probability \( ([^)|]*?)(?: \| ([^)]*))? \) \{(.*?)\n\}"
    for m in re.finditer(head, text, re.DOTALL):
        parents = [p.strip() for p in m[2].split(",")] if m[2] else []
        table = torch.zeros(*(len(levels[v]) for v in (*parents, m[1])), dtype=torch.float64)
        for row in re.finditer(r"(?:\(([^)]*)\)|table)\s*([\d.,e \-]+);", m[3]):
            at = zip(parents, row[1].split(",") if row[1] else (), strict=True)
            place = tuple(levels[p].index(level.strip()) for p, level in at)
            table[place] = torch.tensor([float(v) for v in row[2].split(",")], dtype=torch.float64)
        found[m[1]] = [*parents, m[1]], table
    return {name: found[name] for name in levels}


def drawn(tables: dict[str, Table], rows: int) -> dict[str, Tensor]:
    """Rows of the network, causes first."""
    generator = torch.Generator().manual_seed(0)
    graph = nx.DiGraph([(p, n) for n, (nodes, _) in tables.items() for p in nodes[:-1]])
    x: dict[str, Tensor] = {}
    for name in nx.lexicographical_topological_sort(graph):
        nodes, table = tables[name]
        probs = table[tuple(x[p] for p in nodes[:-1])] if len(nodes) > 1 else table.expand(rows, -1)
        x[name] = torch.multinomial(probs, 1, generator=generator)[:, 0]
    return {name: x[name] for name in tables}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
