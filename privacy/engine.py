"""The Opacus spelling: `make_private_with_epsilon` hands back module, optimiser and loader.

    engine = opacus.PrivacyEngine()
    module, optimizer, loader = engine.make_private_with_epsilon(module=model, ...)
    module, optimizer, loader = privacy.make_private_with_epsilon(module=model, ...)  # this line

    for batch in loader:                    # the loop stays as it is
        optimizer.zero_grad()
        loss = pgm.objective(module, batch).mean()
        loss.backward()
        optimizer.step()

Behind it is a `privacy.PrivateTraining`: its self-check before anything is made, its route to the
gradients by row, its noise and ledger. The loader draws the lots, and `step` takes the lot that was
drawn, the whole of it and nothing else, since the accounting is about these lots.
"""

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.utils.data import DataLoader

from pgm.batch import rows_of
from pgm.model import Model
from privacy.clipping import Clip
from privacy.fit import PrivateTraining
from privacy.options import check_model
from privacy.sitting import PrivateModule, Sitting

REFUSED = {
    "criterion": "the loss of a row is the model's objective; pass objective=",
    "noise_generator": "pass seed=, or none: noise then comes from the system's entropy",
    "grad_sample_mode": "pass route=, one of 'auto', 'ghost', 'vmap', 'loop' and 'hooks'",
    "poisson_sampling": "the guarantee is that of Poisson sampling and of no other",
    "batch_first": "rows come first in every tensor of a batch",
    "clipping": "pass a privacy.LayerClip or privacy.AdaptiveClip as max_grad_norm=",
    "wrap_model": "the module is always wrapped, and the model itself is trained in place",
    "noise_multiplier": "the noise follows from target_epsilon, target_delta, epochs and the lots",
}


def make_private_with_epsilon(
    *,
    module: Model,
    optimizer: Optimizer,
    data_loader: DataLoader[Any],
    target_epsilon: float,
    target_delta: float,
    epochs: int,
    max_grad_norm: Clip,
    loss_reduction: str = "mean",
    **options: Any,
) -> tuple[PrivateModule, Optimizer, DataLoader[Any]]:
    """What Opacus' engine gives for a training loop, right for any `pgm.Model`.

    Args:
        module: the model, untrained on these rows, and changed in place; it is checked first.
        optimizer: of all trainable parameters of the model.
        data_loader: of a data set in memory, whose items are tensors or dicts of tensors; its
            batch size becomes the expected size of a lot.
        target_epsilon: what all epochs together spend at most.
        target_delta: the probability outside the guarantee; below 1 / rows.
        epochs: passes over the loader; no step can be made beyond them.
        max_grad_norm: the norm to which each row's gradient is clipped, or how (`privacy.fit`).
        loss_reduction: whether the loop takes the "mean" or the "sum" of the losses.
        **options: others of `privacy.PrivateTraining`: rows, ledger, budget, accountant,
            objective, route, terms, multiplicity, secure, seed.

    Returns:
        The module, whose call (like `pgm.objective`) gives the losses of a lot; an Opacus
        `DPOptimizer`, and an Opacus `DPDataLoader`, for `BatchMemoryManager` too. The losses are
        hidden (NaN) until `module.reveal()`; in evaluation mode the module gives those of any rows,
        without gradient.

    Raises:
        BrokenModel: the model cannot be fitted privately.
        ValueError: an option that cannot be honoured, or as `privacy.PrivateTraining`.

    Example:
        >>> import pgm, torch
        >>> from torch.utils.data import TensorDataset
        >>> from pgm.families.factor import PPCA
        >>> x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
        >>> model = PPCA(3, 1)
        >>> module, optimizer, loader = make_private_with_epsilon(
        ...     module=model, optimizer=torch.optim.Adam(model.parameters(), lr=0.01),
        ...     data_loader=DataLoader(TensorDataset(x), batch_size=100), epochs=2,
        ...     target_epsilon=3.0, target_delta=1e-4, max_grad_norm=1.0, seed=0)
        >>> for (rows,) in loader:
        ...     pgm.objective(module, rows).mean().backward()
        ...     optimizer.step()
        >>> module.report.release.steps, module.report.epsilon < 3.0
        (4, True)
    """
    from privacy.opacus_objects import DrivenOptimiser, PoissonLoader

    check_model(module)
    _refuse(options, data_loader, loss_reduction)
    _same_parameters(module, optimizer)
    rows = Sitting.all_rows(module, data_loader)
    lots = max(1, -(-(options.get("rows") or rows_of(rows)) // int(data_loader.batch_size or 1)))
    run = PrivateTraining(
        module,
        rows,
        epsilon=target_epsilon,
        delta=target_delta,
        steps=epochs * lots,
        rate=1 / lots,
        clip=max_grad_norm,
        optimiser=lambda parameters, lr: optimizer,
        device=module.device,
        **options,
    )
    module.train()
    sitting = Sitting(run, mean=loss_reduction == "mean")
    driven = DrivenOptimiser(optimizer, sitting)
    return PrivateModule(module, sitting), driven, PoissonLoader(data_loader, sitting, driven)


def _refuse(options: Mapping[str, Any], loader: DataLoader[Any], reduction: str) -> None:
    for name in options:
        if name in REFUSED:
            raise ValueError(f"make_private_with_epsilon takes no {name}= here: {REFUSED[name]}.")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"loss_reduction is {reduction!r}; it is 'mean' or 'sum'.")
    if loader.batch_size is None or loader.num_workers:
        raise ValueError(
            "The loader needs a batch_size, from which the expected size of a lot follows, and "
            "num_workers=0: workers would draw lots ahead of the steps they belong to."
        )


def _same_parameters(model: Model, optimizer: Optimizer) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if held != {id(p) for p in model.parameters() if p.requires_grad}:
        raise ValueError(
            "The optimiser's parameters are not the trainable parameters of the model: clipping "
            "and noise are over all of these together. Pass it model.parameters(), and freeze what "
            "shall stay (requires_grad_(False))."
        )
