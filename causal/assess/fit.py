"""Whether the mechanisms of a structural model fit rows that they were not fitted to.

Of every node: its mean log-density; its probability integral transform, which is uniform where the
mechanism is right (Rosenblatt 1952; Dawid 1984), tested by Kolmogorov and Smirnov; and whether its
noise is independent of its parents (HSIC), without which no counterfactual is to be trusted (Hoyer,
Janzing, Mooij, Peters & Scholkopf 2009). The transform is a rank among draws, ties broken at
random, so that it is exactly uniform for levels and counts as well (Smith 1985).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from causal.assess.falsification import adjust_p
from causal.assess.kernel import hsic
from causal.interventions.sites import asking
from causal.structural import Structural
from pgm.batch import SEEN, Batch, rows_of
from pgm.verb import prepare


@dataclass(frozen=True, eq=False)
class NodeFit:
    """How one mechanism fits.

    Attributes:
        node: whose.
        n: rows in which the node and its parents were seen, and nothing set it.
        log_density: mean log-density of a row, in nats, in the model's numbers.
        pit: the transform of those rows, in (0, 1); None for a node of several numbers.
        uniform: the p-value of its being uniform.
        independent: the p-value of the noise being independent of the parents; None for a root.
    """

    node: str
    n: int
    log_density: float
    pit: Float[Tensor, " n"] | None
    uniform: float | None
    independent: float | None


@dataclass(frozen=True, eq=False)
class Fit:
    """How the mechanisms of a model fit, node by node.

    Attributes:
        nodes: by node, in the order of the graph.
        skipped: by node, why nothing could be said.
        alpha: the level of the verdicts, of all tests together (Holm).
        note: that of the model.
    """

    nodes: Mapping[str, NodeFit]
    skipped: Mapping[str, str]
    alpha: float
    note: str | None = None

    @property
    def log_density(self) -> float:
        """The sum over nodes, mean over rows, in nats."""
        return sum(node.log_density for node in self.nodes.values())

    @property
    def misfits(self) -> dict[str, str]:
        """The nodes whose mechanism the rows contradict, and in what."""
        claims = [
            (node.node, what, p)
            for node in self.nodes.values()
            for what, p in (
                ("its law", node.uniform),
                ("noise depends on parents", node.independent),
            )
            if p is not None
        ]
        adjusted = adjust_p([p for *_, p in claims], "holm")
        found: dict[str, str] = {}
        for (name, what, _), p in zip(claims, adjusted, strict=True):
            if p <= self.alpha:
                found[name] = f"{found[name]}, {what}" if name in found else what
        return found

    def __str__(self) -> str:
        rows = [("node", "rows", "log-density", "PIT uniform", "noise _||_ parents", "")]
        bad = self.misfits
        for fit in self.nodes.values():
            law, noise = (
                "" if p is None else f"p = {p:.2g}" for p in (fit.uniform, fit.independent)
            )
            mark = f"! {bad[fit.node]}" if fit.node in bad else ""
            rows.append((fit.node, str(fit.n), f"{fit.log_density:.3f}", law, noise, mark))
        wide = [max(len(row[j]) for row in rows) for j in range(6)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, wide, strict=True)).rstrip() for r in rows]
        lines += [f"{node}: {why}" for node, why in self.skipped.items()]
        lines.append(f"log-density of a row: {self.log_density:.3f} nats")
        return "\n".join([*lines, *([self.note] if self.note else [])])


def evaluate(
    model: Structural,
    data: Any,
    *,
    draws: int = 999,
    rows: int = 500,
    alpha: float = 0.05,
    seed: int | None = None,
) -> Fit:
    """How the mechanisms of a model fit rows that it was not fitted to.

    Args:
        model: an SCM; it is not changed.
        data: rows in any form, held out: on the rows of the fit all p-values are too large.
        draws: of each node, for its ranks.
        rows: at most so many, the first ones, for the test of independence, whose cost is n^2.
        alpha: the level of the verdicts.
        seed: of draws and ties.

    Example:
        >>> from causal import SCM, LinearGaussian
        >>> scm = SCM("x -> y", y=LinearGaussian({"x": 2.0}), x=LinearGaussian())
        >>> x, e = torch.randn(2, 300, generator=torch.Generator().manual_seed(0))
        >>> evaluate(scm, {"x": x, "y": 2 * x + e}, seed=0).misfits
        {}
        >>> evaluate(scm, {"x": x, "y": 2 * x + e * x}, seed=0).misfits
        {'y': 'its law, noise depends on parents'}
    """
    batch = prepare(model, data)
    fits, skipped = {}, {}
    with asking(model, seed):
        for node in model.nodes:
            absent = [name for name in (node, *model.parents(node)) if name not in batch]
            if absent:
                skipped[node] = f"{', '.join(absent)} not seen"
                continue
            fits[node] = _node(model, node, batch, draws, rows)
    return Fit(fits, skipped, alpha, model.note)


def _node(model: Structural, node: str, batch: Batch, draws: int, rows: int) -> NodeFit:
    kept = _usable(model, node, batch)
    x = batch[node][kept]
    parents = {name: batch[name][kept] for name in model.parents(node)}
    fn = _expanded(model.mechanism(node).dist(parents), len(x))
    log_density = float(fn.log_prob(x).double().mean())
    if x.dim() > 1:
        return NodeFit(node, len(x), log_density, None, None, None)
    pit = _ranks(fn, x, draws)
    return NodeFit(
        node,
        len(x),
        log_density,
        pit,
        _kolmogorov(pit),
        _noise_test(model, node, pit[:rows], {k: v[:rows] for k, v in parents.items()}),
    )


def _usable(model: Structural, node: str, batch: Batch) -> Tensor:
    """The rows that say something of a mechanism."""
    kept = torch.ones(rows_of(batch), dtype=torch.bool, device=batch[node].device)
    for name in (node, *model.parents(node)):
        if name + SEEN in batch:
            kept &= (
                batch[name + SEEN].flatten(1).all(1)
                if batch[name].dim() > 1
                else batch[name + SEEN]
            )
    if "clamped" in batch:
        kept &= ~batch["clamped"][:, model.nodes.index(node)]
    if int(kept.sum()) < 2:
        raise ValueError(
            f"Fewer than two rows show {node!r} and its parents with nothing setting it. Pass rows "
            "in which they were seen and left alone."
        )
    return kept


def _expanded(fn: Any, n: int) -> Any:
    return fn if fn.batch_shape == (n,) else fn.expand(torch.Size([n]))


def _ranks(fn: Any, x: Tensor, draws: int) -> Float[Tensor, " n"]:
    """(number of draws below x + V (number equal to x + 1)) / (draws + 1), V ~ U(0, 1)."""
    y = fn.sample((draws,))
    below, ties = (y < x).sum(0).double(), (y == x).sum(0).double()
    return (below + torch.rand_like(below) * (ties + 1)) / (draws + 1)


def _kolmogorov(pit: Float[Tensor, " n"]) -> float:
    from scipy.stats import kstest

    return float(kstest(pit.cpu().numpy(), "uniform").pvalue)


def _noise_test(
    model: Structural, node: str, pit: Float[Tensor, " n"], parents: Mapping[str, Tensor]
) -> float | None:
    """HSIC of the normal scores of the transform with the parents, levels as 0/1 columns."""
    if not parents:
        return None
    columns = []
    for name, x in parents.items():
        k = model.mechanism(name).levels
        code = torch.nn.functional.one_hot(x.long(), k) if k > 1 else x.reshape(len(x), -1)
        columns.append(code.double())
    noise = torch.special.ndtri(pit.clamp(1e-6, 1 - 1e-6))
    return hsic(noise.cpu().numpy(), torch.cat(columns, 1).cpu().numpy())[1]
