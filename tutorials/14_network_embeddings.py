"""Networks as data: where the members of a club and the characters of a novel stand."""

# %% [markdown]
# # Node embeddings with uncertainty
#
# In 1977 Wayne Zachary wrote down who saw whom outside a karate club that was about to split. A row
# of the data is a *dyad*, a pair of members, and says whether there is an edge. The latent space
# model (Hoff, Raftery & Handcock 2002) gives every member a position; the nearer, the likelier.

# %%
import networkx as nx
from sklearn.metrics import roc_auc_score

import pgm
from pgm.dyads import dyads, hold_out
from pgm.families.graph_autoencoder import GraphAutoencoder
from pgm.families.latent_space import LatentSpace

club = nx.karate_club_graph()
options = {"learning_rate": 0.05, "schedule": "cosine", "batch_size": 561, "seed": 0}
model = LatentSpace.of(club)
pgm.fit(model, dyads(club), steps=800, **options)
where = model.embedding(seed=0)
print(where)

# %% [markdown]
# The colours are the sides on which members ended up, which the model never saw. An ellipse is one
# posterior standard deviation: members with few edges could be in many places.

# %%
sides = [club.nodes[i]["club"] == "Officer" for i in club]
ax = where.plot(club, colour=["tab:orange" if side else "tab:blue" for side in sides])

# %% [markdown]
# Does a position say more than the edges it was made from? Some of the edges between the characters
# of Les Misérables are set aside, with as many pairs without one. A variational graph autoencoder
# (Kipf & Welling 2016) is asked the same.

# %%
novel = nx.les_miserables_graph()
rest, train, test = hold_out(novel, 0.1, seed=0)
options["batch_size"] = len(train["y"])
models = {"latent space": LatentSpace.of(rest), "graph autoencoder": GraphAutoencoder.of(rest, 8)}
for name, each in models.items():
    pgm.fit(each, train, steps=500, **options)
    found = each.probabilities(test["pair"], seed=0)
    area = roc_auc_score(test["y"], found)
    print(f"{name:<18} area under the curve on {len(test['y'])} dyads: {area:.2f}")

# %% [markdown]
# Two dozen edges set aside say little of which is better: the area has a standard error of some
# .05. What remains is who would probably be linked, were the novel longer.

# %%
cast = list(rest)
chance = models["latent space"].probabilities(test["pair"], seed=0)
for k in chance.argsort(descending=True)[:5].tolist():
    i, j = test["pair"][k].tolist()
    print(f"{cast[i]} and {cast[j]}: {chance[k]:.2f}, edge: {bool(test['y'][k])}")

# %% [markdown]
# The unit of privacy is the dyad: `privacy.fit(LatentSpace(n), dyads(graph), ...)` hides whether
# any one pair is linked. A model that starts from the graph's own distances (`LatentSpace.of`), or
# whose encoder looks at its edges, keeps data in itself and is refused.
