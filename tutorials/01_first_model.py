"""A first model: two programs over rows, and everything that is asked of them."""

# %% [markdown]
# # A first model
#
# A factor model of blood tests, written by hand: two Pyro programs over rows. From them come
# training, densities, imputation, anomaly scores, an intervention and a private fit.

# %%
import pyro
import torch
from pyro import distributions as dist
from torch import nn

import causal
import pgm
import privacy

# %% [markdown]
# The data: four measurements driven by one hidden state, for 1000 patients. Every tenth cell of the
# last column was never measured.

# %%
with pgm.seeded(0):
    state = torch.randn(1000, 1)
    loading = torch.tensor([[1.0, -0.5, 0.8, 2.0]])
    tests = state @ loading + 0.3 * torch.randn(1000, 4)
    truth = tests.clone()
    tests[::10, 3] = torch.nan

# %% [markdown]
# The model. `model` is the joint program: no data argument, no `obs=`. `guide` proposes the latent
# site and takes what it wants to look at by name; a missing cell reaches it as zero.


# %%
class BloodTests(pgm.Model):
    def __init__(self) -> None:
        super().__init__()
        self.decoder, self.encoder = nn.Linear(1, 4), nn.Linear(4, 2)
        self.log_noise = nn.Parameter(torch.zeros(4))

    def model(self, n):
        with pgm.rows(n):
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.decoder(z), self.log_noise.exp()).to_event(1))

    def guide(self, n, x):
        mu, log_sigma = self.encoder(x).chunk(2, -1)
        with pgm.rows(n):
            pyro.sample("z", dist.Normal(mu, log_sigma.exp()).to_event(1))


# %% [markdown]
# `check` runs both programs once and explains what is wrong with them; `fit` calls it, too.

# %%
model = BloodTests()
print(pgm.check(model, tests))
run = pgm.fit(model, tests, epochs=60, learning_rate=0.02, validation=0.1, patience=10, seed=0)
print(run)
assert run.loss < run.steps[0].loss

# %% [markdown]
# Densities come with their kind. This one is a bound: the latent was drawn, not integrated.

# %%
density = pgm.log_prob(model, truth[:200], particles=200, seed=0)
print(density)
assert density.kind == "bound"

# %% [markdown]
# Missing cells, completed several times over: the spread of the draws is what is not known.

# %%
hidden = tests[::10][:50]
completed = pgm.impute(model, hidden, draws=20, particles=500, seed=0)
print(completed)
error = (completed.draws["x"].mean(0)[:, 3] - truth[::10][:50, 3]).square().mean().sqrt()
print(f"error of the mean completion: {error:.2f} (spread of the column: {truth[:, 3].std():.2f})")
assert error < 0.5 * truth[:, 3].std()

# %% [markdown]
# The strangest patient is the one whose measurements contradict each other.

# %%
odd = torch.cat([truth[:20], torch.tensor([[3.0, 3.0, -3.0, 3.0]])])
scores = pgm.surprise(model, odd, seed=0)
print(f"strangest row: {int(scores.argmax())} of {len(odd)}")
assert int(scores.argmax()) == 20

# %% [markdown]
# An intervention is a model again, so that every verb takes it. Setting the latent state moves the
# measurements by the loading.

# %%
shifted = pgm.sample(causal.do(model, z=torch.tensor([1.0])), 2000, seed=0)["x"].mean(0)
usual = pgm.sample(causal.do(model, z=torch.tensor([0.0])), 2000, seed=0)["x"].mean(0)
print("effect of the state:", [round(v, 1) for v in (shifted - usual).tolist()])

# %% [markdown]
# The same model, trained so that no single patient can be told from the result.

# %%
private = privacy.fit(
    BloodTests(), truth, epsilon=3.0, delta=1e-5, steps=150, learning_rate=0.03, seed=0
)
print(private.report)
print(pgm.log_prob(private.model, truth[:200], seed=0))
