"""DoWhy, imported when it is needed and without what its import does to the session."""

from importlib import import_module
from typing import Any


def dowhy(module: str = "") -> Any:
    """A module of DoWhy, such as `dowhy("gcm")`.

    On import DoWhy 0.14 has SymPy take over how the session displays values, after which a tensor
    at the prompt raises an error; that call is left out.
    """
    import sympy

    display = sympy.init_printing
    sympy.init_printing = lambda *_, **__: None
    try:
        return import_module(f"dowhy.{module}" if module else "dowhy")
    finally:
        sympy.init_printing = display
