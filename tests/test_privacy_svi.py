"""`DPSVI` is `privacy.fit` in Pyro's spelling: the same numbers, and no lots but its own."""

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import pgm
import privacy

X = torch.linspace(-1.0, 1.0, 400)
Y = 2 * X + 0.1 * torch.randn(400, generator=torch.Generator().manual_seed(0))
GOOD: dict[str, Any] = {"epsilon": 8.0, "delta": 1e-4, "steps": 12, "rate": 0.2, "seed": 0}
SHAPE: dict[str, Any] = {"rows": "data", "observed": {"y": "obs"}}


def line(x: Tensor, y: Tensor | None = None) -> None:
    slope = pyro.param("slope", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Normal(slope * x, 1.0), obs=y)


def latent(x: Tensor, y: Tensor | None = None) -> None:
    slope = pyro.sample("slope", dist.Normal(0.0, 3.0))
    with pyro.plate("data", len(x)):
        pyro.sample("obs", dist.Normal(slope * x, 1.0), obs=y)


def test_it_makes_the_steps_of_a_private_fit() -> None:
    optim = pyro.optim.SGD({"lr": 0.5, "momentum": 0.5})
    svi = privacy.DPSVI(line, None, optim, Trace_ELBO(), **SHAPE, **GOOD)
    losses = [svi.step(x, y) for x, y in svi.lots(X, Y)]
    assert len(losses) == 12 and all(loss != loss for loss in losses)

    def sgd(parameters: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=lr, momentum=0.5)

    model = pgm.from_pyro(line, **SHAPE)
    run = privacy.fit(model, {"x": X, "obs": Y}, optimiser=sgd, learning_rate=0.5, **GOOD)
    (ours,), (theirs,) = list(svi.model.parameters()), list(model.parameters())
    assert torch.equal(ours, theirs) and ours.item() > 0.5
    assert svi.report.release == run.report.release and svi.model.note == model.note
    assert svi.reveal() == run.reveal()
    assert "the losses of 12 steps" in str(svi.report)


def test_a_latent_slope_with_an_autoguide() -> None:
    svi = privacy.DPSVI(latent, AutoNormal, torch.optim.Adam, **SHAPE, **GOOD)
    for lot in svi.lots(x=X, y=Y):
        svi.step(*lot)
    assert svi.report.release.steps == 12 and svi.report.epsilon <= 8.0


def test_a_second_loop_would_spend_more_and_is_refused() -> None:
    svi = privacy.DPSVI(line, None, torch.optim.SGD, **SHAPE, **GOOD | {"seed": None})
    for lot in svi.lots(X, Y):
        svi.step(*lot)
    slope = svi.model.state_dict()
    with pytest.raises(ValueError, match="a second one would spend more than epsilon"):
        next(svi.lots(X, Y))
    assert len(svi.report.together) == 1 and svi.report.epsilon <= 8.0
    assert svi.model.state_dict().keys() == slope.keys()


def test_loops_under_a_budget_share_it() -> None:
    budget = privacy.Budget(8.0, 1e-4)
    options = GOOD | {"seed": None, "budget": budget, "epsilon": 3.0}
    options.pop("delta", None)
    svi = privacy.DPSVI(line, None, torch.optim.SGD, **SHAPE, **options)
    for _ in range(2):
        for lot in svi.lots(X, Y):
            svi.step(*lot)
    assert len(svi.report.together) == 2 and budget.spent <= 8.0
    assert "2 releases in the ledger" in str(svi.model.note)


def test_its_guide_is_at_hand_and_a_loss_of_rows_is_not() -> None:
    svi = privacy.DPSVI(line, None, torch.optim.SGD, **SHAPE, **GOOD)
    assert svi.guide == svi.model.guide
    with pytest.raises(ValueError, match=r"has no noise.*pgm\.log_prob"):
        svi.evaluate_loss(X, Y)


def test_lots_that_are_not_its_own_are_refused() -> None:
    svi = privacy.DPSVI(line, None, torch.optim.SGD, **SHAPE, **GOOD)
    with pytest.raises(ValueError, match=r"loop over svi\.lots"):
        svi.step(X, Y)
    first = next(iter(svi.lots(X, Y)))
    for x, y in DataLoader(TensorDataset(X, Y), batch_size=80, shuffle=True):
        with pytest.raises(ValueError, match="not Poisson samples"):
            svi.step(x, y)
    lots = svi.lots(X, Y)
    first = next(lots)
    svi.step(*first)
    with pytest.raises(ValueError, match="pass each lot to step"):
        svi.step(*first)
    with pytest.raises(ValueError, match="not Poisson samples"):
        svi.step(X, Y)
    assert svi.report.release.steps == 1


def test_lots_are_not_left_out() -> None:
    options = GOOD | {"rate": 0.001, "seed": None}
    left_out, svi = (
        privacy.DPSVI(line, None, torch.optim.SGD, **SHAPE, **options) for _ in range(2)
    )
    with pytest.raises(ValueError, match="say the empty ones"):
        for x, y in left_out.lots(X, Y):
            if len(x) == 0:
                continue
            left_out.step(x, y)
    for x, y in svi.lots(X, Y):
        svi.step(x, y)
    assert svi.report.release.steps == 12


def test_nothing_was_trained_yet() -> None:
    svi = privacy.DPSVI(line, None, torch.optim.SGD, **SHAPE, **GOOD)
    with pytest.raises(ValueError, match="Nothing was trained"):
        svi.report  # noqa: B018


@pytest.mark.parametrize(
    ("optim", "loss", "message"),
    [
        (pyro.optim.SGD({"lr": 0.1}), RenyiELBO(), "RenyiELBO"),
        (pyro.optim.SGD({"lr": 0.1}), Trace_ELBO(num_particles=5), "5 particles"),
        (pyro.optim.SGD(lambda name: {"lr": 0.1}), None, "settings by parameter"),
    ],
)
def test_what_it_cannot_honour(optim: Any, loss: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        privacy.DPSVI(line, None, optim, loss, **SHAPE, **GOOD)


def test_no_initial_value_comes_from_the_rows() -> None:
    """A parameter that starts at the mean of the rows starts at that of made-up ones."""

    def centred(x: Tensor, y: Tensor | None = None) -> None:
        centre = pyro.param("centre", lambda: 1e4 + x.mean())
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(centre + 0.0 * x, 1e4), obs=y)

    centres = []
    for shift in (0.0, 500.0):
        svi = privacy.DPSVI(centred, None, torch.optim.SGD, **SHAPE, **GOOD)
        next(iter(svi.lots(X + shift, Y)))
        centres += [p.item() for p in svi.model.parameters()]
    assert centres[0] == centres[1] and 1e4 < centres[0] < 1e4 + 1
