"""What the answer to a question about effects rests on, besides the model, in words.

The rungs are those of Pearl & Bareinboim (2022): what a coupling decides no experiment can tell,
and what an unseen common cause confounds no observation can, unless the graph identifies it.
"""

from collections.abc import Iterator, Sequence

from causal.counterfactuals.worlds import coupling_of, is_open
from causal.effects.enumeration import open_nodes
from causal.effects.question import Pair, Question
from causal.effects.twins import Twins
from causal.graph import latents
from causal.interventions.sites import sites_of
from causal.structural import Structural
from pgm.schema.columns import listing


def witnesses(
    question: Question, pairs: Sequence[Pair], seen: Sequence[tuple[str, int]] = ()
) -> list[str]:
    """The nodes of which a pair of worlds needs both copies, so that their noise decides.

    For path-specific effects they are recanting witnesses (Avin, Shpitser & Pearl 2005, thm. 5).

    Args:
        question: what is asked.
        pairs: of worlds.
        seen: nodes and worlds that are looked at, besides the outcome in the second.
    """
    if not isinstance(question.model, Structural):
        return []
    found = dict[str, None]()
    for first, second in pairs:
        twins = Twins(question.model, first, second)
        ends = [twins.copy(*each) for each in seen]
        found |= dict.fromkeys(open_nodes(twins, [*ends, twins.copy(question.outcome, 1)]))
    return list(found)


def coupled(question: Question, names: Sequence[str]) -> list[str]:
    """The nodes among some of which a coupling decides, so that bounds over all couplings hold."""
    sites = sites_of(question.model, 2) or {}
    return [name for name in names if name in sites and is_open(sites[name])]


def remarks(question: Question, open_: Sequence[str], *, worlds: int = 1) -> tuple[str, ...]:
    """What is not identified, and by what it is decided instead.

    Args:
        question: what is asked.
        open_: the nodes whose noise in two worlds decides.
        worlds: how many worlds the question is about at once; more than one is a counterfactual.
    """
    said = [*_couplings(question, open_), *_confounding(question, worlds)]
    if worlds > 1 and not isinstance(question.model, Structural):
        said.append("the program has no graph: what else is not identified could not be checked")
    return tuple(said)


def _couplings(question: Question, open_: Sequence[str]) -> Iterator[str]:
    sites = sites_of(question.model, 2) or {}
    discrete = coupled(question, open_)
    named: dict[str, list[str]] = {}
    for name in discrete:
        coupling = coupling_of(name, sites[name].fn, question.coupling)
        named.setdefault(str(coupling), []).append(name)
    for coupling, names in named.items():
        yield (
            f"not identified: {listing(names)} in two worlds at once, by {coupling} coupling; no "
            "experiment can tell"
        )
    if rest := [name for name in open_ if name not in discrete]:
        yield (
            f"not identified by experiments: {listing(rest)} in two worlds at once, as the noise "
            "enters the model's mechanism"
        )


def _confounding(question: Question, worlds: int) -> Iterator[str]:
    """Whether the graph, with its unseen causes, identifies the interventions from observations."""
    model = question.model
    if not isinstance(model, Structural) or not (hidden := latents(model.graph)):
        return
    done = {t if isinstance(t, str) else t[1] for t in (*question.do, *question.versus)}
    found = _identified(question, done)
    if found is None or (found and worlds > 1):
        yield f"the model's: {listing(hidden)} unseen, so that data alone may not identify it"
    elif not found:
        yield (
            f"not identified from observed data: {listing(hidden)} unseen; it rests on the model's "
            "assumptions about them, and more data of this kind would not correct it"
        )


def _identified(question: Question, done: set[str]) -> bool | None:
    """What `causal.identification` says of P(outcome | do); None where it cannot be asked."""
    try:
        from causal.identification import NotIdentifiable, identify
    except ImportError:
        return None
    assert isinstance(question.model, Structural)
    graph = question.model.graph
    if done & set(latents(graph)) or question.outcome in (*latents(graph), *done):
        return None
    try:
        identify(graph, question.outcome, do=sorted(done))
    except NotIdentifiable:
        return False
    return True
