"""Causal graphs as functions on `nx.DiGraph`: read, checked, ordered, projected; never mutated.

An arrow A -> B says that B listens to A (Pearl 2009, Causality, sec. 1.2.3). The order of the nodes
in the graph is the order of columns and of parents everywhere.

A node that is not observed carries the attribute `latent=True`. A bidirected edge X <-> Y, an
unseen common cause, is a latent node `U(X,Y)` without parents whose children are X and Y: one form
holds DAGs with latents and acyclic directed mixed graphs (ADMGs, Richardson 2003), and
d-separation in it is m-separation in the ADMG.
"""

from causal.graph.checks import check_acyclic, check_nodes
from causal.graph.dagitty import from_dagitty, to_dagitty
from causal.graph.dot import from_dot, to_dot
from causal.graph.gml import from_gml, to_gml
from causal.graph.independences import Independence, basis, independences
from causal.graph.latent import bidirected, districts, latents, observed, project
from causal.graph.matrices import from_frame, from_matrix
from causal.graph.reading import GraphLike, as_graph
from causal.graph.separation import connected, open_path, separated, show_path
from causal.graph.separators import (
    find_separator,
    minimal_separators,
    minimum_separator,
    separators,
)
from causal.graph.structure import (
    Nodes,
    adjacency,
    ancestors,
    cut_incoming,
    cut_outgoing,
    descendants,
    order,
    parents,
    subgraph,
)
from causal.graph.text import parse, to_text

__all__ = [
    "GraphLike",
    "Independence",
    "Nodes",
    "adjacency",
    "ancestors",
    "as_graph",
    "basis",
    "bidirected",
    "check_acyclic",
    "check_nodes",
    "connected",
    "cut_incoming",
    "cut_outgoing",
    "descendants",
    "districts",
    "find_separator",
    "from_dagitty",
    "from_dot",
    "from_frame",
    "from_gml",
    "from_matrix",
    "independences",
    "latents",
    "minimal_separators",
    "minimum_separator",
    "observed",
    "open_path",
    "order",
    "parents",
    "parse",
    "project",
    "separated",
    "separators",
    "show_path",
    "subgraph",
    "to_dagitty",
    "to_dot",
    "to_gml",
    "to_text",
]
