"""Published examples: graphs whose answers are known, with tables where they were printed.

>>> from causal import examples
>>> examples.front_door
front door: smoking -> tar; tar -> cancer; smoking <-> cancer
  The effect of smoking on cancer is identified through the tar that it leaves behind.
  P(cancer=1 | do(smoking=1)) = 0.4525
  P(cancer=1 | do(smoking=0)) = 0.4975
  J. Pearl (2009), Causality, sec. 3.3.2 and table 3.1 (hypothetical data)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import networkx as nx
import torch
from torch import Tensor

from causal.graph import as_graph, observed, to_text
from pgm import Categorical, Schema
from pgm.data.sachs import PUBLISHED

if TYPE_CHECKING:
    import pandas

    from causal.scm import SCM


@dataclass(frozen=True, repr=False)
class Example:
    """A published graph with a question, its reference, and what is known of the answer.

    Args:
        name: the name.
        arrows: the graph, for `as_graph`; read it as `graph`.
        treatment: the node whose effect is asked for.
        outcome: the node on which.
        says: what the example teaches.
        reference: where it was published.
        identified: whether the distribution of the outcome under an intervention is.
        adjustment: the minimal sets that are valid to adjust for.
        front_door: the minimal front-door sets.
        answers: the numbers that are known, by the question.
        counts: how often each combination of levels occurred, in the order of `levels`.
        levels: the names of the levels of each column of the table.
        mechanisms: makes the mechanisms of the nodes, where they were published.

    Example:
        >>> kidney_stones.graph.number_of_edges(), kidney_stones.adjustment
        (3, (('size',),))
        >>> {name: x.shape for name, x in kidney_stones.rows.items()}["success"]
        torch.Size([700])
    """

    name: str
    arrows: str | tuple[tuple[str, str], ...]
    treatment: str
    outcome: str
    says: str
    reference: str
    identified: bool
    adjustment: tuple[tuple[str, ...], ...] = ()
    front_door: tuple[tuple[str, ...], ...] = ()
    answers: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[tuple[int, ...], int] = field(default_factory=dict)
    levels: Mapping[str, tuple[str | int, ...]] = field(default_factory=dict)
    mechanisms: Callable[[], dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        for name in ("answers", "counts", "levels"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def graph(self) -> nx.DiGraph:
        """The graph, new at each call."""
        return as_graph(self.arrows)

    @property
    def rows(self) -> dict[str, Tensor]:
        """The table as codes of levels, one row a unit: int64 tensors, each (n,).

        Raises:
            ValueError: no table was published.
        """
        if not self.counts:
            raise ValueError(f'No table belongs to "{self.name}": it is a graph alone.')
        cells = torch.tensor(list(self.counts))
        rows = cells.repeat_interleave(torch.tensor(list(self.counts.values())), dim=0)
        return dict(zip(self.levels, rows.T, strict=True))

    @property
    def frame(self) -> "pandas.DataFrame":
        """The table as a pandas frame with the names of the levels.

        Raises:
            ValueError: no table was published.
        """
        import pandas as pd

        rows = self.rows
        return pd.DataFrame({k: [self.levels[k][i] for i in x.tolist()] for k, x in rows.items()})

    def scm(self) -> "SCM":
        """The model: with the published mechanisms, or fitted to the table.

        Raises:
            ValueError: neither was published, or a node of the table is latent.

        Example:
            >>> import pgm
            >>> pgm.sample(firing_squad.scm(), 4, seed=0)["D"].shape
            torch.Size([4])
        """
        from causal.fitting.estimation import estimate
        from causal.scm import SCM

        if self.mechanisms is not None:
            return SCM(self.arrows, **self.mechanisms())
        rows, graph = self.rows, self.graph
        if len(observed(graph)) < len(graph):
            raise ValueError(
                f'A node of "{self.name}" is latent, and the table says nothing of it: the '
                "mechanisms are not known."
            )
        schema = Schema({name: Categorical(levels) for name, levels in self.levels.items()})
        scm = SCM(graph, schema=schema)
        estimate(scm, rows)
        return scm

    def __repr__(self) -> str:
        answers = [f"{question} = {value:.4g}" for question, value in self.answers.items()]
        lines = [self.says, *answers, self.reference]
        return "\n".join([f"{self.name}: {to_text(self.graph)}", *(f"  {line}" for line in lines)])


def _squad() -> dict[str, Any]:
    """A court that orders with probability 1/2, and a rifleman A who is nervous with 1/10."""
    from causal.mechanisms import CategoricalTable

    same = [[1.0, 0.0], [0.0, 1.0]]
    return {
        "U": CategoricalTable([0.5, 0.5]),
        "C": CategoricalTable(same, ["U"]),
        "A": CategoricalTable([[0.9, 0.1], [0.0, 1.0]], ["C"]),
        "B": CategoricalTable(same, ["C"]),
        "D": CategoricalTable([same, [[0.0, 1.0], [0.0, 1.0]]], ["A", "B"]),
    }


back_door = Example(
    name="back door",
    arrows="""X1 -> X3 -> Xi; X1 -> X4; X2 -> X4; X2 -> X5; X4 -> {Xi Xj}; X5 -> Xj
        Xi -> X6 -> Xj""",
    treatment="Xi",
    outcome="Xj",
    says="X4 alone is not enough: given it, the path through X1 and X2 opens.",
    reference="J. Pearl (2009), Causality, fig. 3.4",
    identified=True,
    adjustment=(("X1", "X4"), ("X3", "X4"), ("X4", "X2"), ("X4", "X5")),
    front_door=(("X6",),),
)

kidney_stones = Example(
    name="kidney stones",
    arrows="size -> treatment -> success; size -> success",
    treatment="treatment",
    outcome="success",
    says="Open surgery succeeds less often, since it gets the large stones; it is the better one.",
    reference="C. Charig, D. Webb, S. Payne, J. Wickham (1986), Brit. Med. J. 292, 879-882",
    identified=True,
    adjustment=(("size",),),
    answers={
        "P(success=1 | do(treatment=open))": 0.832546,
        "P(success=1 | do(treatment=percutaneous))": 0.778875,
        "P(success=1 | treatment=open)": 0.78,
        "P(success=1 | treatment=percutaneous)": 0.825714,
    },
    counts={
        (0, 0, 1): 81, (0, 0, 0): 6, (1, 0, 1): 192, (1, 0, 0): 71,
        (0, 1, 1): 234, (0, 1, 0): 36, (1, 1, 1): 55, (1, 1, 0): 25,
    },
    levels={"size": ("small", "large"), "treatment": ("open", "percutaneous"), "success": (0, 1)},
)  # fmt: skip

simpson = Example(
    name="Simpson",
    arrows="gender -> drug -> recovery; gender -> recovery",
    treatment="drug",
    outcome="recovery",
    says="The drug harms women and harms men, and those who took it recovered more often.",
    reference="J. Pearl (2009), Causality, fig. 6.1 (hypothetical data)",
    identified=True,
    adjustment=(("gender",),),
    answers={
        "P(recovery=1 | do(drug=1))": 0.4,
        "P(recovery=1 | do(drug=0))": 0.5,
        "P(recovery=1 | drug=1)": 0.5,
        "P(recovery=1 | drug=0)": 0.4,
    },
    counts={
        (0, 1, 1): 18, (0, 1, 0): 12, (0, 0, 1): 7, (0, 0, 0): 3,
        (1, 1, 1): 2, (1, 1, 0): 8, (1, 0, 1): 9, (1, 0, 0): 21,
    },
    levels={"gender": ("male", "female"), "drug": (0, 1), "recovery": (0, 1)},
)  # fmt: skip

front_door = Example(
    name="front door",
    arrows="smoking -> tar -> cancer; smoking <-> cancer",
    treatment="smoking",
    outcome="cancer",
    says="The effect of smoking on cancer is identified through the tar that it leaves behind.",
    reference="J. Pearl (2009), Causality, sec. 3.3.2 and table 3.1 (hypothetical data)",
    identified=True,
    front_door=(("tar",),),
    answers={"P(cancer=1 | do(smoking=1))": 0.4525, "P(cancer=1 | do(smoking=0))": 0.4975},
    counts={
        (0, 0, 1): 38, (0, 0, 0): 342, (1, 0, 1): 18, (1, 0, 0): 2,
        (0, 1, 1): 1, (0, 1, 0): 19, (1, 1, 1): 323, (1, 1, 0): 57,
    },
    levels={"smoking": (0, 1), "tar": (0, 1), "cancer": (0, 1)},
)  # fmt: skip

instrument = Example(
    name="instrument",
    arrows="Z -> X -> Y; X <-> Y",
    treatment="X",
    outcome="Y",
    says="Assigned, taken and relieved: not every one who is assigned the drug takes it.",
    reference="A. Balke, J. Pearl (1997), Bounds on treatment effects from studies with imperfect "
    "compliance, JASA 92 (cholestyramine; 1000 men stand for each arm)",
    identified=False,
    answers={
        "lower bound of P(Y=1 | do(X=1)) - P(Y=1 | do(X=0))": 0.392,
        "upper bound of P(Y=1 | do(X=1)) - P(Y=1 | do(X=0))": 0.780,
    },
    counts={
        (0, 0, 0): 919, (0, 0, 1): 81, (1, 0, 0): 315, (1, 1, 0): 139, (1, 0, 1): 73,
        (1, 1, 1): 473,
    },
    levels={"Z": (0, 1), "X": (0, 1), "Y": (0, 1)},
)  # fmt: skip

napkin = Example(
    name="napkin",
    arrows="W -> Z -> X -> Y; W <-> X; W <-> Y",
    treatment="X",
    outcome="Y",
    says="Neither door is there, and yet P(y | do(x)) = sum_w P(x, y | z, w) P(w) / "
    "sum_w P(x | z, w) P(w), for any z.",
    reference="J. Pearl, D. Mackenzie (2018), The Book of Why, fig. 7.5",
    identified=True,
)

bow = Example(
    name="bow",
    arrows="X -> Y; X <-> Y",
    treatment="X",
    outcome="Y",
    says="The smallest graph in which nothing but bounds is known of the effect.",
    reference="J. Tian, J. Pearl (2002), A general identification condition for causal effects",
    identified=False,
)

m_bias = Example(
    name="M-bias",
    arrows="U1 [latent]; U2 [latent]; U1 -> {X M}; U2 -> {M Y}; X -> Y",
    treatment="X",
    outcome="Y",
    says="M comes before the treatment, is associated with both, and must not be adjusted for.",
    reference="S. Greenland, J. Pearl, J. Robins (1999), Causal diagrams for epidemiologic "
    "research, Epidemiology 10, 37-48",
    identified=True,
    adjustment=((),),
)

collider = Example(
    name="collider",
    arrows="X -> S; Y -> S",
    treatment="X",
    outcome="Y",
    says="Two diseases without an effect on each other are associated among the admitted.",
    reference="J. Berkson (1946), Limitations of the application of fourfold table analysis to "
    "hospital data, Biometrics Bulletin 2, 47-53",
    identified=True,
    adjustment=((),),
    front_door=((),),
)

verma = Example(
    name="Verma",
    arrows="A -> B -> C -> D; B <-> D",
    treatment="C",
    outcome="D",
    says="sum_b P(d | a, b, c) P(b | a) does not depend on a, which is no independence.",
    reference="T. Verma, J. Pearl (1990), Equivalence and synthesis of causal models",
    identified=True,
    adjustment=(("B",),),
)

firing_squad = Example(
    name="firing squad",
    arrows="U -> C -> {A B} -> D",
    treatment="A",
    outcome="D",
    says="The court orders (U), the captain signals (C), two riflemen shoot, the prisoner dies; A "
    "may shoot from nerves.",
    reference="J. Pearl (2009), Causality, sec. 7.1.2 and 7.1.3, with p = 1/2 and q = 1/10",
    identified=True,
    adjustment=(("C",), ("B",)),
    answers={
        "P(D would be 0, had A been 0 | D=1)": 1 / 11,
        "P(D=1 | do(A=0))": 0.5,
    },
    mechanisms=_squad,
)

warm_up = Example(
    name="warm-up",
    arrows="""coach -> {fitness motivation}; genetics -> {fitness fatigue tissue_disorder}
        fitness -> {pregame fatigue}; tissue_disorder -> {fatigue weakness}; pregame -> warm_up
        motivation -> {warm_up previous_injury}; contact_sport -> {previous_injury intragame}
        fatigue -> {intragame injury}; warm_up -> intragame -> injury; weakness -> injury""",
    treatment="warm_up",
    outcome="injury",
    says="Does warming up prevent injuries? Fatigue and weakness of tissue are enough to measure.",
    reference="I. Shrier, R. Platt (2008), Reducing bias through directed acyclic graphs, BMC "
    "Medical Research Methodology 8:70, fig. 2",
    identified=True,
    adjustment=(
        ("coach", "fitness"), ("coach", "pregame"), ("fitness", "motivation"),
        ("motivation", "pregame"), ("fitness", "genetics"), ("fatigue", "tissue_disorder"),
        ("fatigue", "weakness"),
    ),
)  # fmt: skip

sachs = Example(
    name="Sachs",
    arrows=PUBLISHED,
    treatment="PKA",
    outcome="Erk",
    says="Eleven proteins and lipids of human T cells; the table is pgm.data.load('sachs').",
    reference="K. Sachs, O. Perez, D. Pe'er, D. Lauffenburger, G. Nolan (2005), Science 308, "
    "523-529, fig. 3",
    identified=True,
    adjustment=(("PKC",),),
)

EXAMPLES: Mapping[str, Example] = MappingProxyType(
    {key: value for key, value in list(globals().items()) if isinstance(value, Example)}
)
"""All of them, by the name of the object."""
