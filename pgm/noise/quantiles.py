"""Quantiles and scores that torch lacks, element by element, by SciPy in float64.

For a distribution with CDF F and density f, `quantile` is x = F^{-1}(Phi(u)) and `normal_score`
its inverse u = Phi^{-1}(F(x)), each taken from the smaller tail, so that neither is rounded away.
Gradients are implicit (Figurnov et al. 2018, eq. 3): dx/du = phi(u) / f(x) and
dx/dtheta = -(dF/dtheta) / f(x), with dF/dtheta by a central difference in float64, good to about
nine digits. There are no second derivatives, and asking for them is an error. Everything works
under `torch.func.vmap` and `grad`, and is one opaque node for `make_fx`.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def quantile(family: str, u: Float[Tensor, "..."], *theta: Float[Tensor, "..."]) -> Tensor:
    """x = F^{-1}(Phi(u); theta).

    Args:
        family: `"gamma"` (concentration), `"beta"` (both concentrations) or `"student"` (df).
        u: Normal scores.
        theta: Parameters, which broadcast with u.

    Example:
        The upper 2.5 % point of Student's t with 10 degrees of freedom:

        >>> quantile("student", torch.tensor(1.959964), torch.tensor(10.0))
        tensor(2.2281)
    """
    return _Quantile.apply(family, *torch.broadcast_tensors(u, *theta))


def normal_score(family: str, x: Float[Tensor, "..."], *theta: Float[Tensor, "..."]) -> Tensor:
    """u = Phi^{-1}(F(x; theta)), the inverse of `quantile`.

    Example:
        >>> normal_score("student", torch.tensor(2.228139), torch.tensor(10.0))
        tensor(1.9600)
    """
    return _NormalScore.apply(family, *torch.broadcast_tensors(x, *theta))


class _Quantile(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(family: str, u: Tensor, *theta: Tensor) -> Tensor:
        return elementwise("quantile", family, [u, *theta])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.family, u, *theta = inputs
        ctx.save_for_backward(output, u, *theta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        (grad,), saved, family = grads, ctx.saved_tensors, ctx.family
        _, needs_u, *needs = ctx.needs_input_grad
        slope = grad * _Partial.apply("slope", family, *saved) if needs_u else None
        shift = [
            grad * _Partial.apply(f"shift{i}", family, *saved) if need else None
            for i, need in enumerate(needs)
        ]
        return None, slope, *shift


class _NormalScore(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(family: str, x: Tensor, *theta: Tensor) -> Tensor:
        return elementwise("normal_score", family, [x, *theta])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.family, x, *theta = inputs
        ctx.save_for_backward(x, output, *theta)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        saved, family = ctx.saved_tensors, ctx.family
        grad = grads[0] / _Partial.apply("slope", family, *saved)
        shift = [
            -grad * _Partial.apply(f"shift{i}", family, *saved) if need else None
            for i, need in enumerate(ctx.needs_input_grad[2:])
        ]
        return None, grad, *shift


class _Partial(torch.autograd.Function):
    """A partial derivative of x(u, theta); it has no derivative of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(quantity: str, family: str, *arguments: Tensor) -> Tensor:
        return elementwise(quantity, family, list(arguments))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        raise NotImplementedError(
            "The noise forms of Gamma, Beta, StudentT and Dirichlet have first derivatives only. "
            "Use a first-order method, or a distribution such as LogNormal here."
        )


@torch.library.custom_op("hotplate::elementwise", mutates_args=())
def elementwise(quantity: str, family: str, arguments: list[Tensor]) -> Tensor:
    """A quantity of a family, in the dtype of the first argument; arguments broadcast."""
    from pgm.noise.tails import FAMILIES

    function = getattr(FAMILIES[family], quantity.rstrip("0123456789"))
    index = [int(quantity[-1])] if quantity[-1].isdigit() else []
    shape = torch.broadcast_shapes(*(a.shape for a in arguments))
    arrays = [a.detach().cpu().double().expand(shape).numpy().ravel() for a in arguments]
    return torch.from_numpy(function(*index, *arrays)).reshape(shape).to(arguments[0])


@elementwise.register_fake
def _(quantity: str, family: str, arguments: list[Tensor]) -> Tensor:
    return arguments[0].new_empty(torch.broadcast_shapes(*(a.shape for a in arguments)))


@elementwise.register_vmap
def _(
    info: Any, in_dims: Any, quantity: str, family: str, arguments: list[Tensor]
) -> tuple[Tensor, int]:
    dims = in_dims[2]
    rank = max(a.dim() - (dim is not None) for a, dim in zip(arguments, dims, strict=True))
    front = [
        a.unsqueeze(0) if dim is None else a.movedim(dim, 0)
        for a, dim in zip(arguments, dims, strict=True)
    ]
    aligned = [a.reshape(a.shape[:1] + (1,) * (rank + 1 - a.dim()) + a.shape[1:]) for a in front]
    return elementwise(quantity, family, aligned), 0
