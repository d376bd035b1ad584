"""Causal flows on the published structural equations, against the truth.

For each of the models of Javaloy, Sanchez-Martin & Valera (2023), fitted to 20000 rows and asked
about 2500 others, prints

    seconds     processor time of the fit, one thread
    nats        mean held-out log density of a row
    gap         what the true density has above it: the Kullback-Leibler divergence
    MMD^2       of 1000 rows drawn from the flow and 1000 true ones, each column over its standard
                deviation, with the p-value of a permutation test
    ATE         root mean square error of E[x_j | do(b)] - E[x_j | do(a)], relative in brackets
    CF          root mean square error of counterfactuals, in the columns' own units

Interventions set, in turn, every node that has children to its quartiles; errors are over all
nodes that the set node causes. Names of models as arguments choose some of them.
"""

import itertools
import sys
import time

import torch
from torch import Tensor

import causal
import pgm
from causal import CausalFlow, Equations
from causal.flows.synthetic import NAMES, published
from causal.graph import descendants
from pgm.evaluation.samples import mmd

ROWS, HELD_OUT, DRAWS = 20_000, 2_500, 10_000
OPTIONS = {
    "steps": 5000,
    "batch_size": 512,
    "learning_rate": 0.005,
    "schedule": "cosine",
    "clip": 5.0,
}
HEADS = ("seconds", "nats", "gap", "MMD^2", "p", "ATE", "", "CF")

Rows = dict[str, Tensor]


def main(names: list[str]) -> None:
    """The table."""
    torch.set_num_threads(1)
    print(f"{'':20}" + "".join(f"{head:>10}" for head in HEADS))
    for name in names or NAMES:
        print(f"{name:20}" + "".join(f"{cell:>10}" for cell in line(published(name))), flush=True)


def line(known: Equations) -> list[str]:
    rows, held_out = known.sample(ROWS, seed=0), known.sample(HELD_OUT, seed=1)
    torch.manual_seed(0)
    flow = CausalFlow.from_data(known.graph, rows)
    start = time.process_time()
    pgm.fit(flow, rows, seed=0, progress=False, **OPTIONS)
    seconds = time.process_time() - start
    nats = float(pgm.log_prob(flow, held_out).value.mean())
    gap = float(known.log_prob(held_out).mean()) - nats
    match = mmd(*standardised(pgm.sample(flow, 1000, seed=2), known.sample(1000, seed=3)), seed=0)
    error, size = effects(known, flow, rows)
    return [
        f"{seconds:.1f}",
        f"{nats:.3f}",
        f"{gap:.4f}",
        f"{match.squared:.5f}",
        f"{match.p_value:.2f}",
        f"{error:.4f}",
        f"({error / size:.1%})",
        f"{counterfactuals(known, flow, rows, held_out):.4f}",
    ]


def settings(known: Equations, rows: Rows) -> dict[str, list[float]]:
    """The quartiles of every node with children."""
    quarters = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    causes = [node for node in known.graph if known.graph.out_degree(node)]
    return {node: torch.quantile(rows[node], quarters).tolist() for node in causes}


def effects(known: Equations, flow: CausalFlow, rows: Rows) -> tuple[float, float]:
    """The error of average effects, and their own size, both root mean squares."""
    errors, sizes = [], []
    for node, values in settings(known, rows).items():
        below = sorted(descendants(known.graph, node) - {node})
        ours, true = [], []
        for value in values:
            drawn = pgm.sample(causal.do(flow, {node: value}), DRAWS, seed=4)
            truth = known.sample(10 * DRAWS, do={node: value}, seed=5)
            ours.append(torch.stack([drawn[n].double().mean() for n in below]))
            true.append(torch.stack([truth[n].mean() for n in below]))
        for i, j in itertools.combinations(range(len(values)), 2):
            errors.append((ours[j] - ours[i]) - (true[j] - true[i]))
            sizes.append(true[j] - true[i])
    return root_mean_square(errors), root_mean_square(sizes)


def counterfactuals(known: Equations, flow: CausalFlow, rows: Rows, held_out: Rows) -> float:
    errors = []
    for node, values in settings(known, rows).items():
        below = sorted(descendants(known.graph, node) - {node})
        for value in values:
            truth = known.counterfactual(held_out, do={node: value})
            answer = causal.counterfactual(flow, held_out, do={node: value})
            errors += [answer.draws[n][0] - truth[n] for n in below]
    return root_mean_square(errors)


def root_mean_square(errors: list[Tensor]) -> float:
    return float(torch.cat(errors).square().mean().sqrt())


def standardised(ours: Rows, true: Rows) -> tuple[Tensor, Tensor]:
    std = torch.stack([true[node].std() for node in true])
    x, y = (torch.stack([rows[node].double() for node in true], -1) for rows in (ours, true))
    return x / std, y / std


if __name__ == "__main__":
    main(sys.argv[1:])
