"""Houses in counties: how much a county with two houses should believe them."""

# %% [markdown]
# # A hierarchical regression
#
# Radon was measured in houses of Minnesota, and in some counties in two or three of them (Gelman &
# Hill 2007, ch. 12). The measurements here are simulated on that plan, so that the truth is known:
# 85 counties of 1 to 60 houses, a level that differs by county, and a floor that takes some away.

# %%
import matplotlib.pyplot as plt
import pyro
import torch
from pyro import distributions as dist

import pgm
from pgm.inference import compare, predictive_check

g = torch.Generator().manual_seed(0)
sizes = (1 + 60 * torch.rand(85, generator=g) ** 4).long()
county = torch.repeat_interleave(torch.arange(85), sizes)
n = len(county)
floor = (torch.rand(n, generator=g) < 0.2).float()
level = 1.3 + 0.4 * torch.randn(85, generator=g)
y = level[county] - 0.7 * floor + 0.75 * torch.randn(n, generator=g)
houses = {"county": county, "floor": floor, "y": y}


class Radon(pgm.Model):
    """Counties around a common level; with `pooled` they are all alike."""

    def __init__(self, *, pooled=False):
        super().__init__()
        self.pooled = pooled

    def model(self, n, county, floor):
        zero = torch.zeros(())
        mu = pyro.sample("mu", dist.Normal(zero, 5.0))
        slope = pyro.sample("slope", dist.Normal(zero, 2.0))
        sigma = pyro.sample("sigma", dist.HalfNormal(zero + 2.0))
        at = mu
        if not self.pooled:
            tau = pyro.sample("tau", dist.HalfNormal(zero + 1.0))
            eta = pyro.sample("eta", dist.Normal(zero, 1.0).expand([85]).to_event(1))
            at = (mu + tau * eta)[county]
        with pgm.rows(n):
            pyro.sample("y", dist.Normal(at + slope * floor, sigma))


posterior = pgm.posterior(Radon(), houses, seed=0)
print(posterior.how)
print(posterior.summary().loc[["mu", "slope", "sigma", "tau"]].round(3))

# %% [markdown]
# A county's own mean is its houses alone; the model draws it towards the others, the more the fewer
# houses there are. Against the truth, which only a simulation knows, that halves the error of the
# small counties.

# %%
eta, mu, tau = (posterior.draws[name].flatten(0, 1) for name in ("eta", "mu", "tau"))
drawn = (mu[:, None] + tau[:, None] * eta).mean(0)
adjusted = y + 0.7 * floor
own = torch.stack([adjusted[county == k].mean() for k in range(85)])
for name, few in {"up to 3 houses": sizes <= 3, "more than 20": sizes > 20}.items():
    error = {
        k: (x - level)[few].square().mean().sqrt() for k, x in {"own": own, "all": drawn}.items()
    }
    print(f"{name:<15} error of own means {error['own']:.2f}, of the model {error['all']:.2f}")
ax = plt.subplots()[1]
ax.scatter(sizes, own - level, s=12, label="own mean")
ax.scatter(sizes, drawn - level, s=12, label="hierarchical")
ax.axhline(0, color="black", linewidth=0.5)
ax.set(xscale="log", xlabel="houses", ylabel="error of the level")
ax.legend()

# %% [markdown]
# Would one level for all counties do? Left-out houses say no, and by how much.

# %%
pooled = pgm.posterior(Radon(pooled=True), houses, seed=0)
print(compare({"by county": posterior, "pooled": pooled}))
print(predictive_check(posterior, seed=0))
