"""Counterfactual and interventional queries against bare torch, dowhy.gcm and ChiRho.

One five-node linear SCM (issue 3's), through mechanisms and as a plain Pyro program. Every round
times all contenders in turn on one thread; the figures are medians of the ratios by round. Run it
with `python benchmarks/counterfactuals.py`; ChiRho is timed where it is installed.
"""

import importlib.util
import time
import warnings
from collections.abc import Callable
from statistics import median
from typing import Any

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor

import causal
import pgm
from causal import SCM, LinearGaussian

GRAPH = "A -> {B C}; B -> {C D}; C -> {D E}; D -> E"
WEIGHTS = {"B": {"A": 0.5}, "C": {"A": 1.0, "B": -0.8}, "D": {"B": 0.7, "C": 0.5}}
WEIGHTS |= {"E": {"C": 1.0, "D": 1.0}}
Query = Callable[[], Any]


class Program(pgm.Model):
    """The SCM as a program."""

    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor([0.5, 1.0, -0.8, 0.7, 0.5, 1.0, 1.0]))
        self.log_s = torch.nn.Parameter(torch.zeros(5))

    def model(self, n: int) -> None:
        """The joint program."""
        w, s = self.w, self.log_s.exp()
        with pgm.rows(n):
            A = pyro.sample("A", dist.Normal(0.0, s[0]))
            B = pyro.sample("B", dist.Normal(w[0] * A, s[1]))
            C = pyro.sample("C", dist.Normal(w[1] * A + w[2] * B, s[2]))
            D = pyro.sample("D", dist.Normal(w[3] * B + w[4] * C, s[3]))
            pyro.sample("E", dist.Normal(w[5] * C + w[6] * D, s[4]))


def bare_counterfactual(p: Program, x: dict[str, Tensor]) -> Query:
    """B is set to zero on the noise of every row, by hand."""

    def query() -> tuple[Tensor, ...]:
        with torch.no_grad():
            w, s = p.w, p.log_s.exp()
            A = x["A"]
            u_C = (x["C"] - (w[1] * A + w[2] * x["B"])) / s[2]
            u_D = (x["D"] - (w[3] * x["B"] + w[4] * x["C"])) / s[3]
            u_E = (x["E"] - (w[5] * x["C"] + w[6] * x["D"])) / s[4]
            B = torch.zeros_like(A)
            C = w[1] * A + w[2] * B + s[2] * u_C
            D = w[3] * B + w[4] * C + s[3] * u_D
            return A, B, C, D, w[5] * C + w[6] * D + s[4] * u_E

    return query


def bare_intervention(p: Program, n: int) -> Query:
    """Draws under do(B = 0), by hand."""

    def query() -> tuple[Tensor, ...]:
        with torch.no_grad():
            w, s = p.w, p.log_s.exp()
            A, B = s[0] * torch.randn(n), torch.zeros(n)
            C = w[1] * A + w[2] * B + s[2] * torch.randn(n)
            D = w[3] * B + w[4] * C + s[3] * torch.randn(n)
            return A, B, C, D, w[5] * C + w[6] * D + s[4] * torch.randn(n)

    return query


def gcm(x: dict[str, Tensor], n: int) -> tuple[Query, Query]:
    """dowhy.gcm on the same data: invertible additive noise models with linear regressions."""
    import networkx as nx
    import pandas as pd
    from dowhy import gcm

    gcm.config.disable_progress_bars()
    frame = pd.DataFrame({name: v.numpy() for name, v in x.items()})
    model = gcm.InvertibleStructuralCausalModel(nx.DiGraph(causal.as_graph(GRAPH)))
    model.set_causal_mechanism("A", gcm.EmpiricalDistribution())
    for node in WEIGHTS:
        linear = gcm.ml.create_linear_regressor()
        model.set_causal_mechanism(node, gcm.AdditiveNoiseModel(linear))
    gcm.fit(model, frame)
    done = {"B": lambda b: 0.0}
    return (
        lambda: gcm.counterfactual_samples(model, done, observed_data=frame),
        lambda: gcm.interventional_samples(model, done, num_samples_to_draw=n),
    )


def chirho(p: Program, x: dict[str, Tensor], n: int) -> tuple[Query, Query] | None:
    """ChiRho's counterfactual handler over the same program in its noise form; None if absent.

    Ordinary sites are drawn afresh in its other world, so that the noise is made explicit here, and
    given: what is timed is prediction alone.
    """
    if importlib.util.find_spec("chirho") is None:
        return None
    from chirho.counterfactual.handlers import MultiWorldCounterfactual
    from chirho.indexed.ops import IndexSet, gather
    from chirho.interventional.handlers import do

    def explicit() -> Tensor:
        w, s = p.w, p.log_s.exp()
        with pyro.plate("rows", n, dim=-1):
            u = [pyro.sample(f"u{i}", dist.Normal(0.0, 1.0)) for i in range(5)]
            A = pyro.deterministic("A", s[0] * u[0], event_dim=0)
            B = pyro.deterministic("B", w[0] * A + s[1] * u[1], event_dim=0)
            C = pyro.deterministic("C", w[1] * A + w[2] * B + s[2] * u[2], event_dim=0)
            D = pyro.deterministic("D", w[3] * B + w[4] * C + s[3] * u[3], event_dim=0)
            return pyro.deterministic("E", w[5] * C + w[6] * D + s[4] * u[4], event_dim=0)

    def query() -> Any:
        with torch.no_grad(), MultiWorldCounterfactual(), do(actions={"B": torch.tensor(0.0)}):
            return gather(explicit(), IndexSet(B={1}))

    return query, query


def rounds(contenders: dict[str, Query], seconds: float = 4.0) -> dict[str, float]:
    """Median seconds of every contender, which take turns."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for query in contenders.values():
        query()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times["bare torch"]) < 5:
        for name, query in contenders.items():
            start = time.perf_counter()
            query()
            times[name].append(time.perf_counter() - start)
    bare = times.pop("bare torch")
    ratios = {k: median(a / b for a, b in zip(v, bare, strict=True)) for k, v in times.items()}
    return {"bare torch": median(bare), **ratios}


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    scm = SCM(GRAPH, **{node: LinearGaussian(w) for node, w in WEIGHTS.items()}, A=LinearGaussian())
    program = Program().eval()
    scm.eval()  # as a fit leaves it
    for n in (1_000, 10_000, 100_000):
        x = pgm.sample(scm, n, seed=0)
        other, worlds = gcm(x, n), chirho(program, x, n)
        counter: dict[str, Query] = {
            "bare torch": bare_counterfactual(program, x),
            "mechanisms": lambda x=x: causal.counterfactual(scm, x, do={"B": 0.0}),
            "program": lambda x=x: causal.counterfactual(program, x, do={"B": 0.0}),
            "8 scenarios / 9": lambda x=x: causal.compare(
                scm, x, do=[{"B": float(i)} for i in range(8)]
            ),
            "dowhy.gcm": other[0],
        }
        draws: dict[str, Query] = {
            "bare torch": bare_intervention(program, n),
            "mechanisms": lambda n=n: pgm.sample(causal.do(scm, B=0.0), n),
            "program": lambda n=n: pgm.sample(causal.do(program, B=0.0), n),
            "dowhy.gcm": other[1],
        }
        if worlds is not None:
            counter["ChiRho"], draws["ChiRho"] = worlds
        for kind, contenders in (("counterfactual", counter), ("do", draws)):
            found = rounds(contenders)
            if "8 scenarios / 9" in found:
                found["8 scenarios / 9"] /= 9
            bare = found.pop("bare torch")
            shown = ", ".join(f"{name} {ratio:.1f}x" for name, ratio in found.items())
            print(f"{n:>7} rows, {kind:<14} bare torch {bare * 1e6:7.0f} us; {shown}")


if __name__ == "__main__":
    main()
