"""The strongest part of a graph that is too large to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

import networkx as nx

from ..graph import strength_of

Item = TypeVar("Item")


def prune(graph: nx.DiGraph, max_nodes: int, max_edges: int) -> nx.DiGraph:
    """Return the strongest nodes of a graph, balanced over layers, and edges, balanced over their tails."""
    root, of = graph.graph["root"], strength_of(graph)
    nodes = _first(
        (key for key in graph if key != root),
        max_nodes - 1,
        group=lambda key: graph.nodes[key]["layer"],
        strength=lambda key: abs(of.of_node(graph.nodes[key])),
    )
    part = graph.subgraph([root, *nodes])
    edges = _first(part.edges, max_edges, group=lambda edge: edge[0], strength=lambda edge: of.rank(part.edges[edge]))
    kept = nx.DiGraph(**graph.graph)
    kept.add_nodes_from((key, node) for key, node in graph.nodes.items() if key in part)
    kept.add_edges_from((*edge, part.edges[edge]) for edge in part.edges if edge in edges)
    return kept


def _first(
    items: Iterable[Item], most: int, *, group: Callable[[Item], Hashable], strength: Callable[[Item], float]
) -> set[Item]:
    """Return at most `most` items: the strongest of every group, then the second of every group, and so on."""
    ranks: dict[Hashable, int] = {}
    turns = []
    for item in sorted(items, key=strength, reverse=True):
        rank = ranks[group(item)] = ranks.get(group(item), -1) + 1
        turns.append((rank, item))
    return {item for _, item in sorted(turns, key=lambda turn: turn[0])[:most]}
