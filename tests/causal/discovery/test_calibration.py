"""Probabilities mean what they say: graphs from the prior, tables from theirs, rows from those."""

import pandas as pd
import pytest
import torch

from causal.discovery import BDeu, discover
from causal.discovery.draws import draw_by_order, draw_uniform
from causal.discovery.reversals import layers_of
from causal.discovery.subsets import bits

NODES, LEVELS, ROWS, ESS = 3, 3, 30, 10.0


def table_of(parents: list[int], clamped: torch.Tensor) -> torch.Tensor:
    """Rows of a graph whose tables are drawn from the prior of the score."""
    x = torch.randint(LEVELS, (ROWS, NODES))
    order = [i for layer in layers_of(parents) for i in range(NODES) if layer >> i & 1]
    for i in order:
        above = [j for j in range(NODES) if parents[i] >> j & 1]
        q = LEVELS ** len(above)
        probs = torch.distributions.Dirichlet(torch.full((q, LEVELS), ESS / (q * LEVELS))).sample()
        code = torch.zeros(ROWS, dtype=torch.long)
        for j in above:
            code = code * LEVELS + x[:, j]
        own = torch.multinomial(probs[code], 1)[:, 0]
        x[:, i] = torch.where(clamped[:, i], x[:, i], own)
    return x


@pytest.mark.parametrize(("prior", "draw"), [("uniform", draw_uniform), ("order", draw_by_order)])
def test_arrows_are_there_as_often_as_is_said(prior, draw) -> None:
    sets = torch.tensor([[u for u in range(1 << NODES) if not u >> i & 1] for i in range(NODES)])
    flat = torch.zeros(sets.shape, dtype=torch.float64)
    graphs = draw(sets, flat, 100, torch.Generator().manual_seed(0))
    said, true = [], []
    for k, row in enumerate(graphs):
        clamped = torch.zeros(ROWS, NODES, dtype=torch.bool)
        clamped[:10, k % NODES] = True
        x = table_of(row.tolist(), clamped)
        columns = {
            f"x{i}": pd.Categorical(x[:, i].tolist(), categories=range(LEVELS))
            for i in range(NODES)
        }
        options = {"score": BDeu(ESS), "prior": prior, "max_parents": 2, "unseen": "keep"}
        found = discover(pd.DataFrame(columns), clamped=clamped, **options)
        said.append(found.edges)
        true.append(bits(row, NODES).T)
    p, yes = torch.stack(said).flatten(), torch.stack(true).flatten().double()
    for low, high in ((0.02, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0)):
        inside = (p >= low) & (p < high)
        error = float((p[inside] * (1 - p[inside])).sum()) ** 0.5
        assert abs(float((p[inside] - yes[inside]).sum())) < 3.5 * error
