"""What does privacy cost? A variational autoencoder at several epsilons, several times each."""

# %% [markdown]
# # A private VAE and its utility against epsilon
#
# A variational autoencoder of handwritten digits, trained with a proven bound on what it can tell
# about any single digit. How much worse it is than the open one depends on epsilon, on the number
# of rows, and on luck: the noise is drawn anew each time, so that one private fit says little. Here
# are three for each epsilon.

# %%
from functools import partial

import matplotlib.pyplot as plt
import torch

import pgm
import pgm.data
import privacy
import privacy.plots
from pgm.families.vae import VAE

torch.set_num_threads(1)
digits = pgm.data.load("digits")
x, test = ((part.x >= 8).float() for part in (digits.train, digits.test))

# %% [markdown]
# The rows in black and white; a thousand of them, which is few to be private on. The score is the
# importance-weighted bound of the log density of digits that nobody trained on, in nats a digit:
# computed on these it may be published, computed on the private rows it would be as secret as they.


# %%
def vae(seed: int) -> VAE:
    with pgm.seeded(seed):
        return VAE(64, latents=4, hidden=(32,))


def score(model: pgm.Model) -> float:
    return pgm.log_prob(model, test, particles=20, seed=0).mean[0]


options = {"steps": 150, "learning_rate": 0.01}
private = partial(privacy.fit, delta=1e-4, expected_batch_size=250, ema=0.95, **options)

# %% [markdown]
# First one fit, to see what a reviewer is told. The model is checked before the first step: that
# each row's gradient is its own, that the norm is clipped, that nothing else looks at the rows.

# %%
run = private(vae(0), x, epsilon=3.0, seed=0)
print(run)

# %% [markdown]
# Two references. The open model is the best to be hoped for; pixels that know nothing of each
# other, with a fair coin for each, are what noise alone would leave.

# %%
openly = vae(0)
pgm.fit(openly, x, **options, batch_size=250, seed=0)
references = {"without privacy": score(openly), "fair coins": -64 * float(torch.tensor(2.0).log())}
print(references)

# %% [markdown]
# Now the sweep. Tuning learning rate, steps or clipping norm by such figures on private rows would
# spend privacy that nobody counted; here they are fixed beforehand.

# %%
scores: dict[float, list[float]] = {}
for epsilon in (0.3, 1.0, 3.0, 10.0):
    models = [private(vae(seed), x, epsilon=epsilon, seed=seed).model for seed in range(3)]
    scores[epsilon] = [score(model) for model in models]
    print(f"epsilon {epsilon:<4g} {'  '.join(f'{s:.2f}' for s in scores[epsilon])} nats a digit")

# %%
figure, ax = plt.subplots(figsize=(5.5, 4.0), layout="constrained")
privacy.plots.utility(scores, references=references, label="log p (nats a digit)", ax=ax)
figure.savefig("utility.png", dpi=120)
assert max(scores[0.3]) < min(scores[10.0]) < references["without privacy"]

# %% [markdown]
# A digit drawn from a private model is anyone's. So is everything else that is computed from it,
# and each answer says so: what epsilon covers is the model, and all that follows from it.

# %%
drawn = pgm.sample(run.model, 8, seed=0)
print(run.model.note)
pgm.plots.images(drawn["x"], shape=(8, 8), columns=8)
