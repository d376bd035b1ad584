"""Interventions: `do(model, A=...)` replaces the mechanism of a site and leaves all others alone.

p(x | do(x_A = a)) = prod_{j != A} p(x_j | parents of j) at x_A = a, the truncated factorisation
(Pearl 2009, Causality, eq. 3.10): a site that is set has no density of its own. A site that is
given a Distribution or a function of its parents follows that law or policy instead.
"""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions import Delta
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import site_is_subsample
from torch import Tensor
from torch.distributions import Distribution

from causal.actions import Action, checked, fill, policy, show
from causal.scm import SCM
from pgm import Model, Schema
from pgm.model import arguments
from pgm.verb import Unsupported, Verb

INTERVENED = "_intervened"
"""The key under which a site's `infer` says that it was intervened on."""


def do(
    model: Model, interventions: Mapping[str, Any] | None = None, /, **values: Any
) -> "Intervened":
    """The model under an intervention; it shares its parameters with `model`, which stays as it is.

    A number or label is in the user's words where the model has a schema: a level, a count, a value
    in the column's unit. A tensor, a Distribution and what a function takes and returns are in the
    model's numbers (levels as 0 .. k-1, standardised columns as z).

    Evidence on a site that was set must agree with its value, or the question contradicts itself.

    Args:
        model: any model. Applied to an intervened model, `do` adds to its interventions; a site
            that is named again is set anew.
        interventions: values by site, where the names are no keywords.
        **values: what each site becomes: a number or label; a tensor, of the site's event shape or
            rows first; a Distribution (a random policy), a function of the parents' values by name
            that gives a number, tensor or Distribution. The parents are those of the graph for an
            `SCM`, else all sites that are drawn before.

    Returns:
        A model that every verb takes.

    Raises:
        ValueError: a site that the model does not have, a value of another shape, one that is not
            finite, or one outside a discrete site's levels. Outside a continuous site's support,
            a warning.
        TypeError: something that is none of the above.

    Example:
        >>> from causal import LinearGaussian
        >>> scm = SCM("A -> B", B=LinearGaussian({"A": 2.0}, scale=0.5))
        >>> from pgm import sample
        >>> sample(do(scm, B=3.0), 2, seed=0)["B"]
        tensor([3., 3.])
        >>> sample(do(scm, B=lambda parents: parents["A"] + 1), 1000, seed=0)["B"].mean().round()
        tensor(1.)
    """
    wanted = {**(interventions or {}), **values}
    if not wanted:
        raise ValueError("do() was told nothing to do: name a site and its value, do(model, A=1).")
    base, before = unwrap(model)
    return Intervened(base, {**before, **checked(base, wanted)})


def unwrap(model: Model) -> tuple[Model, dict[str, Action]]:
    """The model before all interventions, and the interventions."""
    return (model.base, model.values) if isinstance(model, Intervened) else (model, {})


class Intervened(Model):
    """A model with some of its mechanisms replaced; made by `do`.

    Args:
        base: the model; its parameters are shared.
        values: by site, a tensor in the model's numbers, a Distribution or a function.
    """

    def __init__(self, base: Model, values: Mapping[str, Action]) -> None:
        super().__init__()
        # Not by attribute: PyroModule would rename the sites of the user's model.
        self._modules["base"] = base
        self.values, self.training = dict(values), base.training

    @property
    def base(self) -> Model:
        """The model before the intervention."""
        base = self._modules["base"]
        assert isinstance(base, Model)
        return base

    @property
    def schema(self) -> Schema | None:
        """That of the base."""
        return self.base.schema

    @schema.setter
    def schema(self, schema: Schema | None) -> None:
        self.base.schema = schema

    @property
    def note(self) -> str | None:
        """That of the base."""
        return self.base.note

    @note.setter
    def note(self, note: str | None) -> None:
        self.base.note = note

    @property
    def latent(self) -> bool:
        """As the base."""
        return self.base.latent

    @property
    def context(self) -> tuple[str, ...]:
        """As the base."""
        return self.base.context

    @property
    def wants(self) -> tuple[str, ...]:
        """As the base."""
        return self.base.wants

    def model(self, n: int, **context: Any) -> Any:
        """The joint program of the base under the intervention."""
        with Intervention(self.base, self.values, training=self.training):
            return self.base.model(n, **arguments(self.base, "model", context))

    def guide(self, n: int, **data: Any) -> Any:
        """The guide of the base; a site that was set is no longer proposed."""
        with Intervention(self.base, self.values, program="guide"):
            return self.base.guide(n, **arguments(self.base, "guide", data))

    def extra_repr(self) -> str:
        """What is done."""
        done = ", ".join(f"{name}={show(self.schema, name, v)}" for name, v in self.values.items())
        return f"do({done})"


class Intervention(Messenger):
    """Replaces sites while a program runs: those set have no density, and nothing redraws them.

    Args:
        model: whose graph, if it has one, says what a function's parents are.
        values: as in `Intervened`.
        program: "model", or "guide", which cannot follow functions of the parents.
        training: whether rows may come in any order, so that values by row would be misplaced.
    """

    def __init__(
        self,
        model: Model,
        values: Mapping[str, Action],
        *,
        program: str = "model",
        training: bool = False,
    ) -> None:
        super().__init__()
        self.training = training
        self.values, self.program = values, program
        self.scm = model if isinstance(model, SCM) else None
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
        value = self._act(msg["name"])
        fn, batch_shape = msg["fn"], msg["fn"].batch_shape
        infer = {k: v for k, v in msg["infer"].items() if k != "enumerate"}
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
        msg["infer"] = infer | {INTERVENED: "value", "_drawn": None}

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

    def _act(self, name: str) -> Any:
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
        if self.scm is not None:
            known = {parent: self.upstream[parent] for parent in self.scm.parents(name)}
        return policy(name, value, known)


def _refuse_with_the_base(question: Verb[Any, Any]) -> None:
    """What the base has no answer to, its programs do not answer under an intervention either."""
    generic = inspect.unwrap(question)

    @functools.wraps(generic)
    def answer(*args: Any, **kwargs: Any) -> Any:
        return generic(*args, **kwargs)

    question.register(Intervened, needs=lambda model: question.refusal(model.base))(answer)


for _question in Verb.every:
    _refuse_with_the_base(_question)
