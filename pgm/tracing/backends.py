"""What runs a recorded graph, and all that is semi-private in torch, in one file.

    graph     the calls of the graph one after the other, from Python
    ts        TorchScript: the same calls from its interpreter
    inductor  fused C++ loops (Ansel et al. 2024, sec. 4), where a C++ compiler is found

`make_fx`, `fx_graph_cse`, `torch._inductor` and `_reparametrize_module` carry no promise of
torch's: they were tried with torch 2.13, and what they give is always checked against the program.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule

Backend = Literal["eager", "graph", "ts", "inductor"]
"""The program itself, or what replays it."""
BACKENDS: tuple[Backend, ...] = get_args(Backend)
Program = Callable[..., Sequence[Tensor]]
"""From tensors to a tuple or list of tensors."""


def make_graph(program: Program, inputs: Sequence[Tensor]) -> GraphModule:
    """Runs the program once and records its calls, gradients included (torch's `make_fx`)."""
    from torch._guards import TracingContext, tracing
    from torch._subclasses import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    def call(*tensors: Tensor) -> Sequence[Tensor]:  # a method's `self` would be counted
        return program(*tensors)

    with tracing(TracingContext(FakeTensorMode(allow_fallback_kernels=True))):  # else one a call
        return make_fx(call)(*inputs)


def functional(graph: GraphModule, inputs: Sequence[Tensor]) -> GraphModule:
    """The same graph without calls that change a tensor in place, but for its inputs."""
    return make_graph(torch.func.functionalize(graph, remove="mutations"), inputs)


def batched(graph: GraphModule, inputs: Sequence[Tensor]) -> GraphModule:
    """The graph over a leading dimension of every input (vmap)."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")
        return make_graph(torch.func.vmap(graph), inputs)


def share(graph: Graph) -> Graph:
    """The graph with common subexpressions computed once; random draws stay apart."""
    from torch._functorch.compile_utils import fx_graph_cse

    return fx_graph_cse(graph)


def run(graph: GraphModule, backend: Backend, inputs: Sequence[Tensor]) -> Program:
    """The graph as a callable of `backend`; it is compiled here, for the shapes of the inputs."""
    if backend == "ts":
        return _script(graph, inputs)
    return _inductor(graph, inputs) if backend == "inductor" else graph.forward


@functools.cache
def compiles() -> bool:
    """Whether inductor finds a C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return bool(get_cpp_compiler())
    except Exception:  # of a type that differs between versions
        return False


def best_backend() -> Backend:
    """The fastest that runs here."""
    return "inductor" if compiles() else "ts"


def leaf(tensor: Tensor) -> Tensor:
    """The tensor as a parameter to differentiate by.

    A new nn.Parameter would be no part of a record: the mark is what nn.Parameter looks for.
    """
    parameter = tensor.detach().requires_grad_()
    parameter._is_param = True
    return parameter


@contextmanager
def holding(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """The module with other tensors in the place of its parameters and buffers.

    Yields:
        The tensors; after the block, those that the module held at its end.
    """
    from torch.nn.utils.stateless import _reparametrize_module

    held = dict(tensors)
    with _reparametrize_module(module, held, tie_weights=True):
        yield held


def _inductor(graph: GraphModule, inputs: Sequence[Tensor]) -> Program:
    """Random numbers are torch's own, in the order of the program, so that a seed means the same.

    One process compiles: starting others takes longer than these graphs do. That the compiler knows
    the processor's vector instructions is believed at first: trying them out takes inductor longer
    than all the rest.
    """
    import torch._inductor
    from torch._inductor.cpu_vec_isa import valid_vec_isa_list

    _use_matrix_products(graph)
    options = {"fallback_random": True, "compile_threads": 1, "size_asserts": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            believed = options | {"cpp.vec_isa_ok": True}
            program: Program = torch._inductor.compile(graph, list(inputs), options=believed)
        except Exception:  # of a type that differs between versions
            valid_vec_isa_list.cache_clear()
            program = torch._inductor.compile(graph, list(inputs), options=options)
    return program


def _use_matrix_products(graph: GraphModule) -> None:
    """Matrix times vector as the library's product, which inductor would write as a loop."""
    aten = torch.ops.aten
    for node in list(graph.graph.nodes):
        if node.target is aten.mv.default:
            matrix, vector = node.args
            with graph.graph.inserting_before(node):
                column = graph.graph.call_function(aten.unsqueeze.default, (vector, 1))
                product = graph.graph.call_function(aten.mm.default, (matrix, column))
                result = graph.graph.call_function(aten.squeeze.dim, (product, 1))
            node.replace_all_uses_with(result)
            graph.graph.erase_node(node)
    graph.recompile()


def _script(graph: GraphModule, inputs: Sequence[Tensor]) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated: it is the way without C++
        script = torch.jit.trace(graph, tuple(inputs), check_trace=False)
    program: Program = script
    return program
