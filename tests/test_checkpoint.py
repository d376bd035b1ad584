"""Files: written whole or not at all, read without running code."""

import json
from pathlib import Path

import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor, nn

import pgm
from pgm import checkpoint


class Gaussian(pgm.Model):
    """Built from a tensor, a tuple and a mapping."""

    def __init__(self, mu: Tensor, names: tuple[str, ...] = ("a",), *, scales: dict[str, float]):
        super().__init__()
        self.mu, self.names, self.scales = nn.Parameter(mu.clone()), names, scales

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mu, self.scales["a"]).to_event(1))


class Outer(pgm.Model):
    """Built from another model."""

    def __init__(self, inner: pgm.Model):
        super().__init__()
        self.inner = inner

    def model(self, n: int) -> None:
        self.inner.model(n)


class Odd(pgm.Model):
    """Built from something that no file holds."""

    def __init__(self, make: object):
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(1))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mu, 1.0).to_event(1))


def gaussian() -> Gaussian:
    return Gaussian(torch.tensor([1.0, 2.0]), ("b", "c"), scales={"a": 0.5})


def test_a_model_comes_back_with_arguments_schema_and_note(tmp_path: Path) -> None:
    model = gaussian()
    model.schema = pgm.Schema({"u": pgm.Continuous(), "v": pgm.Continuous()}, site="x")
    model.note = "epsilon 3"
    with torch.no_grad():
        model.mu += 1
    pgm.save(Outer(model), tmp_path / "outer.pt")
    pgm.save(model, tmp_path / "model.pt")
    again = pgm.load(tmp_path / "model.pt")
    assert isinstance(again, Gaussian)
    assert torch.equal(again.mu, model.mu)
    assert (again.names, again.scales) == (("b", "c"), {"a": 0.5})
    assert again.schema == model.schema
    assert again.note == "epsilon 3"
    outer = pgm.load(tmp_path / "outer.pt")
    assert isinstance(outer, Outer)
    assert torch.equal(pgm.sample(outer, 3, seed=0)["x"], pgm.sample(model, 3, seed=0)["x"])


def test_what_cannot_be_rebuilt_is_read_into_a_model(tmp_path: Path) -> None:
    model = Odd(make=object())
    pgm.save(model, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"built with a object.*into="):
        pgm.load(tmp_path / "odd.pt")
    other = Odd(make=object())
    assert pgm.load(tmp_path / "odd.pt", into=other) is other
    with pytest.raises(ValueError, match="does not fit a Gaussian"):
        pgm.load(tmp_path / "odd.pt", into=gaussian())


def test_an_unknown_class_is_not_imported(tmp_path: Path) -> None:
    described = {"class": "os:system", "args": [], "kwargs": {}, "schema": None, "note": None}
    checkpoint.write(tmp_path / "x.pt", {"spec": json.dumps(described), "state": {}})
    with pytest.raises(ValueError, match="A file never names code to run"):
        pgm.load(tmp_path / "x.pt")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({"spec": gaussian()}, tmp_path / "pickle.pt")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        pgm.load(tmp_path / "pickle.pt")


def test_another_file_is_named(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "run.pt", {"step": 3})
    with pytest.raises(ValueError, match=r"no model written by pgm.save \(it has step\)"):
        pgm.load(tmp_path / "run.pt")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "model.pt"
    pgm.save(gaussian(), target)
    before = target.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        checkpoint.write(target, {"bad": lambda: None})
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]
