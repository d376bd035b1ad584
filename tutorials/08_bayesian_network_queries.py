"""A Bayesian network asked everything: findings, interventions, missing cells, learned tables."""

# %% [markdown]
# # Queries of a Bayesian network
#
# The chest clinic of Lauritzen & Spiegelhalter (1988): shortness of breath (dyspnoea) may come from
# tuberculosis, lung cancer or bronchitis; a visit to Asia makes the first more likely, smoking the
# other two. Neither an X-ray nor dyspnoea tells lung cancer from tuberculosis.

# %%
import time

import matplotlib.pyplot as plt
import torch

import causal
import pgm
from pgm.families.bayesnet import DiscreteBayesNet, asia, estimate

net = asia()
causal.draw_graph(net.graph)
print(net.marginals())

# %% [markdown]
# A patient with both findings. Every probability is exact: tables are summed out one variable after
# the other, and all marginals come from one pass back through the sums.

# %%
findings = {"xray": "yes", "dysp": "yes"}
print(net.marginals(findings))
state, log_p = net.most_probable(findings)
print(net.schema.decode(state).T.to_string(header=False))
print(f"the most probable state of all has probability {log_p.exp().item():.4f}")

# %% [markdown]
# Explaining away: once tuberculosis is known, the X-ray speaks less of cancer.

# %%
for tub in ("yes", "no"):
    p = net.marginals(findings | {"tub": tub}).of("lung", "yes")
    print(f"tuberculosis {tub:<3}: P(lung cancer) = {p.item():.3f}")

# %% [markdown]
# Seeing is not doing. A patient seen with tuberculosis has more likely been in Asia; to infect one
# changes nobody's past.

# %%
seen = net.marginals({"tub": "yes"}).of("asia", "yes")
done = net.marginals(do={"tub": "yes"}).of("asia", "yes")
print(f"P(asia | tub) = {seen.item():.4f}, P(asia | do(tub)) = {done.item():.4f}")
for smoke in ("yes", "no"):
    p = net.marginals(do={"smoke": smoke}).of("dysp", "yes")
    print(f"P(dysp | do(smoke={smoke})) = {p.item():.4f}")

# %% [markdown]
# A thousand patients, each with other cells missing, are one question and not a thousand.

# %%
cells = net.schema.decode(pgm.sample(net, 1000, seed=0))
hidden = torch.rand(cells.shape, generator=torch.Generator().manual_seed(0)) < 0.4
holes = cells.mask(hidden.numpy())
start = time.perf_counter()
found = net.marginals(holes)
print(f"{len(found)} rows, all marginals: {1e3 * (time.perf_counter() - start):.0f} ms")
print(pgm.log_prob(net, holes))

# %% [markdown]
# Are the probabilities right? Of the patients whose hidden bronchitis was given about 60 %, about
# 60 % had it.

# %%
i = cells.columns.get_loc("bronc")
p = found.of("bronc", "yes")[hidden[:, i]]
had = torch.tensor((cells["bronc"] == "yes").to_numpy())[hidden[:, i]].double()
bins = (5 * p).long().clamp(max=4)
means = [(p[bins == b].mean(), had[bins == b].mean()) for b in range(5) if (bins == b).any()]
fig, ax = plt.subplots(figsize=(4, 4))
ax.plot([0, 1], [0, 1], color="0.7")
ax.plot(*zip(*means, strict=True), "o")
ax.set(xlabel="probability of bronchitis", ylabel="share who had it", xlim=(0, 1), ylim=(0, 1))

# %% [markdown]
# Tables from rows with holes. Rows without a hole are few; EM uses all of them.

# %%
whole = holes.dropna()
names = {name: list(states) for name, states in net.states.items()}
for label, rows in (("complete rows", whole), ("all rows, by EM", holes)):
    learned = DiscreteBayesNet(net.parents, names)
    how = estimate(learned, rows)
    off = {
        name: (learned.tables[name] - table).abs().max().item()
        for name, table in net.tables.items()
    }
    print(f"{label:<16} {len(rows):>4} rows: P(bronc | smoke) off by {off['bronc']:.3f}; {how}")

# %% [markdown]
# Completions drawn from the exact joint posterior of each row keep what belongs together, and their
# spread is the uncertainty of what was not seen (Rubin 1987).

# %%
done = pgm.impute(net, holes, draws=20, seed=0)
print(done)
shares = (done.draws["bronc"] == 0).double().mean(-1)
print(
    f"bronchitis: {shares.mean():.3f} over completions, {(cells['bronc'] == 'yes').mean():.3f} true"
)

# %% [markdown]
# The network is a Pyro program like every other model: `causal.do` intervenes on it, `pgm.fit` and
# `privacy.fit` train it, and `net.to_bif(path)` writes it for other tools.

# %%
world = causal.do(net, smoke="no")
drawn = pgm.sample(world, 20000, seed=0)
print(f"P(dysp | do(smoke=no)), by draws: {(drawn['dysp'] == 0).double().mean():.3f}")
