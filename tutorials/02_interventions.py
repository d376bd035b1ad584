"""Seeing against doing: what was recorded, what would follow, and what is known of both."""

# %% [markdown]
# # Interventions against conditioning
#
# A treatment that seems to harm because the sick are given it. The same table answers two
# questions: what is seen in those who were treated, and what would be seen if all were.

# %%
import torch
from pyro import distributions as dist

import causal
import pgm
from causal import SCM

# %% [markdown]
# The data are those of Charig et al. (1986): 700 men with kidney stones, treated by open surgery or
# through the skin. Open surgery was given to those with large stones.

# %%
cells = {  # size, treatment: successes, patients
    ("small", "open"): (81, 87),
    ("large", "open"): (192, 263),
    ("small", "percutaneous"): (234, 270),
    ("large", "percutaneous"): (55, 80),
}
sizes, treatments = ("small", "large"), ("open", "percutaneous")
rows = [
    (sizes.index(size), treatments.index(treatment), int(i < good))
    for (size, treatment), (good, total) in cells.items()
    for i in range(total)
]
data = dict(zip(("size", "treatment", "success"), torch.tensor(rows).T, strict=True))

schema = pgm.Schema(
    {
        "size": pgm.Categorical(sizes),
        "treatment": pgm.Categorical(treatments),
        "success": pgm.Categorical((0, 1)),
    }
)
scm = SCM("size -> treatment -> success; size -> success", schema=schema)
causal.estimate(scm, data)

# %% [markdown]
# Seen: of those who had open surgery, 78 % were cured, fewer than the 83 % of the others.

# %%
for treatment in treatments:
    seen = causal.condition(scm, {"treatment": treatment}, seed=0)
    print(f"seen with {treatment:<13}: {float(seen.mean()['success'][0, 1]):.3f}")

# %% [markdown]
# Done: if all had open surgery, 83 % would be; `do` cuts the arrow from the size of the stone to
# the treatment, and leaves all other mechanisms alone. The answer comes with an interval, and is no
# better than the graph.

# %%
found = causal.effect(
    scm,
    "success",
    do={"treatment": "open"},
    versus={"treatment": "percutaneous"},
    level=1,
    data=data,
    seed=0,
)
print(found)
ax = causal.draw_graph(scm.graph, do=["treatment"])

# %% [markdown]
# An intervention need not be a value. A law: treat at random. A policy: open surgery for large
# stones only. Each gives a model, and every verb asks it.

# %%
policies = {
    "a coin": dist.Categorical(torch.tensor([0.5, 0.5])),
    "open for large stones": lambda parents: 1 - parents["size"],
    "as it was": lambda value, parents: value,
}
for name, policy in policies.items():
    drawn = pgm.sample(causal.do(scm, treatment=policy), 50_000, seed=0)
    print(f"{name:<22}: {float(drawn['success'].double().mean()):.3f} cured")

# %% [markdown]
# Evidence may come after the intervention, too: of those who would be cured by open surgery, how
# many have large stones?

# %%
after = causal.condition(causal.do(scm, treatment="open"), {"success": 1}, seed=0)
print(f"large stones among the cured: {float(after.mean()['size'][0, 1]):.2f}")
