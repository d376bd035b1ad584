"""The protein-signalling cells of Sachs et al. (2005), and the networks published for them."""

from importlib.resources import files

import torch

from pgm.data.dataset import Dataset, Edges, dataset

PUBLISHED: Edges = (
    *(("PKC", child) for child in ("Mek", "Raf", "PKA", "P38", "Jnk")),
    *(("PKA", child) for child in ("Raf", "Mek", "Erk", "Akt", "P38", "Jnk")),
    ("Raf", "Mek"),
    ("Mek", "Erk"),
    ("Erk", "Akt"),
    ("Plcg", "PIP2"),
    ("Plcg", "PIP3"),
    ("PIP3", "PIP2"),
)

CONSENSUS: Edges = (
    *(("PKC", child) for child in ("Mek", "Raf", "PKA", "P38", "Jnk")),
    *(("PKA", child) for child in ("Raf", "Mek", "Erk", "Akt", "P38", "Jnk")),
    ("Raf", "Mek"),
    ("Mek", "Erk"),
    ("Erk", "Akt"),
    ("Plcg", "PIP2"),
    ("Plcg", "PKC"),
    ("PIP2", "PKC"),
    *(("PIP3", child) for child in ("PIP2", "Plcg", "Akt")),
)


@dataset(
    licence="CC0 1.0 (cmu-phil/example-causal-datasets)",
    source="K. Sachs, O. Perez, D. Pe'er, D. Lauffenburger, G. Nolan, Causal protein-signaling "
    "networks derived from multiparameter single-cell data, Science 308 (2005) 523-529",
)
def sachs() -> Dataset:
    """Levels of 11 proteins and lipids in 5400 cells, two thirds of them under interventions.

    `frame` holds ordered categoricals low < medium < high; `x` (5400, 11) the same as codes 0, 1, 2
    in int64; `clamped` (5400, 11) is True where the experiment of a row sets that protein (Mek,
    PIP2 and Akt inhibited; PKA activated; PKC inhibited in 600 cells and activated in 600). A
    clamped protein's level is the one measured, and is not always the same.

    `graph("published")`: the 17 arcs that the paper reports. `graph("consensus")`: 20 arcs
    that biologists hold to be there. The two disagree on Plcg and PIP3; neither is certain.

    Example:
        >>> import pgm.data
        >>> data = pgm.data.load("sachs")
        >>> data.frame["PKA"].value_counts(sort=False).to_dict()
        {'low': 1048, 'medium': 3760, 'high': 592}
        >>> int(data.clamped.any(-1).sum()), sorted(data.graph().predecessors("Erk"))
        (3600, ['Mek', 'PKA'])
    """
    import pandas as pd

    with (files("pgm.data") / "sachs.csv.gz").open("rb") as file:
        table = pd.read_csv(file, compression="gzip")
    target = torch.tensor(table.pop("INT").to_numpy())
    x = torch.tensor(table.to_numpy()) - 1
    dtype = pd.CategoricalDtype(["low", "medium", "high"], ordered=True)
    codes = {protein: table[protein] - 1 for protein in table}
    frame = pd.DataFrame(
        {protein: pd.Categorical.from_codes(code, dtype=dtype) for protein, code in codes.items()}
    )
    return Dataset(
        {"x": x, "clamped": target.unsqueeze(-1) == torch.arange(1, x.shape[1] + 1)},
        table=frame,
        edges={"published": PUBLISHED, "consensus": CONSENSUS},
    )
