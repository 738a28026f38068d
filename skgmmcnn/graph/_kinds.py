"""The kinds of evidence: a new one is a subclass of `Evidence`, with its `Wording`, and an entry here."""

from __future__ import annotations

from typing import Any

import networkx as nx

from ._counts import CountEvidence
from ._evidence import Evidence, Strength
from ._influence import InfluenceEvidence
from ._wording import Wording

KINDS: dict[str, type[Evidence]] = {kind.name: kind for kind in (InfluenceEvidence, CountEvidence)}


def kind_of(graph: nx.DiGraph) -> type[Evidence]:
    """Return the kind of evidence of a graph."""
    return KINDS[graph.graph.get("evidence", CountEvidence.name)]


def strength_of(graph: nx.DiGraph) -> Strength:
    """Return the names of the attributes that hold the evidence of a graph."""
    return kind_of(graph).strength


def wording_of(graph: nx.DiGraph) -> Wording:
    """Return the texts about a graph."""
    kind = kind_of(graph)
    return kind.wording(graph, kind.strength)


def check_graph(graph: Any) -> None:
    """Raise ValueError for anything but an inference graph."""
    if not isinstance(graph, nx.DiGraph) or not len(graph) or not all("layer" in node for node in graph.nodes.values()):
        kind = f"{type(graph).__name__} of {len(graph)} nodes" if isinstance(graph, nx.Graph) else type(graph).__name__
        raise ValueError(f"An inference graph is needed, as InferenceGraph.explain returns it; got a {kind}.")
