"""Stochastic gradient Langevin dynamics: posteriors of shared latents from minibatches.

    u_{t+1} = u_t + e/2 M g(u_t) + sqrt(e M) noise,
    g(u) = grad log p(v, x) + N/m sum_i (grad log p(x_i | u) - grad log p(x_i | v)) + prior's part

(Welling & Teh 2011, eq. 4), with the gradient's noise taken out by a control variate at a point v
near the mode (Baker, Fearnhead, Fox & Nemeth 2019, sec. 3): without it that noise alone doubled
standard deviations here. M is the variance that each coordinate's Fisher information promises, so
that e is a number without a unit. For data of which a full gradient at every step is too dear.
"""

import time
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pgm.batch import Batch, rows_of, take
from pgm.inference.constrain import constrain
from pgm.inference.posterior import Posterior
from pgm.inference.precision import double
from pgm.inference.progress import bar, warn
from pgm.inference.runs import log_rows, log_shared, read, run_joint, terms
from pgm.inference.unconstrained import LogJoint, Unconstrained, log_joint
from pgm.model import Model
from pgm.randomness import fresh_seed, seeded
from pgm.verb import Unsupported


def sgld(
    model: Model,
    data: Any,
    *,
    steps: int = 5000,
    batch_size: int = 256,
    step_size: float = 0.2,
    warmup: int | None = None,
    thin: int = 5,
    seed: int | None = None,
    progress: bool | None = None,
) -> Posterior:
    """Draws from about the posterior of the latents outside `rows`, a minibatch at a step.

    The warm-up climbs, with noise, to near the mode, where one pass over all rows is made. A step
    of size e leaves variances too large by about e/4, and where the posterior is wide against the
    curvature's changes (few rows), by more: compare with half the size, or with `chees`.

    Args:
        model: a model whose continuous latents are all shared.
        data: all rows, in any form.
        steps: in all.
        batch_size: rows a step, drawn without replacement epoch by epoch.
        step_size: e, in units of posterior variances.
        warmup: steps that are thrown away; by default a third.
        thin: every so many steps a draw is kept.
        seed: of everything.
        progress: whether a bar is shown; by default where the output is a terminal.

    Raises:
        Unsupported: latents of rows, of which a minibatch has some and not others.
        ValueError: options out of range, or data that do not fit the model.
        BadStart: no start with a finite density.

    Example:
        >>> from pgm.families.regression import Regression
        >>> g = torch.Generator().manual_seed(0)
        >>> x = torch.randn(2000, 1, generator=g)
        >>> data = {"x": x, "y": 2 * x[:, 0] + torch.randn(2000, generator=g)}
        >>> import warnings; warnings.simplefilter("ignore")  # one chain, few draws
        >>> found = sgld(Regression(1), data, steps=900, seed=0)
        >>> bool((found.draws["weights"].mean() - 2).abs() < 0.1)
        True
    """
    warmup = steps // 3 if warmup is None else warmup
    if not (0 < warmup < steps and thin >= 1 and step_size > 0 and batch_size >= 1):
        raise ValueError(
            f"steps is {steps}, warmup {warmup}, thin {thin}, step_size {step_size} and batch_size "
            f"{batch_size}: all are above zero, and the warm-up leaves some steps."
        )
    began = time.perf_counter()
    batch = read(model, data)
    base = fresh_seed() if seed is None else seed
    with double(model, batch) as (precise, rows), seeded(base), bar(steps, shown=progress) as shown:
        density = log_joint(precise, rows)
        _refuse_rows(density, density.start())
        v = _climbed(density, batch_size, warmup, shown)
        whole, M = _anchored(density, v, batch_size)
        u, kept = v, []
        for t, part in enumerate(_minibatches(rows, batch_size, steps - warmup)):
            g = whole + _gradient(density, part, u) - _gradient(density, part, v)
            noise = torch.randn_like(u)
            u = u + 0.5 * step_size * M * g + (step_size * M).sqrt() * noise
            if t % thin == 0:
                kept.append(u)
            shown.update()
        values, dims = constrain(density, torch.stack(kept)[None])
    seconds = time.perf_counter() - began
    return warn(Posterior(values, {}, model, batch, seconds, "sgld", dims))


def _climbed(density: LogJoint, size: int, steps: int, shown: Any) -> Float[Tensor, " d"]:
    """Near the mode: the mean of the later half of a climb with steps of falling size (Adam's)."""
    u = density.start()
    mean, square, late = torch.zeros_like(u), torch.zeros_like(u), []
    for t, part in enumerate(_minibatches(density.batch, size, steps), 1):
        g = _gradient(density, part, u)
        mean, square = 0.9 * mean + 0.1 * g, 0.99 * square + 0.01 * g.square()
        move = mean / (1 - 0.9**t) / ((square / (1 - 0.99**t)).sqrt() + 1e-8)
        u = u + 0.1 * (1 - 0.98 * t / steps) * move
        late += [u] if 2 * t > steps else []
        shown.update()
    return torch.stack(late).mean(0)


def _anchored(density: LogJoint, v: Float[Tensor, " d"], size: int) -> tuple[Tensor, Tensor]:
    """The gradient of all rows at v, and the variance that the Fisher information promises there.

    The spread of minibatch gradients is N^2 / m times the Fisher information of a row.
    """
    batch, n = density.batch, rows_of(density.batch)
    whole = torch.zeros_like(v)
    for index in torch.arange(n).split(max(size, 4096)):
        whole = whole + _gradient(density, take(batch, index), v) * (len(index) / n)
    m = max(1, min(size, n // 2))
    each = [
        _gradient(density, part, v) for part in _minibatches(batch, m, _LOOKS) if rows_of(part) == m
    ]
    spread = torch.stack([g - whole for g in each]).square().mean(0) / (1 - m / n)
    fisher = spread * m / n + _CURVATURE
    return whole, 1 / fisher


_LOOKS = 40
"""Minibatches by which the Fisher information is told."""
_CURVATURE = 1e-6
"""Added to it, where data say nothing of a coordinate."""


def _gradient(density: LogJoint, part: Batch, u: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """Of the log joint, its rows scaled up to all of them."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        points = u.split([shape.numel() for shape in density.shapes.values()])
        named = zip(density.shapes.items(), points, strict=True)
        point = {name: value.reshape(shape) for (name, shape), value in named}
        run = run_joint(density.model, part, Unconstrained(point, observed=part))
        sites, m = terms(run), rows_of(part)
        scaled = log_rows(sites, m).sum() * (rows_of(density.batch) / m)
        log_p = sum(run.log_det, start=scaled + log_shared(sites))
        (gradient,) = torch.autograd.grad(log_p, u)
    return gradient.detach()


def _minibatches(batch: Batch, size: int, steps: int) -> Iterator[Batch]:
    n, made = rows_of(batch), 0
    while True:
        for index in torch.randperm(n).split(min(size, n)):
            if made == steps:
                return
            made += 1
            yield take(batch, index)


def _refuse_rows(density: LogJoint, u: Tensor) -> None:
    own = [
        name for name, site in density.run(u).sites.items() if name in density.shapes and site.rows
    ]
    if own:
        raise Unsupported(
            f"{', '.join(own)} belong to rows, and a minibatch has those of its own rows alone: "
            "no step could move the others. Sum or integrate them out, or use pgm.fit with a guide."
        )
