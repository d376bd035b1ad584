"""White-box audits of private training: what every step released, seen along a canary's gradient.

The auditor knows the parameters at every step, hence the canary's clipped gradient c, and sees the
private gradient g that the step released. His score is <g, c> q N / C^2, whose law is N(s, sigma^2)
without the canary and N(s + |c|^2 / C^2, sigma^2) when it was in the lot, s being what the other
rows leave along c (Nasr et al. 2021; 2023, alg. 1). The steps are those of `privacy.fit`, made by
its own source, gradients, clipping and noise; the optimiser alone is replaced by one that looks.
"""

import copy
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

from pgm.batch import Batch, chunks, repeat, rows_of, take
from pgm.learner import make_optimiser
from pgm.model import Model
from pgm.randomness import seeded
from pgm.schema import Schema
from pgm.verb import prepare
from privacy.accounting import compose
from privacy.auditing.bounds import Audit, audit_scores, step_epsilon
from privacy.auditing.one_run import OneRunAudit, audit_guesses, coins
from privacy.batches import derive
from privacy.clipping import AdaptiveClip
from privacy.fit import PrivateTraining
from privacy.gradients import PerRow
from privacy.ledger import Release
from privacy.rows import together

Presence = Literal["sampled", "certain"]

_DRAWS = 16
"""Draws over which the gradient of a canary is averaged, where its loss draws."""


@dataclass(frozen=True)
class StepAudit:
    """What repetitions of one private step prove of its noise.

    The numbers are computed from the rows that were audited, without noise.

    Attributes:
        audit: of one step: its claim is what the step is accounted with.
        release: the mechanism as it is entered into ledgers.
        presence: whether the canary was sampled, or in every lot by itself.
        reach: the norm of the canary's clipped gradient over the clipping norm: below one, the
            bounds are that much weaker than they could be.
    """

    audit: Audit
    release: Release
    presence: Presence
    reach: float

    @property
    def broken(self) -> bool:
        """Whether the claim is refuted."""
        return self.audit.broken

    @property
    def noise_multiplier(self) -> float:
        """The largest sigma that is not refuted, of a Gaussian step at this rate."""
        mu = self.audit.mu or 0.0
        return 1 / mu if mu > 0 else float("inf")

    @property
    def epsilon(self) -> float:
        """What all steps of the release spend if each has no more noise than was proved."""
        if self.noise_multiplier in (0.0, float("inf")):
            return 0.0 if self.noise_multiplier else float("inf")
        history = [(self.noise_multiplier, self.release.rate, self.release.steps)]
        return compose(history, delta=self.release.delta)

    def __str__(self) -> str:
        r = self.release
        where = "" if self.presence == "sampled" else ", the canary in the lot"
        return (
            f"one step of {r.what}{where}: {self.audit}\n"
            f"noise multiplier at most {self.noise_multiplier:.3f} (claimed "
            f"{r.noise_multiplier:.3f}); with it {r.steps} steps at rate {r.rate:.4g} spend "
            f"{self.epsilon:.3f} (claimed {r.epsilon():.3f}); the canary reaches "
            f"{100 * self.reach:.0f} % of the clipping norm"
        )


def audit_steps(
    model: Model,
    data: Any,
    canary: Any,
    *,
    presence: Presence = "sampled",
    repetitions: int = 5000,
    confidence: float = 0.999,
    seed: int | None = None,
    schema: Schema | None = None,
    **options: Any,
) -> StepAudit:
    """Makes the step of a private fit again and again, with the canary among the rows and without.

    The parameters are held still, so that the repetitions are of one mechanism. A canary is best
    far from the model, and the rows beside it few or near: their own sampling is noise that hides
    it, away from which the score is turned as far as it goes.

    Args:
        model: any model; it is not changed.
        data: rows beside the canary, in any form.
        canary: one row.
        presence: "sampled" if the canary comes into lots as every row does, so that the sampling is
            audited too; "certain" if it is put into every lot, which at a rate below one bounds the
            noise multiplier much better and takes the sampling on trust.
        repetitions: steps with the canary, and as many without.
        confidence: with which the bounds hold, all together.
        seed: of lots, draws and noise; by default from the system's entropy.
        schema: how data frames are read.
        **options: those of the fit (`privacy.fit`): epsilon, delta, steps, rate, clip, ... The
            optimiser and its options have no effect.

    Raises:
        ValueError: more than one canary, columns of other names, a ledger, or what `privacy.fit`
            refuses.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> fitted_with = {"epsilon": 3.0, "delta": 1e-5, "steps": 1, "rate": 1.0}
        >>> found = audit_steps(
        ...     PPCA(2, 1), torch.zeros(9, 2), torch.full((1, 2), 30.0), repetitions=100, seed=0,
        ...     **fitted_with)
        >>> found.broken, found.reach
        (False, 1.00)
    """
    model = _own_copy(model, schema, options)
    rows, canary = prepare(model, data), prepare(model, canary)
    if rows_of(canary) != 1:
        raise ValueError(
            f"{rows_of(canary)} canaries came; audit_steps follows one row. For many at once, in "
            "one run, use audit_training."
        )
    if presence not in get_args(Presence):
        raise ValueError(f"There is no presence {presence!r}: use 'sampled' or 'certain'.")
    with_canary, certain = together(rows, canary), presence == "certain"
    options = {"rows": rows_of(with_canary), **options}
    seed = secrets.randbits(63) if seed is None else seed
    scores = []
    for where in ("inside", "outside"):
        what = with_canary if where == "inside" and not certain else rows
        run, spy = _training(model, what, options, seed=derive(seed, where), moves=False)
        gradient = _directions(run, canary)
        spy.directions = _turned(gradient, run, rows)
        added = canary if where == "inside" and certain else None
        scores.append(_still_scores(run, spy, repetitions, added)[:, 0])
    release = run.release
    rate = 1.0 if certain else release.rate
    audit = audit_scores(
        *scores,
        delta=release.delta,
        confidence=confidence,
        rate=rate,
        claim=_step_claim(release, rate),
    )
    return StepAudit(audit, release, presence, float(gradient.norm()))


def audit_training(
    model: Model,
    canaries: Any,
    *,
    data: Any = None,
    confidence: float = 0.95,
    seed: int | None = None,
    schema: Schema | None = None,
    **options: Any,
) -> OneRunAudit:
    """One private fit with a random half of the canaries, every step watched along all of them.

    The score of a canary is the sum over the steps of its `audit_steps` score, its gradient being
    that at the parameters of the step (Steinke et al. 2023, white-box). What the rows leave along
    it is known but for the coins, so that its expectation is subtracted.

    Args:
        model: any model; it is not changed.
        canaries: the rows that are in or out; many parameters let many canaries be told apart.
        data: rows that are always in; by default none.
        confidence: with which the bound holds.
        seed: of the coins, lots, draws and noise; by default from the system's entropy.
        schema: how data frames are read.
        **options: those of the fit (`privacy.fit`): epsilon, delta, steps, rate, clip, ...

    Raises:
        ValueError: too few canaries, columns of other names, a ledger, or what `privacy.fit`
            refuses.
    """
    model = _own_copy(model, schema, options)
    batch = prepare(model, canaries)
    seed = secrets.randbits(63) if seed is None else seed
    inside = coins(rows_of(batch), derive(seed, "coins"))
    rows = take(batch, inside.nonzero().flatten())
    others = None if data is None else prepare(model, data)
    if others is not None:
        rows = together(others, rows)
    options = {"rows": rows_of(batch) + (0 if others is None else rows_of(others)), **options}
    run, spy = _training(model, rows, options, seed=derive(seed, "run"), moves=True)
    scores = _moving_scores(run, spy, batch, others)
    return audit_guesses(
        scores, inside, delta=run.release.delta, confidence=confidence, claim=run.release.epsilon()
    )


class _Spy(Optimizer):
    """Takes an optimiser's place, and keeps what each private gradient says along directions.

    Args:
        parameters: in the order of the model.
        inner: the optimiser that makes the steps; None if the parameters are held still.

    Attributes:
        directions: shape (m, numbers).
        seen: <gradient, direction> of the steps so far, each of shape (m,).
    """

    def __init__(self, parameters: Any, *, lr: float, inner: Optimizer | None) -> None:
        super().__init__(list(parameters), {"lr": lr})
        self.inner, self.seen = inner, list[Tensor]()
        self.directions = torch.zeros(0)
        if inner is not None:
            self.param_groups = inner.param_groups

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        parameters = [p for group in self.param_groups for p in group["params"]]
        gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
        self.seen.append(self.directions @ gradient)
        if self.inner is not None:
            self.inner.step()


def _own_copy(model: Model, schema: Schema | None, options: dict[str, Any]) -> Model:
    if "ledger" in options:
        raise ValueError(
            "An audit releases nothing and takes no ledger=: it trains again on the rows, and its "
            "numbers are for the eyes of whoever holds the data. Leave it out."
        )
    model = copy.deepcopy(model)
    if schema is not None:
        model.schema = schema
    return model


def _training(
    model: Model, batch: Batch, options: dict[str, Any], *, seed: int, moves: bool
) -> tuple[PrivateTraining, _Spy]:
    """A private run on a copy of the model, and the spy in its optimiser's place."""
    make, spies = options.get("optimiser"), list[_Spy]()

    def spying(parameters: Any, *, lr: float) -> _Spy:
        parameters = list(parameters)
        inner = make_optimiser(parameters, lr, make) if moves else None
        spies.append(_Spy(parameters, lr=lr, inner=inner))
        return spies[0]

    if isinstance(options.get("clip"), AdaptiveClip):
        raise ValueError(
            "An audit repeats one mechanism, and with an AdaptiveClip every step has another norm. "
            "Audit with clip= at the norm where it ended: the noise multiplier is accounted alike."
        )
    options = options | {"seed": seed, "optimiser": spying}
    run = PrivateTraining(copy.deepcopy(model), batch, **options)
    return run, spies[0]


def _directions(run: PrivateTraining, canaries: Batch) -> Float[Tensor, "m numbers"]:
    """Clipped gradients of the canaries over the clipping norm, averaged over their draws."""
    gradients = _clipped(run, repeat(canaries, _DRAWS))
    return gradients.reshape(_DRAWS, rows_of(canaries), -1).mean(0)


def _turned(
    gradient: Float[Tensor, "1 numbers"], run: PrivateTraining, rows: Batch
) -> Float[Tensor, "1 numbers"]:
    """Turns the direction away from where the sampling of the other rows is loud.

    It is Fisher's discriminant w = S^-1 c, S = sigma^2 I + q (1 - q) G'G being the covariance of a
    step and G the clipped gradients of the rows, of which a thousand are looked at.
    """
    q, sigma = run.release.rate, run.release.noise_multiplier
    if q == 1 or sigma == 0:
        return gradient
    some = islice(chunks(rows, 250), 4)
    G = torch.cat([_clipped(run, piece) for piece in some]).double()
    c = gradient.double()
    gram = G @ G.T + sigma**2 / (q * (1 - q)) * torch.eye(len(G)).to(G)
    w = c - torch.linalg.solve(gram, G @ c.T).T @ G
    return (w * (c.norm() / w.norm())).to(gradient)


def _clipped(run: PrivateTraining, batch: Batch) -> Float[Tensor, "n numbers"]:
    rows = PerRow(run.model, size=run.release.rows, objective=run.objective, route="auto")
    with seeded(0):
        found = rows(batch).gradients
    names = [name for name, p in run.model.named_parameters() if p.requires_grad]
    gradients = torch.cat([found[name].reshape(rows_of(batch), -1) for name in names], 1).detach()
    return gradients / gradients.norm(dim=1, keepdim=True).clamp(min=run.release.clip)


def _still_scores(
    run: PrivateTraining, spy: _Spy, repetitions: int, added: Batch | None
) -> Float[Tensor, "n m"]:
    run.model.train()
    for lot in islice(_lots(run), repetitions):
        with run.stream.running():
            run.learner.update(lot if added is None else together(lot, added))
    return torch.stack(spy.seen) * _scale(run.release)


def _moving_scores(
    run: PrivateTraining, spy: _Spy, canaries: Batch, others: Batch | None
) -> Float[Tensor, " m"]:
    known = _look(run, spy, canaries, others)
    for step in run:
        if step.step < run.total:
            known = known + _look(run, spy, canaries, others)
    return torch.stack(spy.seen).sum(0) * _scale(run.release) - known


def _look(
    run: PrivateTraining, spy: _Spy, canaries: Batch, others: Batch | None
) -> Float[Tensor, " m"]:
    """Sets the directions of the coming step; what the rows should leave along them."""
    spy.directions = _directions(run, canaries)
    expected = spy.directions.sum(0) / 2
    for piece in chunks(others, 256) if others is not None else ():
        expected = expected + _clipped(run, piece).sum(0)
    return run.release.rate * (spy.directions @ expected)


def _lots(run: PrivateTraining) -> Iterator[Batch]:
    """Lot after lot of the run's own source, without end."""
    epoch = 0
    while True:
        yield from run.source.epoch(epoch)
        epoch += 1


def _scale(release: Release) -> float:
    """From the released mean over the declared lot to the sum, in clipping norms."""
    return release.rate * release.rows / release.clip


def _step_claim(release: Release, rate: float) -> float:
    sigma = release.noise_multiplier
    mu = 1 / sigma if sigma > 0 else float("inf")
    return step_epsilon(mu, delta=release.delta, rate=rate)
