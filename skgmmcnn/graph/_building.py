"""Networkx graphs of selections, whatever their evidence."""

from __future__ import annotations

from typing import Any

import networkx as nx

from ..dictionary import WordMaps
from ._evidence import Evidence, Selection, Word
from ._hierarchy import DECISION
from ._targets import Targets


def build_graphs(evidence: Evidence, targets: Targets, selections: list[Selection]) -> list[nx.DiGraph]:
    """Return the graphs of selections, with attributes that are plain numbers and text."""
    words, depths = evidence.words, evidence.structure.depths
    graphs = []
    for i, selection in enumerate(selections):
        rows = slice(None) if targets.together else slice(i, i + 1)
        graph: nx.DiGraph = nx.DiGraph(n_images=len(words.decisions[rows]), evidence=evidence.name, **selection.graph)
        root = targets.layer, int(targets.words[rows][0])
        _add_root(graph, words, targets, root, None if targets.contrast is None else int(targets.contrast[rows][0]))
        for word, attributes in {root: selection.root, **selection.words}.items():
            shown = _shown(words, rows, word)
            graph.add_node(_key(words, word), **shown, **attributes, depth=depths[word[0]])
        for pair, attributes in selection.pairs.items():
            if pair in selection.edges:
                graph.add_edge(*(_key(words, word) for word in pair), **attributes)
        graphs.append(graph)
    return graphs


def _add_root(graph: nx.DiGraph, words: WordMaps, targets: Targets, root: Word, contrast: int | None) -> None:
    """Describe the target in the graph and in its root."""
    key = _key(words, root)
    named: dict[str, Any] = {}
    if targets.place is not None:
        named = dict(zip(("row", "column"), targets.place, strict=True))
    if targets.layer == DECISION:
        named = {"class_name": words.spec.class_name(root[1])}
        if contrast is not None:
            named |= {"contrast": contrast, "contrast_name": words.spec.class_name(contrast)}
        graph.graph |= {"target": root[1], **named}
    graph.graph["root"] = key
    graph.add_node(key, **named)


def _key(words: WordMaps, word: Word) -> str:
    return f"{DECISION}_{word[1]}" if word[0] == DECISION else words.vocabulary.key(*word)


def _shown(words: WordMaps, rows: slice, word: Word) -> dict[str, Any]:
    """Return the identity of a word and the number of its locations; of an output, of the decisions for it."""
    layer, number = word
    shown = (words.decisions if layer == DECISION else words.words[layer])[rows]
    names = {"word_name": words.vocabulary.names[word]} if word in words.vocabulary.names else {}
    count = int((shown == number).sum())
    return {"layer": layer, "word": number, "count": count, "n_locations": int(shown.size), **names}
