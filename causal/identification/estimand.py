"""What `identify` returns: the effect as an expression that prints, is evaluated and is verified.

The value on data is the plug-in estimate, in which every probability is a relative frequency. For
numbers, the strategy names the family of estimators that the expression belongs to.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import networkx as nx
import torch

from causal.graph import GraphLike
from causal.identification.evaluation import average, empty_strata, evaluate
from causal.identification.expressions import Expression, free, latex, symbol, text, variables
from causal.identification.hedge import words
from causal.identification.tables import Label, Table, as_table, spread
from pgm.schema.columns import listing

if TYPE_CHECKING:
    from causal.identification.verify import Verification


@dataclass(frozen=True)
class Estimand:
    """An identified effect.

    Attributes:
        outcome: y, in the order of the graph.
        do: the intervened nodes.
        given: what is conditioned on.
        expression: the effect in probabilities of observed variables.
        strategy: what kind of expression it is: "adjustment", "front door", "no effect" (the
            outcome is no effect of what is done), or "general".
        adjustment: the set that is adjusted for, in the effect of `effective` on the outcome.
        mediators: the front-door set, of the same effect.
        graph: the projected graph over the observed variables.
    """

    outcome: tuple[str, ...]
    do: tuple[str, ...]
    given: tuple[str, ...]
    expression: Expression
    strategy: str
    adjustment: tuple[str, ...] = ()
    mediators: tuple[str, ...] = ()
    graph: nx.DiGraph = field(default_factory=nx.DiGraph, repr=False, compare=False)

    @property
    def question(self) -> str:
        """The effect in words, P(y | do(x), z)."""
        return words(self.outcome, self.do, self.given)

    @property
    def _asked(self) -> tuple[str, ...]:
        return (*self.outcome, *self.do, *self.given)

    @property
    def effective(self) -> tuple[str, ...]:
        """The intervened nodes that act on the outcome; setting the others changes nothing."""
        return tuple(v for v in self.do if v in free(self.expression))

    @property
    def arbitrary(self) -> tuple[str, ...]:
        """Variables at any value of which the expression is the same, if the graph is right."""
        named = free(self.expression).difference(self._asked)
        return tuple(v for v in self.graph if v in named)

    @property
    def latex(self) -> str:
        r"""The equation in LaTeX, for math mode."""
        do = f"\\mathrm{{do}}({', '.join(map(symbol, self.do))})"
        after = ", ".join([*([do] if self.do else []), *map(symbol, self.given)])
        head = ", ".join(map(symbol, self.outcome)) + (rf" \mid {after}" if after else "")
        return f"P({head}) = {latex(self.expression, self._asked)}"

    def evaluate(self, data: Any, **values: Label) -> Any:
        """The effect, exact on a model or a table, the plug-in estimate on rows.

        Args:
            data: a `Table` of the joint distribution; rows of discrete values, as a pandas frame or
                columns by name; or an SCM of discrete nodes, whose joint is enumerated.
            **values: of the outcome, of what is done or given; what is left out stays an axis.

        Returns:
            A float if all values are given, else a table over what is left: the outcome, what is
            done, what is given.

        Raises:
            ValueError: a column that is missing or not discrete, a value that does not occur, or
                strata that the answer needs and that no row is in (no overlap).

        Example:
            >>> from causal.identification import identify
            >>> estimand = identify("S -> T -> Y; S -> Y", "Y", do="T")
            >>> rows = {"S": [0, 0, 0, 1, 1, 1], "T": [0, 1, 1, 0, 0, 1], "Y": [1, 1, 0, 1, 0, 0]}
            >>> estimand.evaluate(rows, T=1, Y=1)
            0.25
        """
        joint = self._joint(data)
        table = evaluate(self.expression, joint)
        table = average(table, joint, self.arbitrary, self.outcome)
        levels = {name: joint.levels[name] for name in self._asked}
        shape = [len(labels) for labels in levels.values()]
        cells = spread(table, levels).expand(shape)
        answer = Table(cells, levels, self.question, joint.rows)
        chosen = answer.at(**values) if values else answer
        numbers = chosen.values if isinstance(chosen, Table) else torch.tensor(chosen)
        if bool(numbers.isnan().any()):
            raise ValueError(self._no_overlap(joint, values))
        return chosen

    def verify(
        self, graph: GraphLike | None = None, *, models: int = 20, seed: int = 0
    ) -> "Verification":
        """Compares the expression with the truth in random models over a graph, its own by default.

        See `causal.identification.verify`.
        """
        from causal.identification.verify import verify

        return verify(self, graph, models=models, seed=seed)

    def __str__(self) -> str:
        lines = [f"{self.question} = {text(self.expression, self._asked)}"]
        if self.strategy == "adjustment":
            by = f"for {', '.join(self.adjustment)}" if self.adjustment else "for nothing"
            lines.append(f"  strategy: adjustment {by}")
        elif self.strategy == "front door":
            lines.append(f"  strategy: front door through {', '.join(self.mediators)}")
        else:
            lines.append(f"  strategy: {self.strategy}")
        if self.effective and (idle := [v for v in self.do if v not in self.effective]):
            lines.append(f"  setting {', '.join(idle)} changes nothing")
        if self.arbitrary:
            names = ", ".join(self.arbitrary)
            lines.append(f"  at any value of {names}; on data, averaged over P({names})")
        return "\n".join(lines)

    def _joint(self, data: Any) -> Table:
        """P of the variables that the question and the expression name."""
        named = variables(self.expression).union(self._asked)
        names = [v for v in self.graph if v in named]
        return as_table(data, names)

    def _no_overlap(self, joint: Table, values: dict[str, Label]) -> str:
        fixed = {name: label for name, label in values.items() if name not in self.outcome}
        strata = empty_strata(self.expression, joint, [*self.do, *self.given], fixed)
        who = "no row is in" if joint.rows else "have probability zero"
        named = f": {listing([f'({stratum})' for stratum in strata], 4)}" if strata else ""
        return (
            f"{self.question} cannot be computed{_at(values)}: it needs strata that {who}{named}. "
            "Without overlap the data say nothing there. Ask for values that are supported, merge "
            "levels, or fit a model that extrapolates on purpose; bounds need no overlap."
        )


def _at(values: dict[str, Label]) -> str:
    return f" at {', '.join(f'{k}={v}' for k, v in values.items())}" if values else ""
