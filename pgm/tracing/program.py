"""A program of tensors is run once, recorded, and replayed without the Python that wrote it.

The record is a graph of torch calls (Reed, DeVito, He, Ussery & Ansel 2022): constants are folded,
common subexpressions shared, and every random draw stays a call, so that each replay draws afresh,
and under a seed what the program would have drawn. What a record cannot know is checked, never
assumed: the program is recorded twice, on different inputs and random numbers, and both records
must be the same; and a replay must agree with the program under the same seed.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from pgm.randomness import seeded
from pgm.tracing.backends import Backend, Program, best_backend, functional, make_graph, run, share

_LARGEST_CONSTANT = 2**16


class Untraceable(Exception):
    """The program has no fixed record; the message says what of it varies."""


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded program; call it with tensors of the shapes it was recorded for.

    Attributes:
        backend: what replays it.
        calls: how many torch calls are left in the record.
        seconds: how long recording, compiling and checking took.
    """

    program: Program
    backend: Backend
    calls: int
    seconds: float

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """What the program would return."""
        return self.program(*inputs)


def trace(
    program: Program,
    inputs: Sequence[Tensor],
    other: Sequence[Tensor],
    *,
    backend: Backend | None = None,
    slack: Mapping[int, float] | None = None,
) -> Trace:
    """Records a program and checks the record against it.

    Args:
        program: from tensors to a tuple of tensors; it may change its inputs in place, draw random
            numbers, and take gradients.
        inputs: tensors of the shapes to come.
        other: different values of the same shapes.
        backend: what replays it; by default the fastest that runs here.
        slack: by how much more than rounding an input may differ after a replay, by its place.

    Raises:
        Untraceable: the program looks at the values of its tensors, or differs between the inputs,
            or a replay does not agree with it.

    Example:
        >>> def noisy(x):
        ...     return (x + torch.randn(2),)
        >>> replay = trace(noisy, [torch.zeros(2)], [torch.ones(2)], backend="graph")
        >>> with seeded(5):
        ...     a = noisy(torch.ones(2))[0]
        >>> with seeded(5):
        ...     b, c = replay(torch.ones(2))[0], replay(torch.ones(2))[0]
        >>> bool((a == b).all()), bool((a == c).any())
        (True, False)
    """
    start, backend = time.perf_counter(), backend or best_backend()
    recorded = record(program, inputs, other)
    compiled = compile_record(recorded, backend, inputs)
    for values in (inputs, other):
        check_replay(program, compiled, values, slack=slack)
    return Trace(compiled, backend, count(recorded), time.perf_counter() - start)


def record(program: Program, inputs: Sequence[Tensor], other: Sequence[Tensor]) -> GraphModule:
    """The program's record, constants folded, common subexpressions shared.

    Raises:
        Untraceable: it is not the same for both inputs.
    """
    first, second = (_record(program, values, seed) for values, seed in ((inputs, 1), (other, 2)))
    _check_constants(first, inputs)
    _check_mutations(first)
    if difference := compare(first, second):
        raise Untraceable(f"the program is not the same each time: {difference}")
    try:
        with seeded(1):
            return simplify(functional(first, _copies(inputs)))
    except Exception as error:
        raise Untraceable(f"its record cannot be simplified: {_first_line(error)}") from error


def compile_record(graph: GraphModule, backend: Backend, inputs: Sequence[Tensor]) -> Program:
    """What replays a record, for inputs of these shapes.

    Raises:
        Untraceable: the back end cannot.
    """
    try:
        with seeded(1):
            return run(graph, backend, _copies(inputs))
    except Exception as error:
        raise Untraceable(f"{backend} cannot compile it: {_first_line(error)}") from error


def simplify(graph: GraphModule) -> GraphModule:
    """Constants folded, common subexpressions shared, what is of no use left out."""
    graph.graph.eliminate_dead_code()
    _drop_detach(graph)
    _fold(graph)
    shared = GraphModule(graph, share(graph.graph))
    shared.graph.eliminate_dead_code()
    shared.recompile()
    return shared


def drop_unused(graph: GraphModule) -> None:
    """Leaves out whatever does not reach the outcome, random draws too."""
    ends = ("placeholder", "output")
    graph.graph.eliminate_dead_code(lambda node: node.op in ends)
    graph.recompile()


def count(graph: GraphModule) -> int:
    """The torch calls of a graph."""
    return sum(node.op == "call_function" for node in graph.graph.nodes)


def check_replay(
    program: Program,
    replay: Program,
    inputs: Sequence[Tensor],
    *,
    slack: Mapping[int, float] | None = None,
) -> None:
    """Runs both under one seed.

    Raises:
        Untraceable: they differ, in what they return or in what they leave in their inputs.
    """
    expected_inputs, found_inputs = _copies(inputs), _copies(inputs)
    with seeded(3):
        expected = program(*expected_inputs)
    with seeded(3):
        found = replay(*found_inputs)
    pairs = zip((*expected_inputs, *expected), (*found_inputs, *found), strict=True)
    for place, (a, b) in enumerate(pairs):
        if not close(a, b, slack=(slack or {}).get(place, 0.0)):
            raise Untraceable(
                "the replay differs from the program under the same seed, by up to "
                f"{float((a - b).abs().max()):.3g} where the program gives up to "
                f"{float(a.abs().max()):.3g}"
            )


def close(a: Tensor, b: Tensor, *, slack: float = 0.0) -> bool:
    """Whether two results differ by rounding alone: by sqrt(eps) of the largest element."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point():
        return bool((a == b).all())
    tolerance = torch.finfo(a.dtype).eps ** 0.5
    finite = a[a.isfinite()].abs()
    scale = 1.0 + (float(finite.max()) if finite.numel() else 0.0)
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * scale + slack, equal_nan=True)


def compare(first: GraphModule, second: GraphModule) -> str | None:
    """The first difference of two records, in words; None if there is none."""
    a, b = list(first.graph.nodes), list(second.graph.nodes)
    place = {node: i for nodes in (a, b) for i, node in enumerate(nodes)}
    for x, y in zip(a, b, strict=False):
        if x.op != y.op or (x.op == "call_function" and x.target != y.target):
            return f"it calls {_name(x)} once and {_name(y)} the next time"
        if x.op == "get_attr":
            if not _same(_constant(first, x), _constant(second, y)):
                return (
                    "a tensor that is neither data, parameter nor buffer took another value; make "
                    "it a buffer, or draw it with torch's random numbers"
                )
        elif not _same(_arguments(x, place), _arguments(y, place)):
            return f"a number or shape that goes into {_name(x)} changed"
    return None if len(a) == len(b) else f"it makes {len(a)} calls once and {len(b)} the next time"


def _record(program: Program, inputs: Sequence[Tensor], seed: int) -> GraphModule:
    try:
        with seeded(seed):
            return make_graph(program, _copies(inputs))
    except Untraceable:
        raise
    except Exception as error:
        raise Untraceable(_reason(error)) from error


def _reason(error: Exception) -> str:
    if "data-dependent" in str(error) or "get a value out of" in str(error):
        return "it looks at the values of its tensors (if, while, float(), .item())"
    return f"recording it failed with {type(error).__name__}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]


def _drop_detach(graph: GraphModule) -> None:
    """Nothing is differentiated in a replay."""
    for node in list(graph.graph.nodes):
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            graph.graph.erase_node(node)


def _fold(graph: GraphModule) -> None:
    """Replaces every call whose arguments are constants by its result."""
    known: dict[Node, Any] = {}
    for node in list(graph.graph.nodes):
        if node.op == "get_attr":
            known[node] = _constant(graph, node)
        elif node.op == "call_function" and _is_pure(node):
            blank = {a: _blank(a) for a in _shapes_asked(node)}
            if not all(parent in known or parent in blank for parent in node.all_input_nodes):
                continue
            given = blank | known
            value = node.target(*_filled(node.args, given), **_filled(node.kwargs, given))
            known[node] = value
            if isinstance(value, Tensor) and value.numel() <= _LARGEST_CONSTANT:
                _replace(graph, node, value, known)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _replace(graph: GraphModule, node: Node, value: Tensor, known: dict[Node, Any]) -> None:
    name = f"_folded{len(known)}_{node.name}"
    graph.register_buffer(name, value.detach(), persistent=False)
    with graph.graph.inserting_before(node):
        constant = graph.graph.get_attr(name)
    known[constant] = value
    node.replace_all_uses_with(constant)


def _is_pure(node: Node) -> bool:
    """Whether a call gives the same result each time, and changes nothing."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return node.target.__name__ == "getitem"  # type: ignore[union-attr]
    random = torch.Tag.nondeterministic_seeded in node.target.tags
    empty = node.target.overloadpacket.__name__.endswith(("empty", "empty_like", "empty_strided"))
    return not (random or empty or node.target._schema.is_mutable)


def _shapes_asked(node: Node) -> list[Node]:
    """The tensors of which a call reads the shape alone, which the record fixes."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload) and target.overloadpacket.__name__ in _OF_SHAPE:
        return [argument for argument in node.all_input_nodes if "val" in argument.meta]
    return []


_OF_SHAPE = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "fill")


def _blank(node: Node) -> Tensor:
    val = node.meta["val"]
    return torch.empty_strided(val.shape, val.stride(), dtype=val.dtype, device=val.device)


def _check_mutations(graph: GraphModule) -> None:
    """A tensor that is changed in place must be an input, or made by the program itself."""
    for node in graph.graph.nodes:
        if not (isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable):
            continue
        for argument, value in zip(node.target._schema.arguments, node.args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and isinstance(value, Node) and _origin(value).op == "get_attr":
                raise Untraceable(
                    f"it changes a tensor in place ({_name(node)}) that is neither parameter nor "
                    "buffer"
                )


def _origin(node: Node) -> Node:
    """The tensor that a node is a view of, or changes and returns."""
    while isinstance(node.target, torch._ops.OpOverload) and node.args:
        returns, parent = node.target._schema.returns, node.args[0]
        alias = returns and returns[0].alias_info is not None
        if not (alias and isinstance(parent, Node)):
            return node
        node = parent
    return node


def _check_constants(graph: GraphModule, inputs: Sequence[Tensor]) -> None:
    """An input that the program reaches by another way would be a constant of the record."""
    addresses = {value.untyped_storage().data_ptr() for value in inputs if value.numel()}
    for node in graph.graph.nodes:
        value = _constant(graph, node) if node.op == "get_attr" else None
        if isinstance(value, Tensor) and value.untyped_storage().data_ptr() in addresses:
            raise Untraceable(
                "it reaches a parameter or its data by another way than the model's own attributes"
            )


def _copies(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [value.detach().clone() for value in inputs]


def _constant(graph: GraphModule, node: Node) -> Any:
    value: Any = graph
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value


def _arguments(node: Node, place: dict[Node, int]) -> list[Any]:
    """The arguments of a call, with the places of nodes for the nodes."""
    return list(_flat((node.args, node.kwargs), place))


def _flat(value: Any, place: dict[Node, int]) -> Iterator[Any]:
    if isinstance(value, Node):
        yield ("node", place[value])
    elif isinstance(value, tuple | list):
        yield len(value)
        for part in value:
            yield from _flat(part, place)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _flat(part, place)
    else:
        yield value


def _filled(value: Any, known: dict[Node, Any]) -> Any:
    return torch.fx.node.map_arg(value, lambda node: known[node])


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return (
            a.shape == b.shape
            and a.dtype == b.dtype
            and torch.equal(a.nan_to_num(), b.nan_to_num())
        )
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) or (a != a and b != b)


def _name(node: Node) -> str:
    return str(node.target) if node.op == "call_function" else node.op
