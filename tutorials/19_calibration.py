"""Is a variational posterior to be believed? Calibration of a guide by simulation."""

# %% [markdown]
# # Calibration of a variational posterior
#
# Two covariates that are nearly the same leave a ridge: the data know the sum of the two weights
# and not each. A guide that is normal in each weight by itself cannot lie along the ridge, and
# comes out too narrow. On one data set nobody notices. So: draw weights from the prior, data from
# the weights, the posterior from the data, many times over, and look where the true weights rank
# among the draws. They are uniform for a posterior that holds what it promises (Talts et al. 2018).

# %%
import pyro
import torch
from pyro import distributions as dist
from torch import nn

import pgm
from pgm.inference import calibrate, refitted
from pgm.inference.approximate.quadratic import exact_normal

g = torch.Generator().manual_seed(0)
x = torch.randn(30, 1, generator=g) + 0.3 * torch.randn(30, 2, generator=g)
data = {"x": x, "y": torch.zeros(30)}


class Ridge(pgm.Model):
    def __init__(self):
        super().__init__()
        self.location = nn.Parameter(torch.zeros(2))
        self.log_scale = nn.Parameter(torch.full((2,), -1.0))

    def model(self, n, x):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(x @ w, 1.0))

    def guide(self, n):
        pyro.sample("w", dist.Normal(self.location, self.log_scale.exp()).to_event(1))


fast = refitted(draws=99, steps=60, learning_rate=0.1, schedule="cosine")
guide = calibrate(Ridge(), data, infer=fast, simulations=100, draws=49, bins=10)
print(guide)
ax = guide.plot("w[0]")

# %% [markdown]
# The posterior of this model is normal, and `pgm.posterior` finds it exactly. It passes.

# %%


def exactly(model, batch, seed):
    return exact_normal(model, batch, draws=99, seed=seed)


print(calibrate(Ridge(), data, infer=exactly, simulations=100, draws=49, bins=10))
