"""EM of linear-Gaussian state spaces: Fisher's identity, the way up, the truth, and gradients."""

import itertools
import math
from dataclasses import fields
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

import pgm
from pgm.families.kalman import StateSpace, shumway_stoffer
from pgm.inference.chains.kalman import System, log_likelihood
from pgm.inference.chains.shumway_stoffer import Sums, expected_sums, maximum
from pgm.randomness import seeded

NAN = float("nan")
Covariance = Literal["diagonal", "full"]
ALL: tuple[Literal["transition", "observation", "initial"], ...] = (
    "transition", "observation", "initial",
)  # fmt: skip


def made(seed: int, covariance: Covariance = "full", length: int = 6) -> StateSpace:
    with seeded(seed):
        model = StateSpace(length, latents=2, features=3, covariance=covariance).double()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(0.5 * torch.randn_like(p))
    return model


def series(model: StateSpace, n: int, *, holes: Literal["holes", "complete"]) -> Tensor:
    x = pgm.sample(model, n, seed=0)["x"]
    if holes:
        x[torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) < 0.3] = NAN
        x[0, 2] = x[1, 0] = x[2, 3:] = x[3] = NAN
    return x


def pieces(x: Tensor) -> tuple[Tensor, Tensor]:
    return x.nan_to_num(), ~x.isnan()


def free(system: System) -> System:
    parts = (getattr(system, f.name).detach().clone().requires_grad_() for f in fields(System))
    return System(*parts)


def expected_log_likelihood(s: System, sums: Sums) -> Tensor:
    """E log p(z, x) of complete data (Shumway & Stoffer 1982, eq. 9), first states apart."""
    full = torch.cat([s.C, s.offset[:, None]], -1)
    moved = sums.S11 - 2 * sums.S10 @ s.A.mT + s.A @ sums.S00 @ s.A.mT
    shown = sums.xx - 2 * sums.xz @ full.mT + full @ sums.zz @ full.mT
    return -0.5 * (
        sums.moves * s.Q.logdet()
        + torch.linalg.solve(s.Q, moved).trace()
        + sums.steps * s.R.logdet()
        + torch.linalg.solve(s.R, shown).trace()
    )


@pytest.mark.parametrize("holes", ["complete", "holes"])
def test_the_slope_of_the_expectation_is_that_of_the_likelihood(
    holes: Literal["holes", "complete"],
) -> None:
    """Fisher's identity: grad log p(x) = grad E log p(z, x) where the expectation was taken."""
    x = series(made(0), 7, holes=holes == "holes")
    system, names = free(made(1).system), ("A", "C", "offset", "Q", "R")
    at = [getattr(system, name) for name in names]
    with torch.no_grad():
        sums, value = expected_sums(system, *pieces(x))
    likelihood = log_likelihood(system, *pieces(x)).sum()
    assert value == pytest.approx(likelihood.item())
    theirs = torch.autograd.grad(likelihood, at)
    ours = torch.autograd.grad(expected_log_likelihood(system, sums), at)
    for name, a, b in zip(names, ours, theirs, strict=True):
        a, b = (0.5 * (g + g.mT) if name in "QR" else g for g in (a, b))
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_a_step_ends_where_the_expectation_is_highest(covariance: Covariance) -> None:
    x = series(made(0), 9, holes=True)
    with torch.no_grad():
        sums, _ = expected_sums(made(1).system, *pieces(x))
        found = maximum(made(1).system, sums, ALL, covariance)
    best = free(found)
    at = [best.A, best.C, best.offset, best.Q, best.R]
    *means, slope_Q, slope_R = torch.autograd.grad(expected_log_likelihood(best, sums), at)
    for slope in means:
        assert slope.abs().max() < 1e-8
    for slope in (slope_Q, slope_R):
        assert (slope if covariance == "full" else slope.diagonal()).abs().max() < 1e-8
    assert covariance == "full" or torch.equal(best.Q, best.Q.diagonal().diag())


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
@pytest.mark.parametrize("holes", ["complete", "holes"])
def test_the_likelihood_rises_every_sweep(
    covariance: Covariance, holes: Literal["holes", "complete"]
) -> None:
    x = series(made(0, covariance), 20, holes=holes == "holes")
    model = made(3, covariance)
    run = shumway_stoffer(model, x, steps=40)
    assert all(b >= a - 1e-8 for a, b in itertools.pairwise(run.log_likelihood))
    assert run.log_likelihood[-1] > run.log_likelihood[0] + 20
    assert float(pgm.log_prob(model, x).value.sum()) == pytest.approx(run.log_likelihood[-1])
    assert "in 40 steps" in str(run)


def test_known_parameters_are_recovered() -> None:
    """An oscillation seen in noise, at another scale: noises and what no change of units moves."""
    angle, slow = 0.6, 0.95
    A = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    C = torch.tensor([[1.0, 0.0], [0.5, 1.0]])
    source = StateSpace(60, features=2, transition=slow * A, observation=C).double()
    with torch.no_grad():
        source.process.log_scales.fill_(math.log(0.4))
        source.noise.log_scales.copy_(torch.tensor([0.3, 0.8]).log())
    x = pgm.sample(source, 40, seed=0)["x"]
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.1] = NAN
    with seeded(0):
        model = StateSpace(60, latents=2, features=2).double()
    run = shumway_stoffer(model, x, steps=150, tolerance=1e-4)
    roots = torch.linalg.eigvals(model.transition.detach())
    assert roots.abs().tolist() == pytest.approx([slow] * 2, abs=0.02)
    assert roots.angle().abs().tolist() == pytest.approx([angle] * 2, abs=0.02)
    assert model.noise.log_scales.exp().tolist() == pytest.approx([0.3, 0.8], abs=0.04)
    assert run.log_likelihood[-1] > float(pgm.log_prob(source, x).value.sum())


NILE = """
1120 1160 963 1210 1160 1160 813 1230 1370 1140 995 935 1110 994 1020 960 1180 799 958 1140 1100
1210 1150 1250 1260 1220 1030 1100 774 840 874 694 940 833 701 916 692 1020 1050 969 831 726 456
824 702 1120 1100 832 764 821 768 845 864 862 698 845 744 796 1040 759 781 865 845 944 984 897 822
1010 771 676 649 846 812 742 801 1040 860 874 848 890 744 749 838 1050 918 986 797 923 975 815 1020
906 901 1170 912 746 919 718 714 740
"""
"""Flow of the Nile at Aswan in 1871 to 1970, in 10^8 cubic metres (Cobb 1978)."""


def test_the_noises_of_the_nile() -> None:
    """Durbin & Koopman (2012), Sec. 2.10: the variances 15099 and 1469.1 are most likely."""
    x = torch.tensor([[float(flow) for flow in NILE.split()]], dtype=torch.float64)
    model = StateSpace.local_level(100, initial_scale=1e7).double()
    with torch.no_grad():
        model.process.log_scales.fill_(math.log(43.0))
        model.noise.log_scales.fill_(math.log(115.0))
    run = shumway_stoffer(model, x, steps=120, tolerance=1e-9)
    assert model.noise.covariance.item() == pytest.approx(15099, rel=2e-3)
    assert model.process.covariance.item() == pytest.approx(1469.1, rel=2e-2)
    assert model.transition.item() == model.observation.item() == 1.0
    assert run.steps > 10


def test_gradients_and_expectations_end_in_the_same_place() -> None:
    source = StateSpace.local_trend(15, initial_scale=1.0).double()
    with torch.no_grad():
        source.process.log_scales.copy_(torch.tensor([0.7, 0.5]).log())
    x = pgm.sample(source, 60, seed=0)["x"]
    x[:, 9] = x[4, 11:] = NAN
    model = StateSpace.local_trend(15, initial_scale=1.0).double()
    run = shumway_stoffer(model, x, steps=150, tolerance=1e-9)
    above = [p.detach().clone() for p in model.parameters()]
    optimiser = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = pgm.objective(model, x).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    best = float(pgm.log_prob(model, x).value.sum())
    assert run.log_likelihood[-1] == pytest.approx(best, abs=2e-3)
    for before, after in zip(above, model.parameters(), strict=True):
        torch.testing.assert_close(before, after.detach(), atol=0.02, rtol=0)
    stays = shumway_stoffer(model, x, steps=1)
    assert stays.log_likelihood[1] == pytest.approx(best, abs=1e-6)


def test_time_after_the_last_step_teaches_nothing() -> None:
    """One step of EM on padded series is one on the short ones, whatever stands in single cells."""
    x = series(made(0), 8, holes=False)
    x[1, 2, 0] = NAN
    padded = torch.cat([x, torch.full((8, 4, 3), NAN)], 1)
    none = torch.cat([padded, torch.full((1, 10, 3), NAN)])
    runs = [(made(5), x), (made(5, length=10), padded), (made(5, length=10), none)]
    for model, data in runs:
        shumway_stoffer(model, data, steps=2)
    for ours in zip(*(model.parameters() for model, _ in runs), strict=True):
        torch.testing.assert_close(ours[1], ours[0])
        torch.testing.assert_close(ours[2], ours[0])


def test_single_steps_have_no_moves() -> None:
    model = StateSpace(1, latents=1, features=2).double()
    x = torch.randn(30, 1, 2, generator=torch.Generator().manual_seed(0)).double()
    before = model.transition.item()
    run = shumway_stoffer(model, x, steps=5)
    assert model.transition.item() == before
    assert run.log_likelihood[-1] > run.log_likelihood[0]


@pytest.mark.parametrize(
    ("options", "x", "says"),
    [
        ({"steps": 0}, torch.zeros(2, 3), "steps is 0"),
        ({}, torch.full((2, 3), NAN), "Every cell of the series is missing"),
    ],
)
def test_bad_input_is_explained(options: dict[str, Any], x: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        shumway_stoffer(StateSpace(3), x, **options)
