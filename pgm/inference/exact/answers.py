"""What exact queries hand out: marginals by variable, with the names of the states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from pgm.inference.exact.factors import Scope, check_known
from pgm.schema.columns import Level, listing, suggestion


@dataclass(frozen=True, eq=False)
class Marginals:
    """Posterior probabilities by variable, for every row of evidence.

    Attributes:
        p: by variable, shape (n, states); by tuple of variables their joint, (n, states of each).
        states: the names of the states of every variable.
        log_p: log probability of what was seen, in nats, shape (n,).

    Example:
        >>> import torch
        >>> p = {"rain": torch.tensor([[0.25, 0.75]])}
        >>> found = Marginals(p, {"rain": ("yes", "no")}, torch.tensor([-1.5]))
        >>> found.of("rain", "yes")
        tensor([0.2500])
        >>> print(found)
        rain  yes .2500  no .7500
        log p of what was seen: -1.500 nats
    """

    p: Mapping[str | Scope, Tensor]
    states: Mapping[str, Sequence[Level]]
    log_p: Float[Tensor, " n"]

    def __getitem__(self, target: str | Scope) -> Tensor:
        """The probabilities of a variable, or of a tuple of them."""
        if target not in self.p:
            known = [str(name) for name in self.p]
            raise KeyError(
                f"{target!r} was not asked for.{suggestion(target, known)} There are the marginals "
                f"of {listing(known)}; others are named in `targets`."
            )
        return self.p[target]

    def of(self, name: str, state: Level) -> Float[Tensor, " n"]:
        """The probability of one state, by row.

        Raises:
            ValueError: no such variable or state.
        """
        check_known([name], [str(v) for v in self.p], what="of")
        states = list(self.states[name])
        if state not in states:
            raise ValueError(
                f"{name!r} has no state {state!r}.{suggestion(state, states)} It has "
                f"{listing([repr(s) for s in states])}."
            )
        return self[name][:, states.index(state)]

    def __len__(self) -> int:
        return len(next(iter(self.p.values())))

    def __str__(self) -> str:
        """The first row, one line a variable."""
        single = [name for name in self.p if isinstance(name, str)]
        wide = max((len(name) for name in single), default=0)
        lines = []
        for name in single:
            cells = zip(self.states[name], self.p[name][0].tolist(), strict=True)
            shown = "  ".join(f"{state} {_short(p)}" for state, p in cells)
            lines.append(f"{name:<{wide}}  {shown}")
        lines += [
            f"{', '.join(name)}: joint, {tuple(self.p[name].shape[1:])}"
            for name in self.p
            if not isinstance(name, str)
        ]
        if self.log_p[0] != 0:
            lines.append(f"log p of what was seen: {float(self.log_p[0]):.3f} nats")
        more = [f"(the first of {len(self)} rows)"] if len(self) > 1 else []
        return "\n".join([*lines, *more])


def _short(p: float) -> str:
    return f"{p:.4f}".removeprefix("0")
