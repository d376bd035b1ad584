"""Sachs' cells: a published causal graph, fitted under interventions, and asked what others do."""

# %% [markdown]
# # Interventions in a signalling network
#
# 5400 human T cells with eleven proteins measured in each (Sachs et al. 2005), discretised to three
# levels. In 3600 of them an experiment held one protein at a level: such a cell says nothing of the
# mechanism of that protein, and all of those of the others.

# %%
import causal
import pgm
import pgm.data
from causal import SCM

data = pgm.data.load("sachs")
schema = pgm.Schema.infer(data.frame, site=None)
cells = schema.encode(data.frame) | {"clamped": data.clamped}
print({name: int(n) for name, n in zip(data.frame.columns, data.clamped.sum(0), strict=True) if n})

# %% [markdown]
# The graph of the paper, with one table a protein, fitted in closed form. What was clamped is left
# out of the fit of its own table, and kept in those of its effects.

# %%
scm = SCM(data.graph("published"), schema=schema)
causal.estimate(scm, cells)
print(pgm.log_prob(scm, cells))
ax = causal.draw_graph(scm.graph, do=["PKA"])

# %% [markdown]
# What becomes of Akt and Erk where PKA is set to high, against low? `identify` says what the graph
# makes of it, before any number: which other proteins must be adjusted for, if one had the cells
# that were left alone and nothing else.

# %%
print(causal.identify(scm.graph, "Akt", do="PKA"))
for outcome in ("Akt", "Erk"):
    found = causal.effect(
        scm, outcome, do={"PKA": "high"}, versus={"PKA": "low"}, data=cells, seed=0
    )
    print(found)

# %% [markdown]
# Seeing is not doing: cells in which PKA was seen to be low are cells in which what lowers it was
# active.

# %%
for level in ("low", "high"):
    world = causal.do(scm, PKA=level)
    seen = causal.condition(scm, {"PKA": level}, particles=10).mean()["Akt"][0]
    done = causal.condition(world, {"PKA": level}, particles=10).mean()["Akt"][0]
    shown = (", ".join(f"{p:.2f}" for p in law.tolist()) for law in (seen, done))
    print(f"PKA {level:<4}: Akt seen {next(shown)}; done {next(shown)}")

# %% [markdown]
# One cell that was left alone, with PKA low and Erk medium: would Erk have been high, had PKA been
# high? Tables do not say which outcomes go with which: the answer depends on a coupling that no
# data can choose, and the bounds are what holds in any case.

# %%
labels = schema.columns["PKA"].levels
low, medium = labels.index("low"), labels.index("medium")
chosen = ~data.clamped.any(1) & (cells["PKA"] == low) & (cells["Erk"] == medium)
i = chosen.nonzero()[0]
cell = {name: x[i] for name, x in cells.items() if name != "clamped"}
for coupling in ("gumbel", "monotone"):
    found = causal.counterfactual(
        scm, cell, do={"PKA": "high"}, coupling=coupling, particles=1000, seed=0
    )
    shown = zip(labels, found.mean()["Erk"][0].tolist(), strict=True)
    print(f"{coupling:<9}", ", ".join(f"{label} {p:.2f}" for label, p in shown))
print(found)
