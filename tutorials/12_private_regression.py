"""A private regression whose posterior knows of the noise, and is honest because of it."""

# %% [markdown]
# # Private Bayesian regression
#
# Five hundred people, a covariate x and an outcome y each, and the slope of y on x is wanted. All
# that a linear regression needs of the rows are three sums, of x^2, xy and y^2. They are released
# once, with Gaussian noise, and the rows are never looked at again.
#
# What then? One may take the noisy sums for the true ones: the slope comes out about right, and its
# posterior far too narrow, for it knows of five hundred people and of no noise. Or one writes down
# what happened (Bernstein & Sheldon 2019): people are drawn, summed, and noise is added.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
import pyro
import torch
from pyro import distributions as dist

import pgm
import privacy
from pgm.inference import mcmc
from privacy.mechanisms import spending

torch.set_num_threads(1)
people, epsilon, delta = 500, 1.0, 1e-5

# %% [markdown]
# ## The release
#
# x and y lie between -1 and 1; values beyond are moved there. One person changes (x^2, xy, y^2) by
# (1, 1, 1) at most, so the sensitivity in the 2-norm is the root of 3. The release is entered in
# the ledger before the noise is drawn. Here are thirty studies, each about other people, with
# slopes from the prior, so that we can count how often an interval holds the truth.

# %%
rng = np.random.default_rng(0)
studies = 30
truth = {
    "slope": rng.normal(0.0, 0.5, studies),
    "spread": 0.25 * np.exp(0.2 * rng.normal(size=studies)),
    "residual": 0.25 * np.exp(0.2 * rng.normal(size=studies)),
}
released, ledgers = [], []
for slope, spread, residual in zip(*truth.values(), strict=True):
    x = spread * rng.normal(size=people)
    y = slope * x + residual * rng.normal(size=people)
    x, y = x.clip(-1, 1), y.clip(-1, 1)
    ledgers.append(privacy.Ledger())
    spend = spending(
        "sums of x^2, xy and y^2",
        epsilon=epsilon,
        delta=delta,
        ledger=ledgers[-1],
        budget=None,
        seed=int(rng.integers(2**32)),
    )
    exact = np.array([x @ x, x @ y, y @ y])
    released.append(spend.gaussian(exact, sensitivity=math.sqrt(3.0)))
sums = torch.tensor(np.array(released))
noise = math.sqrt(3.0) * spend.sigma
print(ledgers[0])
print(f"noise of standard deviation {noise:.2f} in each sum; those of the first study: {sums[0]}")

# %% [markdown]
# ## The model
#
# With x ~ N(0, spread^2) and y ~ N(slope x, residual^2), the pair has covariance C. The sums of
# many people are normal, their mean n C, their covariance n times that of products of normals,
#
#     Cov(v_i v_j, v_k v_l) = C_ik C_jl + C_il C_jk     (Isserlis 1918),
#
# and the noise adds its own. One line says so, and it is all the difference. A row of this model is
# a study.


# %%
class Sums(pgm.Model):
    def __init__(self, people: int, noise: float) -> None:
        super().__init__()
        self.people, self.noise = people, noise

    def model(self, n):
        with pgm.rows(n):
            slope = pyro.sample("slope", dist.Normal(0.0, 0.5))
            spread = pyro.sample("spread", dist.LogNormal(math.log(0.25), 0.2))
            residual = pyro.sample("residual", dist.LogNormal(math.log(0.25), 0.2))
            pyro.sample("sums", self.law(slope, spread, residual))

    def law(self, slope, spread, residual):
        xx, xy = spread**2, slope * spread**2
        yy = slope * xy + residual**2
        row1 = torch.stack([2 * xx * xx, 2 * xx * xy, 2 * xy * xy], -1)
        row2 = torch.stack([2 * xx * xy, xx * yy + xy * xy, 2 * xy * yy], -1)
        row3 = torch.stack([2 * xy * xy, 2 * xy * yy, 2 * yy * yy], -1)
        sampling = self.people * torch.stack([row1, row2, row3], -2)
        added = self.noise**2 * torch.eye(3, dtype=xx.dtype)
        return dist.MultivariateNormal(
            self.people * torch.stack([xx, xy, yy], -1), sampling + added
        )


# %% [markdown]
# The posterior of the first study, by NUTS.

# %%
first = mcmc(Sums(people, noise), {"sums": sums[:1]}, draws=400, warmup=200, chains=1, seed=0)
print(first)
print(f"the slope was {truth['slope'][0]:.3f}")

# %% [markdown]
# ## Is it honest?
#
# An interval that is said to hold the truth nine times in ten should do so, and thirty studies can
# tell. Their posteriors share a prior, so its draws serve all of them: each is weighted by how well
# it explains a study's sums. Beside them stand the intervals of the textbook, least squares with
# its standard error, for one who takes the noisy sums for those of the people.

# %%
with pgm.seeded(0):
    draws = torch.randn(3, 100_000, dtype=torch.float64)
slope = 0.5 * draws[0].sort().values
spread, residual = 0.25 * (0.2 * draws[1:]).exp()
log_p = Sums(people, noise).law(slope, spread, residual).log_prob(sums[:, None])
weights = log_p.softmax(-1)
print(f"{(1 / weights.square().sum(-1)).min():.0f} effective draws or more for each study")
ends = torch.tensor([0.05, 0.95], dtype=torch.float64).expand(studies, 2).contiguous()
honest = slope[torch.searchsorted(weights.cumsum(-1), ends)].numpy()

xx, xy, yy = sums.T.numpy()
best = xy / xx
error = np.sqrt(np.maximum(yy / xx - best**2, 0.0) / people)
naive = np.stack([best - 1.645 * error, best + 1.645 * error], axis=1)

for name, (low, high) in (("honest", honest.T), ("naive", naive.T)):
    inside = ((low <= truth["slope"]) & (truth["slope"] <= high)).mean()
    width = (high - low).mean()
    print(f"{name:<7} holds the truth in {inside:4.0%} of studies, mean width {width:.2f}")
    assert (inside > 0.75) == (name == "honest")

# %% [markdown]
# The honest intervals are wide: that is what privacy costs five hundred people, and it is better to
# know. With five thousand the noise is the same, and the sums ten times as large.

# %%
figure, ax = plt.subplots(figsize=(7.0, 4.0), layout="constrained")
order = np.argsort(truth["slope"])
for shift, interval, colour, name in (
    (-0.15, honest, "#1f2933", "honest"),
    (0.15, naive, "#c2410c", "naive"),
):
    low, high = interval[order].T
    ax.vlines(np.arange(studies) + shift, low, high, color=colour, label=name)
ax.plot(np.arange(studies), truth["slope"][order], "_", color="black", label="truth")
ax.set(xlabel="study", ylabel="slope, 90 % interval")
ax.legend(frameon=False)
figure.savefig("regression.png", dpi=120)

# %% [markdown]
# Everything after the release is post-processing: priors may be changed, other models tried, the
# posterior drawn again, and no more is spent than the ledger says.
