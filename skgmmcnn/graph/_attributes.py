"""Attributes that nodes have under either evidence."""

from __future__ import annotations

from typing import Any

import networkx as nx

from ..dictionary import WordMaps
from ._hierarchy import DECISION


def check_graph(graph: Any, *told: str) -> None:
    """Refuse what is no inference graph: of other makers, without nodes, or without what graphs tell of themselves."""
    known = isinstance(graph, nx.DiGraph) and len(graph) and all("layer" in node for node in graph.nodes.values())
    if not known or any(name not in graph.graph for name in told):
        kind = f"{type(graph).__name__} of {len(graph)} nodes" if isinstance(graph, nx.Graph) else type(graph).__name__
        raise ValueError(f"An inference graph is needed, as InferenceGraph.explain returns it; got a {kind}.")


def decision_attributes(words: WordMaps, target: int) -> dict[str, Any]:
    """Return what a node of an output has."""
    return {
        "layer": DECISION,
        "word": target,
        "count": int((words.decisions == target).sum()),
        "n_locations": len(words),
        "class_name": words.spec.class_name(target),
    }


def word_attributes(words: WordMaps, layer: str, word: int) -> dict[str, Any]:
    """Return what a node of a word has."""
    shown = words.words[layer]
    attributes = {
        "layer": layer,
        "word": word,
        "count": int((shown == word).sum()),
        "n_locations": int(shown.size),
    }
    if (layer, word) in words.vocabulary.names:
        attributes["word_name"] = words.vocabulary.names[layer, word]
    return attributes
