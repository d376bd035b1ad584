"""Data sets to try a model on: `load(name)`.

A set is a function marked with `@dataset(...)` in a file of this folder, and is found there. Sets
are shipped (nsw, sachs), come with scikit-learn (digits), are generated (toys), or are fetched once
and checked (mnist, fashion_mnist).
"""

import inspect
import pkgutil
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from pgm.data.dataset import SETS, Card, Dataset, dataset

__all__ = ["Dataset", "dataset", "describe", "load", "names"]


def load(name: str, **options: Any) -> Dataset:
    """Loads a set.

    Args:
        name: one of `names()`.
        options: of the set, such as `n` and `seed` of the generated ones.

    Raises:
        ValueError: no such set.
        TypeError: an option that the set does not have.
        FileNotFoundError: a set to be fetched is neither in $HOTPLATE_DATA nor within reach.

    Example:
        >>> load("parzen").x.flatten()
        tensor([-2.1000, -1.3000, -0.4000, 1.9000, 5.1000, 6.2000])
        >>> load("two_moons", n=500, seed=1).x.shape
        torch.Size([500, 2])
    """
    build = _find(name).build
    signature = inspect.signature(build)
    try:
        signature.bind(**options)
    except TypeError as error:
        raise TypeError(f'Set "{name}" takes the options {signature}: {error}.') from None
    return build(**options)


def names() -> list[str]:
    """The names that `load` knows, in order of the alphabet.

    Example:
        >>> "digits" in names()
        True
    """
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return sorted(SETS)


def describe(name: str | None = None) -> str:
    """What a set is and how it is called; for None, one line on each set. Loads nothing.

    Example:
        >>> print(describe("two_moons"))
        two_moons: Two interleaved half circles of radius 1, blurred by Gaussian noise.
          call     load("two_moons", n=1000, noise=0.1, seed=0)
          licence  generated
          source   two half circles, as scikit-learn's make_moons
    """
    if name is None:
        known = names()
        wide = max(map(len, known))
        return "\n".join(f"{name:<{wide}}  {SETS[name].description}" for name in known)
    card = _find(name)
    options = inspect.signature(card.build).parameters.values()
    call = ", ".join([f'"{name}"', *(f"{each.name}={each.default!r}" for each in options)])
    facts = {"call": f"load({call})", "licence": card.licence, "source": card.source}
    lines = [f"  {fact:<8} {text}" for fact, text in facts.items()]
    return "\n".join([f"{name}: {card.description}", *lines])


def _find(name: str) -> Card:
    known = names()
    if name not in known:
        close = get_close_matches(name.casefold(), known, n=1)
        hint = f' Did you mean "{close[0]}"?' if close else ""
        raise ValueError(f'No set is called "{name}".{hint} There are: {", ".join(known)}.')
    return SETS[name]
