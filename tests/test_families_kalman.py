"""Linear-Gaussian state spaces against the joint Gaussian of all steps, built densely."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import MultivariateNormal

import pgm
from pgm.batch import as_batch
from pgm.families.kalman import StateSpace
from pgm.inference.chains.questions import (
    filter_states,
    forecast,
    sample_states,
    smooth_states,
    viterbi,
)
from pgm.randomness import seeded

NAN = float("nan")
T, K, D = 4, 2, 2


def random(seed: int, length: int = T, **options: Any) -> StateSpace:
    with seeded(seed):
        model = StateSpace(length, **({"latents": K, "features": D} | options)).double()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(0.5 * torch.randn_like(p))
    return model


@torch.no_grad()
def joint(model: StateSpace) -> tuple[Tensor, Tensor, int]:
    """Mean and covariance of (z_0 .. z_T, x_0 .. x_T), as a linear map of independent noises.

    Returns:
        The mean, the covariance, and the number of cells of the states.
    """
    s, T = model.system, model.length
    k, d = len(s.m0), len(s.offset)
    roots = [torch.linalg.cholesky(S) for S in (s.P0, s.Q, s.R)]
    map_ = torch.zeros(T * (k + d), T * (k + d), dtype=torch.float64)
    mean = torch.zeros(T * (k + d), dtype=torch.float64)
    for t in range(T):
        z, x = slice(t * k, (t + 1) * k), slice(T * k + t * d, T * k + (t + 1) * d)
        if t:
            before = slice((t - 1) * k, t * k)
            map_[z], mean[z] = s.A @ map_[before], s.A @ mean[before]
        else:
            mean[z] = s.m0
        map_[z, z] = map_[z, z] + roots[min(t, 1)]
        map_[x], mean[x] = s.C @ map_[z], s.C @ mean[z] + s.offset
        map_[x, x] = map_[x, x] + roots[2]
    return mean, map_ @ map_.mT, T * k


def conditional(mean: Tensor, S: Tensor, at: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all cells given some of them."""
    gain = torch.linalg.solve(S[at][:, at], S[at]).mT
    return mean + gain @ (value - mean[at]), S - gain @ S[at]


@given(
    seed=st.integers(0, 10_000),
    covariance=st.sampled_from(["diagonal", "full"]),
    hidden=st.lists(st.booleans(), min_size=T * D, max_size=T * D),
)
def test_every_answer_is_that_of_the_joint_gaussian(
    seed: int, covariance: str, hidden: list[bool]
) -> None:
    hidden[-1] = False
    model = random(seed, covariance=covariance)
    mean, S, states = joint(model)
    x = pgm.sample(model, 2, seed=seed)["x"]
    seen = torch.stack([~torch.tensor(hidden), torch.ones(T * D, dtype=torch.bool)])
    batch = {"x": x, "x_seen": seen.reshape(x.shape)}
    at = seen[0].nonzero().flatten() + states
    value = x[0].flatten()[seen[0]]
    dense = MultivariateNormal(mean[at], S[at][:, at]).log_prob(value)
    own = pgm.log_prob(model, batch)
    assert own.kind == "exact"
    assert own.value[0].item() == pytest.approx(dense.item(), abs=1e-8)
    generic = pgm.log_weight(model, as_batch(batch)).rows.detach()
    torch.testing.assert_close(generic, own.value, atol=1e-8, rtol=0)
    m, P = conditional(mean, S, at, value)
    smooth = smooth_states(model, batch)
    torch.testing.assert_close(smooth.mean[0].flatten(), m[:states], atol=1e-8, rtol=0)
    for t in range(T):
        block = slice(t * K, (t + 1) * K)
        torch.testing.assert_close(smooth.covariance[0, t], P[block, block], atol=1e-8, rtol=0)
    past = at[at < states + 3 * D]
    m, P = conditional(mean, S, past, value[: len(past)])
    now, block = filter_states(model, batch), slice(2 * K, 3 * K)
    torch.testing.assert_close(now.mean[0, 2], m[block], atol=1e-8, rtol=0)
    torch.testing.assert_close(now.covariance[0, 2], P[block, block], atol=1e-8, rtol=0)
    torch.testing.assert_close(now.scale[0, 2], P[block, block].diagonal().sqrt())


def test_complete_series_share_their_covariances_and_nothing_changes() -> None:
    model, x = random(1), torch.randn(3, T, D, dtype=torch.float64)
    whole = pgm.log_prob(model, x).value
    masked = {"x": x, "x_seen": torch.ones_like(x, dtype=torch.bool)}
    torch.testing.assert_close(pgm.log_prob(model, masked).value, whole)
    torch.testing.assert_close(smooth_states(model, masked).mean, smooth_states(model, x).mean)


def test_paths_and_completions_are_draws_of_the_joint_posterior() -> None:
    model = random(2, covariance="full")
    mean, S, states = joint(model)
    x = pgm.sample(model, 1, seed=0)["x"]
    x[0, 1, 0] = x[0, 2] = NAN
    seen = ~x.isnan().flatten()
    at = seen.nonzero().flatten() + states
    m, P = conditional(mean, S, at, x.flatten()[seen])
    z = sample_states(model, x, draws=20_000, seed=0)[:, 0].flatten(1)
    torch.testing.assert_close(z.mean(0), m[:states], atol=0.05, rtol=0)
    torch.testing.assert_close(z.mT.cov(), P[:states, :states], atol=0.05, rtol=0.05)
    done = pgm.impute(model, x, draws=20_000, seed=0).draws["x"][:, 0].flatten(1)
    rest = (~seen).nonzero().flatten()
    torch.testing.assert_close(done[:, rest].mean(0), m[rest + states], atol=0.05, rtol=0)
    expected = P[rest + states][:, rest + states]
    torch.testing.assert_close(done[:, rest].mT.cov(), expected, atol=0.07, rtol=0.05)
    assert torch.equal(done[:, seen], x.flatten()[seen].expand(20_000, -1))


def test_a_forecast_is_the_joint_gaussian_of_steps_to_come() -> None:
    model, longer = random(3), random(3, T + 2)
    mean, S, states = joint(longer)
    x = pgm.sample(model, 2, seed=0)["x"]
    x[0, 3, 0] = NAN
    ahead = forecast(model, x, steps=2, draws=20_000, seed=0)
    seen = ~torch.cat([x, torch.full((2, 2, D), NAN)], 1)[0].isnan().flatten()
    at = seen.nonzero().flatten() + states
    m, P = conditional(mean, S, at, x[0].flatten()[seen[: T * D]])
    last = slice(-2 * D, None)
    torch.testing.assert_close(ahead.mean[0].flatten(), m[last], atol=1e-8, rtol=0)
    scale = P[last, last].diagonal().sqrt()
    torch.testing.assert_close(ahead.scale[0].flatten(), scale, atol=1e-8, rtol=0)
    drawn = ahead.draws[:, 0].flatten(1)
    torch.testing.assert_close(drawn.mT.cov(), P[last, last], atol=0.1, rtol=0.06)


def test_samples_have_the_joint_covariance() -> None:
    model = random(4, features=None, latents=2)
    mean, S, states = joint(model)
    x = pgm.sample(model, 20_000, seed=0)["x"]
    assert x.shape == (20_000, T)
    torch.testing.assert_close(x.mean(0), mean[states:], atol=0.06, rtol=0)
    torch.testing.assert_close(x.mT.cov(), S[states:, states:], atol=0.12, rtol=0.06)


def test_a_shorter_series_is_one_padded_with_missing_steps() -> None:
    short, long = random(5, 3), random(5, 6)
    x = torch.randn(1, 3, D, dtype=torch.float64)
    padded = torch.cat([x, torch.full((1, 3, D), NAN)], 1)
    torch.testing.assert_close(pgm.log_prob(short, x).value, pgm.log_prob(long, padded).value)


def test_the_steady_state_of_a_local_level() -> None:
    """The filter's variance tends to (q / 2)(1 + sqrt(1 + 4 r / q)) - q (Harvey 1989, Sec. 4.3.1).

    Also from a first level that nothing is known of, over 3000 steps: no variance is lost.
    """
    model = StateSpace.local_level(3000, initial_scale=1e7).double()
    q, r = 0.01, 4.0
    with torch.no_grad():
        model.process.log_scales.fill_(0.5 * math.log(q))
        model.noise.log_scales.fill_(0.5 * math.log(r))
    x = torch.randn(1, 3000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    P = filter_states(model, x).covariance[0, :, 0, 0]
    assert P[0].item() == pytest.approx(r, rel=1e-9)
    assert P[-1].item() == pytest.approx(q / 2 * (1 + math.sqrt(1 + 4 * r / q)) - q, rel=1e-9)
    smooth = smooth_states(model, x)
    assert (smooth.covariance > 0).all()
    assert (smooth.covariance[0, :, 0, 0] <= P + 1e-12).all()


def test_a_precise_sensor_and_a_wide_prior_leave_covariances_positive() -> None:
    """After Bierman (1977): the short form of the update loses a variance here."""
    eps = 1e-9
    model = StateSpace(
        2,
        features=1,
        transition=torch.eye(2),
        observation=torch.tensor([[1.0, eps]]),
        initial_scale=1 / eps,
    ).double()
    with torch.no_grad():
        model.process.log_scales.fill_(-20.0)
    P = filter_states(model, torch.zeros(1, 2, 1)).covariance[0, -1]
    assert (torch.linalg.eigvalsh(P) > 0).all()


def test_gradients_find_the_noises_of_a_level() -> None:
    source = StateSpace.local_level(20, initial_scale=1.0).double()
    with torch.no_grad():
        source.process.log_scales.fill_(math.log(0.5))
    x = pgm.sample(source, 150, seed=0)["x"]
    x[:, 10] = NAN
    x[0, 15:] = NAN
    model = StateSpace.local_level(20, initial_scale=1.0).double()
    pgm.fit(model, x, steps=70, learning_rate=0.1, schedule="cosine", seed=0, progress=False)
    assert model.process.log_scales.exp().item() == pytest.approx(0.5, abs=0.06)
    assert model.noise.log_scales.exp().item() == pytest.approx(1.0, abs=0.06)
    assert pgm.log_prob(model, x).value.sum() > pgm.log_prob(source, x).value.sum()
    assert model.transition.item() == model.observation.item() == 1.0


def test_given_matrices_stay_and_the_others_are_learned() -> None:
    model = StateSpace(5, transition=torch.eye(2), features=3)
    names = dict(model.named_parameters())
    assert "transition" not in names and {"observation", "offset", "initial_mean"} <= names.keys()
    trend = dict(StateSpace.local_trend(5, initial_scale=1.0).named_parameters())
    assert trend.keys() == {"process.log_scales", "noise.log_scales"}


def test_codes_are_means_of_states() -> None:
    model, x = random(6), torch.randn(2, T, D, dtype=torch.float64)
    z = pgm.encode(model, x)["z"]
    torch.testing.assert_close(z, smooth_states(model, x).mean)
    expected = z @ model.observation.mT + model.offset
    torch.testing.assert_close(pgm.decode(model, z)["x"], expected.detach())
    assert pgm.encode(model, x, draws=3, seed=0)["z"].shape == (3, 2, T, K)
    with pytest.raises(ValueError, match=r"shape \(n, T, 2\)"):
        pgm.decode(model, torch.zeros(2, K))


# Flow of the Nile at Aswan in 1871 to 1970, in 10^8 cubic metres (Cobb 1978).
NILE = """
1120 1160 963 1210 1160 1160 813 1230 1370 1140 995 935 1110 994 1020 960 1180 799 958 1140 1100
1210 1150 1250 1260 1220 1030 1100 774 840 874 694 940 833 701 916 692 1020 1050 969 831 726 456
824 702 1120 1100 832 764 821 768 845 864 862 698 845 744 796 1040 759 781 865 845 944 984 897 822
1010 771 676 649 846 812 742 801 1040 860 874 848 890 744 749 838 1050 918 986 797 923 975 815 1020
906 901 1170 912 746 919 718 714 740
"""


def test_the_level_of_the_nile() -> None:
    """Durbin & Koopman (2012), Sec. 2.2 and 2.10: variances 15099 and 1469.1 are most likely."""
    x = torch.tensor([[float(flow) for flow in NILE.split()]], dtype=torch.float64)
    model = StateSpace.local_level(100, initial_scale=1e7).double()
    with torch.no_grad():
        model.process.log_scales.fill_(0.5 * math.log(1469.1))
        model.noise.log_scales.fill_(0.5 * math.log(15099))
    pgm.objective(model, x).sum().backward()
    assert all(abs(p.grad.item()) < 0.005 for p in model.parameters())
    now = filter_states(model, x)
    assert now.mean[0, :2, 0].tolist() == pytest.approx([1120, 1140.9], abs=0.05)
    assert now.covariance[0, :2, 0, 0].tolist() == pytest.approx([15099, 7899.7], abs=0.5)
    assert now.covariance[0, -1].item() == pytest.approx(4032.16, abs=0.01)
    ahead = forecast(model, x, steps=2, draws=1)
    assert ahead.mean[0].tolist() == pytest.approx([now.mean[0, -1].item()] * 2)
    spread = [4032.16 + h * 1469.1 + 15099 for h in (1, 2)]
    assert ahead.scale[0].square().tolist() == pytest.approx(spread, rel=1e-6)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: StateSpace(0), "every size is 1 or more"),
        (lambda: StateSpace(3, transition=torch.ones(1, 2)), r"of shape \(1, 1\)"),
        (lambda: StateSpace(3, observation=torch.ones(2, 1)), r"of shape \(1, 1\)"),
        (lambda: StateSpace(3, transition=torch.tensor([[NAN]])), "not finite"),
        (lambda: StateSpace(3, initial_scale=0.0), "initial_scale is 0.0"),
        (lambda: pgm.log_prob(StateSpace(3), torch.zeros(1, 4)), r"rows have shape \(3,\)"),
        (lambda: forecast(StateSpace(3), torch.zeros(1, 3), steps=0), "steps is 0"),
        (lambda: sample_states(StateSpace(3), torch.zeros(1, 3), draws=0), "draws is 0"),
        (lambda: pgm.fit(StateSpace(3), torch.full((2, 3), NAN), progress=False), "Every cell"),
    ],
)
def test_bad_input_is_explained(made: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        made()


def test_numbers_have_no_best_path_of_their_own() -> None:
    with pytest.raises(pgm.Unsupported, match="Use smooth_states"):
        viterbi(StateSpace(3), torch.zeros(1, 3))
