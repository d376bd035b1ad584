"""Frechet bounds: what the probabilities of events say of all of them, or of any, occurring.

max(0, sum_i p_i - (n - 1)) <= P(all) <= min_i p_i and max_i p_i <= P(any) <= min(1, sum_i p_i)
(Frechet 1935); nothing is assumed about how the events depend on each other.
"""

from causal.identification.bounds.answer import Bounds


def conjunction(*probabilities: float) -> Bounds:
    """The probability that all of some events occur.

    Args:
        *probabilities: of each event.

    Raises:
        ValueError: no number, or one outside [0, 1].

    Example:
        >>> print(conjunction(0.7, 0.6))
        P(all) in [0.3, 0.6]
          Frechet (1935); sharp
    """
    p = _checked(probabilities)
    return Bounds("P(all)", max(0.0, sum(p) - (len(p) - 1)), min(p), "Frechet (1935)")


def disjunction(*probabilities: float) -> Bounds:
    """The probability that at least one of some events occurs.

    Args:
        *probabilities: of each event.

    Raises:
        ValueError: no number, or one outside [0, 1].

    Example:
        >>> disjunction(0.7, 0.6).lower, disjunction(0.7, 0.6).upper
        (0.7, 1.0)
    """
    p = _checked(probabilities)
    return Bounds("P(any)", max(p), min(1.0, sum(p)), "Frechet (1935)")


def _checked(probabilities: tuple[float, ...]) -> list[float]:
    if not probabilities or not all(0.0 <= p <= 1.0 for p in probabilities):
        raise ValueError(
            f"Probabilities came as {list(probabilities)}. Pass one number in [0, 1] an event."
        )
    return [float(p) for p in probabilities]
