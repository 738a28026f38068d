"""From a walk to a graph, and from a graph to text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import networkx as nx
import numpy as np

from ..dictionary import WordMaps
from ._evidence import DECISION, NO_EVIDENCE, Step


def build_graph(
    words: WordMaps, target: int, steps: list[Step], ratios: Mapping[tuple[str, str], np.ndarray], n_fitted: int
) -> nx.DiGraph:
    """Return the words that a walk selected and the evidence between them.

    Edges lead from a lower word to the word that it explains.  An edge is left out where its log-ratio is not
    positive, or where the lower word is nowhere in the upper word's fields over these images; scores are full sums all
    the same.  `n_fitted` is the number of fitted images with this decision.  All attributes are plain.
    """
    graph: nx.DiGraph = nx.DiGraph(target=target, class_name=words.spec.class_name(target), n_images=len(words))
    graph.add_node(f"{DECISION}_{target}", **_decision_attributes(words, target, steps[0]), n_fitted=n_fitted)
    upper = DECISION
    for step in steps:
        for word in step.selected.tolist():
            graph.add_node(words.vocabulary.key(step.layer, word), **_word_attributes(words, step, word))
        _add_edges(graph, words, upper, step, ratios[upper, step.layer])
        upper = step.layer
    return graph


def _decision_attributes(words: WordMaps, target: int, top: Step) -> dict[str, Any]:
    return {
        "layer": DECISION,
        "word": target,
        "score": float(top.scores.sum()),
        "count": int((words.decisions == target).sum()),
        "n_locations": len(words),
        "class_name": words.spec.class_name(target),
    }


def _word_attributes(words: WordMaps, step: Step, word: int) -> dict[str, Any]:
    shown = words.words[step.layer]
    attributes = {
        "layer": step.layer,
        "word": word,
        "score": float(step.scores[word]),
        "count": int((shown == word).sum()),
        "n_locations": int(shown.size),
    }
    if (step.layer, word) in words.vocabulary.names:
        attributes["word_name"] = words.vocabulary.names[step.layer, word]
    return attributes


def _add_edges(graph: nx.DiGraph, words: WordMaps, upper: str, step: Step, ratios: np.ndarray) -> None:
    total = step.counts.sum(1)
    for row, s in enumerate(step.above.tolist()):
        head = f"{DECISION}_{s}" if upper == DECISION else words.vocabulary.key(upper, s)
        for t in step.selected.tolist():
            ratio, count = float(ratios[s, t]), int(step.counts[row, t])
            if ratio > NO_EVIDENCE and count > 0:
                graph.add_edge(
                    words.vocabulary.key(step.layer, t),
                    head,
                    log_ratio=ratio,
                    count=count,
                    frequency=count / int(total[row]),
                    contribution=ratio * count,
                )


def percent(share: float) -> str:
    """Return a share as text."""
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"


def to_text(graph: nx.DiGraph) -> str:
    """Return an inference graph as text, layer by layer from the decision down.

    Parameters
    ----------
    graph : networkx.DiGraph
        As made by :class:`InferenceGraph`.

    Returns
    -------
    text : str
        For each word the locations that show it and its evidence in bits; for each word that it explains the bits per
        location and the share of that word's receptive fields.

    Examples
    --------
    >>> import networkx as nx
    >>> from skgmmcnn.graph import to_text
    >>> graph = nx.DiGraph(n_images=1)
    >>> graph.add_node("decision_7", layer="decision", word=7, score=9.0, count=1, n_locations=1, n_fitted=40,
    ...                class_name="seven")
    >>> graph.add_node("conv_w003", layer="conv", word=3, score=9.0, count=6, n_locations=16)
    >>> graph.add_edge("conv_w003", "decision_7", log_ratio=1.5, count=6, frequency=0.375, contribution=9.0)
    >>> print(to_text(graph))
    decision_7 seven: the decision for 1 of 1 images, 9.0 bits, learnt from 40 images
    conv
      conv_w003: 6 of 16 locations, 9.0 bits
        for decision_7: 1.50 bits each, 38 % of its field
    """
    lines, layer = [], None
    for key, node in graph.nodes(data=True):
        if node["layer"] == DECISION:
            shown = f"the decision for {node['count']} of {node['n_locations']} images, {node['score']:.1f} bits"
            lines.append(f"{key} {node['class_name']}: {shown}, learnt from {node['n_fitted']} images")
            continue
        if node["layer"] != layer:
            layer = node["layer"]
            lines.append(layer)
        name = f" {node['word_name']}" if "word_name" in node else ""
        lines.append(f"  {key}{name}: {node['count']} of {node['n_locations']} locations, {node['score']:.1f} bits")
        lines += [
            f"    for {head}: {edge['log_ratio']:.2f} bits each, {percent(edge['frequency'])} of its field"
            for _, head, edge in graph.out_edges(key, data=True)
        ]
    return "\n".join(lines)
