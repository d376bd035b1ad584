"""Made-up rows: what a check may look at without saying anything of the data."""

import torch
from torch import Tensor

from pgm.batch import SEEN, Batch
from pgm.model import Model, arguments
from pgm.sites import Run


def synthetic_rows(model: Model, like: Batch, n: int) -> Batch:
    """Rows drawn from the model, of the sites, shapes and dtypes of `like` and nothing else of it.

    What the model does not draw (context, or sites of a program that cannot be run forwards) is
    between 0 and 1, so that it may be a scale or a probability, or zero (false) for others. Where
    `like` has missing cells, a third of the cells of every row but the first are missing.
    """
    made_up = {name: _noise(name, value, n) for name, value in like.items()}
    with torch.no_grad():
        try:
            with Run() as joint:
                model.model(n, **arguments(model, "model", made_up))
        except (RuntimeError, ValueError, TypeError, NotImplementedError):
            joint = Run()
    for name, site in joint.sites.items():
        if name in like and site.value.shape == made_up[name].shape:
            made_up[name] = site.value.to(like[name].dtype)
    for name in [name for name in like if name.endswith(SEEN)]:
        made_up[name][0] = True
        x = name.removesuffix(SEEN)
        seen = made_up[name].reshape(
            made_up[name].shape + (1,) * (like[x].dim() - like[name].dim())
        )
        made_up[x] = torch.where(seen, made_up[x], torch.zeros_like(made_up[x]))
    return Batch(made_up)


def _noise(name: str, like: Tensor, n: int) -> Tensor:
    shape = (n, *like.shape[1:])
    if like.dtype == torch.bool and name.endswith(SEEN):
        return torch.rand(shape, device=like.device) < 2 / 3
    if like.is_floating_point():
        return torch.rand(shape, dtype=like.dtype, device=like.device)
    return torch.zeros(shape, dtype=like.dtype, device=like.device)
