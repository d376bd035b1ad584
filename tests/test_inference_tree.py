"""One transition of NUTS leaves its target as it is, and its trajectories stop where they turn."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pgm.inference.hmc.tree import (
    Grower,
    Point,
    Scale,
    Stretch,
    Transition,
    Vector,
    join,
    transition,
    turns,
)

UNIT = Scale(np.ones(2), np.ones(2))
ROOT = np.array([[1.0, 0.0], [1.2, 0.5]])
COVARIANCE = ROOT @ ROOT.T


def bent(u: Vector) -> tuple[float, Vector]:
    """x ~ N(0, 1), y ~ N(x^2, 1/4)."""
    x, y = u
    off = y - x * x
    return -0.5 * x * x - 2 * off * off, np.array([-x + 8 * off * x, -4 * off])


def normal(u: Vector) -> tuple[float, Vector]:
    away = np.linalg.solve(COVARIANCE, u)
    return -0.5 * float(u @ away), -away


def moved(
    density: Callable[[Vector], tuple[float, Vector]],
    starts: Vector,
    *,
    scale: Scale = UNIT,
    step_size: float = 0.5,
    depth: int = 6,
) -> list[Transition]:
    """One transition of each start."""
    g = np.random.default_rng(3)
    return [transition(density, u, *density(u), scale, step_size, depth, g) for u in starts]


@pytest.mark.parametrize("depth", [1, 2, 6])
@pytest.mark.parametrize("target", ["normal", "bent"])
def test_draws_of_the_target_stay_draws_of_it(target: str, depth: int) -> None:
    """Steps are large enough for energies to err, so that weights that are wrong would show."""
    noise = np.random.default_rng(0).standard_normal((3000, 2))
    if target == "normal":
        dense = Scale(np.diag([1.0, 2.0]), np.diag([1.0, 2.0**-0.5]))
        made = moved(normal, noise @ ROOT.T, scale=dense, step_size=0.5, depth=depth)
        after = np.linalg.solve(ROOT, np.stack([t.point.u for t in made]).T).T
    else:
        starts = np.stack([noise[:, 0], noise[:, 0] ** 2 + 0.5 * noise[:, 1]], 1)
        made = moved(bent, starts, step_size=0.45, depth=depth)
        x, y = np.stack([t.point.u for t in made]).T
        after = np.stack([x, 2 * (y - x * x)], 1)
    assert np.mean([t.acceptance for t in made]) < 0.97
    assert np.mean(np.abs(after - noise) > 0.01) > 0.5, "they have moved"
    for column in after.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    assert stats.kstest((after**2).sum(1), "chi2", args=(2,)).pvalue > 1e-3
    assert abs(float(np.mean(after[:, 0] * after[:, 1]))) < 4 / math.sqrt(len(after))


def test_what_a_transition_says_of_itself() -> None:
    starts = np.random.default_rng(1).standard_normal((200, 2)) @ ROOT.T
    for made, start in zip(moved(normal, starts, step_size=0.2), starts, strict=True):
        assert made.energy >= -normal(start)[0]
        log_p, gradient = normal(made.point.u)
        assert made.point.log_p == pytest.approx(log_p)
        np.testing.assert_allclose(made.point.gradient, gradient)
        assert 0 < made.acceptance <= 1 and not made.diverging
        assert 2 ** (made.depth - 1) <= made.steps < 2**made.depth


def test_a_trajectory_stops_after_half_a_turn() -> None:
    """In many dimensions its ends are apart by half a circle, whose whole takes the time 2 pi."""
    d = 60
    starts, wide = np.random.default_rng(1).standard_normal((50, d)), Scale(np.ones(d), np.ones(d))
    options: dict[str, Any] = {"scale": wide, "step_size": 0.04}
    for made in moved(lambda u: (-0.5 * float(u @ u), -u), starts, **options):
        assert math.pi / 2 < 0.04 * made.steps < 2 * math.pi
    for made in moved(lambda u: (-0.5 * float(u @ u), -u), starts, depth=3, **options):
        assert made.cut_short and made.steps == 7 and made.depth == 3


def test_points_of_a_new_half_are_drawn_by_their_weights() -> None:
    """The shares of its four points, counted over many draws, are those of exp(-H)."""
    line = Scale(np.ones(1), np.ones(1))

    def quartic(u: Vector) -> tuple[float, Vector]:
        return -float(u[0] ** 4), -4 * u**3

    u, p = np.array([-1.4]), np.array([0.5])
    log_p, gradient = quartic(u)
    start = Point(u, log_p, gradient, p, p, 0.5 * float(p @ p) - log_p)
    g = np.random.default_rng(0)
    found, counts = dict[float, float](), dict[float, int]()
    for _ in range(2000):
        new = Grower(quartic, line, 0.3, start.energy, g).grow(start, 2, forward=True)
        assert new is not None
        at = new.sample.u[0]
        counts[at], found[at] = counts.get(at, 0) + 1, math.exp(start.energy - new.sample.energy)
    assert len(found) == 4
    assert math.log(sum(found.values())) == pytest.approx(new.log_weight)
    weights = np.array([found[at] for at in counts])
    assert weights.max() > 2 * weights.min()
    expected = 2000 * weights / weights.sum()
    assert stats.chisquare(list(counts.values()), expected).pvalue > 1e-3


def test_trajectories_go_both_ways() -> None:
    made = moved(lambda u: (0.0, 0 * u), np.zeros((200, 2)), depth=1, step_size=1.0)
    forward = sum(bool(t.point.u @ t.point.p > 0) for t in made)
    assert 70 < forward < 130


def test_joined_stretches_have_the_weight_and_the_momenta_of_both() -> None:
    one, two = stretch(1.0, 2.0, 3.0), stretch(4.0, 5.0, 9.0)._replace(log_weight=math.log(3.0))
    both = join(one, two, two.sample)
    assert (both.left.p, both.right.p, both.rho) == (1.0, 5.0, 12.0)
    assert both.log_weight == pytest.approx(math.log(4.0)) and both.sample is two.sample


def test_a_step_into_the_void_diverges() -> None:
    def wall(u: Vector) -> tuple[float, Vector]:
        log_p, gradient = (-0.5 * float(u @ u), -u) if u[0] > -1 else (-math.inf, 0 * u)
        return log_p, gradient

    made = moved(wall, np.full((60, 2), -0.9), step_size=0.3)
    assert any(t.diverging for t in made) and not all(t.diverging for t in made)
    assert all(t.point.u[0] > -1 for t in made)
    infinite = moved(lambda u: (0.0 if u[0] == 0 else math.inf, 0 * u), np.zeros((5, 2)))
    assert all(t.diverging and (t.point.u == 0).all() for t in infinite)


def stretch(p: float, q: float, rho: float) -> Stretch:
    """On a line, where velocities are momenta."""
    ends = [Point(np.zeros(1), 0.0, np.zeros(1), np.array([v]), np.array([v]), 0.0) for v in (p, q)]
    return Stretch(ends[0], ends[1], ends[0], 0.0, np.array([rho]))


@pytest.mark.parametrize(
    ("left", "right", "turned"),
    [
        ((1.0, 1.0, 2.0), (1.0, 1.0, 2.0), False),
        ((1.0, 1.0, 2.0), (1.0, -1.0, 0.5), True),  # the far end goes back
        ((1.0, 1.0, 2.0), (-0.5, 1.0, 0.5), True),  # the seam does, at its right
        ((1.0, -0.5, 0.5), (1.0, 1.0, 2.0), True),  # and at its left
        ((1.0, 1.0, -3.0), (1.0, 1.0, 2.0), True),  # the sum does
    ],
)
def test_what_turns(
    left: tuple[float, float, float], right: tuple[float, float, float], *, turned: bool
) -> None:
    assert turns(stretch(*left), stretch(*right)) == turned
