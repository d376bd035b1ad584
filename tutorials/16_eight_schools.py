"""Eight schools: a funnel, what it does to a sampler, how it is told, and how it goes away."""

# %% [markdown]
# # From funnel to fix
#
# Eight schools tried a coaching programme (Rubin 1981). Each has an estimate `y` of the effect with
# a known standard error; the effects are normal around a common mean. Written down as it is
# thought, the model is *centred*: theta is drawn around mu with spread tau.

# %%
import warnings

import pyro
import torch
from pyro import distributions as dist

import pgm
import pgm.data
from pgm.inference import InferenceWarning, diagnose, mcmc, reparameterise

schools = dict(pgm.data.load("eight_schools").tensors)
warnings.simplefilter("ignore", InferenceWarning)  # `diagnose` says it all, and more


class Schools(pgm.Model):
    def model(self, n, sigma):
        mu = pyro.sample("mu", dist.Normal(torch.tensor(0.0), 5.0))
        tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(5.0)))
        with pgm.rows(n):
            theta = pyro.sample("theta", dist.Normal(mu, tau))
            pyro.sample("y", dist.Normal(theta, sigma))


centred = pgm.posterior(Schools(), schools, seed=0)
print(centred.how)
print(diagnose(centred))

# %% [markdown]
# Where tau is small all thetas must be near mu: the neck of a funnel, too narrow for the steps that
# suit its mouth. Chains bounce off it, and tau looks larger than it is. The same model with theta =
# mu + tau eta has no neck. The handler rewrites it; the program stays as it was.

# %%
fixed = pgm.posterior(reparameterise(Schools(), data=schools), schools, seed=0)
print(fixed)
print(diagnose(fixed))
for name, posterior in {"centred": centred, "non-centred": fixed}.items():
    table = posterior.summary().loc["tau"]
    small = (posterior.draws["tau"] < 0.5).double().mean()
    print(
        f"{name:<12} tau {table['mean']:.2f}, effective draws {table['ess_bulk']:.0f}, "
        f"P(tau < 0.5) {small:.3f}"
    )

# %% [markdown]
# The draws go to ArviZ with all groups, the prior among them. NUTS runs its chains one by one and
# chooses the length of each trajectory by itself.

# %%
idata = fixed.to_arviz(prior=200, seed=0)
print(*(group for group in ("posterior", "prior", "log_likelihood") if group in idata))
nuts = mcmc(
    reparameterise(Schools(), data=schools), schools, draws=100, warmup=100, chains=1, seed=0
)
print(f"NUTS {nuts.seconds:.0f} s for {nuts.size[1]} draws; ChEES {fixed.seconds:.1f} s for 16000")
