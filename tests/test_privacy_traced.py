"""Replayed clipped sums are those of single rows, whatever the lot's size, or are not used.

The reference is the loop: plain autograd on one row after the other, with the same noise. The
planted bugs are those a frame invites: places without a row that count, a bound that is lost, a row
that is not finite and is kept, a program that changes after it was recorded.
"""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pgm
import privacy
from pgm.batch import Batch, rows_of, take
from pgm.families import example
from pgm.families.mixture import GaussianMixture
from pgm.model import Model
from pgm.randomness import seeded
from pgm.traced import TraceWarning
from pgm.verb import prepare
from privacy.gradients import ClippedSum, PerRow, frames
from privacy.gradients.rows import Layers
from privacy.gradients.traced import TracedRows

FAMILIES = ["bayesnet", "copula", "factor", "gan", "hierarchical", "mixture", "rbm", "vae"]
"""With and without shared terms, layers, draws and nested gradients; small, as recording takes its
time."""
X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def mixture() -> GaussianMixture:
    torch.manual_seed(0)
    return GaussianMixture(2, 3).double()


def traced(model: Model, *, size: int, lot: float, **options: Any) -> TracedRows:
    return TracedRows(model, backend="graph", lot=lot, told=True, size=size, **options)


def assert_same(found: ClippedSum, expected: ClippedSum) -> None:
    torch.testing.assert_close(found.norms, expected.norms, rtol=1e-5, atol=1e-10)
    torch.testing.assert_close(found.losses, expected.losses, equal_nan=True)
    assert torch.equal(found.finite, expected.finite)
    assert found.gradients.keys() == expected.gradients.keys()
    size = sum(float(g.square().sum()) for g in expected.gradients.values()) ** 0.5
    for name, g in expected.gradients.items():
        off = float((found.gradients[name] - g).norm())
        assert off <= 1e-5 * float(g.norm()) + 1e-9 * size, name


@pytest.mark.parametrize("name", FAMILIES)
def test_replayed_sums_are_those_of_single_rows(name: str) -> None:
    shown = example(name)
    model = shown.model.double().train()
    batch = take(prepare(model, shown.data), slice(0, 6))
    n, options = rows_of(batch), {k: v for k, v in shown.fit.items() if k == "objective"}
    rows = traced(model, size=n, lot=n, terms="split", **options)
    loop = PerRow(model, size=n, route="loop", terms="split", **options)
    with seeded(1):
        clip = float(loop.clipped(batch, 1.0).norms.median())
    sums = []
    for by in (rows, loop):
        with seeded(1):
            sums.append(by.clipped(batch, clip))
    assert rows.why is None and str(rows).endswith("compiled (graph)")
    assert_same(*sums)
    public = []
    for by in (rows, loop):
        with seeded(2):
            public.append(by.public_gradients(3))
    assert public[0].keys() == public[1].keys()
    for parameter, g in public[1].items():
        torch.testing.assert_close(public[0][parameter], g, rtol=1e-5, atol=1e-9)


def test_lots_of_every_size_share_one_record() -> None:
    model = mixture()
    rows, loop = traced(model, size=12, lot=12), PerRow(model, size=12, route="loop")
    for n in (12, 5, 1, 0, 13, 40):
        batch = Batch(x=X[:n])
        assert_same(rows.clipped(batch, 0.3), loop.clipped(batch, 0.3))
    assert rows.why is None and len(rows._frames) == 1


def test_rows_in_a_frame_have_their_own_draws() -> None:
    shown = example("vae")
    model, n = shown.model.double().train(), 5
    batch = take(prepare(model, shown.data), slice(0, n))
    rows = traced(model, size=8, lot=8, route="vmap")
    with seeded(1):
        found = rows.clipped(batch, 0.5)
    padded = Batch({k: torch.cat([x, x.new_zeros(3, *x.shape[1:])]) for k, x in batch.items()})
    tables: dict[Any, Tensor] = {}
    with seeded(1):
        PerRow(model, size=8, route="vmap")(padded, tables=tables)
    few = {(k[0], k[1], torch.Size((n, *k[2][1:])), *k[3:]): t[:n] for k, t in tables.items()}
    assert_same(found, PerRow(model, size=8, route="loop").clipped(batch, 0.5, tables=few))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, 1e200])
def test_a_row_that_is_not_finite_counts_as_zero(bad: float) -> None:
    model, x = mixture(), X[:9].clone()
    rows = traced(model, size=12, lot=12)
    x[4] = bad
    found = rows.clipped(Batch(x=x), 0.3)
    without = rows.clipped(Batch(x=torch.cat([x[:4], x[5:]])), 0.3)
    assert found.finite.tolist() == [i != 4 for i in range(9)] and found.norms[4] == 0
    for name, g in without.gradients.items():
        torch.testing.assert_close(found.gradients[name], g)


def test_layers_and_a_moving_bound() -> None:
    model = mixture()
    rows, loop = traced(model, size=12, lot=12), PerRow(model, size=12, route="loop")
    names = tuple(name for name, _ in model.named_parameters())
    layers = Layers(((names[:1], 0.1), (names[1:], 0.2)))
    for clip in (0.5, 0.01, layers, 3.0):
        assert_same(rows.clipped(Batch(x=X[:7]), clip), loop.clipped(Batch(x=X[:7]), clip))
    assert rows.why is None and len(rows._frames) == 2


def places_count(parts: Any, clip: Any, taken: Tensor) -> Any:
    return summed(parts, clip, torch.ones_like(taken))


def nothing_is_clipped(parts: Any, clip: Any, taken: Tensor) -> Any:
    return summed(parts, clip * 1e9, taken)


def bound_is_doubled(parts: Any, clip: Any, taken: Tensor) -> Any:
    return summed(parts, clip * 2, taken)


def what_is_not_finite_is_kept(parts: Any, clip: Any, taken: Tensor) -> Any:
    *sums, norms, kept = summed(parts, clip, taken)
    total = sum(part.weighted(torch.zeros_like(norms)).sum() for part in parts.values())
    return (*(g + total for g in sums), norms, kept)


summed = frames._summed
BUGS = [places_count, nothing_is_clipped, bound_is_doubled, what_is_not_finite_is_kept]


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_found_before_a_record_is_used(
    bug: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = mixture()
    monkeypatch.setattr(frames, "_summed", bug)
    rows, loop = traced(model, size=12, lot=12), PerRow(model, size=12, route="loop")
    with pytest.warns(TraceWarning, match=r"place without a row|one row moves|is off by"):
        found = rows.clipped(Batch(x=X[:7]), 0.3)
    assert rows.why is not None
    assert_same(found, loop.clipped(Batch(x=X[:7]), 0.3))


class Moody(Model):
    """Its scale is an attribute that changes with the user's mood."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.mood = [1.0]

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mean, self.mood[0]).to_event(1))


def test_a_program_that_changes_is_found_and_run_again() -> None:
    model, batch = Moody(), Batch(x=X[:7])
    rows, loop = traced(model, size=12, lot=12), PerRow(model, size=12, route="loop")
    rows.clipped(batch, 0.3)
    model.mood[0] = 5.0
    with pytest.warns(TraceWarning, match="at call 2"):
        found = rows.clipped(batch, 0.3)
    assert_same(found, loop.clipped(batch, 0.3))


class Hoarder(Moody):
    """Keeps the rows, but in a bad mood alone, which it is not in when it is recorded."""

    seen: Tensor | None = None

    def guide(self, n: int, x: Tensor) -> None:
        with pgm.rows(n):
            if self.mood[0] > 1:
                self.seen = x


def test_rows_that_are_kept_once_nothing_is_replayed_any_more_are_found() -> None:
    options: Any = {"accountant": "rdp", "expected_batch_size": 8, "compile": "graph", "seed": 5}
    model = Hoarder()
    run = privacy.PrivateTraining(model, X, epsilon=3.0, delta=1e-3, steps=9, **options)
    steps = iter(run)
    next(steps)
    assert run.by_row.replayed
    model.mood[0] = 5.0
    with pytest.warns(TraceWarning, match="at call 2"), pytest.raises(RuntimeError, match="'seen'"):
        list(steps)
    assert not run.by_row.replayed


def test_a_program_without_a_record_says_why() -> None:
    shown = example("hmm")
    batch = take(prepare(shown.model, shown.data), slice(0, 3))
    rows = traced(shown.model, size=8, lot=8)
    with pytest.warns(TraceWarning, match="looks at the values"):
        rows.clipped(batch, 1.0)
    assert str(rows).startswith("vmap, not compiled: it looks at the values")


CLIPS = [0.2, privacy.AdaptiveClip(start=0.2), privacy.LayerClip(0.2)]


@pytest.mark.parametrize("clip", CLIPS, ids=["number", "adaptive", "layers"])
def test_a_replayed_fit_is_the_same_fit(clip: Any) -> None:
    runs = []
    for compile in (False, "graph"):
        options: Any = {"accountant": "rdp", "expected_batch_size": 8, "clip": clip, "seed": 5}
        run = privacy.fit(
            mixture(), X, epsilon=3.0, delta=1e-3, steps=9, compile=compile, **options
        )
        runs.append(run)
    plain, replayed = runs
    assert plain.report.route == "vmap" and replayed.report.route == "vmap, compiled (graph)"
    assert replayed.epsilon == plain.epsilon
    assert replayed.ledger.releases == plain.ledger.releases
    for p, q in zip(plain.model.parameters(), replayed.model.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_the_compiled_sum() -> None:
    model = mixture().float()
    rows = TracedRows(model, backend="inductor", lot=12, told=True, size=12)
    loop, batch = PerRow(model, size=12, route="loop"), Batch(x=X[:7].float())
    found, expected = rows.clipped(batch, 0.3), loop.clipped(batch, 0.3)
    for name, g in expected.gradients.items():
        torch.testing.assert_close(found.gradients[name], g, rtol=1e-4, atol=1e-5)
