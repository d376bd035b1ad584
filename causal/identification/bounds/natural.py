"""Natural bounds: what the data say of an effect when nothing is assumed of the unseen causes.

P(y, x) <= P(y | do(x)) <= P(y, x) + 1 - P(x) (Robins 1989; Manski 1990): rows that had another x
could have had any outcome. An instrument gives such bounds at each of its values, and the truth
lies in all of them (Pearl 2009, sec. 8.2.4); `bounds.effect` is sharper there.
"""

from typing import Any

from causal.identification.bounds.answer import Bounds
from causal.identification.tables import Label, Table, as_table, divide_tables


def natural(
    data: Any,
    outcome: dict[str, Label],
    *,
    do: dict[str, Label],
    versus: dict[str, Label] | None = None,
    instrument: str | None = None,
) -> Bounds:
    """Bounds of the probability of an event under an intervention, or of a difference of two.

    Args:
        data: probabilities: a `Table`, rows of discrete values or a discrete SCM.
        outcome: the event, `{"Y": 1}`.
        do: the values that are set.
        versus: those that are compared with.
        instrument: a variable that is independent of the unseen causes of x and y and acts on y
            through x alone.

    Raises:
        ValueError: a name or value that is not there; bounds that exclude each other, so that the
            instrument is none.

    Example:
        >>> rows = {"X": [0, 0, 1, 1], "Y": [0, 1, 1, 1]}
        >>> natural(rows, {"Y": 1}, do={"X": 1}).lower, natural(rows, {"Y": 1}, do={"X": 1}).upper
        (0.5, 1.0)
    """
    names = [*outcome, *do] + ([instrument] if instrument else [])
    joint = as_table(data, names)
    if instrument:
        joint = divide_tables(joint, joint.marginal([instrument]))
    low, high = _arm(joint, outcome, do, instrument)
    question = _question(outcome, do)
    if versus:
        least, most = _arm(joint, outcome, versus, instrument)
        low, high = low - most, high - least
        question += f" - {_question(outcome, versus)}"
    how = "natural bounds" + (f", the best over {instrument}" if instrument else "")
    return Bounds(question, low, high, how, sharp=not instrument, rows=as_table(data, names).rows)


def _arm(
    joint: Table, outcome: dict[str, Label], do: dict[str, Label], instrument: str | None
) -> tuple[float, float]:
    """P(y, x | z) and P(y, x | z) + 1 - P(x | z), the best over z."""
    ends = []
    for z in joint.levels[instrument] if instrument else (None,):
        at = {instrument: z} if instrument else {}
        both = float(joint.at(**outcome, **do, **at))
        treated = joint.at(**do, **at)
        set_ = float(treated.values.sum()) if isinstance(treated, Table) else treated
        ends.append((both, both + 1.0 - set_))
    seen = [end for end in ends if end[0] == end[0]]  # at values of z that occur
    low, high = max(low for low, _ in seen), min(high for _, high in seen)
    if low > high + 1e-9:
        raise ValueError(
            f"The bounds at different values of {instrument} exclude each other ([{low:.3g}, "
            f"{high:.3g}]): it is no instrument, by the instrumental inequality (Pearl 1995). It "
            "shares causes with the outcome, or acts on it in another way."
        )
    return low, high


def _question(outcome: dict[str, Label], do: dict[str, Label]) -> str:
    y, x = (", ".join(f"{k}={v}" for k, v in event.items()) for event in (outcome, do))
    return f"P({y} | do({x}))"
