"""Does it keep its promise? Audits of private training, and attacks on what it publishes."""

# %% [markdown]
# # Auditing a private fit
#
# `privacy.fit` proves a bound from above: no attacker can do better than epsilon. The proof is
# about a mechanism, and the program may be another one: noise that was forgotten, divided twice, or
# clipped too late runs without an error and learns better than it should. An audit comes from
# below. It attacks the program as it is, and what it achieves is a bound that cannot be argued
# with: if it lies above epsilon, the program is broken.
#
# An audit sees the rows and the steps without any noise of its own, so its numbers are as secret as
# the rows. Everything here is audited on made-up rows.

# %%
from unittest.mock import patch

import matplotlib.pyplot as plt
import pyro
import torch
from pyro import distributions as dist
from torch import nn

import pgm
import privacy
from pgm.families.mixture import GaussianMixture
from privacy.optimiser import PrivateOptimiser

# %% [markdown]
# ## One step, again and again
#
# A mean, trained privately. The auditor hides a canary among the rows: a patient so extreme that
# his gradient is clipped, which is the worst a row can do. He makes the same private step many
# times with the canary and many times without, looks at the noisy gradient along the canary's, and
# asks how well the two can be told apart.


# %%
class Mean(pgm.Model):
    def __init__(self, features: int = 1) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.zeros(features))

    def model(self, n):
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mu, 1.0).to_event(1))


rows, canary = torch.zeros(30, 1), torch.full((1, 1), 100.0)
promise = {"epsilon": 6.0, "delta": 1e-5, "steps": 1, "rate": 1.0}
sound = privacy.audit_steps(Mean(), rows, canary, repetitions=1500, seed=0, **promise)
print(sound)
assert not sound.broken

# %% [markdown]
# Two bounds. The first makes no assumption about the mechanism, and is weak: to show an epsilon of
# 6, something must happen 400 times as often with the canary as without. The second knows that the
# noise is Gaussian, and comes near the claim.
#
# Now the bug that everybody makes once: the noise is added to the mean of the lot as if it were
# added to the sum, and so is too small by the size of the lot. Nothing looks wrong. The loss is
# better.


# %%
def noise_over_the_lot(self):
    for p in self.params:
        sigma = self.noise_multiplier * self.max_grad_norm / self.expected_batch_size
        p.grad = p.summed_grad + sigma * torch.randn_like(p)
        p.summed_grad = None


def planted():
    return patch.object(PrivateOptimiser, "add_noise", noise_over_the_lot)


with planted():
    broken = privacy.audit_steps(Mean(), rows, canary, repetitions=200, seed=0, **promise)
print(broken)
assert broken.broken

# %% [markdown]
# ## A whole fit, in one run
#
# Repeating is dear for a model that takes a day to train. One run is enough if it has many
# canaries, each in or out by the toss of a coin: whoever guesses more of the coins than epsilon
# allows has refuted it. Here is a logistic regression on a hundred covariates; each canary answers
# against an unusual covariate of its own.


# %%
class Logistic(pgm.Model):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(features))

    def model(self, n, x):
        with pgm.rows(n):
            pyro.sample("y", dist.Bernoulli(logits=x @ self.w))


with pgm.seeded(0):
    x = 0.1 * torch.randn(200, 100)
patients = {"x": x, "y": (x[:, 0] > 0).float()}
canaries = {"x": 20.0 * torch.eye(100), "y": torch.ones(100)}
fit = {"epsilon": 3.0, "delta": 1e-5, "steps": 10, "rate": 1.0, "seed": 1}
whole = privacy.audit_training(Logistic(100), canaries, data=patients, **fit)
print(whole)
assert not whole.broken

with planted():
    caught = privacy.audit_training(Logistic(100), canaries, data=patients, **fit)
print(caught)
assert caught.broken

# %% [markdown]
# In one run the sound mechanism is bounded at a third of its epsilon: a hundred coins are few. The
# broken one is refuted all the same.
#
# ## What an outsider sees
#
# The auditors above watch every step. An outsider has the published model alone, and asks of a
# record: was this one among the rows? First a mixture with too many components for its sixty rows,
# fitted openly. Some rows are common, some rare.

# %%
with pgm.seeded(2):
    people, strangers = torch.randn(2, 60, 4) * torch.linspace(0.3, 3.0, 60)[:, None]


def mixture(rows, seed):
    with pgm.seeded(seed):
        model = GaussianMixture(4, 10, floor=0.3)
    pgm.fit(model, rows, steps=100, learning_rate=0.1, seed=seed)
    return model


loss = privacy.loss_attack(mixture({"x": people}, 0), people, strangers)
print(loss)
assert loss.auc.lower > 0.5

# %% [markdown]
# The loss alone takes common rows for members. The strongest attack known compares a row with
# itself: it trains models of its own, with the row and without it, and asks which of the two laws
# the published model's answer comes from.

# %%
everybody = torch.cat([people, strangers])
lira = privacy.lira(mixture, everybody, shadows=24, targets=2, seed=0)
print(lira)
assert lira.auc.lower > loss.auc.value

# %% [markdown]
# The same model with privacy. Beside what was found stands what epsilon allows, to any attack,
# whoever thinks of it.

# %%
with pgm.seeded(0):
    model = GaussianMixture(4, 10, floor=0.3)
run = privacy.fit(
    model, people, epsilon=1.0, delta=1e-3, steps=30, rate=0.5, learning_rate=0.05, seed=0
)
hidden = privacy.loss_attack(model, people, strangers, promise=(run.epsilon, run.delta))
print(hidden)
assert all(hidden.kept(fpr) for fpr in (0.02, 0.1))

# %% [markdown]
# Averages hide what matters: a handful of people found beyond doubt is a breach. So the curve is
# drawn on logarithmic axes, where the small false-positive rates show.

# %%
figure, ax = plt.subplots(figsize=(5.0, 4.5), layout="constrained")
for attack in (lira, loss, hidden):
    attack.plot(ax=ax)
figure.savefig("roc.png", dpi=120)
