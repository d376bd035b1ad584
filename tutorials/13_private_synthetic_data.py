"""A synthetic table: shared freely, and nearly as good as rows that must stay secret."""

# %% [markdown]
# # Synthetic data under differential privacy
#
# Sixteen thousand men told a survey what they earned. Their answers must stay secret; a table that
# is like theirs, and has nobody's answers in it, may be given to anyone. `privacy.synthesize` asks
# the rows a few noisy questions, how many men there are in each cell of some columns and pairs of
# columns, finds the distribution that explains the answers best, and draws from it.

# %%
import matplotlib.pyplot as plt

import pgm
import pgm.data
import privacy
from pgm import Categorical, Count
from pgm.evaluation import table_distances, train_on_synthetic

men = pgm.data.load("nsw").split("observed").frame
men = men[men["treat"] == 0].drop(columns="treat").round().astype(int)
men["working"] = men.pop("re78") > 0
men = men.sample(frac=1.0, random_state=0, ignore_index=True)
train, test = men[:13_000], men[13_000:].reset_index(drop=True)

# %% [markdown]
# What a column may hold is written down from the questionnaire, and not read off the answers: a
# level that only one man has would give him away. A count has an upper bound for the same reason;
# of the earnings it is known, since the survey writes down no more than 25,862 and 25,244 dollars.

# %%
mark = Categorical((0, 1))
schema = pgm.Schema(
    {
        "age": Count(upper=60),
        "educ": Count(upper=18),
        "black": mark,
        "hisp": mark,
        "marr": mark,
        "nodegree": mark,
        "re74": Count(upper=25_862),
        "re75": Count(upper=25_244),
        "working": Categorical((False, True)),
    }
)

# %% [markdown]
# All that is asked is planned before the first question, and entered in the ledger of these rows:
# where earnings are cut into cells, the columns, which pairs to ask for, the pairs. Where ages are
# cut is declared, and costs nothing: men from 16 on were asked. The seed is fixed here so that the
# page repeats. On data that are secret, leave it out.

# %%
ledger = privacy.Ledger()
made = privacy.synthesize(
    train,
    schema=schema,
    epsilon=1.0,
    delta=1e-6,
    edges={"age": range(16, 56, 2)},
    ledger=ledger,
    seed=0,
)
print(made)
print(made.frame.head())

# %% [markdown]
# ## Is it any good?
#
# Two questions to ask of it, both on men who are in neither table. How far are the shares of all
# pairs of columns from theirs? And does a classifier that has only seen made-up men find out who
# of the real ones will be working? The real rows are the bound for both.

# %%
for name, table in (("real", train), ("synthetic", made.frame)):
    print(f"{name}: {table_distances(test, table, schema, bins=10)}")
    print(f"  {train_on_synthetic(table, test, 'working', schema, classifier='logistic')}")
spread = table_distances(test, made.frame, schema, bins=10)
assert spread.mean < 0.08

# %% [markdown]
# ## What may be done with it
#
# Anything. The distribution behind the table is a model like any other, a Bayesian network over the
# cells: it can be asked, conditioned, drawn from again. All of it is post-processing, and spends
# nothing. (Its arrows are an order of drawing, and say nothing of causes.)

# %%
print(made.model.note)
for state in (0, 1):
    asked = made.model.marginals({"marr": state}, targets=["working"])
    print(f"marr {state}: {asked}")

# %% [markdown]
# Another question to the rows themselves is another matter. Whoever wants one holds a budget, which
# refuses what would be too much before anything is computed.

# %%
budget = privacy.Budget(1.0, 1e-6, ledger=ledger, accountant="prv")
try:
    privacy.synthesize(train, schema=schema, epsilon=0.5, budget=budget)
except privacy.BudgetExceeded as error:
    print(error)

# %% [markdown]
# Any model that was trained under differential privacy gives a table in the same way:
# `privacy.synthesize(model, n=1000)`.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.6), layout="constrained")
for ax, column in zip(axes, ("educ", "age"), strict=True):
    made.plot(column, ax=ax)
figure.savefig("synthetic.png", dpi=120)
