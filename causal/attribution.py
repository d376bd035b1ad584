"""Which cause is behind it: behind a node's variance, an odd row, a change between populations.

They are asked of dowhy.gcm, which a fitted model of ours is handed to (`causal.bridge.to_gcm`), but
for the variance by origin, for which gcm is slow. All are Monte Carlo estimates, seeded. Shapley
values share out what several causes do together.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from causal.bridge.gcm import Node, as_gcm_frame, to_gcm
from causal.bridge.late import dowhy
from causal.bridge.refuters import numpy_seeded
from causal.graph import ancestors, check_nodes, order
from causal.structural import Structural
from pgm.randomness import fresh_seed, seeded
from pgm.schema.columns import listing

if TYPE_CHECKING:
    import pandas

MEASURES = ("mean", "variance", "KL divergence")


@dataclass(frozen=True, eq=False)
class Attribution:
    """What each cause contributes.

    Attributes:
        node: whose property is shared out.
        what: the property, with its unit.
        parts: by cause; a number each, or one for each row, (n,).
        note: that of the model.
    """

    node: str
    what: str
    parts: Mapping[str, Float[Tensor, "*n"]]
    note: str | None = None

    @property
    def total(self) -> Float[Tensor, "*n"]:
        """What the parts add up to."""
        return torch.stack(list(self.parts.values())).sum(0)

    def __str__(self) -> str:
        mean = {name: float(part.mean()) for name, part in self.parts.items()}
        wide = max(map(len, mean))
        rows = next(iter(self.parts.values())).numel()
        head = f"{self.what} of {self.node}" + (f", mean of {rows} rows" if rows > 1 else "")
        largest = sorted(mean, key=lambda name: -abs(mean[name]))
        lines = [f"  {name:<{wide}}  {mean[name]:.4g}" for name in largest]
        return "\n".join([head, *lines, *([self.note] if self.note else [])])


def arrow_strength(
    model: Structural, node: str, *, draws: int = 2000, seed: int | None = None
) -> Attribution:
    """How much of a node's law hangs on each arrow into it (Janzing et al. 2013).

    The arrow is cut and fed with an independent copy of its cause; what grows is the variance given
    the parents, in the unit of the node squared, or for levels the divergence, in nats. Of a linear
    mechanism it is w^2 var(cause).

    Args:
        model: a fitted SCM.
        node: with parents.
        draws: for each variance.
        seed: of all draws.

    Example:
        >>> from causal import SCM, LinearGaussian
        >>> scm = SCM("x -> y", x=LinearGaussian(scale=3.0), y=LinearGaussian({"x": 0.5}))
        >>> bool(abs(arrow_strength(scm, "y", seed=0).parts["x"] - 0.5**2 * 9) < 0.2)
        True
    """
    gcm = dowhy("gcm")
    _check(model, node)
    if not model.parents(node):
        raise ValueError(f"{node!r} is a root: no arrow leads into it.")
    made, levels = to_gcm(model), model.mechanism(node).levels > 1
    with _drawing(seed):
        found = gcm.arrow_strength(
            made,
            node,
            num_samples_conditional=draws,
            max_num_runs=200,
            tolerance=1e-3,
            n_jobs=1,
            difference_estimation_func=_to_mixture if levels else None,
        )
    what = "Strength of the arrows (nats)" if levels else "Strength of the arrows (variance)"
    return _parts(model, node, what, {cause: value for (cause, _), value in found.items()})


def intrinsic_influence(
    model: Structural, node: str, *, draws: int = 20_000, seed: int | None = None
) -> Attribution:
    """How much of a node's variance, or entropy, comes from the noise of each node upstream.

    What a cause only passes on is not counted as its own (Janzing et al. 2021). Of a linear model
    it is the squared total effect times the variance of the noise.

    Args:
        model: a fitted SCM.
        node: whose variance.
        draws: of the noise.
        seed: of all draws.

    Example:
        >>> from causal import SCM, LinearGaussian
        >>> scm = SCM("x -> y", x=LinearGaussian(scale=3.0), y=LinearGaussian({"x": 1.0}))
        >>> print(intrinsic_influence(scm, "y", seed=0))  # 9 and 1, drawn
        Variance by origin of y
          x  9.1
          y  1.0
    """
    gcm = dowhy("gcm")
    _check(model, node)
    if model.mechanism(node).levels > 1:
        with _drawing(seed):
            found = gcm.intrinsic_causal_influence(
                to_gcm(model),
                node,
                prediction_model="exact",
                num_training_samples=1000,
                num_samples_baseline=min(draws, 1000),
                shapley_config=_in_order(),
            )
        return _parts(model, node, "Entropy by origin", found)
    upstream = [n for n in order(model.graph) if n in ancestors(model.graph, [node])]
    with _drawing(seed):
        game = _frozen_variance(model, upstream, draws)
        shares = dowhy("gcm.shapley").estimate_shapley_values(game, len(upstream), _in_order())
    found = dict(zip(upstream, shares, strict=True))
    return _parts(model, node, "Variance by origin", found)


def _frozen_variance(model: Structural, upstream: list[str], draws: int) -> Callable[[Any], float]:
    """var E[node | the noise of some upstream], for any of them.

    cov(x, x'), where x' has the same noise there and new noise elsewhere (Sobol 2001).
    """
    nodes = {name: Node(model, name) for name in upstream}
    first, second = ({n: node.noise(draws) for n, node in nodes.items()} for _ in range(2))

    def run(noise: Mapping[str, Any]) -> Any:
        values: dict[str, Any] = {}
        for name, node in nodes.items():
            heard = [values[p] for p in node.parents]
            values[name] = node.push(np.hstack(heard or [np.empty((draws, 0))]), noise[name])
        return values[upstream[-1]].ravel().astype(float)

    x = run(first)
    x = x - x.mean()

    def game(kept: Any) -> float:
        mixed = {n: (first if k else second)[n] for n, k in zip(upstream, kept, strict=True)}
        return 0.0 if not any(kept) else float(x @ run(mixed)) / draws

    return game


def attribute_anomaly(
    model: Structural,
    frame: "pandas.DataFrame",
    node: str,
    *,
    draws: int = 2000,
    seed: int | None = None,
) -> Attribution:
    """Which noise upstream made the value of a node so rare, row by row (Budhathoki et al. 2022).

    The parts of a row add up to its score, -log P(as far from the median as it is), in nats.

    Args:
        model: a fitted SCM of numbers.
        frame: the rows, with every node.
        node: whose value is odd.
        draws: of the noise.
        seed: of all draws.

    Raises:
        ValueError: a node without a column; nodes with levels, whose noise no row fixes.

    Example:
        >>> import pandas as pd
        >>> from causal import SCM, LinearGaussian
        >>> scm = SCM("x -> y", x=LinearGaussian(), y=LinearGaussian({"x": 1.0}))
        >>> odd = pd.DataFrame({"x": [5.0, 0.1], "y": [5.2, 5.2]})
        >>> found = attribute_anomaly(scm, odd, "y", seed=0)
        >>> (found.parts["x"] > found.parts["y"]).tolist()
        [True, False]
    """
    gcm = dowhy("gcm")
    _check(model, node)
    absent = [name for name in model.nodes if name not in frame]
    if absent:
        raise ValueError(f"The frame has no column {listing(absent)}: every node is needed.")
    made = to_gcm(model)
    if not isinstance(made, gcm.InvertibleStructuralCausalModel):
        raise ValueError(
            "Some nodes have levels, and a row does not fix their noise: the part that they play "
            "in an odd value is not defined. Ask for intrinsic_influence, or for counterfactuals."
        )
    with _drawing(seed):
        found = gcm.attribute_anomalies(
            made,
            node,
            as_gcm_frame(model, frame),
            num_distribution_samples=draws,
            shapley_config=_in_order(),
        )
    return _parts(model, node, "Anomaly score (nats)", found)


def attribute_change(
    old: Structural,
    new: Structural,
    node: str,
    *,
    measure: str = "mean",
    draws: int = 20_000,
    seed: int | None = None,
) -> Attribution:
    """Which changed mechanism moved the law of a node (Budhathoki et al. 2021).

    Args:
        old: an SCM fitted to the rows before.
        new: one of the same graph, fitted to the rows after.
        node: whose law changed.
        measure: "mean", "variance" (new less old, in the node's unit) or "KL divergence" (nats).
        draws: of each law.
        seed: of all draws.

    Raises:
        ValueError: two graphs, or an unknown measure.

    Example:
        >>> from causal import SCM, LinearGaussian
        >>> def scm(shift):
        ...     return SCM("x -> y", x=LinearGaussian(intercept=shift),
        ...         y=LinearGaussian({"x": 2.0}))
        >>> found = attribute_change(scm(0.0), scm(1.0), "y", seed=0)
        >>> [bool(abs(found.parts[name] - truth) < 0.1) for name, truth in (("x", 2), ("y", 0))]
        [True, True]
    """
    gcm = dowhy("gcm")
    _check(old, node)
    if set(old.graph.edges) != set(new.graph.edges) or set(old.nodes) != set(new.nodes):
        raise ValueError(
            "The two models have different graphs: a mechanism of the one has no counterpart in "
            "the other. Fit both to one graph."
        )
    if old.mechanism(node).levels > 1 and measure != "KL divergence":
        raise ValueError(f"{node!r} has levels and no {measure}; use measure='KL divergence'.")
    with _drawing(seed):
        found = gcm.distribution_change_of_graphs(
            to_gcm(old),
            to_gcm(new),
            node,
            num_samples=draws,
            difference_estimation_func=_measure(measure),
            shapley_config=_in_order(),
        )
    return _parts(new, node, f"Change of the {measure}", found)


def _to_mixture(old: Any, new: Any) -> float:
    """KL of the law given the parents from its mixture over the cause that was cut off.

    DoWhy 0.14 averages the divergences from the members of the mixture instead, which is larger.
    """
    p, q = old.mean(0), new.mean(0)
    here = p > 0
    return float((p[here] * np.log(p[here] / q[here])).sum())


def _parts(model: Structural, node: str, what: str, found: Mapping[str, Any]) -> Attribution:
    upstream = [n for n in model.nodes if n in found and n in ancestors(model.graph, [node])]
    parts = {n: torch.as_tensor(np.asarray(found[n], dtype=float)) for n in upstream}
    return Attribution(node, what, parts, model.note)


def _in_order() -> Any:
    """Shapley values in this process, which our models need not be pickled for."""
    return dowhy("gcm.shapley").ShapleyConfig(n_jobs=1)


def _measure(name: str) -> Callable[[Any, Any], float]:
    divergence = dowhy("gcm.divergence").auto_estimate_kl_divergence
    known: dict[str, Callable[[Any, Any], float]] = {
        "mean": lambda old, new: float(np.mean(new) - np.mean(old)),
        "variance": lambda old, new: float(np.var(new) - np.var(old)),
        "KL divergence": lambda old, new: float(divergence(old, new)),
    }
    if name not in known:
        raise ValueError(f"measure={name!r}: there are {', '.join(map(repr, MEASURES))}.")
    return known[name]


def _check(model: Structural, node: str) -> None:
    check_nodes(model.graph, [node])


@contextmanager
def _drawing(seed: int | None) -> Iterator[None]:
    """Seeds NumPy, from which gcm draws, and torch, from which our mechanisms do; no bars."""
    config = dowhy("gcm.config")
    given = fresh_seed() if seed is None else seed
    bars, jobs = config.show_progress_bars, config.default_n_jobs
    try:
        config.show_progress_bars, config.default_n_jobs = False, 1
        with numpy_seeded(given), seeded(given):
            yield
    finally:
        config.show_progress_bars, config.default_n_jobs = bars, jobs
