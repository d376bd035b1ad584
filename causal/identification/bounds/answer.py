"""An interval that holds the answer, and how it was found."""

from dataclasses import dataclass

from causal.identification.tables import Table


@dataclass(frozen=True)
class Bounds:
    """All values that the answer can have.

    Attributes:
        question: what is bounded.
        lower: the least value.
        upper: the largest value.
        how: by which argument.
        sharp: whether every value inside is that of some model with these probabilities; otherwise
            the truth lies inside, but the interval may be wider than it need be.
        rows: how many rows the probabilities were counted from; None where they are exact.
    """

    question: str
    lower: float
    upper: float
    how: str
    sharp: bool = True
    rows: int | None = None

    @property
    def width(self) -> float:
        """upper - lower."""
        return self.upper - self.lower

    def __str__(self) -> str:
        kind = "sharp" if self.sharp else "valid, perhaps wider than need be"
        lines = [
            f"{self.question} in [{self.lower:.4g}, {self.upper:.4g}]",
            f"  {self.how}; {kind}",
        ]
        if self.rows:
            lines.append(
                f"  frequencies of {self.rows:,} rows, taken as exact: sampling error comes on top"
            )
        return "\n".join(lines)


def counted(joint: Table | None) -> int | None:
    """The rows behind a table."""
    return joint.rows if joint is not None else None
