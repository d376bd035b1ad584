"""A mixture whose labels are summed out: order against switching, and the labels drawn again."""

# %% [markdown]
# # Labels that nobody saw
#
# 150 numbers from two groups. The label of a number is a discrete latent: marked for enumeration it
# is summed out, and what is left is smooth enough for gradients. The two groups have no names,
# though: swap them, and the density is the same. Chains may settle in either order.

# %%
import warnings

import pyro
import torch
from pyro import distributions as dist

import pgm
from pgm.inference import InferenceWarning, chees, diagnose

warnings.simplefilter("ignore", InferenceWarning)
g = torch.Generator().manual_seed(0)
truth = torch.rand(150, generator=g) < 0.3
y = torch.where(truth, 2.5, -1.0) + torch.randn(150, generator=g)


class Mixture(pgm.Model):
    """Two groups; `ordered` gives the means an order, and so the groups names."""

    def __init__(self, ordered):
        super().__init__()
        self.ordered = ordered

    def model(self, n):
        base = dist.Normal(torch.zeros(2), 3.0).to_event(1)
        if self.ordered:
            base = dist.TransformedDistribution(base, [dist.transforms.OrderedTransform()])
        mu = pyro.sample("mu", base)
        p = pyro.sample("p", dist.Beta(torch.tensor(2.0), 2.0))
        with pgm.rows(n):
            k = pyro.sample("k", dist.Bernoulli(p), infer={"enumerate": "parallel"}).long()
            pyro.sample("y", dist.Normal(mu[k], 1.0))


free = chees(Mixture(ordered=False), {"y": y}, draws=200, seed=0)
print(free.summary().loc[["mu[0]", "mu[1]"]].round(2))
print("\n".join(diagnose(free).sampling))

# %% [markdown]
# With ordered means there is one mode, and the numbers mean something.

# %%
named = chees(Mixture(ordered=True), {"y": y}, draws=200, seed=0)
print(named)

# %% [markdown]
# The labels were summed out of every gradient. They can be had all the same, drawn from their
# posterior at every draw of the rest.

# %%
small = chees(Mixture(ordered=True), {"y": y}, draws=10, seed=0)
labels = small.to_arviz(enumerated="draw", seed=0).posterior["k"]
chance = torch.tensor(labels.mean(("chain", "draw")).values)
sure = (chance - 0.5).abs() > 0.4
print(f"labels right where they are sure: {((chance > 0.5) == truth)[sure].double().mean():.2f}")
print(f"numbers whose label stays open: {int((~sure).sum())} of 150")
