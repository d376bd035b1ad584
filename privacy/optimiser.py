"""Opacus' optimiser, as the private update uses it: clipped sums in, noise and division from it.

`DPOptimizerFastGradientClipping` takes a clipped sum in `p.grad`, adds noise, divides by the
declared lot and calls the accountant. What is added here is where noise comes from (a generator of
its own, or `privacy.noise`), a noise multiplier for the gradient that may differ from the one that
is accounted (`privacy.clipping`), and gradients without noise for what no row enters.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from opacus.optimizers import DPOptimizerFastGradientClipping
from opacus.optimizers.optimizer import _generate_noise
from torch import Tensor, nn
from torch.optim import Optimizer

from privacy.noise import on_grid

_NUMBERS_AT_ONCE = 2**13
"""Numbers to which noise is added at a time. A multiple of 16, by which torch draws normal numbers
on a processor, so that the noise is the same as drawn at once."""


class PrivateOptimiser(DPOptimizerFastGradientClipping):
    """DP-SGD's noise, division and step around any torch optimiser.

    Args:
        optimizer: the torch optimiser.
        noise_multiplier: of the gradient.
        max_grad_norm: C, how far a row moves the clipped sum.
        expected_batch_size: the declared lot, by which the noisy sum is divided.
        on_step: called for every noisy step, before the parameters change.
        generator: of the noise.
        secure: whether the noise comes from the system's entropy and lies on a grid.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        noise_multiplier: float,
        max_grad_norm: float,
        expected_batch_size: float,
        on_step: Callable[[], None],
        generator: torch.Generator,
        secure: bool = False,
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=noise_multiplier,
            max_grad_norm=max_grad_norm,
            expected_batch_size=expected_batch_size,
            generator=generator,
        )
        self.secure = secure
        self.attach_step_hook(lambda _: on_step())

    def accumulate(self) -> None:
        """Takes the clipped sum out of `p.grad`, without a copy."""
        for p in self.params:
            p.summed_grad = p.grad if p.summed_grad is None else p.summed_grad.add_(p.grad)
            p.grad = None

    def add_noise(self) -> None:
        """The clipped sum with noise, in `p.grad` and in its place; the sum is kept nowhere."""
        if self.secure:
            self._add_secure_noise()
            return
        std = self.noise_multiplier * self.max_grad_norm
        for p in self.params:
            noisy = p.summed_grad.contiguous()
            p.summed_grad = None
            for piece in _pieces(noisy.view(-1)):
                piece.add_(_generate_noise(std, piece, self.generator))
            p.grad = noisy.view_as(p)

    def _add_secure_noise(self) -> None:
        sums = [p.summed_grad for p in self.params]
        flat = torch.cat([s.detach().double().cpu().flatten() for s in sums])
        noisy = self.noisy(flat, self.max_grad_norm, self.noise_multiplier)
        for p, part in zip(self.params, noisy.split([s.numel() for s in sums]), strict=True):
            p.grad = part.reshape(p.shape).to(p)
            p.summed_grad = None

    def noisy(self, x: Tensor, sensitivity: float, sigma: float) -> Tensor:
        """A vector in double precision with noise from the source in use."""
        if sigma == 0:
            return x
        if self.secure:
            numbers = np.asarray(x.numpy(), dtype=np.float64)
            return torch.from_numpy(on_grid(numbers, sensitivity=sensitivity, sigma=sigma))
        options: Any = {"generator": self.generator, "device": self.generator.device}
        noise = torch.randn(x.shape, dtype=x.dtype, **options).to(x.device)
        return x + sigma * sensitivity * noise

    def add_public(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        public: Mapping[str, Tensor],
        private: Collection[str],
    ) -> None:
        """Adds the public gradients, after the noise; they stand alone where no row enters.

        Args:
            named: the trainable parameters.
            public: their gradients.
            private: the names of those that rows enter.
        """
        for name, parameter in named:
            if name not in private:
                parameter.grad = public.get(name)
            elif name in public and parameter.grad is not None:
                parameter.grad += public[name]

    def forget(self) -> None:
        """Drops what a step that was broken off between its pieces left: it would count twice."""
        self._step_skip_queue.clear()
        self._is_last_step_skipped = False
        self.zero_grad(set_to_none=True)


def _pieces(flat: Tensor) -> tuple[Tensor, ...]:
    """Views of its numbers, in order; the last is the longest."""
    whole = max(0, len(flat) // _NUMBERS_AT_ONCE - 1)
    return flat.split([_NUMBERS_AT_ONCE] * whole + [len(flat) - whole * _NUMBERS_AT_ONCE])
