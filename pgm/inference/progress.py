"""The bar that long inference shows in a terminal, and the warnings that end it."""

import warnings
from typing import Any

from pgm.inference.posterior import InferenceWarning, Posterior


def bar(total: int, *, shown: bool | None) -> Any:
    """A progress bar; where `shown` is None, only if the output is a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, disable=None if shown is None else not shown, leave=False)


def warn(posterior: Posterior, *, stacklevel: int = 3) -> Posterior:
    """Warns of every reason not to trust the draws; returns the posterior."""
    for problem in (*posterior.remarks, *posterior.problems()):
        warnings.warn(problem, InferenceWarning, stacklevel=stacklevel)
    return posterior
