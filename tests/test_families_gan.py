"""Generative adversarial networks: who learns from what, and whether the game is won."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import pgm
import pgm.data
from pgm.batch import Batch
from pgm.evaluation import c2st, mmd
from pgm.families.gan import GAN, example, log_ratio
from pgm.randomness import seeded


def small(**options: float) -> GAN:
    return GAN(2, 3, hidden=(8,), **options)


def players(model: GAN, x: Tensor) -> tuple[Tensor, Tensor]:
    """The critic's and the generator's losses, written out with ordinary autograd."""
    softplus = nn.functional.softplus
    x = x.clone().requires_grad_()
    fake = model.generator(torch.randn(len(x), model.latents))
    real = model.critic(x).squeeze(-1)
    (slope,) = torch.autograd.grad(real.sum(), x, create_graph=True)
    critic = softplus(-real) + softplus(model.critic(fake.detach()).squeeze(-1))
    critic = critic + model.penalty / 2 * slope.square().sum(-1)
    return critic, softplus(-model.critic(fake).squeeze(-1))


def test_each_player_learns_from_its_own_loss_alone() -> None:
    model, x = small(penalty=0.7), torch.randn(6, 2)
    with seeded(0):
        loss = pgm.objective(model, x)
    with seeded(0):
        critic, generator = players(model, x)
    assert torch.allclose(loss, critic + generator, atol=1e-5)
    for own, part in ((critic, model.critic), (generator, model.generator)):
        weights = list(part.parameters())
        expected = torch.autograd.grad(own.sum(), weights, retain_graph=True)
        found = torch.autograd.grad(loss.sum(), weights, retain_graph=True)
        for a, b in zip(found, expected, strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_the_value_is_three_log_two_where_the_critic_knows_nothing() -> None:
    model = small()
    with torch.no_grad():
        for parameter in model.critic.parameters():
            parameter.zero_()
    loss = pgm.objective(model, torch.randn(4, 2))
    assert torch.allclose(loss, torch.full((4,), 3 * math.log(2)))


def test_the_critic_finds_the_log_ratio_of_two_gaussians() -> None:
    """log N(x; 1, 1) / N(x; 0, 1) = x - 1/2, which a linear critic can state exactly."""
    model = GAN(1, 1, hidden=(), penalty=0.0)
    with torch.no_grad():
        model.generator[0].weight.fill_(1.0)
        model.generator[0].bias.zero_()
    model.generator.requires_grad_(False)
    with seeded(0):
        data = 1 + torch.randn(20000, 1)
    pgm.fit(model, data, steps=400, batch_size=1000, learning_rate=0.02, ema=0.98, seed=0)
    x = torch.tensor([[-1.0], [0.5], [2.0]])
    assert torch.allclose(log_ratio(model, x), torch.tensor([-1.5, 0.0, 1.5]), atol=0.12)


def modes(x: Tensor) -> list[int]:
    """How many rows lie within three standard deviations of each of the eight Gaussians."""
    angle = math.pi / 4 * torch.arange(8)
    centres = math.sqrt(2) * torch.stack([angle.cos(), angle.sin()], -1)
    return (torch.cdist(x, centres) < 3 * 0.175).sum(0).tolist()


def test_training_finds_all_eight_modes() -> None:
    found = example()
    held_out = pgm.data.load("eight_gaussians", n=1000, seed=9).x / 2
    before = pgm.sample(found.model, 1000, seed=0)["x"]
    pgm.fit(found.model, found.data, seed=0, progress=False, **found.fit)
    after = pgm.sample(found.model, 1000, seed=0)["x"]
    score = [mmd(held_out, x, permutations=1, seed=0).squared for x in (before, after)]
    assert score[0] > 0.2
    assert score[1] < 0.01
    assert c2st(held_out, before, seed=0).accuracy > 0.95
    assert c2st(held_out, after, seed=0).accuracy < 0.8
    assert min(modes(after)) > 50
    assert sum(modes(after)) > 800


def test_training_finds_two_moons() -> None:
    model, options = GAN(2, 4, hidden=(64, 64)), example().fit
    held_out = pgm.data.load("two_moons", n=1000, seed=9).x
    before = pgm.sample(model, 1000, seed=0)["x"]
    pgm.fit(model, pgm.data.load("two_moons", n=2000).x, seed=0, progress=False, **options)
    after = pgm.sample(model, 1000, seed=0)["x"]
    score = [mmd(held_out, x, permutations=1, seed=0).squared for x in (before, after)]
    assert score[1] < score[0] / 20


def test_it_samples_and_decodes() -> None:
    model = small()
    z = torch.randn(4, 3)
    assert torch.equal(pgm.decode(model, z)["x"], model.generator(z).detach())
    assert pgm.sample(model, 5, seed=0)["x"].shape == (5, 2)
    assert pgm.check(model, torch.zeros(3, 2)).problems == ()


@pytest.mark.parametrize(
    ("question", "instead"),
    [
        (pgm.log_prob, r"no density on the data space.*mmd"),
        (pgm.surprise, r"no density on the data space.*log_ratio"),
        (pgm.encode, r"maps a row to a code.*decode"),
        (pgm.impute, r"density of the seen cells.*VAE"),
    ],
)
def test_what_has_no_answer_is_refused(question: pgm.Verb, instead: str) -> None:
    with pytest.raises(pgm.Unsupported, match=rf"GAN cannot {question.__name__}.*{instead}"):
        question(small(), torch.zeros(2, 2))


def test_bad_input_is_refused() -> None:
    with pytest.raises(pgm.Unsupported, match=r"GAN cannot interpolate.*decode"):
        pgm.interpolate(small(), torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="latents 0"):
        GAN(2, 0)
    with pytest.raises(ValueError, match="penalty is -1"):
        small(penalty=-1)
    with pytest.raises(pgm.Unsupported, match="complete rows"):
        pgm.fit(small(), torch.tensor([[0.0, torch.nan]]), steps=1)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        log_ratio(small(), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="'y'"):
        pgm.objective(small(), {"y": torch.zeros(2, 2)})


class Loss(nn.Module):
    """The objective as a module's forward, for functional_call."""

    def __init__(self, model: pgm.Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return pgm.objective(self.model, Batch(x=x)).sum()


def test_per_row_gradients_by_vmap_are_those_of_single_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss, x = Loss(small(penalty=0.7)), torch.randn(5, 2)
    weights = {name: p.detach() for name, p in loss.named_parameters()}

    def rows(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(loss, weights, (x[None],))

    drawn = vmap(grad(rows), in_dims=(None, 0), randomness="different")(weights, x)
    assert all(g.shape[0] == 5 and g.isfinite().all() for g in drawn.values())
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: torch.ones(*shape))
    together = vmap(grad(rows), in_dims=(None, 0))(weights, x)
    for i in range(5):
        alone = torch.autograd.grad(loss(x[i : i + 1]), list(loss.parameters()))
        for name, g in zip(weights, alone, strict=True):
            assert torch.allclose(together[name][i], g, atol=1e-6)
