"""Every family of the library can be fitted privately, or says why not.

The law: the gradients of all rows at once equal, row by row, plain autograd on a batch of one row
with the same noise, to 1e-5 relative (in float64, where rounding does not blur the comparison); so
do the norms and the clipped sums. `auto` is held to take the ghost route where that is known to be
right.
"""

from typing import Any

import pytest
import torch

import privacy
from pgm.batch import Batch, rows_of, take
from pgm.check import BrokenModel
from pgm.families import example, names
from pgm.model import Model
from pgm.randomness import seeded
from pgm.verb import prepare
from privacy.gradients import PerRow, RowGradients

REFUSED = {
    "graph_autoencoder": "keeps the edges of the graph",
    "kde": "nothing to fit|holds rows of 'x', the data themselves",
}
"""Families that cannot be private, and what they say."""
GHOST = {"autoregressive", "bayesnet", "flow", "vae"}
"""Families that are made of layers, or of tables that may be one a row (bayesnet). The others hold
parameters that are no layers' (mixture, regression, hierarchical, factor, rbm), differentiate a
gradient (gan) or draw the steps of all rows together (diffusion)."""


def few_rows(name: str) -> tuple[Model, Batch, Any]:
    """The example's model in float64, six of its rows, and the objective it is fitted with."""
    shown = example(name)
    model = shown.model.double()
    batch = prepare(model, shown.data)
    loss = {k: v for k, v in shown.fit.items() if k == "objective"}
    return model.train(), take(batch, slice(0, min(6, rows_of(batch)))), loss


def by(route: Any, model: Model, batch: Batch, options: Any) -> tuple[PerRow, RowGradients]:
    rows = PerRow(model, size=100, route=route, **options)
    with seeded(1):
        return rows, rows(batch)


CASES = [(name, "auto") for name in names() if name not in REFUSED]
CASES += [(name, "vmap") for name in sorted(GHOST)]


@pytest.mark.parametrize(("name", "route"), CASES)
def test_gradients_by_row_equal_those_of_single_rows(name: str, route: str) -> None:
    model, batch, options = few_rows(name)
    rows, found = by(route, model, batch, options)
    assert rows.route == ("ghost" if name in GHOST and route == "auto" else "vmap")
    assert bool(rows.reason) == (name not in GHOST)
    _, reference = by("loop", model, batch, options)
    assert reference.finite.all() and found.finite.all()
    size = sum(float(g.square().sum()) for g in reference.gradients.values()) ** 0.5
    for parameter, g in reference.gradients.items():
        off = float((found.gradients[parameter] - g).norm())
        assert off <= 1e-5 * float(g.norm()) + 1e-12 * size, parameter
    assert found.gradients.keys() == {k for k, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(("name", "route"), CASES)
@pytest.mark.parametrize("terms", ["joint", "split"])
def test_the_clipped_sum_is_that_of_single_rows(name: str, route: Any, terms: Any) -> None:
    model, batch, options = few_rows(name)
    sums = []
    for by_route in (route, "loop"):
        rows = PerRow(model, size=100, route=by_route, terms=terms, **options)
        with seeded(1):
            clip = float(rows.clipped(batch, 1.0).norms.median())
        with seeded(1):
            sums.append(rows.clipped(batch, clip))
    found, reference = sums
    torch.testing.assert_close(found.norms, reference.norms, rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(found.losses, reference.losses)
    size = sum(float(g.square().sum()) for g in reference.gradients.values()) ** 0.5
    for parameter, g in reference.gradients.items():
        off = float((found.gradients[parameter] - g).norm())
        assert off <= 1e-5 * float(g.norm()) + 1e-12 * size, parameter


@pytest.mark.parametrize("name", names())
def test_a_private_fit_of_its_example(name: str) -> None:
    shown = example(name)
    options = {k: v for k, v in shown.fit.items() if k in ("objective", "learning_rate")}
    rows = rows_of(prepare(shown.model, shown.data))

    def fit() -> privacy.PrivateFit:
        return privacy.fit(
            shown.model,
            shown.data,
            epsilon=3.0,
            delta=0.1 / rows,
            steps=3,
            accountant="rdp",
            seed=0,
            **options,
        )

    if name in REFUSED:
        with pytest.raises((BrokenModel, ValueError), match=REFUSED[name]):
            fit()
        return
    before = [p.detach().clone() for p in shown.model.parameters() if p.requires_grad]
    run = fit()
    after = [p for p in shown.model.parameters() if p.requires_grad]
    assert 2.94 <= run.epsilon <= 3.0
    assert all(not torch.equal(a, b) for a, b in zip(after, before, strict=True))
    assert run.ledger.releases[0].steps == 3
