"""Random draws by row: every row takes its own row of a table, and nothing is drawn in place.

`torch.func.vmap` cannot batch the draws that torch's and Pyro's distributions make, which fill
fresh memory in place. Inside `with RowDraws(...)` each call of a random function becomes a
function of standard noise (x = mu + sigma u, x = 1 if u < p, the largest of log p + Gumbel, or
the noise forms of `pgm.noise`). The noise of the k-th call is one table for all rows, drawn once
from torch's global generator; row i reads the i-th entry. All rows at once and one row after the
other therefore see the same numbers, and so can be compared.

A random function that has no rule here raises inside vmap; it is never shared between rows.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from torch import Size, Tensor
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack as outside_vmap
from torch.distributions import Distribution
from torch.overrides import TorchFunctionMode

import pgm.noise
from pgm.noise import draws as standard
from privacy.layout import Axis

Standard = Callable[[Size, Tensor], Tensor]
Tables = dict[tuple[Any, ...], Tensor]
Axes = Callable[[int, tuple[int, ...]], Axis]


class Draws(TorchFunctionMode):
    """Replaces random functions by their rules; hands them noise call by call.

    Args:
        n: the number of rows.
        tables: what was drawn so far; it is filled as calls are made.
    """

    def __init__(self, n: int, tables: Tables) -> None:
        super().__init__()
        self.n, self.tables, self.calls = n, tables, 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replaces a random function by its rule; lets every other function pass."""
        if func in RULES:
            return RULES[func](self, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def noise(self, kind: Standard, shape: Iterable[int], like: Tensor) -> Tensor:
        """Standard noise for the call at hand, in the dtype of `like`."""
        raise NotImplementedError

    def blank(self, shape: Iterable[int], like: Tensor) -> Tensor:
        """Memory that may be written to."""
        raise NotImplementedError

    def table(self, kind: Standard, shape: Iterable[int], like: Tensor) -> Tensor:
        """The noise of all rows for the call at hand; `shape` is that of one row."""
        full = Size((self.n, *shape))
        key = (self.calls, kind, full, like.dtype, like.device)
        self.calls += 1
        if key not in self.tables:
            with outside_vmap():
                like = torch.empty((), dtype=like.dtype, device=like.device)
                self.tables[key] = kind(full, like)
        return self.tables[key]

    def sample(self, fn: Distribution) -> Tensor:
        """A draw through the noise form of `fn`, whose own draws come from the tables."""
        with self:
            return pgm.noise.sample(fn)


class RowDraws(Draws):
    """Hands one row its noise, call by call.

    Args:
        n: the number of rows.
        row: the index of this row, shape (1,); a batched tensor under vmap.
        tables: what was drawn so far, shared by the n rows; it is filled as calls are made.

    Example:
        >>> tables = {}
        >>> def two(row):
        ...     with RowDraws(3, row, tables):
        ...         return torch.distributions.Normal(0.0, 1.0).sample((2,))
        >>> at_once = torch.func.vmap(two)(torch.arange(3)[:, None])
        >>> one_by_one = torch.stack([two(torch.tensor([i])) for i in range(3)])
        >>> bool((at_once == one_by_one).all())
        True
    """

    def __init__(self, n: int, row: Tensor, tables: Tables) -> None:
        super().__init__(n, tables)
        self.row = row

    def noise(self, kind: Standard, shape: Iterable[int], like: Tensor) -> Tensor:
        """This row's standard noise for the call at hand, in the dtype of `like`."""
        table = self.table(kind, shape, like)
        return table.index_select(0, self.row.to(table.device))[0]

    def blank(self, shape: Iterable[int], like: Tensor) -> Tensor:
        """Memory of this row's own, which it may write to under vmap too."""
        return (self.row[0] * 0).to(like.dtype).expand(Size(shape)).clone()


class LotDraws(Draws):
    """Hands all rows at once the noise that `RowDraws` would hand them one by one.

    Args:
        n: the number of rows.
        tables: what was drawn so far; it is filled as calls are made.
        axes: the number and the shape of a call -> where its rows are; by default nothing is known,
            and every call draws afresh.

    Attributes:
        shapes: of the calls made.
    """

    def __init__(self, n: int, tables: Tables, axes: Axes | None = None) -> None:
        super().__init__(n, tables)
        self.axes, self.shapes = axes, list[tuple[int, ...]]()

    def noise(self, kind: Standard, shape: Iterable[int], like: Tensor) -> Tensor:
        """All rows' standard noise for the call at hand, in its shape."""
        shape, number = tuple(shape), self.calls
        self.shapes.append(shape)
        if self.axes is None:
            self.calls += 1
            return kind(Size(shape), like)
        axis = self.axes(number, shape)
        return axis.in_place(self.table(kind, axis.of_one_row(shape), like))

    def blank(self, shape: Iterable[int], like: Tensor) -> Tensor:
        """Fresh memory, zeros."""
        return torch.zeros(Size(shape), dtype=like.dtype, device=like.device)


Rule = Callable[..., Tensor]
RULES: dict[Any, Rule] = {}
"""Random function -> `f(draws, *arguments)`, which is called in its place."""


def rule(*functions: Any) -> Callable[[Rule], Rule]:
    """Makes `f(draws, *arguments)` the replacement of torch's functions (decorator)."""

    def register(replacement: Rule) -> Rule:
        RULES.update(dict.fromkeys(functions, replacement))
        return replacement

    return register


def fill(function: Any, value: Rule) -> None:
    """The rule of an in-place draw: a copy of `value(draws, tensor, ...)` into the tensor.

    Where all rows share the tensor's memory the copy raises under vmap, as it should.
    """

    @rule(function)
    def filled(draws: Draws, x: Tensor, *args: Any, **options: Any) -> Tensor:
        options.pop("generator", None)
        if "from" in options:
            options["low"] = options.pop("from")
        return x.copy_(value(draws, x, *args, **options))


@rule(torch.normal)
def normal(draws: Draws, mean: Any, std: Any = 1.0, size: Any = None, **options: Any) -> Tensor:
    """Mean + std u."""
    tensors = [value for value in (mean, std) if isinstance(value, Tensor)]
    like = tensors[0] if tensors else _like(options)
    shape = size if size is not None else torch.broadcast_shapes(*(t.shape for t in tensors))
    return mean + std * draws.noise(standard.normal, shape, like)


@rule(torch.randn)
def randn(draws: Draws, *size: Any, **options: Any) -> Tensor:
    """U ~ N(0, 1)."""
    return draws.noise(standard.normal, _shape(size, options), _like(options))


@rule(torch.rand)
def rand(draws: Draws, *size: Any, **options: Any) -> Tensor:
    """U ~ U(0, 1)."""
    return draws.noise(standard.uniform, _shape(size, options), _like(options))


@rule(torch.randn_like)
def randn_like(draws: Draws, x: Tensor, **options: Any) -> Tensor:
    """U ~ N(0, 1)."""
    return draws.noise(standard.normal, x.shape, _like(options, x))


@rule(torch.rand_like)
def rand_like(draws: Draws, x: Tensor, **options: Any) -> Tensor:
    """U ~ U(0, 1)."""
    return draws.noise(standard.uniform, x.shape, _like(options, x))


@rule(torch.randint)
def randint(
    draws: Draws, *args: Any, low: int = 0, high: Any = None, size: Any = None, **options: Any
) -> Tensor:
    """Low + floor((high - low) u)."""
    given = list(args)
    size = given.pop() if size is None else size
    high = given.pop() if high is None else high
    low = given.pop() if given else low
    u = draws.noise(standard.uniform, size, _double(options))
    return (low + u * (high - low)).floor().to(options.get("dtype") or torch.int64)


@rule(torch.randperm)
def randperm(draws: Draws, m: int, **options: Any) -> Tensor:
    """The order of m uniform numbers."""
    return draws.noise(standard.uniform, (m,), _double(options)).argsort()


@rule(torch.bernoulli, Tensor.bernoulli)
def bernoulli(draws: Draws, p: Tensor, **_: Any) -> Tensor:
    """1 if u < p."""
    return (draws.noise(standard.uniform, p.shape, p) < p).to(p.dtype)


@rule(torch.multinomial, Tensor.multinomial)
def multinomial(
    draws: Draws, p: Tensor, num_samples: int, *args: Any, replacement: Any = False, **_: Any
) -> Tensor:
    """The largest of log p + Gumbel; without replacement, the `num_samples` largest.

    The Gumbel-max trick (Maddison, Tarlow & Minka 2014, eq. 1), and its top-k form (Kool, van Hoof
    & Welling 2019, sec. 2.3).
    """
    log_p, categories = p.log(), p.shape[-1]
    if not (args[0] if args else replacement):
        u = draws.noise(standard.gumbel, p.shape, p)
        return (log_p + u).topk(num_samples, -1).indices
    u = draws.noise(standard.gumbel, (*p.shape[:-1], num_samples, categories), p)
    return (log_p.unsqueeze(-2) + u).argmax(-1)


@rule(torch.poisson)
def poisson(draws: Draws, rate: Tensor, **_: Any) -> Tensor:
    """By the noise form of the Poisson distribution, as the next two by theirs."""
    return draws.sample(dist.Poisson(rate, validate_args=False))


@rule(torch.binomial)
def binomial(draws: Draws, count: Tensor, prob: Tensor, **_: Any) -> Tensor:
    """By its noise form."""
    return draws.sample(dist.Binomial(count, prob, validate_args=False))


@rule(torch._standard_gamma)
def standard_gamma(draws: Draws, concentration: Tensor, **_: Any) -> Tensor:
    """By its noise form, with implicit gradients."""
    rate = torch.ones_like(concentration)
    return draws.sample(dist.Gamma(concentration, rate, validate_args=False))


@rule(F.dropout, torch.dropout)
def dropout(draws: Draws, x: Tensor, *args: Any, **options: Any) -> Tensor:
    """X / (1 - p) where u >= p, 0 elsewhere."""
    given = dict(zip(("p", "training", "inplace"), args, strict=False)) | options
    p = given.get("p", 0.5)
    if not given.get("training", given.get("train", True)) or p == 0:
        return x
    kept = draws.noise(standard.uniform, x.shape, x) >= p
    return torch.where(kept, x / max(1 - p, torch.finfo(x.dtype).tiny), torch.zeros_like(x))


@rule(torch.empty)
def empty(draws: Draws, *size: Any, **options: Any) -> Tensor:
    """Memory of this row's own, as the next three."""
    return draws.blank(_shape(size, options), _like(options))


@rule(torch.empty_like)
def empty_like(draws: Draws, x: Tensor, **options: Any) -> Tensor:
    """In the shape of x."""
    return draws.blank(x.shape, _like(options, x))


@rule(Tensor.new_empty)
def new_empty(draws: Draws, x: Tensor, *size: Any, **options: Any) -> Tensor:
    """In the dtype of x."""
    return draws.blank(_shape(size, options), _like(options, x))


@rule(Tensor.new)
def new(draws: Draws, x: Tensor, *size: Any, **options: Any) -> Tensor:
    """The old spelling of `new_empty`, or a tensor of the data that came."""
    if all(isinstance(part, int | Size) for part in size):
        return new_empty(draws, x, *size)
    return x.new(*size, **options)


fill(
    Tensor.normal_,
    lambda draws, x, mean=0.0, std=1.0: mean + std * draws.noise(standard.normal, x.shape, x),
)
fill(
    Tensor.uniform_,
    lambda draws, x, low=0.0, to=1.0: low + (to - low) * rand_like(draws, x),
)
fill(
    Tensor.bernoulli_,
    lambda draws, x, p=0.5: (rand_like(draws, x) < p).to(x.dtype),
)
fill(
    Tensor.exponential_,
    lambda draws, x, lambd=1.0: draws.noise(standard.exponential, x.shape, x) / lambd,
)
fill(
    Tensor.cauchy_,
    lambda draws, x, median=0.0, sigma=1.0: (
        median + sigma * draws.noise(standard.cauchy, x.shape, x)
    ),
)


def _shape(size: Sequence[Any], options: dict[str, Any]) -> Sequence[int]:
    """The shape in `f(2, 3)`, `f((2, 3))` or `f(size=(2, 3))`."""
    if not size:
        return options.get("size", ())
    return size[0] if len(size) == 1 and not isinstance(size[0], int) else size


def _like(options: dict[str, Any], x: Tensor | None = None) -> Tensor:
    """An empty tensor of the dtype and on the device that a call asks for."""
    dtype = options.get("dtype") or (torch.get_default_dtype() if x is None else x.dtype)
    device = options.get("device") or (None if x is None else x.device)
    return torch.empty((), dtype=dtype, device=device)


def _double(options: dict[str, Any]) -> Tensor:
    return torch.empty((), dtype=torch.float64, device=options.get("device"))
