"""From a window on every point to a model with a few numbers: six points, then two moons."""

# %% [markdown]
# # From Parzen windows to parametric densities
#
# A density estimate without a model puts a window on every point that was seen (Parzen 1962). The
# width of the window is all there is to choose. By likelihood the best width is zero: each point is
# then explained by itself. Left out of its own estimate, it is not.

# %%
import matplotlib.pyplot as plt
import torch

import pgm
import pgm.data
from pgm.families.copula import GaussianCopula
from pgm.families.dpmixture import DPMixture
from pgm.families.kde import KDE
from pgm.families.mixture import GaussianMixture

points = pgm.data.load("parzen").tensors["x"]
chosen = KDE.from_data(points)
print(f"six points: the best width is {chosen.log_bandwidth.exp().item():.4f}")

grid = torch.linspace(-10, 14, 400)[:, None]
ax = plt.subplots()[1]
for h in (0.5, 1.0, 2.0):
    height = pgm.log_prob(KDE(points, bandwidth=h), grid).value.exp()
    ax.plot(grid[:, 0], height, label=f"h = {h}")
ax.plot(grid[:, 0], pgm.log_prob(chosen, grid).value.exp(), label="chosen", color="black")
ax.plot(points[:, 0], torch.zeros(len(points)), "|", color="black", markersize=12)
ax.legend()

# %% [markdown]
# A model with few numbers says more per number, and something wrong where it does not fit. Which is
# better is a question to rows that were held out: nats a row, the higher the better, and never
# without the error of the mean. A copula takes each column as it is and makes the dependence alone
# normal; two moons are no such thing. A Dirichlet process finds out how many clusters it takes.

# %%
moons = pgm.data.load("two_moons").tensors["x"]
train, test = moons[:500], moons[500:]
models: dict[str, pgm.Model] = {
    "normal": GaussianCopula.from_data(train, marginals="normal"),
    "copula": GaussianCopula.from_data(train),
    "mixture of 2": GaussianMixture.from_data(train, 2, covariance="full", seed=0),
    "mixture of 12": GaussianMixture.from_data(train, 12, covariance="full", seed=0),
    "Dirichlet process": DPMixture.from_data(train, 40, seed=0),
    "windows": KDE.from_data(train),
}
for name, model in models.items():
    if name.startswith("mixture"):
        pgm.fit(model, train, steps=400, learning_rate=0.02, batch_size=500, seed=0)
    found = pgm.log_prob(model, test, seed=0).value
    kept = sum(x.numel() for x in (*model.parameters(), *model.buffers()))
    error = found.std() / len(found) ** 0.5
    print(f"{name:<18} {kept:>5} numbers  {found.mean():6.3f} +- {error:.3f} nats a row")

process = models["Dirichlet process"]
assert isinstance(process, DPMixture)
occupied = process.occupied(train, seed=0)
for k in (occupied > 0.05).nonzero().flatten().tolist():
    print(f"{k + 1} clusters with probability {occupied[k]:.2f}")

# %% [markdown]
# Windows are hard to beat in two dimensions with five hundred points, and they keep all of them: a
# window estimate of patients hands out their rows. A mixture does not, and answers everything else
# as well. Here half of a row is hidden, and completed by draws from what remains possible.

# %%
nan = float("nan")
half = torch.tensor([[0.0, nan]])
for name in ("copula", "mixture of 12"):
    drawn = pgm.impute(models[name], half, draws=300, seed=0).draws["x"][:, 0, 1]
    low, middle, high = (drawn.quantile(q).item() for q in (0.1, 0.5, 0.9))
    print(f"{name:<14} second coordinate given a first of 0: {low:.2f}, {middle:.2f}, {high:.2f}")
