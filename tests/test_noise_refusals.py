"""What noise forms refuse, and how a new one is taught."""

from typing import Any, ClassVar

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.func import vmap

from pgm.noise import NoNoiseForm, couplings, noise, pull, push, register


class Unheard(dist.TorchDistribution):
    """A distribution that says nothing of how it is made."""

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(self) -> None:
        super().__init__(validate_args=False)

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return torch.zeros(sample_shape)


class Taught(Unheard):
    """One that will be told."""


@pytest.mark.parametrize(
    ("fn", "named"),
    [
        (Unheard(), "Unheard"),
        (dist.VonMises(0.0, 1.0), "VonMises"),
        (dist.MultivariateStudentT(torch.tensor(3.0), torch.zeros(2), torch.eye(2)), "StudentT"),
        (dist.LKJ(3, torch.tensor(1.0)), "LKJCholesky"),
        (dist.FoldedDistribution(dist.Normal(0.0, 1.0)), "AbsTransform"),
        (dist.ZeroInflatedPoisson(torch.tensor(1.0), gate=torch.tensor(0.5)), "ZeroInflated"),
        (dist.Multinomial(3, torch.ones(3)), "Multinomial"),
    ],
    ids=lambda fn: fn if isinstance(fn, str) else "",
)
def test_an_unknown_distribution_is_refused_by_name(fn: Any, named: str) -> None:
    x = fn.sample()
    for ask in (lambda: noise(fn), lambda: push(fn, x), lambda: pull(fn, x)):
        with pytest.raises(NoNoiseForm, match=rf"(?s){named}.*pgm\.noise\.register"):
            ask()


def test_a_class_can_be_taught_its_noise_form() -> None:
    register(
        Taught,
        noise=lambda fn, shape: torch.rand(shape),
        push=lambda fn, u: 3 * u,
        pull=lambda fn, x: x / 3,
    )
    assert couplings(Taught()) == ()
    assert push(Taught(), pull(Taught(), torch.tensor(2.0))).item() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("fn", "x"),
    [
        (dist.Exponential(1.0), -1.0),
        (dist.Uniform(0.0, 1.0), 1.5),
        (dist.LogNormal(0.0, 1.0), -2.0),
        (dist.Beta(2.0, 2.0), 1.1),
        (dist.Gamma(2.0, 2.0), float("nan")),
        (dist.Exponential(1.0).expand((3,)).to_event(1), -1.0),
    ],
    ids=lambda fn: type(fn).__name__,
)
def test_a_value_that_cannot_have_been_made_is_refused(fn: Any, x: float) -> None:
    value = torch.full((2, *fn.event_shape), 0.5)
    value[1] = x
    with pytest.raises(ValueError, match=rf"outside the support.*{x}"):
        pull(fn, value)
    with pytest.raises(ValueError, match=rf"outside the support.*{x}"):
        vmap(lambda x: pull(fn, x))(value)


def test_a_coupling_where_there_is_none_is_refused() -> None:
    fn = dist.Normal(0.0, 1.0)
    x = torch.zeros(())
    for ask in (
        lambda: noise(fn, coupling="gumbel"),
        lambda: push(fn, x, coupling="gumbel"),
        lambda: pull(fn, x, coupling="gumbel"),
    ):
        with pytest.raises(ValueError, match="Normal has one noise form"):
            ask()


def test_second_derivatives_are_refused_where_there_are_none() -> None:
    a = torch.tensor(2.0, requires_grad=True)
    x = push(dist.Gamma(a, 1.0), torch.tensor(0.3))
    (first,) = torch.autograd.grad(x, a, create_graph=True)
    with pytest.raises(NotImplementedError, match="first derivatives only"):
        torch.autograd.grad(first, a)
