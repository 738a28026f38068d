"""Networkx graphs of selections, for all kinds of evidence."""

from __future__ import annotations

from typing import Any

import networkx as nx

from ..dictionary import WordMaps
from ._evidence import Evidence, Selection, Word
from ._hierarchy import DECISION
from ._targets import Targets


def build_graphs(evidence: Evidence, targets: Targets, selections: list[Selection]) -> list[nx.DiGraph]:
    """Return the graphs of selections, with attributes that are plain numbers and text."""
    rows = [slice(None)] if targets.together else [slice(i, i + 1) for i in range(len(selections))]
    return [_build(evidence, targets, *pair) for pair in zip(selections, rows, strict=True)]


def _build(evidence: Evidence, targets: Targets, selection: Selection, rows: slice) -> nx.DiGraph:
    words, depths = evidence.words, evidence.hierarchy.depths
    root = targets.layer, int(targets.words[rows][0])
    n_images = len(words.decisions[rows])
    graph: nx.DiGraph = nx.DiGraph(n_images=n_images, evidence=evidence.name, **selection.graph, root=_key(words, root))
    _add_root(graph, words, targets, rows)
    for word, attributes in {root: selection.root, **selection.words}.items():
        graph.add_node(_key(words, word), **_identity(words, rows, word), **attributes, depth=depths[word[0]])
    for (lower, upper), attributes in selection.pairs.items():
        if (lower, upper) in selection.edges:
            graph.add_edge(_key(words, lower), _key(words, upper), **attributes)
    return graph


def _add_root(graph: nx.DiGraph, words: WordMaps, targets: Targets, rows: slice) -> None:
    """Describe the target in the root and, if it is an output, in the graph."""
    attributes: dict[str, Any] = {}
    if targets.place is not None:
        attributes["row"], attributes["column"] = targets.place
    if targets.layer == DECISION:
        output = int(targets.words[rows][0])
        attributes["class_name"] = words.spec.class_name(output)
        if targets.contrast is not None:
            contrast = int(targets.contrast[rows][0])
            attributes |= {"contrast": contrast, "contrast_name": words.spec.class_name(contrast)}
        graph.graph |= {"target": output, **attributes}
    graph.add_node(graph.graph["root"], **attributes)


def _key(words: WordMaps, word: Word) -> str:
    return f"{DECISION}_{word[1]}" if word[0] == DECISION else words.vocabulary.key(*word)


def _identity(words: WordMaps, rows: slice, word: Word) -> dict[str, Any]:
    """Return layer, number and name of a word, with its number of locations; for an output, of decisions."""
    layer, number = word
    maps = (words.decisions if layer == DECISION else words.words[layer])[rows]
    identity = {"layer": layer, "word": number, "count": int((maps == number).sum()), "n_locations": int(maps.size)}
    if word in words.vocabulary.names:
        identity["word_name"] = words.vocabulary.names[word]
    return identity
