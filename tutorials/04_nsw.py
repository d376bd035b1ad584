"""A job training: identification, overlap, estimation, refutation, and what fails."""

# %% [markdown]
# # Did the training help? LaLonde's test
#
# From 1975 on, the National Supported Work demonstration gave hard-to-employ Americans a job and
# training, by lot. The experiment says what it was worth: about 1800 dollars of earnings in 1978.
# LaLonde (1986) asked whether one would have found this without the experiment, from a survey:
# he set the trained men beside men of the Current Population Survey. We do the same.
#
# The data are shipped (`pgm.data.describe("nsw")` says where they come from).

# %%
import pgm.data
from causal import adjust, falsify, refute, sensitivity

data = pgm.data.load("nsw")
trial, study = data.split("experiment").frame, data.split("observed").frame
print(data)

# %% [markdown]
# The experiment first. Nothing points to a treatment that was drawn by lot, so that there is
# nothing to adjust for, and the difference of the means is the effect.

# %%
ASK = {"treatment": "treat", "outcome": "re78", "units": "att", "seed": 0}
truth = adjust(trial, "treat -> re78", **ASK)
print(truth)
assert abs(truth.value - 1794.34) < 0.01

# %% [markdown]
# A lot makes treatment independent of all that was before. Here the data can contradict the graph,
# and do not.

# %%
before = ["age", "educ", "black", "hisp", "marr", "re74", "re75"]
lot = "; ".join([f"{cause} -> re78; {cause}" for cause in before])
told = falsify(f"treat -> re78; {lot}", trial[[*before, "treat", "re78"]], test="kernel", rows=300)
by_lot = [test for test in told.tests if "treat" in (test.x, test.y)]
print(*by_lot, sep="\n")
assert min(test.p for test in by_lot) > 0.01

# %% [markdown]
# Now the study. The same comparison says that training costs its men 8500 dollars a year: they were
# young, poor and out of work, and the men of the survey were not.

# %%
naive = adjust(study, "treat -> re78", **ASK)
print(f"difference of the means: {naive.value:.1f} dollars")
assert abs(naive.value + 8497.5) < 0.05

# %% [markdown]
# **Identification.** We assume that what was known of a man before may have caused both his
# training and his earnings, and that nothing else caused both. Then this set blocks every path that
# is not causal. It is an assumption; the data cannot confirm it.

# %%
graph = data.graph()
print(sorted(graph.predecessors("treat")))

# %% [markdown]
# **Overlap.** Before any number is believed: are there men in the survey who could have been
# in the training? Hardly. The report is printed before the effect, and says so.

# %%
all_rows = adjust(study, graph, **ASK)
print(all_rows)
assert all_rows.overlap is not None and all_rows.overlap.outside > 0.9

# %% [markdown]
# Rows without a counterpart can be left out, which changes the question: it is then about men whose
# chance of training was between one tenth and nine tenths. The answer says what was lost.

# %%
found = adjust(study, graph, trim=(0.1, 0.9), **ASK)
print(found)
assert 800 <= found.value <= 2600
assert found.lower < truth.value < found.upper

# %% [markdown]
# **Estimation.** Five ways to adjust, on all rows and on the trimmed ones. With overlap they agree;
# without it each has its own idea of what the survey's rich men say of poor ones.

# %%
METHODS = ("regression", "weighting", "matching", "stratification", "doubly robust")
print(f"{'':<15} {'all rows':>9} {'trimmed':>9}")
for method in METHODS:
    rough, fine = (
        adjust(study, graph, method=method, trim=trim, refits=40, **ASK).value
        for trim in (None, (0.1, 0.9))
    )
    print(f"{method:<15} {rough:>9.0f} {fine:>9.0f}")
    assert 800 <= fine <= 2600

# %% [markdown]
# **Refutation.** Change the data so that the answer is known, and estimate again. Passing proves
# nothing; failing would have been the end of it.

# %%
for how in ("placebo", "random common cause", "subset", "bootstrap", "dummy outcome"):
    tried = refute(found, how, draws=60, seed=0)
    print(tried)
    assert tried.passed

# %% [markdown]
# No refuter sees a common cause that nobody measured. How strong would it have to be? Compare it
# with the causes that were measured.

# %%
hidden = sensitivity(found)
print(hidden)
assert 0 < hidden.robustness < 0.2

# %% [markdown]
# **What fails.** Leave out the earnings before the training, and nothing warns: the trimmed arms
# overlap, the placebo passes, the interval excludes zero, and the answer is wrong by four thousand
# dollars. The graph was wrong, and no calculation on these columns could have told.

# %%
poor = graph.copy()
poor.remove_nodes_from(["re74", "re75"])
blind = adjust(study, poor, trim=(0.1, 0.9), **ASK)
print(blind)
print(refute(blind, "placebo", draws=60, seed=0))
assert blind.upper < 0 < truth.value
