"""The restricted Boltzmann machine against sums over all of its states."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import pgm
from pgm.batch import Batch
from pgm.families.rbm import RBM, _bars_and_stripes, example, gibbs, log_partition
from pgm.loop import NonFiniteLoss
from pgm.randomness import seeded


def machine(visible: int = 4, hidden: int = 3, scale: float = 1.0, **options: int) -> RBM:
    model = RBM(visible, hidden, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return model


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)))


def energies(model: RBM) -> Tensor:
    """-x^T b - h^T c - h^T W x for every pair of states, shape (2^visible, 2^hidden)."""
    x, h = states(model.visible), states(model.hidden)
    both = (x @ model.weight.T)[:, None] * h
    return -(x @ model.visible_bias)[:, None] - h @ model.hidden_bias - both.sum(-1)


def log_p(model: RBM) -> Tensor:
    return (-energies(model)).logsumexp(1) - (-energies(model)).flatten().logsumexp(0)


@pytest.mark.parametrize(("visible", "hidden"), [(5, 2), (2, 5), (4, 4), (1, 1)])
def test_log_partition_is_the_sum_over_both_layers(visible: int, hidden: int) -> None:
    model = machine(visible, hidden)
    found = log_partition(model)
    assert found.kind == "exact"
    assert found.error == 0
    expected = float((-energies(model)).detach().flatten().logsumexp(0))
    assert found.value == pytest.approx(expected, abs=1e-5)


def test_log_prob_is_the_normalised_marginal() -> None:
    model = machine()
    found = pgm.log_prob(model, states(4))
    assert found.kind == "exact"
    assert torch.allclose(found.value, log_p(model), atol=1e-5)
    assert float(found.value.exp().sum()) == pytest.approx(1.0, abs=1e-5)


def test_the_site_has_the_density_without_its_constant() -> None:
    model, x = machine(), states(4)
    weight = pgm.log_weight(model, Batch(x=x)).rows
    assert torch.allclose(weight, -model.free_energy(x), atol=1e-5)
    constant = pgm.surprise(model, x) + log_p(model)
    assert torch.allclose(constant, torch.tensor(-log_partition(model).value), atol=1e-5)


def test_annealing_finds_what_enumeration_finds_and_knows_its_error() -> None:
    model = machine(12, 8, scale=0.7)
    exact = log_partition(model).value
    runs = [
        log_partition(model, method="annealing", particles=50, temperatures=60, seed=seed)
        for seed in range(30)
    ]
    assert all(run.kind == "estimate" and 1 <= run.ess <= 50 for run in runs)
    z = torch.tensor([(run.value - exact) / run.error for run in runs])
    assert float(z.mean().abs()) < 1.0
    assert 0.6 < float(z.square().mean().sqrt()) < 1.6


def test_more_temperatures_make_annealing_better() -> None:
    model = machine(12, 8, scale=0.7)
    errors = [
        log_partition(model, method="annealing", temperatures=k, seed=0).error for k in (5, 500)
    ]
    assert errors[1] < errors[0] / 3


def test_beyond_enumeration_the_density_is_an_estimate_with_its_error() -> None:
    model = machine(20, 18, scale=0.1)
    x = torch.bernoulli(torch.full((5, 20), 0.5))
    found = pgm.log_prob(model, x, particles=20, temperatures=50, seed=0)
    assert found.kind == "estimate"
    assert (found.error > 0).all()
    exact = log_partition(model, method="enumeration")
    expected = -model.free_energy(x) - exact.value
    assert torch.allclose(found.value, expected.detach(), atol=5 * float(found.error[0]) + 1e-3)
    assert found.mean[1] >= float(found.error[0])


def test_samples_follow_the_density() -> None:
    model = machine(scale=0.7, sweeps=40)
    x = pgm.sample(model, 20000, seed=0)["x"]
    index = (x @ torch.tensor([8.0, 4.0, 2.0, 1.0])).long()
    count = torch.bincount(index, minlength=16)
    expected = 20000 * log_p(model).exp().detach()
    chi_squared = float(((count - expected).square() / expected).sum())
    assert chi_squared < 37.7, "beyond the 99.9 % quantile of 15 degrees of freedom"


def test_a_sweep_at_any_temperature_leaves_its_density_invariant() -> None:
    model, beta = machine(3, 2), 0.4
    x = states(3)
    log_f = x @ model.visible_bias
    log_f = log_f + nn.functional.softplus(beta * model.hidden_logits(x)).sum(-1)
    p = log_f.softmax(0).detach()
    with seeded(0):
        start = x[torch.multinomial(p, 40000, replacement=True)]
        done = gibbs(model, start, 1, beta=beta)
    frequency = torch.bincount((done @ torch.tensor([4.0, 2.0, 1.0])).long()) / len(done)
    assert torch.allclose(frequency, p, atol=4 * 0.5 / math.sqrt(40000))


def test_the_contrast_tends_to_the_gradient_of_the_log_likelihood() -> None:
    model = machine(scale=0.5, cd_steps=30)
    x = states(4)[[1, 3, 3, 10]]
    log_p_rows = -model.free_energy(x) - (-energies(model)).flatten().logsumexp(0)
    exact = torch.autograd.grad(-log_p_rows.mean(), list(model.parameters()))
    loss = pgm.objective(model, x.repeat(10000, 1), seed=0).mean()
    found = torch.autograd.grad(loss, list(model.parameters()))
    for a, b in zip(found, exact, strict=True):
        assert torch.allclose(a, b, atol=4 * 0.5 / math.sqrt(40000) + 2e-3)


def test_training_raises_the_exact_log_likelihood() -> None:
    found = example()
    before = pgm.log_prob(found.model, found.data).mean[0]
    pgm.fit(found.model, found.data, seed=0, progress=False, **found.fit)
    after = pgm.log_prob(found.model, found.data).mean[0]
    best = -math.log(len(_bars_and_stripes(4)))
    assert before == pytest.approx(-16 * math.log(2), abs=0.1)
    assert best - 1.0 < after < best


def test_codes_are_posterior_probabilities_and_decode_into_probabilities() -> None:
    model = machine()
    posterior = (-energies(model)).softmax(1) @ states(3)
    assert torch.allclose(pgm.encode(model, states(4))["h"], posterior, atol=1e-5)
    likelihood = (-energies(model)).softmax(0).T @ states(4)
    assert torch.allclose(pgm.decode(model, states(3))["x"], likelihood, atol=1e-5)
    assert pgm.encode(model, states(4), draws=3, seed=0)["h"].shape == (3, 16, 3)
    with pytest.raises(ValueError, match="'h'"):
        pgm.decode(model, {"z": states(3)})


def test_imputation_follows_the_conditional_distribution() -> None:
    model = machine(scale=0.8, sweeps=40)
    nan = float("nan")
    done = pgm.impute(model, torch.tensor([[1.0, nan, 0.0, nan]]), draws=8000, seed=0)
    x = states(4)
    fits = (x[:, 0] == 1) & (x[:, 2] == 0)
    expected = log_p(model)[fits].softmax(0)
    cells = done.draws["x"][:, 0]
    assert (cells[:, 0] == 1).all()
    assert (cells[:, 2] == 0).all()
    frequency = torch.bincount((2 * cells[:, 1] + cells[:, 3]).long(), minlength=4) / 8000
    assert torch.allclose(frequency, expected, atol=4 * 0.5 / math.sqrt(8000))
    assert done.ess.tolist() == [8000.0]


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
    loss, x = Loss(machine(cd_steps=2)), states(4)
    weights = {name: p.detach() for name, p in loss.named_parameters()}

    def rows(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(loss, weights, (x[None],))

    drawn = vmap(grad(rows), in_dims=(None, 0), randomness="different")(weights, x)
    assert all(g.shape[0] == 16 and g.isfinite().all() for g in drawn.values())
    monkeypatch.setattr(torch, "bernoulli", lambda p: (p > 0.4).to(p.dtype))
    together = vmap(grad(rows), in_dims=(None, 0))(weights, x)
    for i in range(16):
        alone = torch.autograd.grad(loss(x[i : i + 1]), list(loss.parameters()))
        for name, g in zip(weights, alone, strict=True):
            assert torch.allclose(together[name][i], g, atol=1e-6)


def test_what_is_not_binary_or_not_there_is_refused() -> None:
    model = machine()
    with pytest.raises(ValueError, match=r"A cell is 0\.5"):
        pgm.log_prob(model, torch.full((2, 4), 0.5))
    with pytest.raises(pgm.BrokenModel, match=r"A cell is 0\.5"):
        pgm.fit(model, torch.full((2, 4), 0.5), steps=1)
    late = torch.cat([states(4), torch.full((1, 4), 0.5)])
    with pytest.raises((NonFiniteLoss, ValueError), match="'x'"):
        pgm.fit(model, late, steps=1, progress=False)
    with pytest.raises(pgm.Unsupported, match=r"pgm\.impute"):
        pgm.log_prob(model, torch.tensor([[1.0, 0.0, float("nan"), 1.0]]))
    with pytest.raises(ValueError, match="4 visible"):
        pgm.log_prob(model, torch.zeros(2, 5))
    with pytest.raises(ValueError, match="'y'"):
        pgm.surprise(model, {"y": torch.zeros(2, 4)})
    with pytest.raises(ValueError, match="hidden is 0"):
        RBM(4, 0)
    with pytest.raises(ValueError, match="2\\^25"):
        log_partition(RBM(25, 25), method="enumeration")
    with pytest.raises(ValueError, match="two particles"):
        log_partition(model, method="annealing", particles=1)
