"""Three models of the same counts, compared by what they say of rows that they did not see."""

# %% [markdown]
# # Model comparison with leave-one-out
#
# 120 counts with more spread than a Poisson's: each site has a rate of its own. Three models are
# fitted. The likelihood of rows that were seen always prefers the one with more freedom; that of
# rows left out need not. PSIS-LOO finds it without fitting anything again.

# %%
import warnings

import pyro
import torch
from pyro import distributions as dist

import pgm
from pgm.inference import InferenceWarning, compare, diagnose, loo, loo_pit

warnings.simplefilter("ignore", InferenceWarning)
g = torch.Generator().manual_seed(1)
x = torch.randn(120, generator=g)
with pgm.seeded(1):
    rate = dist.Gamma(2.0, 2.0).sample((120,)) * (0.8 + 0.5 * x).exp()
    y = torch.poisson(rate)
data = {"x": x, "y": y}


class Poisson(pgm.Model):
    def model(self, n, x):
        a, b = (pyro.sample(k, dist.Normal(torch.zeros(()), 2.0)) for k in ("a", "b"))
        with pgm.rows(n):
            pyro.sample("y", dist.Poisson((a + b * x).exp()))


class NegativeBinomial(pgm.Model):
    def model(self, n, x):
        a, b = (pyro.sample(k, dist.Normal(torch.zeros(()), 2.0)) for k in ("a", "b"))
        shape = pyro.sample("shape", dist.LogNormal(torch.zeros(()), 1.5))
        with pgm.rows(n):
            pyro.sample("y", dist.GammaPoisson(shape, shape / (a + b * x).exp()))


class Constant(pgm.Model):
    def model(self, n):
        a = pyro.sample("a", dist.Normal(torch.zeros(()), 2.0))
        shape = pyro.sample("shape", dist.LogNormal(torch.zeros(()), 1.5))
        with pgm.rows(n):
            pyro.sample("y", dist.GammaPoisson(shape, shape / a.exp()))


posteriors = {
    "Poisson": pgm.posterior(Poisson(), data, seed=0),
    "negative binomial": pgm.posterior(NegativeBinomial(), data, seed=0),
    "without x": pgm.posterior(Constant(), {"y": y}, seed=0),
}
print(compare(posteriors))

# %% [markdown]
# The table says which predicts best, by how many nats, with the error of the difference, and how a
# mixture of the models would be weighed (stacking). A difference below four nats, or below two of
# its errors, is none. Why the Poisson model loses is told by what it replicates.

# %%
for name in ("Poisson", "negative binomial"):
    print(name)
    print(loo(posteriors[name]))
    print(diagnose(posteriors[name], seed=0))
    print(loo_pit(posteriors[name], seed=0))
