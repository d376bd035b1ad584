"""How the gradient of a row is bounded: over all parameters, layer by layer, or by a moving norm.

- A number C clips the norm over all parameters together (Abadi et al. 2016).
- `LayerClip` clips each layer by itself, to C_l; a row then moves the sum by sqrt(sum_l C_l^2), to
  which the noise is scaled (McMahan, Ramage, Talwar & Zhang 2018, sec. 3).
- `AdaptiveClip` moves C towards a quantile of the rows' norms (Andrew, Thakkar, McMahan &
  Ramaswamy 2021). It counts the rows that were not clipped, each as +1/2 or -1/2, with noise of
  standard deviation sigma_b. By their Theorem 1 the sum with noise z_Delta C and the count together
  are one Gaussian mechanism of noise multiplier z, 1 / z^2 = 1 / z_Delta^2 + 1 / (2 sigma_b)^2: the
  accounting is that of z, and the gradient gets the larger z_Delta. The count is divided by the
  declared lot, never by the rows that came.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from privacy.gradients.rows import Layers

_MOST_NOISE = 50_000.0
"""Of a count, by default: it costs next to nothing, and fits the grid of secure noise."""


@dataclass(frozen=True)
class LayerClip:
    """Every layer's gradient is clipped by itself.

    Attributes:
        norms: the total norm C, of which each of L layers gets C / sqrt(L); or a norm for every
            prefix of parameter names, the longest that fits being taken.

    Raises:
        ValueError: a norm that is not positive and finite.

    Example:
        >>> clip = LayerClip({"encoder": 0.6, "decoder": 0.8})
        >>> clip.layers(["encoder.weight", "encoder.bias", "decoder.weight"]).sensitivity
        1.0
    """

    norms: float | Mapping[str, float] = 1.0

    def __post_init__(self) -> None:
        for norm in self.norms.values() if isinstance(self.norms, Mapping) else [self.norms]:
            check_clip(norm)

    def layers(self, names: Sequence[str]) -> Layers:
        """The groups of parameters of these names, with their norms.

        Raises:
            ValueError: a parameter for which there is no norm.
        """
        groups: dict[str, list[str]] = {}
        for name in names:
            groups.setdefault(self._group(name), []).append(name)
        if isinstance(self.norms, Mapping):
            return Layers(tuple((tuple(own), self.norms[key]) for key, own in groups.items()))
        share = self.norms / math.sqrt(len(groups))
        return Layers(tuple((tuple(own), share) for own in groups.values()))

    def _group(self, name: str) -> str:
        if not isinstance(self.norms, Mapping):
            return name.rpartition(".")[0] or name
        fits = [key for key in self.norms if name == key or name.startswith(f"{key}.")]
        if not fits:
            raise ValueError(
                f"There is no clipping norm for parameter {name!r} (there are norms for "
                f"{', '.join(self.norms)}): its gradient would not be bounded. Give one to every "
                "layer, or freeze the parameter."
            )
        return max(fits, key=len)


@dataclass(frozen=True)
class AdaptiveClip:
    """The clipping norm follows a quantile of the norms of the rows' gradients.

    Attributes:
        start: C of the first step.
        target: the share of rows that should not be clipped.
        rate: eta of the update C exp(-eta (share - target)).
        noise: sigma_b, the standard deviation of the noise of the count; by default a twentieth of
            the lot, 50,000 at most, or the noise multiplier z where that is more.

    Raises:
        ValueError: a number outside its range.
    """

    start: float = 1.0
    target: float = 0.5
    rate: float = 0.2
    noise: float | None = None

    def __post_init__(self) -> None:
        check_clip(self.start)
        if not 0 < self.target < 1:
            raise ValueError(
                f"target is {self.target}; it is the share of rows that are not clipped, strictly "
                "between 0 and 1, such as 0.5."
            )
        if not 0 < self.rate < math.inf or not (self.noise is None or 0 < self.noise < math.inf):
            raise ValueError(
                f"rate is {self.rate} and noise {self.noise}; both are positive and finite: a "
                "count without noise would be released in the clear."
            )

    def count_noise(self, z: float, lot: float) -> float:
        """sigma_b for the noise multiplier z and the declared lot.

        Raises:
            ValueError: the count alone would spend as much as z allows or more.
        """
        sigma = max(min(lot / 20, _MOST_NOISE), z) if self.noise is None else self.noise
        if z > 0 and z >= 2 * sigma:
            raise ValueError(
                f"The count of unclipped rows has noise {sigma:g} and the accounting noise "
                f"multiplier is {z:.3g}: the count alone would spend all of it. Give noise= above "
                f"{z / 2:.3g}, such as {z:.3g}."
            )
        return sigma

    def gradient_noise(self, z: float, lot: float) -> float:
        """z_Delta = (z^-2 - (2 sigma_b)^-2)^(-1/2), for the gradient.

        Example:
            >>> clip = AdaptiveClip(noise=5.0)
            >>> z = clip.gradient_noise(1.0, 100)
            >>> z, (z**-2 + (2 * 5.0) ** -2) ** -0.5
            (1.005, 1.0)
        """
        sigma = self.count_noise(z, lot)
        return (z**-2 - (2 * sigma) ** -2) ** -0.5 if z > 0 else 0.0

    def moved(self, clip: float, noisy: float, lot: float) -> float:
        """The next C, from the noisy sum of +-1/2 over the rows of the lot."""
        return clip * math.exp(-self.rate * (noisy / lot + 0.5 - self.target))


Clip = float | LayerClip | AdaptiveClip


def unclipped(norms: Float[Tensor, " n"], clip: float) -> float:
    """The sum over rows of 1/2 where a norm is at most C and -1/2 elsewhere: any row moves it 1/2.

    Example:
        >>> import torch
        >>> unclipped(torch.tensor([0.5, 1.0, 4.0]), 1.0)
        0.5
    """
    return float((norms <= clip).sum()) - len(norms) / 2


def sensitivity(clip: Clip, names: Sequence[str]) -> float:
    """How far a row moves the clipped sum at the start."""
    if isinstance(clip, LayerClip):
        return clip.layers(names).sensitivity
    return clip.start if isinstance(clip, AdaptiveClip) else clip


def describe(clip: Clip, norm: float) -> str:
    """How a report says it; `norm` over everything.

    Example:
        >>> describe(1.0, 1.0)
        'clipped to norm 1 over all parameters together'
    """
    if isinstance(clip, LayerClip):
        return f"clipped layer by layer, to norm {norm:g} over all of them"
    if isinstance(clip, AdaptiveClip):
        return (
            f"clipped to a norm that starts at {norm:g} and follows the noisy share of unclipped "
            f"rows (target {clip.target:g}; the count and the gradient together have the noise "
            "multiplier stated)"
        )
    return f"clipped to norm {norm:g} over all parameters together"


def check_clip(norm: float) -> None:
    """Refuses a norm that bounds nothing.

    Raises:
        ValueError: it is not positive and finite.
    """
    if not (norm > 0 and math.isfinite(norm)):
        raise ValueError(
            f"clip is {norm}; it is the norm to which the gradient of each row is clipped, "
            "positive and finite: without it no noise hides a row."
        )
