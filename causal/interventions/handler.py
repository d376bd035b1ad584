"""Interventions: `do(model, A=...)` replaces the mechanism of a site and leaves all others alone.

p(x | do(x_A = a)) = prod_{j != A} p(x_j | parents of j) at x_A = a, the truncated factorisation
(Pearl 2009, Causality, eq. 3.10): a site that is set has no density of its own. A site that is
given a Distribution or a function of its parents follows that law or policy instead, and one that
is given another mechanism listens to whatever that listens to.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import networkx as nx
import torch
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Distribution

from causal.interventions.actions import (
    Action,
    Target,
    checked,
    fill,
    is_shift,
    policy,
    shifted,
    words,
)
from causal.interventions.arrows import changes
from causal.mechanisms import Mechanism
from causal.outcomes import categories
from causal.shifts import Shifted
from causal.structural import Arrow, Structural, listen, rewired
from pgm import Model
from pgm.handlers import Handled
from pgm.verb import Unsupported, Verb

INTERVENED = "_intervened"
"""The key under which a site's `infer` says that it was intervened on."""
LEVELS = "_levels"
"""The key under which that of a site that was set says how many levels it had."""


def do(
    model: Model, interventions: Mapping[Any, Any] | None = None, /, **values: Any
) -> "Intervened":
    """The model under an intervention; it shares its parameters with `model`, which stays as it is.

    A number or label is in the user's words where the model has a schema: a level, a count, a value
    in the column's unit. A tensor, a Distribution and what a function takes and returns are in the
    model's numbers (levels as 0 .. k-1, standardised columns as z).

    Evidence on a site that was set must agree with its value, or the question contradicts itself.

    Args:
        model: any model. Applied to an intervened model, `do` adds to its interventions; a site
            that is named again is set anew.
        interventions: values by site, where the names are no keywords; or by arrow,
            `("A", "B")`: what B hears of A, a value, values by row or a function of A's value.
        **values: what each site becomes: a number or label; a tensor, of the site's event shape or
            rows first; a Distribution (a random policy); a function of the parents' values by name
            that gives a number, tensor or Distribution; a function f(value, parents) of the value
            that the site would have had as well (a shift); in a model with a graph, another
            mechanism, on whatever is not downstream. The parents are those of the graph where
            there is one, else all sites that are drawn before.

    Returns:
        A model that every verb takes.

    Raises:
        ValueError: a site that the model does not have, a value of another shape, one that is not
            finite, or one outside a discrete site's levels. Outside a continuous site's support,
            a warning.
        TypeError: something that is none of the above.

    Example:
        >>> from causal import SCM, LinearGaussian
        >>> scm = SCM("A -> B", B=LinearGaussian({"A": 2.0}, scale=0.5))
        >>> from pgm import sample
        >>> sample(do(scm, B=3.0), 2, seed=0)["B"]
        tensor([3., 3.])
        >>> sample(do(scm, B=lambda parents: parents["A"] + 1), 1000, seed=0)["B"].mean().round()
        tensor(1.)
        >>> sample(do(scm, A=lambda value, parents: value + 3), 1000, seed=0)["B"].mean().round()
        tensor(6.)
        >>> sample(do(scm, {("A", "B"): 5.0}), 1000, seed=0)["B"].mean().round()
        tensor(10.)
    """
    wanted = {**(interventions or {}), **values}
    if not wanted:
        raise ValueError("do() was told nothing to do: name a site and its value, do(model, A=1).")
    base, before = unwrap(model)
    return Intervened(base, {**before, **checked(base, before, wanted)})


def unwrap(model: Model) -> tuple[Model, dict[Target, Action]]:
    """The model before all interventions, and the interventions."""
    return (model.base, model.values) if isinstance(model, Intervened) else (model, {})


class Intervened(Handled):
    """A model with some of its mechanisms replaced; made by `do`.

    Args:
        base: the model; its parameters are shared.
        values: by site or arrow, a tensor in the model's numbers, a Distribution, a function or a
            mechanism.
    """

    def __init__(self, base: Model, values: Mapping[Target, Action]) -> None:
        super().__init__(base)
        self.values = dict(values)

    @property
    def mechanisms(self) -> dict[str, Mechanism]:
        """The mechanisms among the interventions, by node."""
        values = self.values.items()
        return {t: v for t, v in values if isinstance(t, str) and isinstance(v, Mechanism)}

    @property
    def graph(self) -> nx.DiGraph:
        """The graph under the intervention: no arrows into what is set, others where rewired.

        Raises:
            ValueError: the base is a program without a graph.
        """
        if not isinstance(self.base, Structural):
            raise ValueError(
                f"{type(self.base).__name__} has no graph. SCM.from_program(program) finds one."
            )
        graph: nx.DiGraph[str] = nx.DiGraph(rewired(self.base.graph, self.mechanisms))
        heard = [t for t, v in self.values.items() if isinstance(t, tuple) and not callable(v)]
        cut = [t for t, v in self.values.items() if isinstance(v, Tensor | Distribution)]
        graph.remove_edges_from([*heard, *[(a, b) for a, b in graph.edges if b in cut]])
        return graph

    def handler(self, program: str) -> "Intervention":
        """Replaces the sites."""
        values = {t: v for t, v in self.values.items() if isinstance(t, str)}
        training = self.training and program == "model"
        return Intervention(
            self.base, values, changes(self.values), program=program, training=training
        )

    def joint(self, n: int, **context: Any) -> Any:
        """The joint program of the base, its mechanisms and arrows exchanged."""
        mechanisms, arrows = self.mechanisms, changes(self.values)
        if not (mechanisms or arrows):
            return self.base.model(n, **context)
        assert isinstance(self.base, Structural)
        return self.base.draw(n, **context, mechanisms=mechanisms, arrows=arrows)

    def extra_repr(self) -> str:
        """What is done."""
        done = words(self.schema, self.values).items()
        return f"do({', '.join(f'{name}={value}' for name, value in done)})"


class Intervention(Messenger):
    """Replaces sites while a program runs: those set have no density, and nothing redraws them.

    Args:
        model: whose graph, if it has one, says what a function's parents are.
        values: as in `Intervened`, of sites.
        arrows: what is heard along arrows.
        program: "model", or "guide", which cannot follow functions of the parents.
        training: whether rows may come in any order, so that values by row would be misplaced.
    """

    def __init__(
        self,
        model: Model,
        values: Mapping[str, Action],
        arrows: Mapping[Arrow, Callable[..., Tensor]],
        *,
        program: str = "model",
        training: bool = False,
    ) -> None:
        super().__init__()
        self.training = training
        self.values, self.arrows, self.program = values, arrows, program
        self.structure = model if isinstance(model, Structural) else None
        self.upstream: dict[str, Tensor] = {}
        self.set: dict[str, Tensor] = {}

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        absent = [name for name in self.values if name not in self.upstream]
        if self.program == "model" and absent and error[0] is None:
            raise ValueError(
                f"do() names {', '.join(map(repr, absent))}, which the program did not draw (it "
                f"drew {', '.join(self.upstream)}). Name a site of the program."
            )

    def _pyro_sample(self, msg: Any) -> None:
        if site_is_subsample(msg) or msg["name"] not in self.values:
            return
        fn, batch_shape = msg["fn"], msg["fn"].batch_shape
        infer = {k: v for k, v in msg["infer"].items() if k != "enumerate"}
        if isinstance(self.values[msg["name"]], Mechanism):  # the node loop has put it there
            msg["infer"] = msg["infer"] | {INTERVENED: "mechanism"}
            return
        value = self._act(msg["name"], fn)
        if isinstance(value, Shifted):
            msg["fn"], msg["infer"] = value, infer | {INTERVENED: "shift"}
            return
        if isinstance(value, Distribution):
            if self.program == "model":
                msg["fn"] = value.expand(torch.broadcast_shapes(value.batch_shape, batch_shape))
                msg["infer"] = infer | {INTERVENED: "law"}
            return
        if self.training and isinstance(value, Tensor) and value.dim() > fn.event_dim:
            raise Unsupported(
                f"do() sets site {msg['name']!r} row by row, and training shuffles the rows. For "
                "data of an experiment fit the SCM itself; `clamped` says what was set."
            )
        x = fill(msg["name"], value, fn)
        self.set[msg["name"]] = x
        msg["fn"] = Delta(x, event_dim=fn.event_dim).mask(False)
        msg["value"], msg["done"] = x, True
        msg["infer"] = infer | {INTERVENED: "value", LEVELS: categories(fn), "_drawn": None}

    def _pyro_post_sample(self, msg: Any) -> None:
        if site_is_subsample(msg):
            return
        name, value = msg["name"], msg["value"]
        self.upstream[name] = value
        if name not in self.set or value is self.set[name]:
            return
        ours, came = torch.broadcast_tensors(self.set[name], value)
        if not torch.equal(ours, came.to(ours.dtype)):
            differ = ours != came
            raise ValueError(
                f"The batch says {came[differ][0].item():g} for site {name!r}, but do() sets it to "
                f"{ours[differ][0].item():g} in that row: under the intervention the evidence is "
                f"impossible. Leave {name!r} out of the batch; to ask what would have been in rows "
                "seen without the intervention, use causal.counterfactual."
            )

    def _act(self, name: str, fn: Any) -> Any:
        """The value of an intervention, with functions applied to the parents."""
        value = self.values[name]
        if not callable(value) or isinstance(value, Distribution):
            return value
        if self.program == "guide":
            raise Unsupported(
                f"do() makes the latent site {name!r} a function of its parents, which the guide "
                "draws in an order of its own. Set it to a value or a Distribution."
            )
        known = self.upstream
        if self.structure is not None:
            known = {parent: self.upstream[parent] for parent in self.structure.parents(name)}
            if any(effect == name for _, effect in self.arrows):
                inputs = self.structure.mechanism(name).inputs
                known = listen(name, inputs, self.upstream, self.arrows)
        if is_shift(value):
            return shifted(name, value, fn, known)
        return policy(name, value, fn, known)


def _refuse_with_the_base(question: Verb[Any, Any]) -> None:
    """What the base has no answer to, its programs do not answer under a handler either."""
    generic = inspect.unwrap(question)

    @functools.wraps(generic)
    def answer(*args: Any, **kwargs: Any) -> Any:
        return generic(*args, **kwargs)

    question.register(Handled, needs=lambda model: question.refusal(model.base))(answer)


for _question in Verb.every:
    _refuse_with_the_base(_question)
