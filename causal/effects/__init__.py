"""Effects: averages, of all or of some, direct and indirect, along paths, and of causes.

`effect` compares two worlds; `mediation` and `path_effect` part the effect by the arrows that carry
it; `causation` asks whether one event was necessary or sufficient for another.
"""

from causal.effects.average import effect
from causal.effects.causes import causation
from causal.effects.mediators import mediation, path_effect
from causal.effects.results import Effect, Effects

__all__ = ["Effect", "Effects", "causation", "effect", "mediation", "path_effect"]
