"""One number from a table: DoWhy's estimators, called so that nothing is clipped or dropped.

What DoWhy 0.14 does in silence is turned off or done before it: it clips propensities at .05 and
.95 (weighting), drops strata with ten rows or fewer of an arm, ignores whom a regression is
averaged over, takes no intercept with several instruments, and squares the contrast at the front
door. What it lacks is written here: the augmented weighted mean of any units (Robins, Rotnitzky &
Zhao 1994), in normalised weights, and matches that tie.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from causal.bridge.late import dowhy
from causal.bridge.matching import matched
from causal.bridge.overlap import Units, propensity, propensity_model, weights
from causal.bridge.strategy import Kind, Strategy
from causal.bridge.table import OUTCOME, TREATMENT, Table

Method = Literal[
    "regression",
    "weighting",
    "matching",
    "stratification",
    "doubly robust",
    "front door",
    "instrument",
]
"""How the effect is estimated."""

METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Estimator:
    """How one number is made of a table.

    Attributes:
        method: which estimator.
        units: whom the effect is averaged over.
        model: a classifier for the propensity; None for a logistic regression.
        strata: of stratification.
    """

    method: Method
    units: Units = "ate"
    model: Any = None
    strata: int = 5

    def __call__(self, table: Table) -> float:
        """The estimate.

        Raises:
            ValueError: rows that do not determine it.
        """
        rule = _difference if self._unadjusted(table) else _RULES[self.method]
        with quiet():
            return float(rule(self, table))

    def _unadjusted(self, table: Table) -> bool:
        return kind_of(self.method) == "adjustment" and table.binary and not table.covariates


def kind_of(method: Method) -> Kind:
    """The strategy that a method belongs to."""
    return method if method in ("front door", "instrument") else "adjustment"


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what DoWhy 0.14 sets off on pandas 3, and statsmodels of a design checked here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The copy keyword is deprecated")
        warnings.filterwarnings("ignore", "The design matrix is rank-deficient")
        yield


def first_stage(table: Table) -> float:
    """The F statistic of the instruments in the regression of the treatment, given covariates."""
    y, Z, n = *_partialled(table, TREATMENT), len(table.frame)
    residual = y - Z @ np.linalg.lstsq(Z, y, rcond=None)[0]
    k, used = Z.shape[1], Z.shape[1] + len(table.covariates) + 1
    explained = (y**2).sum() - (residual**2).sum()
    return float((explained / k) / ((residual**2).sum() / (n - used)))


def arms(table: Table) -> tuple[Any, Any]:
    """The expected outcome of every row treated and untreated, a linear regression in each arm."""
    X = np.column_stack([np.ones(len(table.frame)), table.frame[list(table.covariates)]])
    y, treated = table.frame[OUTCOME].to_numpy(), table.treated
    fitted = [np.linalg.lstsq(X[arm], y[arm], rcond=None)[0] for arm in (treated, ~treated)]
    return X @ fitted[0], X @ fitted[1]


def _regression(how: Estimator, table: Table) -> float:
    """Linear in treatment, covariates and their products, averaged over the units."""
    _check_estimable(how, table)
    linear = dowhy("causal_estimators.linear_regression_estimator").LinearRegressionEstimator
    fitted = linear(_estimand(table), need_conditional_estimates=False)
    fitted.fit(table.frame.copy(), effect_modifier_names=list(table.covariates))
    units = table.frame[_mask(table, how.units)]
    found = fitted.estimate_effect(units.copy(), table.do, table.versus)
    return float(found.value)


def _weighting(how: Estimator, table: Table) -> float:
    theirs = dowhy("causal_estimators.propensity_score_weighting_estimator")
    options = {"min_ps_score": 0.0, "max_ps_score": 1.0}
    made = theirs.PropensityScoreWeightingEstimator(
        _estimand(table), weighting_scheme="ips_normalized_weight", **options, **_score(how)
    )
    return _through(made, how, table)


def _matching(how: Estimator, table: Table) -> float:
    e = propensity(table, how.model)
    return matched(table.frame[OUTCOME].to_numpy(), table.treated, e, how.units)[0]


def _stratification(how: Estimator, table: Table) -> float:
    theirs = dowhy("causal_estimators.propensity_score_stratification_estimator")
    made = theirs.PropensityScoreStratificationEstimator(
        _estimand(table), num_strata=how.strata, clipping_threshold=0, **_score(how)
    )
    frame = _fitted(made, table)
    value = made.estimate_effect(frame, target_units=how.units).value
    _check_strata(how, frame, table)
    return float(value)


def _doubly_robust(how: Estimator, table: Table) -> float:
    """mean over units of m1 - m0, plus the weighted mean residual of each arm."""
    treated, y = table.treated, table.frame[OUTCOME].to_numpy()
    w = weights(treated, propensity(table, how.model), how.units)
    _check_weights(w)
    units = _mask(table, how.units)
    _check_arms(table, units)
    m1, m0 = arms(table)
    residual = [
        np.average((y - m)[arm], weights=w[arm]) for arm, m in ((treated, m1), (~treated, m0))
    ]
    return float((m1 - m0)[units].mean() + residual[0] - residual[1])


def _front_door(how: Estimator, table: Table) -> float:
    """Two linear stages, treatment to mediator and mediator to outcome given the treatment."""
    if len(table.mediators) != 1:
        raise ValueError(
            f"The mediator has become {len(table.mediators)} columns, and the front door is "
            "estimated through one number. Pass a 0/1 column, or use causal.identification."
        )
    target = _estimand(table)
    target.identifier_method = "frontdoor"
    target.frontdoor_variables = list(table.mediators)
    target.mediation_first_stage_confounders = {"backdoor": []}
    target.mediation_second_stage_confounders = {"backdoor": [TREATMENT]}
    stage = dowhy("causal_estimators.linear_regression_estimator").LinearRegressionEstimator
    theirs = dowhy("causal_estimators.two_stage_regression_estimator")
    made = theirs.TwoStageRegressionEstimator(
        target, first_stage_model=stage, second_stage_model=stage
    )
    frame = table.frame.copy()
    slope = made.fit(frame).estimate_effect(frame, 1, 0).value
    return float(slope) * (table.do - table.versus)


def _instrument(how: Estimator, table: Table) -> float:
    """Two-stage least squares, the instruments folded into their best linear predictor."""
    x, Z = _partialled(table, TREATMENT)
    y, _ = _partialled(table, OUTCOME)
    index = Z @ np.linalg.lstsq(Z, x, rcond=None)[0]
    if (index**2).sum() <= 1e-10 * max((x**2).sum(), 1e-300):
        raise ValueError(
            "The instruments do not move the treatment in these rows: the effect is a ratio whose "
            "denominator is zero. They are no instruments here."
        )
    frame = table.frame.assign(**{TREATMENT: x, OUTCOME: y, "index": index})
    if len(np.unique(index)) == 2:
        frame["index"] = (index == index.max()).astype(float)  # DoWhy reads 0 and 1 of a binary one
    target = _estimand(table)
    target.identifier_method, target.instrumental_variables = "iv", ["index"]
    theirs = dowhy("causal_estimators.instrumental_variable_estimator")
    made = theirs.InstrumentalVariableEstimator(target)
    slope = made.fit(frame).estimate_effect(frame).value
    return float(slope) * (table.do - table.versus)


def _difference(how: Estimator, table: Table) -> float:
    y, treated = table.frame[OUTCOME].to_numpy(), table.treated
    return float(y[treated].mean() - y[~treated].mean())


_RULES: dict[str, Callable[[Estimator, Table], float]] = {
    "regression": _regression,
    "weighting": _weighting,
    "matching": _matching,
    "stratification": _stratification,
    "doubly robust": _doubly_robust,
    "front door": _front_door,
    "instrument": _instrument,
}


def _through(made: Any, how: Estimator, table: Table) -> float:
    """What one of DoWhy's propensity estimators says."""
    frame = _fitted(made, table)
    value = made.estimate_effect(frame, target_units=how.units).value
    if how.method == "weighting":
        _check_weights(weights(table.treated, frame["propensity_score"].to_numpy(), how.units))
    return float(value)


def _fitted(made: Any, table: Table) -> Any:
    """Fits an estimator and gives the copy of the frame that it may write into."""
    frame = table.frame.astype({TREATMENT: int})
    made.fit(frame)
    return frame


def _score(how: Estimator) -> dict[str, Any]:
    return {"propensity_score_model": propensity_model(how.model)}


def _estimand(table: Table) -> Any:
    """The strategy as DoWhy's object; identification has been done before."""
    theirs, ways = dowhy("causal_identifier"), ("backdoor", "iv", "frontdoor")
    return theirs.IdentifiedEstimand(
        None,
        [TREATMENT],
        [OUTCOME],
        estimand_type=theirs.EstimandType.NONPARAMETRIC_ATE,
        estimands={way: {"estimand": None, "assumptions": {}} for way in ways},
        backdoor_variables={"backdoor": list(table.covariates)},
        instrumental_variables=[],
        default_backdoor_id="backdoor",
        identifier_method="backdoor",
    )


def _mask(table: Table, units: Units) -> Any:
    """The rows that the effect is averaged over."""
    if units == "ate":
        return np.ones(len(table.frame), dtype=bool)
    return table.treated if units == "att" else ~table.treated


def _partialled(table: Table, name: str) -> tuple[Any, Any]:
    """A column and the instruments less their regression on the covariates."""
    W = np.column_stack([np.ones(len(table.frame)), table.frame[list(table.covariates)]])
    both = table.frame[[name, *table.instruments]].to_numpy()
    left = both - W @ np.linalg.lstsq(W, both, rcond=None)[0]
    return left[:, 0], left[:, 1:]


def _check_estimable(how: Estimator, table: Table) -> None:
    """Refuses a contrast that the rows do not determine: one outside the row space of the design.

    DoWhy's regression would take the shortest of the many solutions.
    """
    t, W = table.frame[TREATMENT].to_numpy(), table.frame[list(table.covariates)].to_numpy()
    X = np.column_stack([np.ones(len(t)), t, W, t[:, None] * W])
    mean = W[_mask(table, how.units)].mean(0)
    if not _spanned(X, np.concatenate([[0.0, 1.0], np.zeros(W.shape[1]), mean])):
        raise ValueError(
            "The rows do not determine the effect: the treatment is a linear function of the "
            "covariates, for the units asked for. Drop the covariate that repeats it, or add rows."
        )


def _check_arms(table: Table, units: Any) -> None:
    """Refuses units whose mean the regression in one arm does not determine."""
    X = np.column_stack([np.ones(len(table.frame)), table.frame[list(table.covariates)]])
    for arm, name in ((table.treated, "treated"), (~table.treated, "untreated")):
        if not _spanned(X[arm], X[units].mean(0)):
            raise ValueError(
                f"The {name} rows do not determine what the others would have had in their place: "
                "a level, or a combination of covariates, is not among them. Join levels, adjust "
                "for fewer columns, or leave rows without a counterpart out with trim=(.1, .9)."
            )


def _spanned(X: Any, row: Any) -> bool:
    """Whether a row is a combination of the rows of X, so that its prediction is determined."""
    unit = np.sqrt((X**2).mean(0))
    unit = np.where(unit > 0, unit, 1.0)
    scaled, wanted = X / unit, row / unit
    solved = np.linalg.lstsq(scaled.T @ scaled / len(X), wanted, rcond=1e-12)[0]
    left = scaled.T @ (scaled @ solved) / len(X) - wanted
    return bool(np.abs(left).max() <= 1e-6 * max(np.abs(wanted).max(), 1e-300))


def _check_weights(w: Any) -> None:
    if not np.isfinite(w).all():
        raise ValueError(
            f"{int((~np.isfinite(w)).sum())} rows have a propensity of 0 or 1, and an infinite "
            "weight: they have no counterpart in the other arm. Leave them out with trim=(.1, .9), "
            "and say so, or ask about units that have counterparts."
        )


def _check_strata(how: Estimator, frame: Any, table: Table) -> None:
    """Refuses strata of the units that lack an arm; DoWhy leaves them out in silence."""
    by = frame.assign(units=_mask(table, how.units)).groupby("strata")
    lost = by["units"].sum()[by[TREATMENT].nunique() < 2]
    if int(lost.sum()):
        raise ValueError(
            f"{int((lost > 0).sum())} of {by.ngroups} strata, with {int(lost.sum())} rows that the "
            "effect is averaged over, hold one arm only, and nothing tells of the other there. "
            "Take fewer strata=, leave rows without a counterpart out with trim=(.1, .9), or use "
            "another method."
        )


def checked(method: Method | None, strategy: Strategy, table: Table, units: Units) -> Method:
    """The method, or the one for the strategy, once it is found to fit the treatment.

    Raises:
        ValueError: a method for another strategy or for another treatment.
    """
    if method is None:
        usual: Method = "doubly robust" if table.binary else "regression"
        chosen: Method = usual if strategy.kind == "adjustment" else strategy.kind
    else:
        chosen = method
    if chosen not in ("regression", "front door", "instrument") and not table.binary:
        raise ValueError(
            f"{chosen!r} compares two arms, but {strategy.treatment!r} takes more values than two. "
            "Use method='regression', or keep the rows that have either value."
        )
    if units != "ate" and (strategy.kind != "adjustment" or not table.binary):
        raise ValueError(
            f"units={units!r} needs a treatment of two values and an adjustment set; this effect "
            "is one number for all rows. Leave units= out."
        )
    return chosen
