"""Clipping by layer and by a moving norm, several draws a row, lots in pieces: what a row can move.

Sources: McMahan et al. (2018, sec. 3) for layers; Andrew et al. (2021, Thm 1) for the noisy count,
whose law and accounting are stated in closed form; Dockhorn et al. (2023) for several draws.
"""

import copy
import math
import sys
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pgm
import privacy
from pgm.batch import Batch
from pgm.families.diffusion import Diffusion
from pgm.families.vae import VAE
from pgm.objectives import objective
from pgm.randomness import seeded
from privacy import AdaptiveClip, LayerClip
from privacy.clipping import sensitivity
from privacy.gradients import PerRow
from privacy.gradients.rows import Layers
from privacy.learner import PrivateLearner
from privacy.optimiser import PrivateOptimiser
from privacy.run import Multiplicity

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(1)) * torch.tensor([3.0, 1.0, 0.3])
GOOD: dict[str, Any] = {"epsilon": 2.0, "delta": 1e-3, "accountant": "rdp", "seed": 0}


class Net(pgm.Model):
    """x_2 given x_0, x_1 by two layers."""

    def __init__(self, hidden: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(2, hidden), nn.Linear(hidden, 1)

    def model(self, n: int, u: Tensor) -> None:
        with pgm.rows(n):
            mean = self.outer(self.inner(u).tanh()).squeeze(-1)
            pyro.sample("y", dist.Normal(mean, 1.0))


class Still(pgm.Model):
    """Two layers of 2000 numbers each that the loss reaches with gradient zero."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(2, 1000, bias=False), nn.Linear(2, 1000, bias=False)

    def model(self, n: int, u: Tensor) -> None:
        with pgm.rows(n):
            zero = 0.0 * (self.one(u).sum(-1) + self.two(u).sum(-1))
            pyro.sample("y", dist.Normal(zero, 1.0))


def data(x: Tensor = X) -> Batch:
    return Batch(u=x[:, :2], y=x[:, 2])


def learner(model: pgm.Model, clip: Any, *, z: float, lot: float = 20.0, **options: Any) -> Any:
    """Plain descent of step one under noise multiplier z."""
    names = [name for name, _ in model.named_parameters()]
    release = privacy.Release("test", "a", z, lot / 40, 1, sensitivity(clip, names), 40, 1e-5)
    return PrivateLearner(
        model, PerRow(model, size=40, **options), release=release, ledger=privacy.Ledger(), seed=5,
        steps=1, learning_rate=1.0, optimiser=torch.optim.SGD, clip=clip,
    )  # fmt: skip


def moved(model: pgm.Model, batch: Batch, clip: Any, *, z: float, **options: Any) -> Tensor:
    """20 times minus the change of the parameters: the noisy sum."""
    before, model = nn.utils.parameters_to_vector(model.parameters()), copy.deepcopy(model)
    learner(model, clip, z=z, **options).update(batch)
    return 20 * (before - nn.utils.parameters_to_vector(model.parameters())).detach()


# --------------------------------------------------------------------------------------- layers


def test_layers_are_clipped_by_themselves_on_every_route() -> None:
    clip = LayerClip({"inner": 0.3, "outer": 0.4})
    layers = clip.layers(["inner.weight", "inner.bias", "outer.weight", "outer.bias"])
    assert layers.sensitivity == pytest.approx(0.5)
    loop = PerRow(Net(), size=40, route="loop")(data()).gradients
    for route in ("ghost", "vmap", "loop"):
        rows = PerRow(Net(), size=40, route=route)  # type: ignore[arg-type]
        found = rows.clipped(data(), layers).gradients
        for layer, bound in (("inner", 0.3), ("outer", 0.4)):
            own = {name: g for name, g in loop.items() if name.startswith(layer)}
            flat = torch.cat([g.reshape(12, -1) for g in own.values()], 1).norm(dim=1)
            assert (flat > bound).any()
            c = (bound / flat).clamp(max=1.0)
            for name, g in own.items():
                expected = torch.einsum("i,i...", c, g)
                torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)


def layers_move_by_their_sensitivity_and_have_its_noise() -> None:
    clip = LayerClip({"inner": 0.3, "outer": 0.4})
    here = moved(Net(), data(), clip, z=0.0)
    most = 0.0
    for added in (0.0, 1e3, -1e3, 1e6, math.nan, math.inf):
        more = torch.cat([X, torch.full((1, 3), added)])
        most = max(most, float((moved(Net(), data(more), clip, z=0.0) - here).norm()))
    assert 0.4 < most <= 0.5 * (1 + 1e-4)
    for share in (LayerClip(0.5), LayerClip({"one": 0.3, "two": 0.4})):
        noise = moved(Still(), data(), share, z=2.0)
        assert float(noise.std()) == pytest.approx(2.0 * 0.5, rel=0.06)


def test_layers_move_by_their_sensitivity() -> None:
    layers_move_by_their_sensitivity_and_have_its_noise()


@pytest.mark.parametrize(
    "planted", [lambda self: max(b for _, b in self.groups), lambda self: self.groups[0][1]]
)
def test_noise_for_one_layer_only_is_found(
    planted: Callable[[Layers], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Layers, "sensitivity", property(planted))
    with pytest.raises(AssertionError):
        layers_move_by_their_sensitivity_and_have_its_noise()


def test_a_layer_without_a_norm_is_refused() -> None:
    for clip in (LayerClip({"inner": 1.0}), LayerClip({"in": 1.0, "outer": 1.0})):
        with pytest.raises(ValueError, match=r"no clipping norm for parameter"):
            privacy.fit(Net(), data(), steps=2, clip=clip, **GOOD)
    with pytest.raises(ValueError, match="would not be clipped"):
        PerRow(Net(), size=40).clipped(data(), Layers(((("inner.weight",), 1.0),)))
    for bad in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="positive and finite"):
            LayerClip({"inner": 1.0, "outer": bad})


# ------------------------------------------------------------------------------------- adaptive


def the_count_and_the_gradient_are_one_mechanism_of_multiplier_z() -> None:
    """Whitened, a row moves both together by 1 / z at most, and their noise is standard."""
    clip, z, lot = AdaptiveClip(start=0.7, noise=2.0, rate=0.5), 2.0, 20.0
    small = data(X[:7])
    noise = moved(Still(), small, clip, z=z)
    z_gradient = float(noise.std()) / 0.7
    counts = []
    for k in range(400):
        step = learner(Still(), clip, z=z)
        step.optimiser.generator.manual_seed(k)
        step._move_bound(torch.zeros(7))
        share = clip.target - math.log(step.bound / 0.7) / clip.rate
        counts.append((share - 0.5) * lot)
    count = torch.tensor(counts)
    assert float(count.mean()) == pytest.approx(3.5, abs=0.5)  # seven rows, each +1/2
    sigma_b = float(count.std())
    assert sigma_b == pytest.approx(2.0, rel=0.1)
    assert 1 / z_gradient**2 + 1 / (2 * sigma_b) ** 2 == pytest.approx(1 / z**2, rel=0.1)


def test_the_count_is_accounted_with_the_gradient() -> None:
    the_count_and_the_gradient_are_one_mechanism_of_multiplier_z()


BUGS: dict[str, tuple[Any, str, Any]] = {
    "the noise of the gradient as if nothing were counted": (
        AdaptiveClip,
        "gradient_noise",
        lambda self, z, lot: z,
    ),
    "a count without noise": (PrivateOptimiser, "noisy", lambda self, x, *_: x),
    "a count of ones, which a row moves by 1": (
        sys.modules["privacy.learner"],
        "unclipped",
        lambda norms, clip: float((norms <= clip).sum()),
    ),
    "a share of the rows that came": (
        AdaptiveClip,
        "moved",
        lambda self, clip, noisy, lot: (
            clip * math.exp(-self.rate * (noisy / 7 + 0.5 - self.target))
        ),
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_wrong_count_is_found(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BUGS[bug])
    with pytest.raises(AssertionError):
        the_count_and_the_gradient_are_one_mechanism_of_multiplier_z()


def test_the_norm_goes_to_the_quantile_and_the_epsilon_is_what_was_asked() -> None:
    model, x = Net(), X.repeat(200, 1)
    norms = PerRow(model, size=len(x)).clipped(data(X), 1.0).norms
    run = privacy.fit(
        model, data(x), rate=0.5, steps=60, clip=AdaptiveClip(10.0, target=0.75, rate=0.5),
        learning_rate=1e-6, **(GOOD | {"delta": 1e-4}),
    )  # fmt: skip
    assert run.steps[-1].metrics["clip"] == pytest.approx(float(norms.quantile(0.75)), rel=0.15)
    spent = privacy.epsilon(
        run.report.release.noise_multiplier, rate=0.5, steps=60, delta=1e-4, accountant="rdp"
    )
    assert run.epsilon == pytest.approx(spent) and 1.96 <= run.epsilon <= 2.0
    assert "noisy share of unclipped rows" in str(run.report)


def test_a_count_that_would_spend_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="the count alone would spend all"):
        AdaptiveClip(noise=0.5).gradient_noise(1.0, 100)
    for bad in ({"target": 1.0}, {"rate": 0.0}, {"noise": 0.0}, {"start": math.nan}):
        with pytest.raises(ValueError, match=r"strictly between|positive and finite"):
            AdaptiveClip(**bad)


def test_a_resumed_run_clips_to_the_norm_it_had(tmp_path: Any) -> None:
    options = GOOD | {"clip": AdaptiveClip(3.0), "checkpoint": tmp_path / "run.pt"}
    first = privacy.PrivateTraining(Net(), data(), steps=6, **options)
    steps = iter(first)
    clip = [next(steps).metrics["clip"] for _ in range(3)][-1]
    steps.close()
    again = privacy.PrivateTraining(Net(), data(), steps=6, **options)
    again._resume()
    assert again.learner.bound == again.learner.optimiser.max_grad_norm == clip != 3.0


# ------------------------------------------------------------------- several draws, lots in pieces


@pytest.mark.parametrize("route", ["ghost", "vmap", "loop"])
def test_draws_are_averaged_before_clipping(route: Any) -> None:
    """The variance of a row's gradient over draws falls to 1/K; the norm is that of the mean."""
    torch.manual_seed(0)
    model, same = VAE(3, latents=1, hidden=(4,)), (X[:1] > 0).float()
    variances, n = [], 4 if route == "loop" else 6000
    for draws in (1, 8):
        loss = Multiplicity(objective, draws)
        rows = PerRow(model, size=40, objective=loss, route=route)
        found = rows(Batch(x=same.expand(n, 3))).gradients
        assert rows.route == route
        variances.append(float(sum(g.flatten(1).var(0).sum() for g in found.values())))
        one = rows.clipped(Batch(x=same), 0.1).gradients
        assert float(torch.cat([g.flatten() for g in one.values()]).norm()) <= 0.1 * (1 + 1e-4)
    assert route == "loop" or variances[0] / variances[1] == pytest.approx(8, rel=0.3)


def test_multiplicity_of_a_diffusion_model_and_its_fit() -> None:
    torch.manual_seed(0)
    model = Diffusion(3, steps=10, hidden=(8,))
    loss = Multiplicity(objective, 4)
    tables: dict[Any, Tensor] = {}
    found, loop = (
        PerRow(model, size=40, objective=loss, route=route)(Batch(x=X), tables=tables).gradients
        for route in ("vmap", "loop")
    )
    for name, g in loop.items():
        torch.testing.assert_close(found[name], g, rtol=1e-3, atol=1e-4)
    run = privacy.fit(model, X, steps=2, multiplicity=4, **GOOD)
    assert run.report.release.steps == 2 and isinstance(run.report.release.clip, float)
    with pytest.raises(ValueError, match="one draw or more"):
        privacy.fit(model, X, steps=2, multiplicity=0, **GOOD)


@pytest.mark.parametrize("route", ["ghost", "vmap", "loop"])
def test_a_lot_in_pieces_is_one_step(route: Any) -> None:
    whole = moved(Net(), data(), 0.5, z=1.0, route=route)
    model = Net()
    step = learner(model, 0.5, z=1.0, route=route, physical=5)
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    seen = []
    step.rows._loss.register_forward_pre_hook(lambda _, args: seen.append(len(args[0]["y"])))
    step.update(data())
    after = nn.utils.parameters_to_vector(model.parameters()).detach()
    torch.testing.assert_close(20 * (before - after), whole, rtol=1e-4, atol=1e-4)
    assert max(seen) <= 5 and [r.steps for r in step.ledger.releases] == [1]
    with pytest.raises(ValueError, match="one row or more"):
        PerRow(Net(), size=40, physical=0)


def test_a_lot_that_breaks_off_between_its_pieces_spends_nothing_and_leaves_nothing() -> None:
    model = Net()
    step = learner(model, 0.5, z=0.0, route="loop", physical=5)
    alone = moved(model, data(X[:1]), 0.5, z=0.0, route="loop")
    before = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    pieces = step.rows._clipped
    calls = iter(range(9))
    step.rows._clipped = lambda *args: pieces(*args) if next(calls) < 2 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        step.update(data())
    assert step.ledger.releases == ()
    step.rows._clipped = pieces
    step.update(data(X[:1]))
    after = nn.utils.parameters_to_vector(model.parameters()).detach()
    torch.testing.assert_close(20 * (before - after), alone, rtol=1e-4, atol=1e-5)
    assert [r.steps for r in step.ledger.releases] == [1]


# -------------------------------------------------------------------- frozen and low-rank, averages


class LowRank(Net):
    """The first layer is frozen, with a trainable correction of rank one (Hu et al. 2022)."""

    def __init__(self) -> None:
        super().__init__()
        self.inner.requires_grad_(False)
        self.down, self.up = nn.Linear(2, 1, bias=False), nn.Linear(1, 4, bias=False)

    def model(self, n: int, u: Tensor) -> None:
        with pgm.rows(n):
            hidden = (self.inner(u) + self.up(self.down(u))).tanh()
            pyro.sample("y", dist.Normal(self.outer(hidden).squeeze(-1), 1.0))


@pytest.mark.parametrize("route", ["ghost", "vmap", "loop"])
def test_frozen_and_low_rank_parts_and_averages(route: Any) -> None:
    model = LowRank()
    frozen = copy.deepcopy(model.inner.state_dict())
    loop = PerRow(model, size=40, route="loop").clipped(data(), 0.5).gradients
    found = PerRow(model, size=40, route=route).clipped(data(), 0.5).gradients
    assert found.keys() == loop.keys() == {"down.weight", "up.weight", "outer.weight", "outer.bias"}
    for name, g in loop.items():
        torch.testing.assert_close(found[name], g, rtol=1e-4, atol=1e-6)
    average: dict[str, Tensor] = {}
    with seeded(0):
        run = privacy.PrivateTraining(model, data(), steps=4, ema=0.5, route=route, **GOOD)
        for _ in run:
            for name, p in model.named_parameters():
                old = average.get(name, p.detach())
                average[name] = 0.5 * old + 0.5 * p.detach()
    assert run.by_row.route == route
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), average[name], rtol=1e-4, atol=1e-6)
    for name, value in model.inner.state_dict().items():
        torch.testing.assert_close(value, frozen[name])
