"""Laws of the chains that move together, each held against a bug that the posteriors let pass.

Planted, one at a time: ends of rejected trajectories kept as draws, their densities reported, a
threshold of divergence that is never met, a metric that is never renewed, the last step size and
trajectory length taken for their averages, a gradient of ChEES without its means.
"""

import math
import warnings

import jaxtyping
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

import pgm
from pgm.inference import InferenceWarning, chees
from pgm.inference.hmc.adaptation import StepSize, TrajectoryLength
from pgm.inference.hmc.metric import Metric
from pgm.inference.hmc.sampler import Sampler
from pgm.inference.hmc.trajectory import Move, State, evaluate, move


class Mean(pgm.Model):
    def model(self, n: int) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 2.0))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(mu, 1.0))


def test_rejected_trajectories_leave_the_chain_where_it_is_with_its_density() -> None:
    y = torch.tensor([0.5, 1.0, -0.3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InferenceWarning)
        found = chees(Mean(), {"y": y}, draws=300, warmup=60, chains=4, target_accept=0.4, seed=0)
    mu = found.draws["mu"]
    prior = torch.distributions.Normal(0.0, 2.0).log_prob(mu)
    by_hand = prior + torch.distributions.Normal(mu[..., None], 1.0).log_prob(y).sum(-1)
    torch.testing.assert_close(found.sample_stats["lp"], by_hand, check_dtype=False)
    stayed = (mu.diff(dim=1) == 0).double().mean()
    refused = 1 - float(found.sample_stats["acceptance_rate"].double().mean())
    assert refused > 0.1
    assert float(stayed) == pytest.approx(refused, abs=0.05)


def normal(sd: Tensor):
    """The density of independent normals and its gradient."""
    return lambda u: (-0.5 * (u / sd).square().sum(-1), -u / sd.square())


@pytest.mark.parametrize(("step_size", "diverges"), [(0.1, False), (3.0, True)])
def test_a_trajectory_that_runs_away_has_diverged(step_size: float, *, diverges: bool) -> None:
    density = normal(torch.ones(3, dtype=torch.float64))
    state = evaluate(density, torch.ones(5, 3, dtype=torch.float64))
    metric = Metric(torch.ones(3, dtype=torch.float64))
    made = move(density, state, metric, step_size, 6, torch.Generator().manual_seed(0))
    assert made.diverging.tolist() == [diverges] * 5
    assert made.state.u.isfinite().all()


def sampler(sd: Tensor) -> Sampler:
    generator = torch.Generator().manual_seed(0)
    density = normal(sd)
    u = sd * torch.randn(16, len(sd), generator=generator, dtype=torch.float64)
    return Sampler(
        density,
        evaluate(density, u),
        Metric(torch.ones_like(sd)),
        generator=generator,
        target_accept=0.8,
        max_steps=64,
        dense=False,
    )


def test_the_warm_up_finds_the_scales_and_leaves_averages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jaxtyping.config.update("jaxtyping_disable", True)
    monkeypatch.setattr(StepSize, "mean", property(lambda _: 0.123))
    monkeypatch.setattr(TrajectoryLength, "mean", property(lambda _: 0.77))
    sd = torch.tensor([100.0, 1.0], dtype=torch.float64)
    chains = sampler(sd)
    for _ in chains.warm_up(200):
        pass
    jaxtyping.config.update("jaxtyping_disable", False)
    assert (chains.step_size, chains.time) == (0.123, 0.77)
    ratio = float(chains.metric.scale[0] / chains.metric.scale[1])
    assert ratio == pytest.approx(100.0, rel=0.2)


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_a_trajectory_length_does_not_depend_on_where_the_mean_is(shift: float) -> None:
    """Hoffman et al. (2021), eq. 6: distances are from the mean. By hand, from five chains."""
    g = torch.Generator().manual_seed(0)
    x, end, velocity = (torch.randn(5, 2, generator=g, dtype=torch.float64) for _ in range(3))
    accept = torch.rand(5, generator=g, dtype=torch.float64)
    none = torch.zeros(5, dtype=torch.float64)
    at = [State(u + shift, none, torch.zeros_like(u)) for u in (x, end)]
    made = Move(at[1], at[1], velocity, accept, none, none.bool())
    length = TrajectoryLength(1.0)
    length.update(at[0], made, Metric(torch.ones(2, dtype=torch.float64)), 0.5, 100.0)
    weight = accept / accept.sum()
    from_mean, end_from_mean = x - x.mean(0), end - weight @ end
    change = end_from_mean.square().sum(1) - from_mean.square().sum(1)
    slope = float(weight @ (change * (end_from_mean * velocity).sum(1)))
    assert math.log(length.value) == pytest.approx(math.copysign(0.05, slope))
    assert length._square == pytest.approx(0.05 * (0.5 * slope) ** 2)
