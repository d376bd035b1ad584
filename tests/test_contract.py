"""Every verb and every law over every family that the folder holds.

A new family is tried here without a line of its own: its `example()` is all that is asked.
"""

import copy
import math
from functools import cache
from typing import Any

import pytest
import torch
from torch.distributions import constraints

import pgm
from pgm.batch import SEEN, Batch, repeat, rows_of, take
from pgm.families import Example, example, names
from pgm.randomness import seeded
from pgm.verb import prepare
from pgm.verbs.sampling import draw, observed_sites
from pgm.weights import log_weight

FAMILIES = names()
QUESTIONS = ("sample", "log_prob", "encode", "decode", "impute", "surprise", "interpolate")


@cache
def fitted(name: str) -> tuple[Example, pgm.Fit | None]:
    """The example, trained; None where the family has nothing to train."""
    found = example(name)
    if not trains(found.model):
        return found, None
    return found, pgm.fit(found.model, found.data, seed=0, progress=False, **found.fit)


def trains(model: pgm.Model) -> bool:
    return pgm.abilities(model)["objective"] in ("own", "generic")


def few(found: Example, n: int = 4) -> Batch:
    return take(prepare(found.model, found.data), slice(0, n))


def context_of(model: pgm.Model, batch: Batch) -> Batch | None:
    return Batch({k: batch[k] for k in model.context if k in batch}) or None


def observed(model: pgm.Model, batch: Batch) -> list[str]:
    return [k for k in batch if k not in model.context and not k.endswith(SEEN)]


def ask(name: str, verb: str, **options: Any) -> Any:
    """A verb's answer on four rows; skips where the family refuses (tested elsewhere)."""
    found, _ = fitted(name)
    model, batch = found.model, few(found)
    if pgm.abilities(model)[verb] not in ("own", "generic"):
        pytest.skip(f"refused: {pgm.abilities(model)[verb]}")
    question = getattr(pgm, verb)
    if verb == "sample":
        return question(model, 4, context=context_of(model, batch), **options)
    if verb == "decode":
        return question(model, codes(name), context=context_of(model, batch), **options)
    if verb == "interpolate":
        return question(model, take(batch, slice(0, 1)), take(batch, slice(1, 2)), **options)
    return question(model, batch, **options)


def codes(name: str) -> Batch:
    """The codes of four rows; draws from the prior where rows have none."""
    found, _ = fitted(name)
    model, batch = found.model, few(found)
    if pgm.abilities(model)["encode"] in ("own", "generic"):
        return pgm.encode(model, batch, seed=0)
    context = context_of(model, batch)
    with torch.no_grad(), seeded(0):
        run = draw(model, 4, context=context)
        seen = observed_sites(model, run, 4, context)
    return Batch({k: s.value for k, s in run.sites.items() if s.rows and k not in seen})


@pytest.mark.parametrize("name", FAMILIES)
def test_the_programs_keep_the_rules(name: str) -> None:
    found = example(name)
    assert pgm.check(found.model, found.data).problems == ()


@pytest.mark.parametrize("name", FAMILIES)
def test_the_objective_is_one_finite_number_a_row(name: str) -> None:
    found = example(name)
    if not trains(found.model):
        pytest.skip(pgm.abilities(found.model)["objective"])
    loss = pgm.objective(found.model, few(found), size=100, seed=0)
    assert loss.shape == (4,)
    assert loss.isfinite().all()


@pytest.mark.parametrize("name", FAMILIES)
def test_gradients_reach_every_parameter(name: str) -> None:
    found = example(name)
    if not trains(found.model):
        pytest.skip(pgm.abilities(found.model)["objective"])
    batch = take(prepare(found.model, found.data), slice(0, 64))
    pgm.objective(found.model, batch, seed=0).mean().backward()
    without = [k for k, p in found.model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    assert all(p.grad.isfinite().all() for p in found.model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_falls(name: str) -> None:
    found, run = fitted(name)
    if run is None:
        pytest.skip("nothing to train")
    if not found.loss_falls:
        pytest.skip("its objective is a game or a contrast, not a loss that falls; see its tests")
    tenth = max(1, len(run.steps) // 10)
    first = sum(step.loss for step in run.steps[:tenth]) / tenth
    assert run.loss < first


@pytest.mark.parametrize("verb", QUESTIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_answers_have_their_shapes(name: str, verb: str) -> None:
    answer = ask(name, verb, seed=0)
    found, _ = fitted(name)
    batch = few(found)
    sites = observed(found.model, batch)
    if verb in ("sample", "decode"):
        assert {k: answer[k].shape for k in sites} == {k: batch[k].shape for k in sites}
    elif verb == "log_prob":
        assert answer.value.shape == answer.error.shape == (4,)
        assert answer.value.isfinite().all()
    elif verb == "encode":
        assert all(len(code) == 4 for code in answer.values())
        assert answer
    elif verb == "surprise":
        assert answer.shape == (4,)
    elif verb == "interpolate":
        assert all(answer[k].shape == (9, *batch[k].shape[1:]) for k in sites)
    else:
        assert all(answer.draws[k].shape == (5, *batch[k].shape) for k in sites)
        assert answer.ess.shape == (4,)


@pytest.mark.parametrize("verb", QUESTIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_seed_gives_the_same_answer_and_leaves_the_global_state(
    name: str, verb: str
) -> None:
    fitted(name)  # building a model draws its first weights
    before = torch.get_rng_state()
    first, second = (ask(name, verb, seed=3) for _ in range(2))
    if verb not in ("decode", "interpolate"):
        fitted(name)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(tensors(first), tensors(second), strict=True):
        assert torch.equal(a, b)


def tensors(answer: Any) -> list[torch.Tensor]:
    if isinstance(answer, torch.Tensor):
        return [answer]
    if isinstance(answer, dict):
        return list(answer.values())
    if isinstance(answer, pgm.LogProb):
        return [answer.value, answer.error]
    return [*answer.draws.values(), answer.ess]


@pytest.mark.parametrize("verb", (*QUESTIONS, "objective"))
@pytest.mark.parametrize("name", FAMILIES)
def test_a_refusal_explains(name: str, verb: str) -> None:
    model = example(name).model
    answer = pgm.abilities(model)[verb]
    if answer in ("own", "generic"):
        return
    assert "use" in answer.lower(), f"{name} refuses {verb} without saying what to use: {answer}"
    assert len(answer) > 40


@pytest.mark.parametrize("name", FAMILIES)
def test_the_generic_bound_is_below_the_own_density(name: str) -> None:
    found, _ = fitted(name)
    if pgm.abilities(found.model)["log_prob"] != "own":
        pytest.skip("no density of its own")
    batch = few(found, 64)
    own = pgm.log_prob(found.model, batch, seed=0)
    if own.kind not in ("exact",) or not found.bound_applies:
        pytest.skip(f"its density is {own.kind}, or its programs have no bound")
    with torch.no_grad(), seeded(0):
        log_w = log_weight(found.model, batch, particles=200).rows
    bound, error = log_w.mean(), log_w.std() / math.sqrt(log_w.numel())
    assert bound <= own.value.mean() + 4 * error + 1e-3


def box(model: pgm.Model, x: torch.Tensor, *, margin: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The range of some rows, a few standard deviations wider, within the support of the site."""
    low, high = support(model)
    wider = margin * x.std(0)
    return (x.min(0).values - wider).clamp(low, high), (x.max(0).values + wider).clamp(low, high)


def support(model: pgm.Model) -> tuple[float, float]:
    """The least and the largest value that a cell of x can take."""
    with torch.no_grad(), seeded(0):
        found = draw(model, 2).sites["x"].fn.support
    while isinstance(found, constraints.independent):
        found = found.base_constraint
    ends = (vars(found).get(end) for end in ("lower_bound", "upper_bound"))
    low, high = (float(v) if isinstance(v, int | float) else None for v in ends)
    return -math.inf if low is None else low, math.inf if high is None else high


@pytest.mark.parametrize("name", FAMILIES)
def test_an_own_density_is_zero_where_nothing_is_drawn(name: str) -> None:
    found, _ = fitted(name)
    model, batch = found.model, few(found)
    plain = observed(model, batch) == ["x"] and not found.discrete
    if not plain or pgm.abilities(model)["log_prob"] != "own":
        pytest.skip("no density of its own, or of several sites")
    low, high = support(model)
    for beyond in (low - 1, high + 1):
        if math.isfinite(beyond):
            x = torch.full_like(batch["x"], beyond)
            assert (pgm.log_prob(model, x, seed=0).value == -math.inf).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_two_dimensional_density_integrates_to_one(name: str) -> None:
    found, _ = fitted(name)
    model, batch = found.model, few(found)
    sites = observed(model, batch)
    continuous = sites == ["x"] and batch["x"].shape[1:] == (2,) and not found.discrete
    if not continuous or pgm.abilities(model)["log_prob"] not in ("own", "generic"):
        pytest.skip("no density on the plane")
    low, high = box(model, prepare(model, found.data)["x"], margin=2.0)
    side = 120 if pgm.log_prob(model, batch, seed=0).kind == "exact" else 50
    middles = (torch.arange(side) + 0.5) / side
    grid = low + (high - low) * torch.cartesian_prod(middles, middles)
    density = pgm.log_prob(model, grid, particles=20, seed=0)
    if density.kind not in ("exact", "bound"):
        pytest.skip(f"its density is {density.kind}")
    cell = float(((high - low) / side).prod())
    mass = float(density.value.double().exp().sum()) * cell
    if density.kind == "exact":
        assert mass == pytest.approx(1.0, abs=0.03)
    else:
        assert mass < 1.1


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_and_density_agree(name: str) -> None:
    """For x ~ p, E[log p(x)] over fresh samples is the same wherever the samples come from.

    Samples of the model are weighed against importance resampled points of a broad uniform: the
    mean of every coordinate under the density must be the mean of the samples.
    """
    found, _ = fitted(name)
    model, batch = found.model, few(found)
    plane = observed(model, batch) == ["x"] and batch["x"].shape[1:] == (2,)
    if not plane or found.discrete or pgm.abilities(model)["log_prob"] not in ("own", "generic"):
        pytest.skip("no density on the plane")
    kind = pgm.log_prob(model, batch, seed=0).kind
    if kind != "exact":
        pytest.skip(f"its density is {kind}")
    x = pgm.sample(model, 4000, seed=1)["x"]
    low, high = box(model, x, margin=1.0)
    with seeded(2):
        u = low + (high - low) * torch.rand(20000, 2)
    density = pgm.log_prob(model, u, seed=0)
    w = density.value.double().softmax(0)[:, None]
    mean = (w * u).sum(0)
    spread = (w * (u - mean) ** 2).sum(0).sqrt()
    ess = float(1 / w.square().sum())
    error = 4 * spread * (1 / ess + 1 / len(x)) ** 0.5
    assert ((mean - x.mean(0)).abs() < error + 1e-3).all()
    assert torch.allclose(spread.float(), x.std(0), rtol=0.15)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_model_comes_back(name: str, tmp_path: Any) -> None:
    found, _ = fitted(name)
    pgm.save(found.model, tmp_path / "model.pt")
    again = pgm.load(tmp_path / "model.pt")
    assert type(again) is type(found.model)
    state, revived = found.model.state_dict(), again.state_dict()
    assert all(torch.equal(state[key], revived[key]) for key in state)
    context = context_of(found.model, few(found))
    a = pgm.sample(found.model, 4, context=context, seed=5)
    b = pgm.sample(again, 4, context=context, seed=5)
    assert all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("name", FAMILIES)
def test_missing_cells_are_handled_or_refused(name: str) -> None:
    """A hidden cell never reaches a density as a number: whatever stands in it, nothing changes."""
    found, _ = fitted(name)
    model, batch = found.model, few(found)
    site = observed(model, batch)[0]
    if pgm.abilities(model)["log_prob"] not in ("own", "generic"):
        pytest.skip("no density")
    answers = []
    for filler in (0.0, 1.0):
        hidden = dict(batch)
        seen = torch.ones_like(batch[site], dtype=torch.bool)
        seen.view(4, -1)[:2, 0] = False
        hidden[site] = torch.where(seen, batch[site], torch.full_like(batch[site], filler))
        hidden[site + SEEN] = seen
        try:
            answers.append(pgm.log_prob(model, hidden, particles=8, seed=0).value)
        except pgm.Unsupported as refusal:
            assert "use" in str(refusal).lower()
            return
    assert torch.allclose(*answers, atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_imputation_keeps_what_was_seen(name: str) -> None:
    found, _ = fitted(name)
    model, batch = found.model, few(found)
    site = observed(model, batch)[0]
    if pgm.abilities(model)["impute"] not in ("own", "generic"):
        pytest.skip(pgm.abilities(model)["impute"])
    hidden = Batch(batch)
    seen = torch.ones_like(batch[site], dtype=torch.bool)
    seen.view(4, -1)[1:3, -1] = False
    hidden[site + SEEN] = seen
    try:
        done = pgm.impute(model, hidden, draws=7, particles=50, seed=0)
    except pgm.Unsupported as refusal:
        assert "use" in str(refusal).lower()
        return
    x = done.draws[site]
    assert x.shape == (7, *batch[site].shape)
    assert torch.equal(x[:, seen], batch[site][seen].expand(7, -1).to(x.dtype))
    assert x.isfinite().all()


@pytest.mark.parametrize("name", FAMILIES)
def test_data_are_never_changed(name: str) -> None:
    found = example(name)
    model, batch = found.model, few(found)
    before = copy.deepcopy(dict(batch))
    if trains(model):
        pgm.fit(model, batch, steps=2, seed=0, progress=False)
    assert all(torch.equal(batch[key], before[key]) for key in before)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_unknown_site_is_an_error(name: str) -> None:
    found, _ = fitted(name)
    if pgm.abilities(found.model)["log_prob"] not in ("own", "generic"):
        pytest.skip("no density")
    batch = few(found)
    batch["no_such_site"] = torch.zeros(rows_of(batch))
    with pytest.raises(ValueError, match="no_such_site"):
        pgm.log_prob(found.model, batch)


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_independent(name: str) -> None:
    """The density of a row is the same whatever rows stand beside it."""
    found, _ = fitted(name)
    if pgm.abilities(found.model)["log_prob"] not in ("own", "generic"):
        pytest.skip("no density")
    batch = few(found)
    both = pgm.log_prob(found.model, repeat(batch, 2), seed=0)
    if both.kind != "exact":
        pytest.skip("a Monte Carlo density")
    alone = pgm.log_prob(found.model, take(batch, slice(0, 1)), seed=0)
    assert torch.allclose(alone.value, both.value[:1], atol=1e-3, rtol=1e-4)
