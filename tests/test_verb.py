"""What holds for every verb: dispatch, refusals, data in any form, modes, gradients and seeds."""

import re
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

import pgm
from pgm.batch import Batch
from pgm.verb import Unsupported, Verb, needs_guide, prepare, verb


class Normal(pgm.Model):
    """x ~ N(mu, 1) with a dropout layer to have a mode."""

    def __init__(self) -> None:
        super().__init__()
        self.mu, self.layer = nn.Parameter(torch.zeros(2)), nn.Dropout(0.5)

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mu, 1.0).to_event(1))


class Guided(Normal):
    def guide(self, n: int, x: Tensor) -> None:
        pass


class Child(Guided):
    pass


@pytest.fixture
def ask() -> Any:
    """A verb of its own, forgotten after the test."""

    def ask(model: pgm.Model, batch: Batch, *, scale: float = 1.0, seed: int | None = None) -> Any:
        """What the rule saw."""
        seen = {"who": "generic", "batch": batch, "model": model, "scale": scale}
        return seen | {"training": model.training, "grad": torch.is_grad_enabled()}

    every = list(Verb.every)
    yield verb(needs=needs_guide)(ask)
    Verb.every[:] = every


def test_the_rule_of_the_nearest_class_answers(ask: Any) -> None:
    assert ask(Guided(), torch.zeros(1, 2))["who"] == "generic"

    @ask.register(Guided)
    def own(model: Guided, batch: Batch, *, scale: float = 1.0) -> Any:
        return {"who": "own", "scale": scale}

    assert ask(Guided(), torch.zeros(1, 2), scale=3.0, seed=0) == {"who": "own", "scale": 3.0}
    assert ask(Child(), torch.zeros(1, 2))["who"] == "own"
    assert ask.answer(Child()) == "own"
    assert own(Guided(), Batch())["who"] == "own"


def test_what_the_generic_answer_needs_is_asked_of_it_alone(ask: Any) -> None:
    with pytest.raises(Unsupported, match=r"^Normal cannot ask: .*no guide"):
        ask(Normal(), torch.zeros(1, 2))
    assert ask.refusal(Normal()).startswith("it has no latent sites")
    assert ask.answer(Guided()) == "generic"

    @ask.register(Normal)
    def own(model: Normal, batch: Batch) -> str:
        return "own"

    assert ask(Normal(), torch.zeros(1, 2)) == "own"
    assert ask.refusal(Normal()) is None


def test_a_rule_may_need_something_of_its_own(ask: Any) -> None:
    @ask.register(
        Normal, needs=lambda model: "mu is zero. Use another." if not model.mu.any() else None
    )
    def own(model: Normal, batch: Batch) -> str:
        return "own"

    model = Normal()
    with pytest.raises(Unsupported, match="Normal cannot ask: mu is zero"):
        ask(model, torch.zeros(1, 2))
    nn.init.ones_(model.mu)
    assert ask(model, torch.zeros(1, 2)) == "own"


def test_a_refusal_says_why_and_is_inherited(ask: Any) -> None:
    ask.refuse(Guided, "it is shy. Use Normal.")
    for model in (Guided(), Child()):
        name = type(model).__name__
        with pytest.raises(Unsupported, match=rf"^{name} cannot ask: it is shy\. Use Normal\.$"):
            ask(model, torch.zeros(1, 2))
        assert ask.answer(model) == "it is shy. Use Normal."
    ask.register(Child)(lambda model, batch: "bold")
    assert ask(Child(), torch.zeros(1, 2)) == "bold"
    assert pgm.abilities(Guided())["ask"] == "it is shy. Use Normal."


def test_a_subclass_with_programs_of_its_own_does_not_inherit_an_answer(ask: Any) -> None:
    """Its family's closed form would go on answering for the old program."""
    ask.register(Guided)(lambda model, batch: "own")

    class Moved(Child):
        def model(self, n: int) -> None:
            with pgm.rows(n):
                pyro.sample("x", dist.Normal(self.mu + 5, 1.0).to_event(1))

    class Further(Moved):
        pass

    for model in (Moved(), Further()):
        with pytest.raises(Unsupported, match=r"Moved writes model anew.*Guided.*Use.*generic"):
            ask(model, torch.zeros(1, 2))
    ask.register(Moved)(ask.generic)
    assert ask(Further(), torch.zeros(1, 2))["who"] == "generic"
    assert ask(Child(), torch.zeros(1, 2)) == "own"
    assert ask.refusal(Normal()).startswith("it has no latent sites")


def test_a_refusal_comes_before_the_data_are_read(ask: Any) -> None:
    ask.refuse(Guided, "no. Use yes.")
    with pytest.raises(Unsupported):
        ask(Guided(), "no data at all")


def test_data_in_any_form_reach_the_rule_as_a_batch(ask: Any) -> None:
    model = Guided().double()
    for data in ([[1.0, 2.0]], np.ones((1, 2)), torch.ones(1, 2), {"x": torch.ones(1, 2)}):
        for batch in (ask(model, data)["batch"], ask(model, batch=data)["batch"]):
            assert isinstance(batch, Batch)
            assert batch["x"].dtype == torch.float64
    seen = ask(model, torch.tensor([[1.0, float("nan")]]))["batch"]
    assert seen["x_seen"].tolist() == [[True, False]]


def test_the_model_is_in_evaluation_mode_and_comes_back_as_it_was(ask: Any) -> None:
    model = Guided()
    model.layer.eval()
    seen = ask(model, torch.zeros(1, 2))
    assert (seen["training"], seen["grad"]) == (False, False)
    assert (model.training, model.layer.training) == (True, False)
    assert torch.is_grad_enabled()
    model.eval()
    ask(model, torch.zeros(1, 2))
    assert not model.training


def test_an_error_leaves_everything_as_it_was(ask: Any) -> None:
    @ask.register(Guided)
    def fail(model: Guided, batch: Batch) -> None:
        torch.randn(1)
        raise RuntimeError("inside")

    model, before = Guided(), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="inside"):
        ask(model, torch.zeros(1, 2), seed=0)
    assert model.training
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_differentiated_verb_keeps_mode_and_gradient() -> None:
    model = Normal()
    loss = pgm.objective(model, torch.zeros(3, 2), seed=0)
    loss.sum().backward()
    assert model.mu.grad is not None
    assert model.training


def test_a_seed_fixes_the_draws_and_none_goes_on() -> None:
    model, before = Normal(), torch.get_rng_state()
    first, second = (pgm.sample(model, 3, seed=5)["x"] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(pgm.sample(model, 3)["x"], pgm.sample(model, 3)["x"])


@pytest.mark.parametrize(
    ("thing", "came"),
    [
        (None, "NoneType"),
        (3, "int"),
        (nn.Linear(1, 1), "Linear"),
        (Normal, "the class Normal"),
        (lambda n: None, "function"),
    ],
)
def test_what_is_no_model_is_refused(thing: Any, came: str, ask: Any) -> None:
    with pytest.raises(TypeError, match=rf"ask asks a pgm\.Model, but {came} came.*from_pyro"):
        ask(thing, torch.zeros(1, 2))


def test_forgotten_data_are_asked_for(ask: Any) -> None:
    with pytest.raises(TypeError, match=r"ask\(model, batch\)"):
        ask(Guided())
    with pytest.raises(TypeError, match="scael"):
        ask(Guided(), torch.zeros(1, 2), scael=2.0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (torch.zeros(0, 2), "no rows"),
        (torch.tensor([[torch.inf, 0.0]]), "'x' hold 1 infinite"),
        (torch.zeros(4, 3), r"'x' have shape \(n, 3\).*\(2,\)"),
        ({"x": torch.zeros(4, 2), "y": torch.zeros(4)}, "'y', which Normal does not know"),
        ({"y": torch.zeros(4)}, "'y', which Normal does not know: its sites are x"),
        ({"x": torch.zeros(4, 2), "y": torch.zeros(3)}, "'x': 4, 'y': 3"),
        (torch.zeros(4, 2, dtype=torch.complex64), "complex64"),
        ("rows", "str"),
    ],
)
def test_bad_data_are_explained_by_every_verb_that_takes_them(data: Any, words: str) -> None:
    for question in (pgm.log_prob, pgm.surprise, pgm.impute, pgm.objective):
        with pytest.raises((ValueError, TypeError), match=words):
            question(Normal(), data)


def test_integers_are_read_as_numbers() -> None:
    whole = pgm.log_prob(Normal(), torch.tensor([[1, 2]], dtype=torch.int8))
    assert torch.equal(whole.value, pgm.log_prob(Normal(), torch.tensor([[1.0, 2.0]])).value)


def test_preparing_leaves_a_batch_alone() -> None:
    batch = Batch(x=torch.zeros(1, 2))
    assert prepare(Normal().double(), batch) is batch


def test_abilities_list_every_verb() -> None:
    found = pgm.abilities(Normal())
    assert set(found) == {v.__name__ for v in Verb.every}
    assert found["log_prob"] == "generic"
    assert re.match("it has no latent sites", found["encode"])
    assert repr(pgm.sample) == "<verb sample>"
    assert "Draws new" in (pgm.sample.__doc__ or "")
