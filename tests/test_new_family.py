"""Adding a family touches one file: the one in docs/new_family.md, dropped into a folder.

It keeps every law of the contract, so that what the page shows can be taken for an example.
"""

import inspect
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import pgm
from pgm import families

PAGE = Path(__file__).parents[1] / "docs" / "new_family.md"
BY_HAND = """
import torch
import pyro
from pyro import distributions as dist
from pgm.families import Example
from pgm.model import Model, rows


class Amounts(Model):
    def __init__(self):
        super().__init__()
        self.log_rate = torch.nn.Parameter(torch.zeros(2))

    def model(self, n):
        with rows(n):
            pyro.sample("x", dist.Gamma(3.0, self.log_rate.exp()).to_event(1))


def example():
    g = torch.Generator().manual_seed(0)
    u = torch.rand(300, 3, 2, generator=g)
    return Example(Amounts(), -torch.log(u).sum(1), {"steps": 200, "learning_rate": 0.05})
"""
CONTRACT = runpy.run_path(str(Path(__file__).with_name("test_contract.py")))
LAWS = [law for name, law in CONTRACT.items() if name.startswith("test_")]
CASES = [
    (law, verb)
    for law in LAWS
    for verb in (CONTRACT["QUESTIONS"] if "verb" in inspect.signature(law).parameters else ("",))
]


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[families.Example]:
    """The families of the page, and one of positive numbers without rules of its own."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    folder = tmp_path_factory.mktemp("families")
    (folder / "waiting.py").write_text(code.group(1))
    (folder / "amounts.py").write_text(BY_HAND)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "__path__", [*families.__path__, str(folder)])
        yield families.example("waiting")
    for name in ("waiting", "amounts"):
        sys.modules.pop(f"pgm.families.{name}", None)


@pytest.mark.parametrize("name", ["waiting", "amounts"])
@pytest.mark.parametrize(("law", "verb"), CASES)
def test_new_families_keep_the_contract(
    law: Callable[..., None], verb: str, name: str, waiting: families.Example, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {"name": name, "verb": verb, "tmp_path": tmp_path}
    law(**{key: asked[key] for key in inspect.signature(law).parameters})


def test_one_file_makes_a_family(waiting: families.Example, tmp_path: Path) -> None:
    model, x = waiting.model, waiting.data
    assert "waiting" in families.names()
    assert pgm.check(model, x).problems == ()
    pgm.fit(model, x, seed=0, learning_rate=0.05, **waiting.fit)
    assert torch.allclose(model.log_rate.exp(), 1 / x.mean(0), rtol=0.05)
    assert pgm.abilities(model)["log_prob"] == "own"
    own, generic = pgm.log_prob(model, x).value, pgm.log_weight(model, pgm.batch.as_batch(x)).rows
    assert torch.allclose(own, generic, atol=1e-4)
    with pytest.raises(pgm.Unsupported, match="Use a model with latents"):
        pgm.encode(model, x)
    pgm.save(model, tmp_path / "model.pt")
    assert isinstance(pgm.load(tmp_path / "model.pt"), type(model))
