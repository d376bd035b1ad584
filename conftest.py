"""What every test and every doctest runs under: one thread, no window, fixed seeds, no leftovers.

It stands at the root because the doctests of the packages need it too. The packages are imported
after jaxtyping's hook, which makes every annotation of theirs, shapes included, a check at run
time; an int counts as a float, as it does for mypy (PEP 484).
"""

from collections.abc import Iterator

import hypothesis
import matplotlib
import pyro
import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook(
    ["pgm", "causal", "privacy"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)
matplotlib.use("Agg")
torch.set_num_threads(1)
hypothesis.settings.register_profile(
    "hotplate",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("hotplate")


@pytest.fixture(autouse=True)
def fresh_pyro() -> Iterator[None]:
    """Start from fixed global seeds and an empty parameter store; leave torch's defaults alone."""
    pyro.set_rng_seed(0)
    pyro.clear_param_store()
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)
