"""KDE, factor analysis and mixtures row by row: vmap of grad agrees with one row at a time."""

import pyro
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import pgm
from pgm.batch import Batch, as_batch
from pgm.families.factor import PPCA, FactorAnalysis
from pgm.families.kde import KDE
from pgm.families.mixture import GaussianMixture

X = pgm.data.load("two_moons", n=6).x
HIDDEN = X.masked_fill(torch.eye(6, 2, dtype=torch.bool), float("nan"))
MODELS: list[pgm.Model] = [
    KDE(X),
    PPCA(2, 1),
    FactorAnalysis(2, 2),
    GaussianMixture(2, 3),
    GaussianMixture(2, 3, covariance="full"),
]


class Loss(nn.Module):
    """The loss of one row, as a module whose parameters can be swapped."""

    def __init__(self, model: pgm.Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, row: dict[str, Tensor]) -> Tensor:
        batch = Batch({name: value.unsqueeze(0) for name, value in row.items()})
        return pgm.objective(self.model, batch, size=6).sum()


@pytest.mark.parametrize("x", [X, HIDDEN], ids=["complete", "missing"])
@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_gradients_by_row_are_those_of_single_rows(model: pgm.Model, x: Tensor) -> None:
    module, batch = Loss(model), as_batch(x)
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def loss(parameters: dict[str, Tensor], row: dict[str, Tensor]) -> Tensor:
        value: Tensor = functional_call(module, parameters, (row,))
        return value

    with pyro.validation_enabled(False):
        gradients = vmap(grad(loss), in_dims=(None, 0), randomness="error")(parameters, dict(batch))
    assert sum(float(g.abs().sum()) for g in gradients.values()) > 0
    for i in range(6):
        model.zero_grad()
        module({name: value[i] for name, value in batch.items()}).backward()
        for name, parameter in module.named_parameters():
            assert torch.allclose(gradients[name][i], parameter.grad, atol=1e-5), name
