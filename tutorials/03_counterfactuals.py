"""Counterfactuals of a plain Pyro program: the same patient, another treatment."""

# %% [markdown]
# # Counterfactuals of a plain program
#
# A counterfactual speaks of the very row that was seen. What is particular to that row is its
# noise: it is found from what was seen (abduction), the program is changed (action), and run again
# on the same noise (prediction).

# %%
import pyro
import torch
from pyro import distributions as dist

import causal
import pgm

# %% [markdown]
# A program as anyone would write it. Nothing in it says that it is causal, but the order in which
# its sites listen to one another.


# %%
def trial(n):
    with pgm.rows(n):
        age = pyro.sample("age", dist.Normal(50.0, 10.0))
        dose = pyro.sample("dose", dist.LogNormal(0.02 * (age - 50), 0.3))
        pressure = pyro.sample("pressure", dist.Normal(100 + 0.6 * age - 8 * dose, 5.0))
        pyro.sample("stroke", dist.Bernoulli(logits=0.1 * (pressure - 140)))


scm = causal.SCM.from_program(trial)
print(list(scm.graph.edges))

# %% [markdown]
# A patient of 70 years with a dose of 1 and a pressure of 150, who had a stroke. With twice the
# dose the pressure would have been 142 exactly: its noise is known. Whether the stroke would have
# happened is not: a discrete outcome leaves its noise open, and couplings that fit all data equally
# well disagree. The answer names its coupling and prints what holds under every one.

# %%
patient = {
    "age": torch.tensor([70.0]),
    "dose": torch.tensor([1.0]),
    "pressure": torch.tensor([150.0]),
    "stroke": torch.tensor([1.0]),
}
found = causal.counterfactual(scm, patient, do={"dose": 2.0}, particles=4000, seed=0)
print(found)
print(f"pressure {float(found.mean()['pressure'][0]):.1f}")

# %% [markdown]
# Several scenarios share one abduction: their differences are those of one patient, and not of
# draws.

# %%
scenarios = causal.compare(
    scm, patient, do={"none": {"dose": 0.01}, "twice": {"dose": 2.0}, "more": {"dose": 4.0}}, seed=0
)
for label in scenarios.labels:
    mean = scenarios[label].mean()
    pressure, stroke = float(mean["pressure"][0]), float(mean["stroke"][0, 1])
    print(f"{label:<6} pressure {pressure:.1f}, stroke {stroke:.2f}")

# %% [markdown]
# Evidence may have holes. Where the dose of this patient was never written down, it is drawn given
# the rest, in proportion to the density of what was seen; the spread of the answer says what that
# costs.

# %%
partial = {name: x for name, x in patient.items() if name != "dose"}
found = causal.counterfactual(scm, partial, do={"age": 50.0}, particles=4000, seed=0)
mean, variance = found.mean()["pressure"], found.variance()["pressure"]
print(f"pressure at 50: {float(mean[0]):.1f}, sd {float(variance[0]) ** 0.5:.1f}; {found.rung}")

# %% [markdown]
# A linear-Gaussian model needs no draws at all: from A = 1 and E = 3 alone, E under do(B = 0) is
# normal with mean 3.1528 and variance 0.2361.

# %%
linear = causal.SCM(
    "A -> {B C}; B -> {C D}; C -> {D E}; D -> E",
    A=causal.LinearGaussian(),
    B=causal.LinearGaussian({"A": 0.5}),
    C=causal.LinearGaussian({"A": 1.0, "B": -0.8}),
    D=causal.LinearGaussian({"B": 0.7, "C": 0.5}),
    E=causal.LinearGaussian({"C": 1.0, "D": 1.0}),
)
seen = {"A": torch.tensor([1.0]), "E": torch.tensor([3.0])}
found = causal.counterfactual(linear, seen, do={"B": 0.0})
print(found.rung, float(found.mean()["E"]), float(found.variance()["E"]))
