"""Adding a family touches one file: the one in docs/new_family.md, dropped into a folder."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import pgm
from pgm import families

PAGE = Path(__file__).parents[1] / "docs" / "new_family.md"


@pytest.fixture
def waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[families.Example]:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "waiting.py").write_text(code.group(1))
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    yield families.example("waiting")
    del sys.modules["pgm.families.waiting"]


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
