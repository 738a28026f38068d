"""Nodes, with the attributes that they have under either evidence."""

from __future__ import annotations

from typing import Any

import networkx as nx

from ..dictionary import WordMaps
from ._hierarchy import DECISION


def check_graph(graph: Any) -> None:
    """Refuse what is no inference graph."""
    if not isinstance(graph, nx.DiGraph) or not len(graph) or not all("layer" in node for node in graph.nodes.values()):
        kind = f"{type(graph).__name__} of {len(graph)} nodes" if isinstance(graph, nx.Graph) else type(graph).__name__
        raise ValueError(f"An inference graph is needed, as InferenceGraph.explain returns it; got a {kind}.")


def add_decision(graph: nx.DiGraph, words: WordMaps, target: int, contrast: int | None, **attributes: Any) -> str:
    """Add the output that a graph explains, and what it is contrasted with; return its key."""
    key, against = f"{DECISION}_{target}", {}
    if contrast is not None:
        against = {"contrast": contrast, "contrast_name": words.spec.class_name(contrast)}
    name = words.spec.class_name(target)
    graph.graph |= {"root": key, "target": target, "class_name": name, **against}
    count = int((words.decisions == target).sum())
    shown = {"layer": DECISION, "word": target, "count": count, "n_locations": len(words), "class_name": name}
    graph.add_node(key, **shown, **against, **attributes, depth=0)
    return key


def add_word(graph: nx.DiGraph, words: WordMaps, layer: str, word: int, **attributes: Any) -> str:
    """Add a word; return its key."""
    key, shown = words.vocabulary.key(layer, word), words.words[layer]
    if (layer, word) in words.vocabulary.names:
        attributes = {"word_name": words.vocabulary.names[layer, word], **attributes}
    count = int((shown == word).sum())
    graph.add_node(key, layer=layer, word=word, count=count, n_locations=int(shown.size), **attributes)
    return key
