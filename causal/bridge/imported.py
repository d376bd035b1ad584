"""A fitted model of dowhy.gcm as a structural causal model of ours.

The mechanisms stay gcm's and are asked for values and noise: x = f(parents, u) with gcm's own noise
u, so that draws, interventions and counterfactuals agree with gcm's. What gcm knows by draws alone
(a residual from a table of residuals) has no density here either.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pyro.distributions import Categorical
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Size, Tensor
from torch.distributions import constraints

from causal.bridge.late import dowhy
from causal.bridge.refuters import numpy_seeded
from causal.graph import as_graph, order
from causal.mechanisms import Mechanism
from causal.mechanisms.kind import Kind
from causal.scm import SCM
from pgm import Categorical as Levels
from pgm import Continuous, Schema
from pgm import noise as forms
from pgm.randomness import fresh_seed


def from_gcm(model: Any) -> SCM:
    """A fitted gcm model as an SCM.

    Numbers stay in their unit; a node of strings becomes one with levels, called by them.

    Args:
        model: a `dowhy.gcm.StructuralCausalModel` with fitted mechanisms: additive noise,
            post-nonlinear, classifiers; roots of any kind. It is copied.

    Raises:
        ValueError: a node without a fitted mechanism.
        TypeError: a mechanism without noise, which is no structural equation.

    Example:
        >>> import pandas as pd
        >>> from causal.bridge.late import dowhy
        >>> gcm = dowhy("gcm")
        >>> from pgm import sample
        >>> from causal import do
        >>> x = np.linspace(-1, 1, 50)
        >>> made = gcm.InvertibleStructuralCausalModel(as_graph("x -> y"))
        >>> made.set_causal_mechanism("x", gcm.EmpiricalDistribution())
        >>> made.set_causal_mechanism("y", gcm.AdditiveNoiseModel(gcm.ml.create_linear_regressor()))
        >>> _ = gcm.fit(made, pd.DataFrame({"x": x, "y": 3 * x}))
        >>> float(sample(do(from_gcm(made), x=2.0), 1, seed=0)["y"])
        6.0
    """
    graph = as_graph(model.graph)
    columns: dict[str, Levels | Continuous] = {}
    fitted: dict[str, Any] = {}
    for node in order(graph):
        held = model.graph.nodes[node]
        if "parents_during_fit" not in held or "causal_mechanism" not in held:
            raise ValueError(f"Node {node!r} has no fitted mechanism: call gcm.fit first.")
        fitted[node] = held["causal_mechanism"]
        columns[node] = _column(node, fitted[node], inner=bool(held["parents_during_fit"]))
    schema = Schema({node: columns[node] for node in graph})
    made = {node: _imported(node, fitted[node], graph, schema) for node in graph}
    return SCM(graph, schema=schema, **made)


class Imported(Mechanism):
    """A mechanism of dowhy.gcm.

    Args:
        fitted: gcm's object; it is copied.
        parents: labels by parent, none for a parent that is a number, in gcm's order.
        labels: those of the node itself; none for a number.
    """

    def __init__(
        self, fitted: Any, parents: Mapping[str, Sequence[Any]], labels: Sequence[Any] = ()
    ) -> None:
        super().__init__()
        self.fitted, self.labels = copy.deepcopy(fitted), tuple(labels)
        self.known = {name: tuple(known) for name, known in parents.items()}
        self.inputs = {name: Kind(max(1, len(known))) for name, known in parents.items()}
        self.kind = Kind(max(1, len(labels)))
        self.register_buffer("one", torch.ones(()))

    def dist(self, parents: Mapping[str, Tensor]) -> Any:
        """Levels have probabilities; numbers a law that can be drawn from and inverted."""
        dtype = self.one.dtype
        shape = (
            torch.broadcast_shapes(*(parents[p].shape for p in self.inputs)) if self.inputs else ()
        )
        heard = _columns({p: parents[p].expand(shape) for p in self.inputs}, self.known)
        if not self.labels:
            return Structural(self.fitted, heard, Size(shape), dtype)
        if not self.inputs:
            values = np.asarray(self.fitted.data).ravel()
            share = [float((values == label).mean()) for label in self.labels]
            return Categorical(torch.tensor(share, dtype=dtype))
        probs = torch.tensor(self.fitted.estimate_probabilities(heard), dtype=dtype)
        return Categorical(probs.reshape(*shape, self.levels))

    def extra_repr(self) -> str:
        """What it is in gcm."""
        return f"{type(self.fitted).__name__} of dowhy.gcm"


class Structural(TorchDistribution):
    """x = f(parents, u), by a mechanism of gcm.

    Args:
        fitted: gcm's object.
        parents: gcm's array, (rows, parents).
        shape: the batch shape, whose elements are the rows.
        dtype: of the values.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real

    def __init__(self, fitted: Any, parents: Any, shape: Size, dtype: torch.dtype) -> None:
        super().__init__(shape, validate_args=False)
        self.fitted, self.parents, self.dtype = fitted, parents, dtype

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Structural":
        """The same law for more rows."""
        shape = Size(batch_shape)
        index = torch.arange(self.batch_shape.numel()).reshape(self.batch_shape).expand(shape)
        return Structural(self.fitted, self.parents[index.flatten().numpy()], shape, self.dtype)

    def noise(self, shape: Size) -> Tensor:
        """Draws of gcm's noise; of a root it is the value itself."""
        full = shape + self.batch_shape
        root = not self.parents.shape[1]
        draw = self.fitted.draw_samples if root else self.fitted.draw_noise_samples
        with numpy_seeded(fresh_seed()):  # gcm draws from NumPy, we from torch
            drawn = np.asarray(draw(full.numel()), dtype=float)
        return torch.tensor(drawn, dtype=self.dtype).reshape(full)

    def push(self, u: Tensor) -> Tensor:
        """f(parents, u)."""
        if not self.parents.shape[1]:
            return u
        return self._through(self.fitted.evaluate, u, parents_first=True)

    def pull(self, x: Tensor) -> Tensor:
        """The noise that made x."""
        if not self.parents.shape[1]:
            return x
        return self._through(self.fitted.estimate_noise, x, parents_first=False)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, from torch's generator on."""
        with torch.no_grad():
            return self.push(self.noise(Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """There is none.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"{type(self.fitted).__name__} of dowhy.gcm knows its noise by draws alone and has no "
            "density. Fit a mechanism of causal.mechanisms to rows where densities are needed."
        )

    def _through(self, function: Any, x: Tensor, *, parents_first: bool) -> Tensor:
        """A function of gcm, applied to all rows at once."""
        times = x.numel() // max(1, self.batch_shape.numel())
        parents = np.tile(self.parents, (times, 1))
        column = x.detach().double().reshape(-1, 1).numpy()
        found = function(parents, column) if parents_first else function(column, parents)
        return torch.tensor(np.asarray(found, dtype=float), dtype=self.dtype).reshape(x.shape)


forms.register(
    Structural,
    noise=lambda fn, shape: fn.noise(shape),
    push=lambda fn, u: fn.push(u),
    pull=lambda fn, x: fn.pull(x),
)


def _imported(node: str, fitted: Any, graph: Any, schema: Schema) -> Imported:
    parents = {p: _names(schema, p) for p in sorted(graph.predecessors(node))}
    return Imported(fitted, parents, _names(schema, node))


def _names(schema: Schema, node: str) -> tuple[Any, ...]:
    column = schema.columns[node]
    return tuple(column.levels) if isinstance(column, Levels) else ()


def _column(node: str, fitted: Any, *, inner: bool) -> Levels | Continuous:
    """What a node holds, by its mechanism."""
    theirs = dowhy("gcm.causal_mechanisms")
    table = dowhy("gcm.stochastic_models").EmpiricalDistribution
    if isinstance(fitted, theirs.ClassifierFCM):
        return Levels(tuple(map(str, fitted.classifier_model.classes)))
    if isinstance(fitted, table) and fitted.data.dtype.kind not in "fiub":
        return Levels(tuple(sorted(set(map(str, fitted.data.ravel())))))
    if inner and not isinstance(fitted, theirs.InvertibleFunctionalCausalModel):
        structural = isinstance(fitted, theirs.FunctionalCausalModel)
        why = (
            "its noise cannot be found from a row" if structural else "it is no equation with noise"
        )
        raise TypeError(
            f"The mechanism of {node!r} is a {type(fitted).__name__}: {why}. Additive noise, "
            "post-nonlinear models and classifiers are understood."
        )
    return Continuous(mean=0.0, std=1.0)


def _columns(parents: Mapping[str, Tensor], known: Mapping[str, tuple[Any, ...]]) -> Any:
    """The parents as gcm's array, levels by their names."""
    columns = []
    for name, x in parents.items():
        flat = x.detach().flatten().cpu()
        if known[name]:
            columns.append(np.array(known[name], dtype=object)[flat.long().numpy()])
        else:
            columns.append(flat.double().numpy())
    if not columns:
        return np.empty((1, 0))
    return (
        np.stack(columns, 1)
        if not any(known.values())
        else np.stack([column.astype(object) for column in columns], 1)
    )
