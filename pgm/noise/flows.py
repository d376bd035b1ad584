"""The noise form of zuko's flows, x = f^{-1}(z) with the noise of the base z.

Imported when the first flow turns up, since importing zuko switches off the argument checks of all
distributions of torch.
"""

from typing import Any

from torch import Tensor
from zuko.distributions import NormalizingFlow

from pgm.noise.form import Noise, noise, pull, push


@noise.register(NormalizingFlow)
def flow_noise(fn: Any, shape: tuple[int, ...] = (), *, coupling: str | None = None) -> Noise:
    """Noise of the base."""
    return noise(fn.base, shape, coupling=coupling)


@push.register(NormalizingFlow)
def flow_push(fn: Any, u: Noise, *, coupling: str | None = None) -> Tensor:
    """x = f^{-1}(z)."""
    return fn.transform.inv(push(fn.base, u, coupling=coupling))


@pull.register(NormalizingFlow)
def flow_pull(fn: Any, x: Tensor, *, coupling: str | None = None) -> Noise:
    """z = f(x)."""
    return pull(fn.base, fn.transform(x), coupling=coupling)
