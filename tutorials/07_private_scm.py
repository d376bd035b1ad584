"""A private structural model: an intervention asked of cells that stay secret."""

# %% [markdown]
# # Interventions under differential privacy
#
# A structural causal model is trained under differential privacy, and then asked as often as one
# likes: whatever is computed from the trained model alone is post-processing, and spends nothing.
# Every answer says so.

# %%
import causal
import pgm
import pgm.data
import privacy

# %% [markdown]
# Sachs' cells stand for records that must stay secret. The kinds of the columns are written down,
# and not read off the cells: a level that only one cell has would give that cell away.

# %%
data = pgm.data.load("sachs")
levels = pgm.Categorical(("low", "medium", "high"), ordered=True)
schema = pgm.Schema(dict.fromkeys(data.frame.columns, levels))
cells = schema.encode(data.frame) | {"clamped": data.clamped}
graph = data.graph("published")

# %% [markdown]
# Without privacy the tables are relative frequencies. With it they are trained by noisy steps; the
# number of rows is declared, and the report says what is covered and what is not.

# %%
open_ = causal.SCM(graph, schema=schema)
causal.estimate(open_, cells)

private = causal.SCM(graph, schema=schema)
run = privacy.fit(
    private,
    cells,
    epsilon=3.0,
    delta=1e-5,
    rows=5400,
    steps=300,
    expected_batch_size=1024,
    learning_rate=0.1,
)
print(run.report)

# %% [markdown]
# The same question to both: Erk under PKA set to high, against low. The private model answers with
# the note of its fit; refits on the rows, for an interval, would use them again and are refused.

# %%
for name, scm in (("open", open_), ("private", private)):
    found = causal.effect(scm, "Erk", do={"PKA": "high"}, versus={"PKA": "low"})
    print(f"{name}:\n{found}\n")
try:
    causal.effect(private, "Erk", do={"PKA": "high"}, data=cells)
except ValueError as error:
    print(error)

# %% [markdown]
# Rare configurations are where privacy costs: a table's row that few cells have shown is hidden in
# the noise, as it must be. These last numbers are computed from the cells, and no epsilon covers
# them: they are for whoever may see the cells.

# %%
for name, scm in (("open", open_), ("private", private)):
    print(f"{name:<8} {pgm.log_prob(scm, cells)}")
