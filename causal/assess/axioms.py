"""Whether a model's counterfactuals obey the axioms that all counterfactuals obey.

Composition: what was the case, set, changes nothing. Reversibility: what was set and set back gives
what was. Effectiveness: what was set is the case. (Galles & Pearl 1998; measured as by Monteiro,
Ribeiro, Pawlowski, Castro & Glocker 2023, "Measuring axiomatic soundness of counterfactual image
models", sec. 3.) Invertible mechanisms obey them to rounding; guides, couplings and networks that
ignore what was set do not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from causal.counterfactuals.scenarios import counterfactual
from causal.interventions.handler import do as intervene
from pgm import Model
from pgm.batch import SEEN, Batch
from pgm.randomness import fresh_seed
from pgm.verb import prepare

Oracle = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Soundness:
    """Errors of counterfactuals against the axioms; zero is right.

    Of a site of numbers, the mean absolute difference in standard deviations of the site; of
    levels, the share of rows that differ.

    Attributes:
        site: what was set.
        composition: by site, after `cycles` null interventions.
        reversibility: by site, after `cycles` rounds there and back.
        effectiveness: of what was set, read off the counterfactual by the oracle.
        cycles: how often.
    """

    site: str
    composition: Mapping[str, float]
    reversibility: Mapping[str, float]
    effectiveness: float
    cycles: int

    @property
    def worst(self) -> float:
        """The largest error."""
        every = (*self.composition.values(), *self.reversibility.values(), self.effectiveness)
        return max(every)

    def __str__(self) -> str:
        head = (
            f"Soundness of counterfactuals that set {self.site} ({self.cycles} cycles; 0 is right)"
        )
        lines = [
            f"  {name:<13}  " + ", ".join(f"{site} {error:.3g}" for site, error in errors.items())
            for name, errors in (
                ("composition", self.composition),
                ("reversibility", self.reversibility),
                ("effectiveness", {self.site: self.effectiveness}),
            )
        ]
        return "\n".join([head, *lines])


def soundness(
    model: Model,
    data: Any,
    *,
    do: Mapping[str, Any],
    oracle: Oracle | None = None,
    cycles: int = 1,
    seed: int | None = None,
    **options: Any,
) -> Soundness:
    """Measures composition, reversibility and effectiveness of a model's counterfactuals.

    Args:
        model: any model that `causal.counterfactual` takes.
        data: rows in any form, complete in the sites that are compared.
        do: one site and what it is set to: a number or label, or one value a row.
        oracle: reads the site's value off all other sites of the counterfactual rows, (n,), as a
            classifier of images would; None takes the site itself, which only a broken model fails.
        cycles: how often the interventions are repeated.
        seed: of the draws.
        **options: of `causal.counterfactual`, such as `particles` and `coupling`.

    Raises:
        ValueError: more than one site, a site that was not seen, or no cycle.

    Example:
        >>> from causal import SCM, LinearGaussian
        >>> scm = SCM("x -> y", y=LinearGaussian({"x": 2.0}))
        >>> seen = {"x": torch.tensor([1.0, 2.0]), "y": torch.tensor([3.0, 3.5])}
        >>> print(soundness(scm, seen, do={"x": 0.0}))
        Soundness of counterfactuals that set x (1 cycles; 0 is right)
          composition    x 0, y 0
          reversibility  x 0, y 0
          effectiveness  x 0
    """
    batch = prepare(model, data)
    site, own = _site(batch, do, cycles)
    base = fresh_seed() if seed is None else seed

    def imagine(rows: Mapping[str, Tensor], value: Any, step: int) -> dict[str, Tensor]:
        found = counterfactual(
            model, dict(rows), do={site: value}, seed=base + step, **{"particles": 1} | options
        )
        return {name: found.draws[name][0] for name in batch if name in found.draws}

    still: Mapping[str, Tensor] = batch
    back: Mapping[str, Tensor] = batch
    there: Mapping[str, Tensor] = batch
    for i in range(cycles):
        still = imagine(still, own, 3 * i)
        there = imagine(back, do[site], 3 * i + 1)
        back = imagine(there, own, 3 * i + 2)
    read = there[site] if oracle is None else oracle({k: there[k] for k in there if k != site})
    return Soundness(
        site,
        {name: _error(batch[name], still[name], batch[name]) for name in still},
        {name: _error(batch[name], back[name], batch[name]) for name in back},
        _error(_asked(model, site, do[site], own), read, batch[site]),
        cycles,
    )


def _asked(model: Model, site: str, value: Any, like: Tensor) -> Tensor:
    """What the site was set to, in the model's numbers, for every row."""
    coded = intervene(model, {site: value}).values[site]
    if not isinstance(coded, Tensor):
        raise ValueError(
            f"do sets {site!r} to a law or a function, and there is no one value that it should "
            "have. Set it to a number, a label or one value a row."
        )
    return coded.to(like.dtype).expand_as(like)


def _error(a: Tensor, b: Tensor, scale: Tensor) -> float:
    """Mean absolute difference in deviations of `scale`; for levels, the share that differs."""
    if not a.is_floating_point():
        return float((a != b).double().mean())
    spread = scale.double().std().clamp(min=1e-12) if len(scale) > 1 else torch.ones(())
    return float((a.double() - b.double()).abs().mean() / spread)


def _site(batch: Batch, do: Mapping[str, Any], cycles: int) -> tuple[str, Tensor]:
    if len(do) != 1:
        raise ValueError(
            f"do names {', '.join(map(str, do)) or 'nothing'}: set one site at a time."
        )
    if cycles < 1:
        raise ValueError(f"cycles is {cycles}; the axioms are tried at least once.")
    site = next(iter(do))
    if site not in batch or site + SEEN in batch:
        raise ValueError(
            f"Site {site!r} was not seen in every row, so that nothing can be set back to what it "
            "was. Pass rows in which it was."
        )
    return site, batch[site]
