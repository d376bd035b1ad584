"""Diagnostics of posterior draws through ArviZ, which no other file imports.

Rank-normalised split R-hat, bulk and tail effective sample size (Vehtari, Gelman, Simpson,
Carpenter & Buerkner 2021), the energy diagnostic E-BFMI (Betancourt 2016), and the Pareto shape
k-hat of importance weights (Vehtari, Simpson, Gelman, Yao & Gabry 2024). ArviZ 0.x and 1.x differ
in two places, as far as this file goes: `_gather` and `_psis`.
"""

import importlib
import itertools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from pgm.inference.groups import Groups
from pgm.inference.posterior import InferenceWarning, Posterior
from pgm.inference.predictive import draw_enumerated, pointwise, predictive, prior_predictive
from pgm.model import ROWS
from pgm.verb import Unsupported

if TYPE_CHECKING:
    import pandas
    import xarray

R_HAT = 1.01
ESS_PER_CHAIN = 100
"""Vehtari et al. (2021), sec. 4: beyond these, estimates and diagnostics are not reliable."""
_CHAINS = 4
"""Beyond so many, chains are shorter, and the effective draws of all of them count."""
E_BFMI = 0.3
K_HAT = 0.7


def summary(posterior: Posterior) -> "pandas.DataFrame":
    """Mean, spread and diagnostics of every element of every latent.

    Args:
        posterior: draws of any method.

    Returns:
        A frame with a row for each element ("weights[1]"; indices from 0) and the columns mean, sd,
        q05, q95 (quantiles), mcse_mean (Monte Carlo standard error of the mean), ess_bulk, ess_tail
        (effective draws) and r_hat (NaN for a single chain).

    Example:
        >>> from pgm.families.factor import PPCA
        >>> from pgm.inference import variational
        >>> posterior = variational(PPCA(3, 1), torch.zeros(2, 3), draws=50, seed=0)
        >>> summary(posterior).index.tolist()
        ['z[0, 0]', 'z[1, 0]']
    """
    import arviz as az
    import pandas as pd

    draws = Groups(posterior, {}, {}).draws(posterior.draws, posterior.dims)
    sample = ("chain", "draw")
    many = posterior.size[0] > 1
    columns = {
        "mean": draws.mean(sample),
        "sd": draws.std(sample, ddof=1),
        "q05": draws.quantile(0.05, sample),
        "q95": draws.quantile(0.95, sample),
        "mcse_mean": az.mcse(draws, method="mean"),
        "ess_bulk": az.ess(draws, method="bulk"),
        "ess_tail": az.ess(draws, method="tail", prob=(0.05, 0.95)),
        "r_hat": az.rhat(draws) if many else draws.mean(sample) * math.nan,
    }
    names = [label for name, v in posterior.draws.items() for label in labels(name, v.shape[2:])]
    flat = {
        column: [float(x) for name in posterior.draws for x in values[name].values.ravel()]
        for column, values in columns.items()
    }
    return pd.DataFrame(flat, index=names)


def problems(posterior: Posterior) -> tuple[str, ...]:
    """Reasons not to trust the draws, each with what to do; empty if there is none."""
    if "log_weight" in posterior.sample_stats:
        return tuple(_far_guide(posterior))
    if "energy" not in posterior.sample_stats:
        return tuple(_chains(posterior))
    return (*_trajectories(posterior), *_chains(posterior))


def chain_summary(draws: Mapping[str, Tensor]) -> "pandas.DataFrame":
    """Diagnostics of numbers that Markov chains of any kind drew, one a name.

    Args:
        draws: by name, shape (chains, draws).

    Returns:
        A frame with a row for each name and the columns mean, mcse_mean, ess_bulk and r_hat. What
        never changed has r_hat 1 and no error; where each chain stays at a value of its own, r_hat
        is infinite.

    Example:
        >>> chain_summary({"x": torch.tensor([[0.0] * 8, [1.0] * 8])})["r_hat"].item()
        inf
    """
    import arviz as az
    import pandas as pd
    import xarray as xr

    found = {name: value.detach().double().cpu().numpy() for name, value in draws.items()}
    stuck = {name for name, x in found.items() if bool((np.ptp(x, axis=1) == 0).all())}
    moving = {name: (("chain", "draw"), x) for name, x in found.items() if name not in stuck}
    rows = {}
    for name in stuck:
        same = np.ptp(found[name]) == 0
        rows[name] = (found[name].mean(), *((0.0, 0.0, 1.0) if same else (math.inf, 0.0, math.inf)))
    if moving:
        data = xr.Dataset(moving)
        with np.errstate(divide="ignore", invalid="ignore"):
            many = len(next(iter(found.values()))) > 1
            parts = (az.mcse(data), az.ess(data), az.rhat(data) if many else data.mean() * math.nan)
        for name in moving:
            rows[name] = (found[name].mean(), *(float(part[name]) for part in parts))
    columns = ["mean", "mcse_mean", "ess_bulk", "r_hat"]
    return pd.DataFrame.from_dict({k: rows[k] for k in draws}, orient="index", columns=columns)


def pareto_k(posterior: Posterior | Tensor) -> Tensor:
    """The Pareto shape k-hat of importance weights, such as those of a variational posterior.

    Below 0.7, estimates reweighted by the joint density converge and the proposal is a usable
    approximation; above, it is not. About 1 - s^2 for a guide N(0, s) of N(0, 1).

    Args:
        posterior: a variational posterior, or log weights with the draws first.

    Returns:
        One number, shape (), where latents are shared; otherwise one a row, shape (n,).

    Raises:
        ValueError: draws of another method, which have no weights.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> from pgm.inference import variational
        >>> pareto_k(variational(PPCA(3, 1), torch.zeros(2, 3), draws=50, seed=0)).shape
        torch.Size([2])
    """
    if isinstance(posterior, Tensor):
        return smooth(posterior.movedim(0, -1))[1]
    if "log_weight" not in posterior.sample_stats:
        raise ValueError(
            f"Draws by {posterior.method} have no importance weights. k-hat is of "
            "pgm.inference.variational; look at r_hat and ess_bulk of posterior.summary() instead."
        )
    return smooth(posterior.sample_stats["log_weight"].flatten(0, 1).movedim(0, -1))[1]


def smooth(log_weight: Tensor) -> tuple[Tensor, Tensor]:
    """Pareto-smoothed log weights over the last axis, which add up to one, and their k-hat.

    Vehtari, Simpson, Gelman, Yao & Gabry 2024, alg. 1. Weights are left as they are, and k-hat is
    zero, where the largest are all alike, as those of levels are: such a tail has no shape. It is
    infinite where one weight is all, or where fewer than 25 came, too few to tell.

    Example:
        >>> log_w, k = smooth(torch.randn(3, 400, generator=torch.Generator().manual_seed(0)))
        >>> log_w.exp().sum(-1)
        tensor([1., 1., 1.])
    """
    flat = log_weight.detach().double().flatten(0, -2) if log_weight.dim() > 1 else log_weight[None]
    log_w = flat.double().log_softmax(-1)
    draws = flat.shape[-1]
    largest = flat.topk(max(1, round(min(draws / 5, 3 * draws**0.5))), -1).values
    spread = largest[:, 0] - largest[:, -1]
    k = torch.where(spread < 1e-8, 0.0, torch.inf).to(log_w)
    shaped = ~(spread < 1e-8) & (draws >= _FEWEST)
    if bool(shaped.any()):
        smoothed, shape = _psis(flat[shaped].double().cpu().numpy())
        log_w[shaped] = torch.as_tensor(np.asarray(smoothed)).to(log_w).log_softmax(-1)
        k[shaped] = torch.as_tensor(np.asarray(shape)).to(log_w)
    k = k.nan_to_num(torch.inf, torch.inf, -torch.inf)
    return log_w.reshape(log_weight.shape).to(log_weight), k.reshape(log_weight.shape[:-1]).to(
        log_weight
    )


_FEWEST = 25
"""Weights below which the tail would have fewer than five."""


def to_arviz(
    posterior: Posterior,
    *,
    prior: int = 0,
    enumerated: Literal["sum", "draw"] = "sum",
    dims: Mapping[str, Sequence[str]] | None = None,
    coords: Mapping[str, Sequence[Any]] | None = None,
    seed: int | None = None,
) -> Any:
    """All groups for ArviZ's plots, LOO and comparison.

    Groups: posterior, posterior_predictive (data replicated at each draw; enumerated latents are
    drawn anew), log_likelihood (by row, in nats, under the observed site's name), sample_stats,
    observed_data (missing cells are NaN) and constant_data (the context); prior and
    prior_predictive on request. The axis of the rows is called "rows", that of a plate by the
    plate's name, and that of a frame's columns "columns", with their names along it; the levels of
    a column stand in the attributes of its values. Where a row's likelihood depends on missing
    cells, log_likelihood is left out with a warning.

    Args:
        posterior: draws of any method.
        prior: draws of the prior and of data from it; none by default.
        enumerated: whether latents that were summed out stay so, or are drawn from their posterior.
        dims: other names for the axes of a site, after chain and draw: {"weights": ["feature"]}.
        coords: labels along an axis by its name: {"feature": ["age", "dose"]}.
        seed: of the replicated data, the prior and the enumerated latents.

    Returns:
        An arviz.InferenceData, or an xarray.DataTree with ArviZ 1.x.

    Raises:
        ValueError: names or labels for another number of axes or places than there are.

    Example:
        >>> from pgm.families.factor import PPCA
        >>> from pgm.inference import variational
        >>> posterior = variational(PPCA(3, 1), torch.zeros(2, 3), draws=50, seed=0)
        >>> to_arviz(posterior, seed=0).log_likelihood.sizes["rows"]
        2
    """
    make = Groups(posterior, dims or {}, coords or {})
    replicated, axes = predictive(posterior, seed=seed)
    stats_dims = {name: (ROWS,) for name, v in posterior.sample_stats.items() if v.dim() > 2}
    drawn, names = (
        draw_enumerated(posterior, seed=seed) if enumerated == "draw" else ({}, posterior.dims)
    )
    groups = {
        "posterior": make.draws(posterior.draws | drawn, posterior.dims | names),
        "posterior_predictive": make.draws(replicated, axes),
        "sample_stats": make.draws(posterior.sample_stats, stats_dims),
        "observed_data": make.data([k for k in posterior.batch if k in replicated]),
        "constant_data": make.data([k for k in posterior.batch if k in posterior.model.context]),
    }
    if prior:
        latents, data, axes = prior_predictive(posterior, prior, seed=seed)
        groups |= {"prior": make.draws(latents, axes), "prior_predictive": make.draws(data, axes)}
    try:
        name = "+".join(replicated)
        groups["log_likelihood"] = make.draws({name: pointwise(posterior)}, {name: (ROWS,)})
    except Unsupported as why:
        warnings.warn(f"No log_likelihood: {why}", InferenceWarning, stacklevel=2)
    make.check()
    return _gather({name: group for name, group in groups.items() if group.data_vars})


def _psis(log_weight: Any) -> Any:
    """Smoothed log weights and k-hat, over the last axis.

    From 1.0 on, ArviZ takes log likelihoods, so minus the weights.
    """
    import arviz as az

    with np.errstate(divide="ignore", invalid="ignore"):
        if _generation() == 0:
            return az.psislw(log_weight)
        return importlib.import_module("arviz_stats.base").array_stats.psislw(-log_weight)


def _generation() -> int:
    """0 up to ArviZ 0.23; 1 from 1.0 on, which has other containers and places."""
    import arviz as az

    return min(1, int(az.__version__.partition(".")[0]))


def _gather(groups: Mapping[str, "xarray.Dataset"]) -> Any:
    """The container of the ArviZ that is installed."""
    import arviz as az
    import xarray as xr

    if _generation() == 1:
        return xr.DataTree.from_dict(dict(groups))
    container: Any = az.InferenceData
    return container(**groups)


def labelled(draws: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Every element of every site by its name, with its draws, all chains in one."""
    for name, value in draws.items():
        flat = value.flatten(0, 1).reshape(value.shape[0] * value.shape[1], -1)
        yield from zip(labels(name, value.shape[2:]), flat.T, strict=True)


def labels(name: str, shape: torch.Size) -> Iterator[str]:
    """The names of a site's elements: "theta[0]", "weights[2, 1]"."""
    for index in itertools.product(*map(range, shape)):
        yield f"{name}[{', '.join(map(str, index))}]" if index else name


def _trajectories(posterior: Posterior) -> Iterator[str]:
    stats = posterior.sample_stats
    divergent, total = int(stats["diverging"].sum()), stats["diverging"].numel()
    cut = int(stats["reached_max_treedepth"].sum()) if "reached_max_treedepth" in stats else 0
    if divergent:
        yield (
            f"{divergent} of {total} draws diverged: the chains cannot enter a part of the "
            "posterior, and means and spreads are biased. Raise target_accept towards 0.99, or "
            "write hierarchical latents non-centred (theta = mu + tau * eta, eta ~ N(0, 1))."
        )
    if cut:
        yield (
            f"{cut} of {total} trajectories were cut short at the largest tree depth: the draws "
            "move slowly. Rescale the latents, raise warmup or max_tree_depth, or try "
            "dense_mass=True."
        )
    energy = stats["energy"]
    e_bfmi = energy.diff(dim=1).square().mean(1) / energy.var(1, correction=0)
    if bool((e_bfmi < E_BFMI).any()):
        yield (
            f"E-BFMI is {float(e_bfmi.min()):.2f} (below {E_BFMI}): the energies of the chain mix "
            "slowly, as with heavy tails. Reparameterise the latents with the longest tails, or "
            "raise warmup."
        )


def _chains(posterior: Posterior) -> Iterator[str]:
    table = posterior.summary()
    chains, _ = posterior.size
    worst = float(table["r_hat"].max())
    if worst > R_HAT:
        yield (
            f"R-hat of {table['r_hat'].idxmax()!s} is {worst:.3f} (above {R_HAT}): the chains "
            "disagree. Raise warmup and draws; if it stays, the posterior has several modes or "
            "latents that the data do not tell apart."
        )
    ess = table[["ess_bulk", "ess_tail"]].min(axis=1)
    enough = ESS_PER_CHAIN * min(chains, _CHAINS)
    if float(ess.min()) < enough:
        yield (
            f"The effective number of draws of {ess.idxmin()!s} is {ess.min():.0f}, below {enough} "
            f"({ESS_PER_CHAIN} a chain, of {_CHAINS} chains at most): its mean, quantiles and "
            "R-hat are not reliable. Raise draws."
        )


def _far_guide(posterior: Posterior) -> Iterator[str]:
    k = pareto_k(posterior)
    bad = int((k > K_HAT).sum())
    if bad:
        where = "" if k.dim() == 0 else f" in {bad} of {k.numel()} rows"
        yield (
            f"Pareto k-hat of the guide's weights is {float(k.max()):.2f}{where}, above {K_HAT}: "
            "the guide is far from the posterior. Fit it longer or make it richer (full "
            "covariance, a flow), or use pgm.inference.mcmc."
        )
