"""How strong the nodes and edges of a graph are, whatever its evidence: the one place that knows their attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx


@dataclass(frozen=True)
class Strength:
    """Which attributes tell it.

    Parameters
    ----------
    unit : str
        Of all of them.
    node, root : str
        What a word has, and what is explained.
    edge : str
        What an edge is drawn by.
    total : str
        What an edge is ranked by.
    compared : str
        What edges of two graphs are compared by.
    comparable : bool
        Whether edges of different rows can be compared.
    """

    unit: str
    node: str
    root: str
    edge: str
    total: str
    compared: str
    comparable: bool

    def of_node(self, node: Mapping[str, Any]) -> float:
        """Return the strength of a node, negative where it speaks against what is explained."""
        return node[self.node] if self.node in node else node[self.root]

    def of_edge(self, edge: Mapping[str, Any]) -> float:
        """Return the strength of an edge, negative where it works against what is explained."""
        return edge[self.edge]

    def rank(self, edge: Mapping[str, Any]) -> float:
        """Return what edges are sorted by, the largest first."""
        return abs(edge[self.total])


STRENGTHS = {
    "counts": Strength("bits", "score", "score", "log_ratio", "contribution", "contribution", comparable=False),
    "influence": Strength("nats", "influence", "margin", "effect", "effect", "flow", comparable=True),
}


def evidence_of(graph: nx.DiGraph) -> str:
    """Return the evidence that a graph shows, ``"counts"`` or ``"influence"``."""
    return graph.graph.get("evidence", "counts")


def strength_of(graph: nx.DiGraph) -> Strength:
    """Return how strong the nodes and edges of a graph are."""
    return STRENGTHS[evidence_of(graph)]
