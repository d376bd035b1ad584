"""Attempts to refute an effect: a change of the data whose consequence is known, and the estimate.

DoWhy's refuters change the data (placebo treatment, random common cause, subset, bootstrap with
noise, dummy outcome) and ask for the estimate again; the estimator that they ask is ours, of a
table (`causal.adjust`) or of a structural causal model. All draws are kept, and seeded.

An estimate that fails is wrong or fragile. One that passes may still be wrong: no refuter here sees
a common cause that nobody measured. How strong that would have to be is asked by
`causal.sensitivity`.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from causal.bridge.adjustment import Adjusted
from causal.bridge.estimators import quiet
from causal.bridge.late import dowhy
from causal.bridge.table import OUTCOME, TREATMENT
from causal.interventions.handler import unwrap
from causal.scm import SCM
from pgm.randomness import fresh_seed

if TYPE_CHECKING:
    import pandas

How = Literal["placebo", "random common cause", "subset", "bootstrap", "dummy outcome"]
"""What is changed."""

HOWS: tuple[How, ...] = get_args(How)

_CHANGE = {
    "placebo": "the treatment is shuffled over the rows, so that it does nothing",
    "random common cause": "noise is adjusted for as if it were a common cause",
    "subset": "four fifths of the rows are kept",
    "bootstrap": "rows are drawn with replacement, and covariates get noise of a tenth of their "
    "deviation",
    "dummy outcome": "the outcome is replaced by noise, which nothing moves",
}

Reestimate = Callable[["pandas.DataFrame", str, str, list[str]], float]
"""The estimate on a frame, given the names of its treatment, outcome and added covariates."""


@dataclass(frozen=True, eq=False)
class Refutation:
    """What became of an estimate when the data were changed.

    Attributes:
        how: what was changed.
        value: the estimate.
        draws: the estimates on changed data.
        expected: what a sound estimate would give: zero, or `value` itself.
        p: how often draws lie as far on one side of `expected`, two-sided.
        slack: the change that is too small to matter, a tenth of the interval's width.
    """

    how: How
    value: float
    draws: Float[Tensor, " draws"]
    expected: float
    p: float
    slack: float

    @property
    def passed(self) -> bool:
        """Whether the estimate does what a sound one would."""
        return self.p > 0.05 or abs(float(self.draws.mean()) - self.expected) <= self.slack

    def __str__(self) -> str:
        mean, spread = float(self.draws.mean()), float(self.draws.std())
        verdict = "as it should be" if self.passed else "REFUTED"
        return (
            f"{self.how}: {_CHANGE[self.how]}\n"
            f"  {mean:.4g} +- {spread:.2g} over {len(self.draws)} draws, expected "
            f"{self.expected:.4g} (p = {self.p:.2g}): {verdict}"
        )


def refute(
    found: Adjusted, how: str = "placebo", *, draws: int = 100, seed: int | None = None
) -> Refutation:
    """Changes the data behind an effect that `causal.adjust` found, and estimates it again.

    Args:
        found: the effect.
        how: "placebo", "random common cause", "subset", "bootstrap" or "dummy outcome".
        draws: how often.
        seed: of the changes.

    Raises:
        ValueError: a change that says nothing of this estimate.

    Example:
        >>> import pandas as pd
        >>> w = torch.randn(300, generator=torch.Generator().manual_seed(0))
        >>> t = w + torch.randn(300, generator=torch.Generator().manual_seed(1))
        >>> frame = pd.DataFrame({"w": w, "t": t, "y": 2 * t + w})
        >>> from causal.bridge import adjust
        >>> found = adjust(frame, "w -> {t y}; t -> y", treatment="t", outcome="y", seed=0,
        ...     refits=40)
        >>> refute(found, "placebo", draws=40, seed=0).passed
        True
    """
    kind = _checked(how, draws)
    if how == "placebo" and found.strategy.kind == "instrument":
        raise ValueError(
            "A shuffled treatment is no longer moved by the instrument, and the ratio that "
            "estimates the effect has no denominator. Use 'dummy outcome' or 'subset'."
        )

    def again(frame: "pandas.DataFrame", treatment: str, outcome: str, more: list[str]) -> float:
        changed = frame.reset_index(drop=True)
        changed = changed.assign(**{TREATMENT: changed[treatment], OUTCOME: changed[outcome]})
        table = found.table.with_frame(changed)
        return found.estimator(replace(table, covariates=(*table.covariates, *more)))

    width = found.upper - found.lower
    names = (TREATMENT, OUTCOME, list(found.table.covariates))
    return _run(again, found.table.frame, names, found.value, width, kind, draws, seed)


def refute_scm(
    scm: SCM,
    frame: "pandas.DataFrame",
    how: str = "placebo",
    *,
    treatment: str,
    outcome: str,
    do: Any = 1,
    versus: Any = 0,
    draws: int = 40,
    seed: int | None = None,
) -> Refutation:
    """Changes the data behind a structural causal model, and estimates it and its effect again.

    How strong an unseen common cause would have to be is asked of the graph and the table:
    `causal.sensitivity(causal.adjust(frame, scm.graph, ...))`.

    Args:
        scm: whose mechanisms have a closed-form estimate; it is not changed.
        frame: the rows that it was fitted to; they are not changed.
        how: as in `refute`. "random common cause" gives treatment and outcome one more parent.
        treatment: the node that is set.
        outcome: a node that is a number.
        do: what it is set to, as in `causal.effect`.
        versus: what that is compared with.
        draws: how often.
        seed: of the changes.

    Raises:
        ValueError: an outcome with levels; rows that do not determine a mechanism; a model that
            carries a note, such as a privacy ledger, to which new estimates would not keep.
        Unsupported: a mechanism without a closed form.
    """
    kind = _checked(how, draws)
    base, _ = unwrap(scm)
    assert isinstance(base, SCM)
    if base.note is not None:
        raise ValueError(
            f"The model carries a note ({base.note}), and estimating it again would use the data "
            "beyond what it says. Refute an estimate on data of your own."
        )
    if base.mechanism(outcome).levels > 1:
        raise ValueError(
            f"{outcome!r} has levels; the refuters compare means of numbers. Give its probability "
            "by causal.adjust on a 0/1 column, and refute that."
        )
    used, labels = _coded(frame[list(base.nodes)].reset_index(drop=True), treatment)

    def again(changed: "pandas.DataFrame", t: str, y: str, more: list[str]) -> float:
        x = labels.take(changed[t].to_numpy())
        data = changed.assign(**{treatment: x, outcome: changed[y].to_numpy()})
        model = _widened(base, treatment, outcome, more)
        return _effect(model, data[list(model.nodes)], treatment, outcome, do, versus)

    value = again(used, treatment, outcome, [])
    others = [node for node in base.nodes if node not in (treatment, outcome)]
    names = (treatment, outcome, others)
    return _run(again, used, names, value, 0.2 * abs(value), kind, draws, seed)


def _coded(frame: "pandas.DataFrame", treatment: str) -> tuple["pandas.DataFrame", Any]:
    """The treatment as places among its values, and these: DoWhy shuffles no text."""
    import pandas as pd

    codes, values = pd.factorize(frame[treatment], use_na_sentinel=False)
    return frame.assign(**{treatment: codes}), values


def _run(
    again: Reestimate,
    frame: "pandas.DataFrame",
    names: tuple[str, str, list[str]],
    value: float,
    width: float,
    how: How,
    draws: int,
    seed: int | None,
) -> Refutation:
    """One of DoWhy's refuters, on an estimator of ours; its draws are caught on their way."""
    caught: list[float] = []
    target, estimate = _dowhy(again, caught, names, value)
    with numpy_seeded(fresh_seed() if seed is None else seed), quiet(), np.errstate(all="ignore"):
        _refuter(how)(frame.copy(), target, estimate, names, draws)
    drawn = np.asarray(caught)
    expected = 0.0 if how in ("placebo", "dummy outcome") else value
    tail = min((drawn >= expected).sum(), (drawn <= expected).sum())
    p = min(1.0, 2 * (1 + tail) / (1 + len(drawn)))
    return Refutation(how, value, torch.as_tensor(drawn), expected, float(p), width / 10)


def _refuter(how: How) -> Callable[..., Any]:
    """The refuter of DoWhy, with its options."""
    theirs = dowhy("causal_refuters")

    def run(frame: Any, target: Any, estimate: Any, names: Any, draws: int) -> Any:
        same: dict[str, Any] = {"num_simulations": draws, "n_jobs": 1}
        if how == "placebo":
            kind = dowhy("causal_refuters.placebo_treatment_refuter").PlaceboType.PERMUTE
            return theirs.refute_placebo_treatment(
                frame, target, estimate, [names[0]], placebo_type=kind, **same
            )
        if how == "random common cause":
            return theirs.refute_random_common_cause(frame, target, estimate, **same)
        if how == "subset":
            return theirs.refute_data_subset(frame, target, estimate, **same)
        if how == "bootstrap":
            return theirs.refute_bootstrap(frame, target, estimate, **same)
        noise = [("zero", ""), ("noise", {"std_dev": float(frame[names[1]].std())})]
        same |= {"transformation_list": noise, "required_variables": True}
        return theirs.refute_dummy_outcome(frame, target, estimate, [names[0]], names[1], **same)

    return run


def _dowhy(
    again: Reestimate, caught: list[float], names: tuple[str, str, list[str]], value: float
) -> tuple[Any, Any]:
    """Our estimate as DoWhy's estimand and estimate."""
    theirs = dowhy("causal_estimator")
    known = set(names[2])

    class Ours(theirs.CausalEstimator):  # type: ignore[misc, name-defined, unused-ignore]
        """Fits nothing beforehand: the estimate is made anew of every frame."""

        def fit(self, data: Any, effect_modifier_names: Any = None, **_: Any) -> Any:
            return self

        def estimate_effect(self, data: Any, **_: Any) -> Any:
            target = self._target_estimand
            more = [name for name in target.get_adjustment_set() if name not in known]
            new = again(data, target.treatment_variable[0], target.outcome_variable[0], more)
            caught.append(new)
            return _estimate(target, new)

    def _estimate(target: Any, value: float) -> Any:
        made = ([names[0]], [names[1]], value, target, None, 0, 1)
        return theirs.CausalEstimate(None, *made)

    target = dowhy("causal_identifier").IdentifiedEstimand(
        None,
        [names[0]],
        [names[1]],
        backdoor_variables={"backdoor": list(names[2])},
        instrumental_variables=[],
        default_backdoor_id="backdoor",
        identifier_method="backdoor",
    )
    estimate = _estimate(target, value)
    ours = Ours(target)
    ours._effect_modifier_names, ours._target_units = list[str](), "ate"
    estimate.add_estimator(ours)
    return target, estimate


def _widened(scm: SCM, treatment: str, outcome: str, more: list[str]) -> SCM:
    """An untrained copy; treatment and outcome listen to further causes, which are numbers."""
    from pgm import Continuous, Schema

    graph = scm.graph.copy()
    graph.add_edges_from([(name, node) for name in more for node in (treatment, outcome)])
    schema = scm.schema
    if schema is not None and more:
        schema = Schema(
            {**schema.columns, **{name: Continuous(mean=0.0, std=1.0) for name in more}}
        )
    kept = [n for n in scm.nodes if not more or n not in (treatment, outcome)]
    kinds = {node: type(scm.mechanism(node)) for node in kept}
    return SCM(graph, schema=schema, **kinds).to(scm.device, scm.dtype)


def _effect(model: SCM, frame: Any, treatment: str, outcome: str, do: Any, versus: Any) -> float:
    from causal.effects import effect
    from causal.fitting.estimation import estimate

    data = frame
    if model.schema is None:
        data = {k: torch.tensor(frame[k].to_numpy(), dtype=model.dtype) for k in frame}
    estimate(model, data)
    found = effect(
        model, outcome, do={treatment: do}, versus={treatment: versus}, draws=2000, seed=0
    )
    return float(found.difference)


@contextmanager
def numpy_seeded(seed: int) -> Iterator[None]:
    """Seeds what DoWhy draws from, NumPy's and Python's global generators, and restores them."""
    state, own = np.random.get_state(), random.getstate()  # noqa: NPY002
    try:
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
        random.setstate(own)


def _checked(how: str, draws: int) -> How:
    if how not in HOWS:
        raise ValueError(f"how={how!r}: there are {', '.join(map(repr, HOWS))}.")
    if draws < 40:
        raise ValueError(
            f"draws is {draws}: with fewer than 40 no p-value falls below .05, and nothing could "
            "be refuted."
        )
    return how
