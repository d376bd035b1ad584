"""Pictures of effects: an outcome in both worlds, differences with their intervals.

Every function takes and returns matplotlib axes.
"""

from typing import Any

import torch

from causal.effects.results import Effect, Effects

_BEFORE, _AFTER = "tab:gray", "tab:blue"


def draw_outcome(effect: Effect, *, ax: Any = None) -> Any:
    """Draws the distribution of the outcome in both worlds.

    Args:
        effect: an answer of `causal.effect`.
        ax: matplotlib axes; new ones by default.

    Raises:
        ValueError: an effect of some units, which has no draws.
    """
    import matplotlib.pyplot as plt

    if effect.samples is None:
        raise ValueError(
            f"The effect is {effect.units}, and holds no draws of the outcome. Draw those of the "
            "units from causal.counterfactual or causal.condition, or plot the effect itself."
        )
    ax = ax or plt.subplots()[1]
    after, before = effect.worlds
    if effect.levels:
        place = torch.arange(len(effect.levels)).numpy()
        ax.bar(place - 0.2, effect.control.numpy(), 0.4, color=_BEFORE, label=before)
        ax.bar(place + 0.2, effect.treated.numpy(), 0.4, color=_AFTER, label=after)
        ax.set_xticks(place, [str(level) for level in effect.levels])
        ax.set_ylabel("probability")
    else:
        both = torch.cat(effect.samples).cpu()
        low, high = both.quantile(both.new_tensor([0.001, 0.999])).tolist()
        bins = torch.linspace(low, high, 61).tolist()
        for x, colour, label in zip(
            effect.samples, (_AFTER, _BEFORE), (after, before), strict=True
        ):
            ax.hist(x.cpu().numpy(), bins, density=True, alpha=0.6, color=colour, label=label)
        ax.set_ylabel("density")
    ax.set_xlabel(effect.outcome)
    ax.legend(frameon=False)
    return ax


def draw_effect(effect: Effect, *, ax: Any = None) -> Any:
    """Draws the differences with their intervals.

    Args:
        effect: an answer of `causal.effect`.
        ax: matplotlib axes; new ones by default.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots()[1]
    labels = [str(level) for level in effect.levels] or ["mean"]
    ends = torch.stack([effect.difference - effect.lower, effect.upper - effect.difference])
    height = list(range(len(labels)))
    ax.errorbar(
        effect.difference.numpy(), height, xerr=ends.clamp(min=0).numpy(), fmt="o",
        color=_AFTER, capsize=4,
    )  # fmt: skip
    ax.axvline(0.0, color=_BEFORE, lw=0.8)
    ax.set_yticks(height, labels)
    ax.set(xlabel=f"difference, {effect.confidence:.0%} interval", ylabel=effect.outcome)
    ax.set_title(" versus ".join(effect.worlds), fontsize=10)
    ax.margins(y=0.4)
    return ax


def draw_effects(effects: Effects, *, ax: Any = None) -> Any:
    """Draws several effects with their intervals.

    Args:
        effects: an answer of `causal.mediation`, `causal.path_effect` or `causal.causation`.
        ax: matplotlib axes; new ones by default.
    """
    import matplotlib.pyplot as plt

    ax = ax or plt.subplots()[1]
    value, lower, upper = (
        t.flatten().flip(0) for t in (effects.values, effects.lower, effects.upper)
    )
    error = torch.stack([value - lower, upper - value]).nan_to_num(0.0).clamp(min=0)
    height = list(range(len(value)))
    ax.errorbar(value.numpy(), height, xerr=error.numpy(), fmt="o", color=_AFTER, capsize=4)
    ax.axvline(0.0, color=_BEFORE, lw=0.8)
    ax.set_yticks(height, effects.labels[::-1])
    ax.set(xlabel=f"{effects.confidence:.0%} interval", ylabel=effects.outcome)
    ax.set_title(effects.title, fontsize=10, wrap=True)
    ax.margins(y=0.4)
    return ax
