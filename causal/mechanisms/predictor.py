"""What a mechanism computes of the parents: eta = b + W z + h(z), linear, with a network h or not.

z holds the parents: a number as (x - center) / scale, a level one-hot, a vector by component.
`center` and `scale` are 0 and 1 at first, since a schema has standardised its columns; `fit_to`
takes them from rows, which are then no private release.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from causal.mechanisms.kind import Kind
from causal.mechanisms.mechanism import Inputs, Values
from pgm.nets import Activation, mlp
from pgm.randomness import seeded


class Predictor(nn.Module):
    """eta = b + W z + h(z); h, the network, starts at zero and its hidden layers by `seed`.

    Args:
        inputs: the kind of each parent, in order.
        outputs: how many eta.
        hidden: sizes of the hidden layers of h; none for a linear predictor.
        activation: nonlinearity of h.
        seed: of the initial weights of h.

    Example:
        >>> eta = Predictor({"a": Kind(), "t": Kind(levels=3)}, 2, hidden=(8,))
        >>> eta({"a": torch.zeros(5), "t": torch.zeros(5).long()}).shape
        torch.Size([5, 2])
    """

    center: Float[Tensor, " p"]
    scale: Float[Tensor, " p"]

    def __init__(
        self,
        inputs: Inputs,
        outputs: int,
        *,
        hidden: Sequence[int] = (),
        activation: Activation = "silu",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.inputs = dict(inputs)
        p = sum(kind.width for kind in self.inputs.values())
        self.weight = nn.Parameter(torch.zeros(p, outputs), requires_grad=p > 0)
        self.intercept = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("center", torch.zeros(p))
        self.register_buffer("scale", torch.ones(p))
        self.net: nn.Sequential | None = None
        if p and hidden:
            with seeded(seed):
                self.net = mlp(p, hidden, outputs, activation=activation)
            for parameter in self.net[-1].parameters():
                nn.init.zeros_(parameter)

    def forward(self, parents: Values) -> Float[Tensor, "*n outputs"]:
        """Eta of every row; parents broadcast."""
        if not self.inputs:
            return self.intercept
        z = (columns(self.inputs, parents, self.weight.dtype) - self.center) / self.scale
        eta: Tensor = (
            torch.addmm(self.intercept, z, self.weight)
            if z.dim() == 2
            else (self.intercept + z @ self.weight)
        )
        return eta if self.net is None else eta + self.net(z)

    def fit_to(self, parents: Values, weight: Float[Tensor, " n"]) -> None:
        """Standardises to the weighted rows; b, W and h act on z, and stay as they are."""
        if not self.inputs:
            return
        X = columns(self.inputs, parents, torch.float64)
        w = (weight.double() / weight.double().sum())[:, None]
        center = (w * X).sum(0)
        scale = (w * (X - center).square()).sum(0).sqrt()
        coded = torch.cat([torch.full((k.width,), k.levels > 1) for k in self.inputs.values()]).to(
            X.device
        )
        plain = coded | (scale <= 1e-9 * (1 + center.abs()))
        self.center.copy_(center.masked_fill(plain, 0.0))
        self.scale.copy_(scale.masked_fill(plain, 1.0))

    def unscale(self) -> None:
        """Writes a linear predictor in the parents' own units, so that z is the parents."""
        assert self.net is None
        with torch.no_grad():
            self.weight.div_(self.scale[:, None])
            self.intercept.sub_(self.center @ self.weight)
            self.center.zero_()
            self.scale.fill_(1.0)

    def set_linear(
        self, blocks: Mapping[str, Float[Tensor, "k outputs"]], intercept: Float[Tensor, " outputs"]
    ) -> None:
        """Sets W, parent by parent, and b."""
        with torch.no_grad():
            if blocks:
                self.weight.copy_(torch.cat(list(blocks.values())))
            self.intercept.copy_(intercept)

    def terms(self) -> str:
        """What it is a function of."""
        how = "linear in" if self.net is None else "a network of"
        return f"{how} {', '.join(self.inputs)}" if self.inputs else "a constant"


def columns(inputs: Inputs, parents: Values, dtype: torch.dtype) -> Float[Tensor, "*n p"]:
    """The parents side by side: numbers, one-hot codes of levels, components of vectors."""
    parts = [_part(parents[name], kind, dtype) for name, kind in inputs.items()]
    if len({part.shape[:-1] for part in parts}) > 1:
        shape = torch.broadcast_shapes(*[part.shape[:-1] for part in parts])
        parts = [part.expand(*shape, part.shape[-1]) for part in parts]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def design(inputs: Inputs, parents: Values, like: Shaped[Tensor, " n"]) -> Float[Tensor, "n p"]:
    """The columns of a linear predictor, for as many rows as `like`: ones, and the parents."""
    ones = torch.ones(len(like), 1, dtype=torch.float64, device=like.device)
    return torch.cat([ones, columns(inputs, parents, torch.float64)], 1) if inputs else ones


def part(
    x: Shaped[Tensor, "..."], weight: Float[Tensor, "k *out"], kind: Kind
) -> Float[Tensor, "..."]:
    """What one parent adds to a linear predictor: weight times x, or the weight of its level."""
    if kind.levels > 1:
        return weight[x.long()]
    if kind.size is not None:
        return x.to(weight.dtype) @ weight
    return x.reshape(x.shape + (1,) * (weight.dim() - 1)) * weight[0]


def blocks_of(
    coefficients: Mapping[str, Any] | None, outputs: int, vectors: Sequence[str]
) -> tuple[dict[str, Kind], dict[str, Float[Tensor, "k outputs"]]]:
    """The kinds of parents and their blocks of W, read off coefficients as a user writes them.

    For one output a parent has a number, or one number a level (a component, for the parents named
    in `vectors`); for several outputs it has as many numbers, or a list of them a level.

    Raises:
        ValueError: coefficients of another shape.
    """
    inputs, blocks = dict[str, Kind](), dict[str, Tensor]()
    plain = 0 if outputs == 1 else 1
    for name, w in (coefficients or {}).items():
        block = torch.as_tensor(w, dtype=torch.get_default_dtype())
        listed = block.dim() == plain + 1
        fits = block.dim() in (plain, plain + 1) and (plain == 0 or block.shape[-1] == outputs)
        if not fits or (listed and name not in vectors and len(block) < 2):
            raise ValueError(_wrong_shape(name, block, outputs))
        blocks[name] = block.reshape(-1, outputs)
        k = len(blocks[name])
        levels = Kind(levels=k) if listed else Kind()
        inputs[name] = Kind(size=k) if name in vectors else levels
    return inputs, blocks


def zeros(inputs: Inputs, outputs: int) -> dict[str, Any]:
    """Coefficients that are all zero, as a user would write them."""
    row: Any = 0.0 if outputs == 1 else [0.0] * outputs
    return {p: row if kind.is_number else [row] * kind.width for p, kind in inputs.items()}


def vectors_of(inputs: Inputs) -> list[str]:
    """The parents that are vectors."""
    return [name for name, kind in inputs.items() if kind.size is not None]


def _part(x: Tensor, kind: Kind, dtype: torch.dtype) -> Float[Tensor, "*n k"]:
    if kind.size is not None:
        return x.to(dtype)
    if kind.levels == 1:
        return x.to(dtype)[..., None]
    return (x.long()[..., None] == torch.arange(kind.levels, device=x.device)).to(dtype)


def _wrong_shape(name: str, block: Tensor, outputs: int) -> str:
    each = "one number" if outputs == 1 else f"{outputs} numbers, one a level of the node"
    return (
        f"The coefficients of {name!r} have shape {tuple(block.shape)}: a parent that is a number "
        f"has {each}, not in a list of lists; a parent with levels has that for each level, at "
        "least two; a vector, named in vectors=, for each component."
    )
