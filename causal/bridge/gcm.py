"""A structural causal model of ours as one of dowhy.gcm, which can be asked all that gcm can.

Every mechanism x = push(dist(parents), u) becomes a functional causal model: gcm's noise is our u,
one number a node (levels by the monotone coupling). Values are those of the user's frame: numbers
in their unit, levels as strings, which is how gcm knows them.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import torch
from torch import Tensor

from causal.bridge.late import dowhy
from causal.interventions.sites import asking
from causal.mechanisms import Mechanism
from causal.structural import Structural
from pgm import Categorical, Continuous, Schema
from pgm import noise as forms


def to_gcm(model: Structural) -> Any:
    """The model as a `dowhy.gcm.InvertibleStructuralCausalModel`.

    Where a node has levels, or a distribution whose noise its value leaves open, it is a plain
    `StructuralCausalModel`: gcm then refuses what needs the noise of rows that were seen.

    Args:
        model: a fitted SCM; it is copied.

    Raises:
        ValueError: a node whose noise is not one number.

    Example:
        >>> from causal import SCM, LinearGaussian
        >>> scm = SCM("x -> y", x=LinearGaussian(), y=LinearGaussian({"x": 2.0}))
        >>> gcm = to_gcm(scm)
        >>> parents, y = np.array([[1.0], [2.0]]), np.array([2.5, 3.0])
        >>> gcm.causal_mechanism("y").estimate_noise(y, parents).ravel()
        array([ 0.5, -1. ])
    """
    gcm = dowhy("gcm")
    model = copy.deepcopy(model)
    graph: nx.DiGraph[str] = nx.DiGraph()
    graph.add_nodes_from(model.nodes)
    graph.add_edges_from(model.graph.edges)
    nodes = {name: Node(model, name) for name in model.nodes}
    inner = [node for node in nodes.values() if node.parents]
    closed = all(node.invertible for node in inner)
    made = (gcm.InvertibleStructuralCausalModel if closed else gcm.StructuralCausalModel)(graph)
    for name, node in nodes.items():
        made.set_causal_mechanism(name, _wrapped(node))
        made.graph.nodes[name]["parents_during_fit"] = sorted(node.parents)
    return made


class Node:
    """One mechanism between gcm's arrays and our tensors.

    Args:
        model: whose mechanism it is.
        name: the node.
    """

    def __init__(self, model: Structural, name: str) -> None:
        self.name, self.parents = name, tuple(sorted(model.parents(name)))
        self.mechanism: Mechanism = model.mechanism(name)
        self.heard = {p: model.mechanism(p).levels for p in self.parents}
        self.schema, self.dtype = model.schema, model.dtype
        self.model = model
        fn = self.mechanism.dist(_zeros(self.heard, 1, self.dtype))
        noise = forms.noise(fn, coupling=_coupling(fn))
        if not isinstance(noise, Tensor) or noise.numel() != 1 or fn.event_shape:
            raise ValueError(
                f"The noise of {name!r} ({type(fn).__name__}) is not one number, but dowhy.gcm has "
                "one for each node. Use another mechanism there."
            )
        self.invertible = not forms.couplings(fn) and self.levels <= 1

    @property
    def levels(self) -> int:
        """How many levels it has; 1 for a number."""
        return self.mechanism.levels

    @property
    def labels(self) -> list[str]:
        """What its levels are called in gcm."""
        return _labels(self.schema, self.name, self.levels)

    def noise(self, n: int) -> Any:
        """Draws of u, (n, 1)."""
        with asking(self.model, None):
            fn = self.mechanism.dist(_zeros(self.heard, n, self.dtype))
            shape = () if fn.batch_shape == (n,) else (n,)
            u = forms.noise(fn, shape, coupling=_coupling(fn))
            assert isinstance(u, Tensor)
            return u.reshape(n, 1).double().numpy()

    def push(self, parents: Any, noise: Any) -> Any:
        """The values that noise makes, (n, 1)."""
        u = torch.tensor(np.asarray(noise, dtype=float), dtype=self.dtype).reshape(-1)
        with asking(self.model, None):
            heard = self._heard(parents, len(u))
            x = self.mechanism.push(heard, u, coupling=_coupling(self.mechanism.dist(heard)))
        return self._shown(x)

    def pull(self, x: Any, parents: Any) -> Any:
        """The noise that made values, (n, 1)."""
        value = _coded(self.schema, self.dtype, self.name, x, self.levels)
        with asking(self.model, None):
            u = self.mechanism.pull(self._heard(parents, len(value)), value)
        return u.reshape(-1, 1).double().numpy()

    def probabilities(self, parents: Any) -> Any:
        """Of each level, (n, levels)."""
        n = len(parents)
        with asking(self.model, None):
            fn = self.mechanism.dist(self._heard(parents, n))
            codes = torch.arange(self.levels, dtype=self.dtype)[:, None]
            return fn.log_prob(codes.expand(-1, n)).exp().T.double().numpy()

    def fit(self, x: Any, parents: Any) -> None:
        """The mechanism's own estimate."""
        value = _coded(self.schema, self.dtype, self.name, x, self.levels)
        heard = self._heard(parents, len(value)) if self.parents else {}
        self.mechanism.estimate(value, heard, torch.ones(len(value), dtype=self.dtype))

    def copied(self) -> "Node":
        """A copy with parameters of its own."""
        new = copy.copy(self)
        new.mechanism = copy.deepcopy(self.mechanism)
        return new

    def _heard(self, parents: Any, n: int) -> dict[str, Tensor]:
        """The columns of gcm's array, which are the parents by name, in the model's numbers."""
        kind = object if any(k > 1 for k in self.heard.values()) else float
        columns = np.asarray(parents, dtype=kind).reshape(n, len(self.parents)).T
        pairs = zip(self.heard.items(), columns, strict=True)
        return {p: _coded(self.schema, self.dtype, p, x, k) for (p, k), x in pairs}

    def _shown(self, x: Tensor) -> Any:
        if self.levels > 1:
            return np.array(self.labels, dtype=object)[x.long().numpy()].reshape(-1, 1)
        mean, std = _unit(self.schema, self.name)
        return (x.double() * std + mean).reshape(-1, 1).numpy()


def _coupling(fn: Any) -> str | None:
    return "monotone" if "monotone" in forms.couplings(fn) else None


def _zeros(levels: Mapping[str, int], n: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Zeros in the place of parents, of which the law of the noise does not depend."""
    return {p: torch.zeros(n, dtype=torch.int64 if k > 1 else dtype) for p, k in levels.items()}


def _coded(schema: Schema | None, dtype: torch.dtype, name: str, x: Any, levels: int) -> Tensor:
    """gcm's values in the model's numbers."""
    if levels > 1:
        codes = {label: i for i, label in enumerate(_labels(schema, name, levels))}
        return torch.tensor([codes[str(label)] for label in np.ravel(x)])
    mean, std = _unit(schema, name)
    return torch.tensor((np.asarray(x, dtype=float).ravel() - mean) / std, dtype=dtype)


def as_gcm_frame(model: Structural, frame: Any) -> Any:
    """A copy of a frame as gcm reads it: levels as strings, numbers as floats."""
    inputs = {name: model.mechanism(name).levels for name in model.nodes if name in frame}
    return frame[list(inputs)].astype({n: str if k > 1 else float for n, k in inputs.items()})


def _labels(schema: Schema | None, name: str, levels: int) -> list[str]:
    column = schema.columns.get(name) if schema is not None else None
    known: Sequence[Any] = column.levels if isinstance(column, Categorical) else range(levels)
    return [str(label) for label in known]


def _unit(schema: Schema | None, name: str) -> tuple[float, float]:
    column = schema.columns.get(name) if schema is not None else None
    return (column.mean, column.std) if isinstance(column, Continuous) else (0.0, 1.0)


def _wrapped(node: Node) -> Any:
    """The node as the class of gcm that it is an instance of."""
    if not node.parents:
        return _root_class()(node)
    plain, inverted, levels = _function_classes()
    if node.levels > 1:
        return levels(node)
    return inverted(node) if node.invertible else plain(node)


def _root_class() -> Any:
    """gcm's class of roots, made when it is needed."""
    theirs = dowhy("gcm.causal_mechanisms")

    class Root(theirs.StochasticModel):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, node: Node) -> None:
            self.node = node

        def fit(self, X: Any) -> None:
            self.node.fit(X, None)

        def draw_samples(self, num_samples: int) -> Any:
            return self.node.push(np.empty((num_samples, 0)), self.node.noise(num_samples))

        def clone(self) -> Any:
            return type(self)(self.node.copied())

    return Root


def _function_classes() -> tuple[Any, Any, Any]:
    """gcm's classes of functions of parents and noise: any, invertible ones, and levels."""
    theirs = dowhy("gcm.causal_mechanisms")

    class Plain(theirs.FunctionalCausalModel):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, node: Node) -> None:
            self.node = node

        def fit(self, X: Any, Y: Any) -> None:
            self.node.fit(Y, X)

        def draw_noise_samples(self, num_samples: int) -> Any:
            return self.node.noise(num_samples)

        def evaluate(self, parent_samples: Any, noise_samples: Any) -> Any:
            return self.node.push(parent_samples, noise_samples)

        def clone(self) -> Any:
            return type(self)(self.node.copied())

    class Inverted(Plain, theirs.InvertibleFunctionalCausalModel):  # type: ignore[misc, name-defined, unused-ignore]
        def estimate_noise(self, target_samples: Any, parent_samples: Any) -> Any:
            return self.node.pull(target_samples, parent_samples)

    class Levels(Plain, theirs.ProbabilityEstimatorModel):  # type: ignore[misc, name-defined, unused-ignore]
        @property
        def classifier_model(self) -> Any:
            return self

        @property
        def classes(self) -> list[str]:
            return self.node.labels

        def estimate_probabilities(self, parent_samples: Any) -> Any:
            return self.node.probabilities(parent_samples)

    return Plain, Inverted, Levels
