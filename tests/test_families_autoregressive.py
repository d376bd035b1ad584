"""MADE against enumeration of all states: mass, order, draws, completions; errors that explain."""

import itertools
import math
from typing import Any

import pyro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

import pgm
from pgm.batch import Batch, as_batch
from pgm.families.autoregressive import MADE
from pgm.randomness import seeded

NAN = float("nan")


def made(features: int, seed: int = 0, **options: Any) -> MADE:
    """A model far from uniform: every weight drawn anew, the direct ones too."""
    with seeded(seed):
        model = MADE(features, **options)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.8)
    return model.eval()


def states(features: int, levels: int) -> Tensor:
    return torch.tensor(list(itertools.product(range(levels), repeat=features))).float()


def table(model: MADE) -> tuple[Tensor, Tensor]:
    """All states and their probabilities."""
    x = states(model.features, model.levels)
    return x, pgm.log_prob(model, x).value.double().exp()


@given(
    features=st.integers(2, 5),
    levels=st.integers(2, 4),
    hidden=st.lists(st.integers(1, 12), min_size=1, max_size=2),
    ordering=st.sampled_from(["natural", "random"]),
)
def test_the_probabilities_of_all_states_sum_to_one(
    features: int, levels: int, hidden: list[int], ordering: Any
) -> None:
    model = made(features, levels=levels, hidden=hidden, ordering=ordering)
    answer = pgm.log_prob(model, states(features, levels))
    assert answer.kind == "exact"
    assert float(answer.value.double().exp().sum()) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("ordering", ["natural", "random"])
@pytest.mark.parametrize("hidden", [(20,), (15, 30)])
@pytest.mark.parametrize("levels", [2, 5])
def test_a_cell_depends_on_those_before_it_and_on_no_other(
    levels: int, hidden: tuple[int, ...], ordering: Any
) -> None:
    """The pattern of the Jacobian, in the order, is strictly lower triangular and full there."""
    model = made(6, levels=levels, hidden=hidden, ordering=ordering, activation="tanh")
    x = torch.full((6,), 1.0)
    felt = torch.zeros(6, 6, dtype=torch.bool)
    for j, value in itertools.product(range(6), (0.0, float(levels - 1))):
        other = x.index_fill(0, torch.tensor(j), value)
        felt[:, j] |= (model.logits(other) != model.logits(x)).any(-1)
    felt = felt[model.order][:, model.order]
    assert torch.equal(felt, torch.ones(6, 6, dtype=torch.bool).tril(-1))


def test_the_jacobian_of_the_logits_is_strictly_lower_triangular() -> None:
    model = made(7, hidden=(30, 20), activation="tanh")
    slope = jacrev(lambda x: model.logits(x).squeeze(-1))(torch.rand(7))
    assert bool((slope.triu() == 0).all())
    assert bool((slope.tril(-1) != 0)[torch.ones(7, 7).tril(-1) > 0].all())


def test_a_random_order_is_set_by_its_seed_alone() -> None:
    orders = [MADE(20, ordering="random", seed=s).order.tolist() for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[2]) == list(range(20)) == MADE(20).order.tolist()


@pytest.mark.parametrize(("features", "levels"), [(4, 2), (3, 3)])
@pytest.mark.parametrize("ordering", ["natural", "random"])
def test_samples_have_the_density(features: int, levels: int, ordering: Any) -> None:
    model = made(features, levels=levels, ordering=ordering, hidden=(10,))
    x, p = table(model)
    drawn = pgm.sample(model, 20000, seed=0)["x"]
    counts = (drawn[:, None] == x).all(-1).sum(0)
    assert int(counts.sum()) == 20000
    often = p * 20000 > 5
    seen = [*counts[often].tolist(), int(counts[~often].sum())]
    due = [*p[often].tolist(), float(p[~often].sum())]
    if due[-1] == 0:
        seen, due = seen[:-1], due[:-1]
    due = [share / sum(due) * 20000 for share in due]
    assert chisquare(seen, due).pvalue > 1e-3


def conditional(model: MADE, row: Tensor) -> tuple[Tensor, Tensor]:
    """All completions of a row, and their probabilities given its seen cells."""
    x, p = table(model)
    fits = ((x == row) | row.isnan()).all(-1)
    return x[fits], p[fits] / p[fits].sum()


ROWS = [[NAN, 1.0, 0.0, NAN], [NAN, NAN, 1.0, 1.0], [0.0, NAN, NAN, NAN], [NAN, 0.0, NAN, 1.0]]


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("options", [{"levels": 2}, {"levels": 3, "ordering": "random", "seed": 4}])
def test_completions_have_the_conditional_probabilities(
    row: list[float], options: dict[str, Any]
) -> None:
    """20 filters of one row, so that what their draws share does not enter the error."""
    model = made(4, hidden=(10,), **options)
    x = torch.tensor(row)
    done = pgm.impute(model, x.expand(200, 4), draws=20, particles=200, seed=0)
    drawn = done.draws["x"]
    fitting, p = conditional(model, x)
    share = (drawn.flatten(0, 1)[:, None] == fitting).all(-1).float().mean(0)
    assert float(share.sum()) == pytest.approx(1.0)
    assert torch.allclose(share.double(), p, atol=0.04)


def test_gradients_by_row_are_those_of_single_rows() -> None:
    model = made(5, levels=3, hidden=(8,))
    x = states(5, 3)[::60]

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, row: Tensor) -> Tensor:
            return pgm.objective(self.model, Batch(x=row.unsqueeze(0)), size=5).sum()

    module = Loss()
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        value: Tensor = functional_call(module, parameters, (row,))
        return value

    with pyro.validation_enabled(False):
        gradients = vmap(grad(loss), in_dims=(None, 0))(parameters, x)
    for i, row in enumerate(x):
        model.zero_grad()
        module(row).backward()
        for name, parameter in module.named_parameters():
            assert torch.allclose(gradients[name][i], parameter.grad, atol=1e-5), name


def test_a_dependent_pair_is_learned() -> None:
    """x_2 = x_1 in nine rows of ten: the fit reaches the entropy of the data, not of the cells."""
    x = torch.tensor([[0.0, 0.0]] * 45 + [[1.0, 1.0]] * 45 + [[0.0, 1.0]] * 5 + [[1.0, 0.0]] * 5)
    model = MADE(2, hidden=(8,))
    pgm.fit(model, x, steps=300, learning_rate=0.05, seed=0, progress=False)
    entropy = -sum(p * math.log(p) for p in (0.45, 0.45, 0.05, 0.05))
    assert float(pgm.surprise(model, x).mean()) == pytest.approx(entropy, abs=0.01)


def test_dropout_is_for_training_alone() -> None:
    model = made(6, hidden=(20,), dropout=0.5)
    x = states(6, 2)[:5]
    model.train()
    assert not torch.equal(pgm.objective(model, x, seed=0), pgm.objective(model, x, seed=1))
    assert torch.equal(pgm.log_prob(model, x).value, pgm.log_prob(model, x).value)


@pytest.mark.parametrize("value", [3.0, -1.0, 0.5])
@pytest.mark.parametrize("levels", [2, 3])
def test_values_that_are_no_levels_are_explained(levels: int, value: float) -> None:
    model = made(2, levels=levels)
    x = torch.tensor([[0.0, value]])
    says = rf"A cell holds {value:g}, but the model knows the levels 0 \.\. {levels - 1}"
    questions: list[Any] = [pgm.log_prob, pgm.objective, pgm.impute, pgm.surprise, pgm.fit]
    for question in questions:
        with pytest.raises(ValueError, match=says):
            question(model, x)
    with pytest.raises(ValueError, match=says):
        pgm.impute(model, torch.tensor([[NAN, value]]))
    with pyro.validation_enabled(False):
        assert math.isinf(pgm.objective(model, x).detach())
        assert math.isinf(pgm.log_prob(model, x).value)


def test_whole_numbers_of_any_type_are_levels() -> None:
    for levels in (2, 3):
        model = made(3, levels=levels)
        x = states(3, levels)
        whole = pgm.log_prob(model, x.long()).value
        assert torch.equal(whole, pgm.log_prob(model, x).value)
        assert torch.allclose(
            pgm.log_prob(made(3, levels=levels).double(), x).value, whole.double()
        )
    binary = states(3, 2)
    assert torch.equal(pgm.objective(made(3), binary.bool()), pgm.objective(made(3), binary))


def test_rows_with_missing_cells_are_not_trained_on() -> None:
    with pytest.raises(pgm.Unsupported, match="joint density that cannot leave single cells out"):
        pgm.objective(made(2), as_batch(torch.tensor([[NAN, 1.0]])))


@pytest.mark.parametrize("verb", ["encode", "decode", "interpolate"])
def test_there_is_no_code(verb: str) -> None:
    x = torch.zeros(1, 2)
    arguments = (x, x) if verb == "interpolate" else (x,)
    with pytest.raises(pgm.Unsupported, match=rf"MADE cannot {verb}: .* Use a model with latents"):
        getattr(pgm, verb)(made(2), *arguments)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"features": 1}, "features is 1"),
        ({"features": 2, "levels": 1}, "levels 1; an autoregression takes at least two"),
        ({"features": 2, "hidden": ()}, r"hidden is \(\)"),
        ({"features": 2, "hidden": (4, 0)}, r"hidden is \(4, 0\)"),
        ({"features": 2, "ordering": [0, 0]}, r"ordering is \[0, 0\]"),
        ({"features": 2, "dropout": 1.0}, r"dropout is 1\.0"),
    ],
)
def test_bad_arguments_are_explained(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        MADE(**options)


def test_cells_missing_after_all_seen_ones_leave_every_particle_its_weight() -> None:
    x = torch.tensor([[1.0, 0.0, NAN, NAN], [1.0, 0.0, 1.0, 1.0]])
    done = pgm.impute(made(4, hidden=(10,)), x, particles=50, seed=0)
    assert done.ess.tolist() == pytest.approx([50, 50])


def test_few_effective_particles_are_reported_as_few() -> None:
    """The seen cell copies the missing one, which is 1 for one particle in 1 + e^3.

    Resampling makes their weights equal again, but not their ancestors many.
    """
    model = made(2, hidden=(1,))
    with torch.no_grad():
        model.net[-1].bias.copy_(torch.tensor([-3.0, -20.0]))
        model.net[-1].weight.zero_()
        model.direct.weight.copy_(torch.tensor([[0.0, 0.0], [40.0, 0.0]]))
    done = pgm.impute(model, torch.tensor([[NAN, 1.0]]), draws=50, particles=1000, seed=0)
    assert bool((done.draws["x"] == 1).all())
    expected = 1000 / (1 + math.exp(3.0))
    assert float(done.ess) == pytest.approx(expected, abs=4 * expected**0.5)
