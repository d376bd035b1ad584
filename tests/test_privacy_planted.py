"""The bugs that private training is known for, and the test that plants each and finds it.

| bug                             | planted in                                                  |
|---------------------------------|-------------------------------------------------------------|
| no noise                        | mechanism "no noise"; auditing "no noise"                   |
| noise divided by the lot        | mechanism, auditing "noise divided by the lot"              |
| clip per batch                  | mechanism "clip per batch"; check `clip_per_batch`          |
| BatchNorm                       | errors `Normalised`; ghost "batch normalisation"            |
| h - h.mean()                    | ghost "h - h.mean()"; hooks "h - h.mean()"                  |
| plate with subsample            | ghost, hooks "a plate with subsample"; check `Subsampled`   |
| loss + regulariser in ghost     | ghost "loss + regulariser"; engine `regularise`             |
| shuffling instead of Poisson    | mechanism "shuffling instead of Poisson"                    |
| skipped empty lots              | mechanism "skipped empty lots"; engine `skip_empty`         |
| divisor from len(data)          | mechanism "divisor from the rows that came"                 |
| physical steps accounted        | mechanism "physical steps accounted"                        |
| manual_seed in the loop         | mechanism "noise from the global generator"                 |
| resume replaying noise          | checkpoints "the old generator's state"                     |
| generator seeing real rows      | split `seeing_generator`                                    |
| data-dependent initialisation   | here                                                        |
| early stopping on private rows  | here                                                        |
| ledger reset by a second call   | ledger `begun_anew`, `overwritten`                          |

The first test holds the table against the files. Found beside these: wrong noise for clipping by
layer and for the count of adaptive clipping (clipping), noise on a grid of another law (noise).
"""

import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pgm
import privacy
from privacy.fit import PrivateTraining

BUGS = (
    "no noise",
    "noise divided by the lot",
    "clip per batch",
    "BatchNorm",
    "h - h.mean()",
    "plate with subsample",
    "loss + regulariser in ghost",
    "shuffling instead of Poisson",
    "skipped empty lots",
    "divisor from len(data)",
    "physical steps accounted",
    "manual_seed in the loop",
    "resume replaying noise",
    "generator seeing real rows",
    "data-dependent initialisation",
    "early stopping on private rows",
    "ledger reset by a second call",
)
X = torch.randn(40, 2, generator=torch.Generator().manual_seed(0)) + 3.0
GOOD: dict[str, Any] = {"epsilon": 1.0, "delta": 1e-3, "accountant": "rdp", "seed": 0}


def table() -> Iterator[tuple[str, str]]:
    """The lines of the table: bug, and where it is planted."""
    for line in (__doc__ or "").splitlines():
        if line.startswith("|") and "---" not in line:
            _, bug, where, _ = (cell.strip() for cell in line.split("|"))
            yield bug, where


def test_every_bug_of_the_list_is_planted_where_the_table_says() -> None:
    lines = dict(table())
    assert set(BUGS) == lines.keys() - {"bug"}
    for where in (where for bug, where in lines.items() if where not in ("here", "planted in")):
        for place in where.split(";"):
            files, quoted = re.findall(r"\b[a-z]+\b", re.split(r'["`]', place)[0]), _quoted(place)
            assert files and quoted, place
            for file in files:
                text = Path(__file__).with_name(f"test_privacy_{file}.py").read_text("utf-8")
                assert all(name in text for name in quoted), (file, quoted)


def _quoted(place: str) -> list[str]:
    return [a or b for a, b in re.findall(r'"([^"]+)"|`([^`]+)`', place)]


# ------------------------------------------------------------------ data-dependent initialisation


def no_initial_value_comes_from_the_rows() -> None:
    """A program whose parameter starts at the mean of what it is first shown."""

    def model(x: Tensor, y: Tensor | None = None) -> None:
        centre = pyro.param("centre", lambda: 1e3 + x.mean())
        with pyro.plate("data", len(x)):
            pyro.sample("obs", dist.Normal(centre + 0.0 * x, 1e3), obs=y)

    starts = []
    for shift in (0.0, 500.0):
        wrapped = pgm.from_pyro(model, None, rows="data", observed={"y": "obs"})
        data = {"x": X[:, 0] + shift, "obs": X[:, 1]}
        PrivateTraining(wrapped, data, steps=1, **GOOD)
        starts += [float(p.detach()) for p in wrapped.parameters()]
    assert starts[0] == starts[1]


def test_no_initial_value_comes_from_the_rows() -> None:
    no_initial_value_comes_from_the_rows()


def test_an_initial_value_from_the_rows_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_the_rows(model: Any, batch: Any, objective: Any, rows: int) -> None:
        with torch.no_grad():
            objective(model, batch, size=rows)

    monkeypatch.setattr(sys.modules["privacy.fit"], "make_parameters", from_the_rows)
    with pytest.raises(AssertionError):
        no_initial_value_comes_from_the_rows()


# ------------------------------------------------------------- early stopping on private validation


class Gaussian(pgm.Model):
    """x ~ N(mu, I)."""

    def __init__(self) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(2))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mu, 1.0).to_event(1))


def the_rows_do_not_say_when_to_stop_nor_what_to_keep() -> None:
    """All planned steps are made, and the last weights kept, however the losses go."""
    for rows in (X, X.roll(7, 0) * 100):
        model = Gaussian()
        run = PrivateTraining(model, rows, steps=15, learning_rate=0.5, **GOOD)
        last = [model.mu.detach().clone() for _ in run][-1]
        assert run.step == 15
        assert torch.equal(model.mu.detach(), last)


def test_the_rows_do_not_say_when_to_stop() -> None:
    the_rows_do_not_say_when_to_stop_nor_what_to_keep()


def stop_when_the_loss_rises(run: Any) -> bool:
    losses = [loss for loss in run.hidden.losses if math.isfinite(loss)]
    return len(losses) > 2 and losses[-1] > min(losses[:-1])


def keep_the_best(advance: Callable[..., Any]) -> Callable[..., Any]:
    def advanced(run: Any, batch: Any, epoch: int) -> Any:
        step = advance(run, batch, epoch)
        if run.hidden.losses[-1] <= min(run.hidden.losses):
            run.best = {k: v.detach().clone() for k, v in run.model.state_dict().items()}
        return step

    return advanced


@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("_out_of_patience", stop_when_the_loss_rises),
        ("_advance", keep_the_best(PrivateTraining._advance)),
    ],
)
def test_early_stopping_on_private_rows_is_found(
    name: str, bug: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrivateTraining, name, bug)
    with pytest.raises(AssertionError):
        the_rows_do_not_say_when_to_stop_nor_what_to_keep()


@pytest.mark.parametrize("option", ["validation", "patience", "evaluate_every"])
def test_and_cannot_be_asked_for(option: str) -> None:
    with pytest.raises(ValueError, match=f"takes no {option}="):
        privacy.fit(Gaussian(), X, steps=2, **GOOD, **{option: 5})
