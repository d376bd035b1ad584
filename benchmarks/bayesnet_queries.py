"""All marginals of a Bayesian network under 1000 rows of evidence, against pgmpy and pyAgrum.

ASIA with both of its findings seen, ALARM with all of its 11 leaves seen; and both with 70 % of the
cells of every row missing at random, where each row sees other variables. Contenders take turns on
one thread; pgmpy and pyAgrum answer a part of the rows, and the time a row is compared. Answers are
held against each other first. Peers are timed where they are installed, ALARM where $HOTPLATE_DATA
holds `networks/alarm.bif`. Run it with `python benchmarks/bayesnet_queries.py`.
"""

import importlib.util
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from pgm.families.bayesnet import DiscreteBayesNet, asia
from pgm.inference.exact import draw

ROWS, ROUNDS = 1000, 5
Rows = list[dict[str, str]]
Answer = Callable[[int], dict[str, Any]]
"""The marginals, by variable, of a row by its number."""


def findings(net: DiscreteBayesNet, kind: str) -> dict[str, Tensor]:
    """1000 rows drawn from the network: its leaves, or 30 % of all cells."""
    many = draw(net.factors(), ROWS, seed=0)
    rows = {name: x[:, 0] for name, x in many.items()}
    if kind == "leaves":
        return {name: x for name, x in rows.items() if net.graph.out_degree(name) == 0}
    g = torch.Generator().manual_seed(0)
    hidden = {name: torch.rand(ROWS, generator=g) < 0.7 for name in rows}
    return {name: x.double().masked_fill(hidden[name], torch.nan) for name, x in rows.items()}


def in_words(net: DiscreteBayesNet, given: dict[str, Tensor]) -> Rows:
    """The evidence as the peers take it, a dict a row."""
    return [
        {
            name: str(net.states[name][int(x[i])])
            for name, x in given.items()
            if not bool(x[i].isnan())
        }
        for i in range(ROWS)
    ]


def pgmpy(path: Path, rows: Rows) -> dict[str, Answer]:
    """Variable elimination, a variable at a time: all at once it would build the joint table."""
    if importlib.util.find_spec("pgmpy") is None:
        return {}
    from pgmpy.inference import VariableElimination
    from pgmpy.readwrite import BIFReader

    model = BIFReader(str(path)).get_model()
    engine = VariableElimination(model)

    def answer(i: int) -> dict[str, Any]:
        asked = [v for v in model.nodes() if v not in rows[i]]
        found = {v: engine.query([v], rows[i], show_progress=False) for v in asked}
        return {v: (f.state_names[v], f.values) for v, f in found.items()}

    return {"pgmpy": answer}


def pyagrum(path: Path, rows: Rows) -> dict[str, Answer]:
    """Lazy propagation, its default."""
    if importlib.util.find_spec("pyagrum") is None:
        return {}
    import pyagrum

    net = pyagrum.loadBN(str(path))
    engine = pyagrum.LazyPropagation(net)
    engine.setNumberOfThreads(1)

    def answer(i: int) -> dict[str, Any]:
        engine.setEvidence(rows[i])
        engine.makeInference()
        asked = [v for v in net.names() if v not in rows[i]]
        return {v: (net.variable(v).labels(), engine.posterior(v).toarray()) for v in asked}

    return {"pyAgrum": answer}


def agree(net: DiscreteBayesNet, found: Any, answer: dict[str, Any], i: int) -> float:
    """The largest difference of any probability of a row."""
    worst = 0.0
    for name, (states, p) in answer.items():
        for state, value in zip(states, p, strict=True):
            ours = float(found[name][i, list(map(str, net.states[name])).index(state)])
            worst = max(worst, abs(ours - float(value)))
    return worst


def compare(title: str, net: DiscreteBayesNet, kind: str) -> None:
    """One line: milliseconds for all rows, and how many times as long the others take."""
    given = findings(net, kind)
    rows = in_words(net, given)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.bif"
        net.to_bif(path)
        others = pgmpy(path, rows) | pyagrum(path, rows)
    found = net.marginals(given)
    worst = {k: max(agree(net, found, f(i), i) for i in range(2)) for k, f in others.items()}
    own, theirs = [], {name: list[float]() for name in others}
    for turn in range(ROUNDS):
        start = time.perf_counter()
        net.marginals(given)
        own.append((time.perf_counter() - start) / ROWS)
        for name, answer in others.items():
            some = range(100 * turn, 100 * turn + (1 if name == "pgmpy" else 50))
            start = time.perf_counter()
            for i in some:
                answer(i)
            theirs[name].append((time.perf_counter() - start) / len(some))
    print(f"{title:<26} {median(own) * ROWS * 1e3:6.1f} ms for {ROWS} rows", flush=True)
    for name, times in theirs.items():
        ratio = median(b / a for a, b in zip(own, times, strict=True))
        print(
            f"    {name:<8} {ratio:7,.0f}x as long; answers differ by {worst[name]:.0e}", flush=True
        )


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    nets = {"ASIA": asia()}
    alarm = Path(os.environ.get("HOTPLATE_DATA", ""), "networks", "alarm.bif")
    if alarm.is_file():
        nets["ALARM"] = DiscreteBayesNet.from_bif(alarm)
    for name, net in nets.items():
        compare(f"{name}, its leaves seen", net, "leaves")
        compare(f"{name}, 30 % of cells seen", net, "cells")


if __name__ == "__main__":
    main()
