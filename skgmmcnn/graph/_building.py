"""From a walk to a graph, and from a graph to text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import networkx as nx
import numpy as np

from ..dictionary import WordMaps
from ._attributes import decision_attributes, word_attributes
from ._coverage import FEW_FITTED
from ._evidence import NO_EVIDENCE
from ._hierarchy import DECISION, Hierarchy
from ._walk import Above, Link, Step

MOST_CHANCE = 0.05  # q-values above are called chance
LEAST_KEPT = 0.5  # share of resamples; what fewer keep is called seldom kept


def build_graph(
    words: WordMaps, structure: Hierarchy, start: Above, steps: list[Step], class_counts: np.ndarray
) -> nx.DiGraph:
    """Return the words that a walk selected and the evidence between them.

    Edges lead from a lower word to the word that it explains.  An edge is left out where its log-ratio is not
    positive, or where the lower word is nowhere in the upper word's fields over these images; scores are full sums all
    the same.  All attributes are plain.
    """
    graph: nx.DiGraph = nx.DiGraph(n_images=len(words), evidence="counts")
    depths = structure.depths()
    _add_root(graph, words, start, steps, class_counts)
    graph.nodes[graph.graph["root"]]["depth"] = depths[start.layer]
    for step in steps:
        for word in step.selected.tolist():
            score = float(step.scores[word])
            key = words.vocabulary.key(step.layer, word)
            graph.add_node(key, **word_attributes(words, step.layer, word), score=score, depth=depths[step.layer])
        for link in step.links:
            _add_edges(graph, words, step, link)
    return graph


def _add_root(graph: nx.DiGraph, words: WordMaps, start: Above, steps: list[Step], class_counts: np.ndarray) -> None:
    score = sum(float(step.scores.sum()) for step in steps if any(link.above is start for link in step.links))
    attributes: dict[str, Any] = {"score": float(score)}
    word = int(start.words[0])
    if start.layer != DECISION:
        key = words.vocabulary.key(start.layer, word)
        if start.where is not None:
            attributes["row"], attributes["column"] = (int(place[0]) for place in np.nonzero(start.where))
        graph.add_node(key, **word_attributes(words, start.layer, word), **attributes)
    else:
        key = f"{DECISION}_{word}"
        graph.graph |= {"target": word, "class_name": words.spec.class_name(word)}
        if start.against is not None:
            against = {"contrast": start.against, "contrast_name": words.spec.class_name(start.against)}
            graph.graph |= against
            attributes |= against
        graph.add_node(key, **decision_attributes(words, word), **attributes, n_fitted=int(class_counts[word]))
    graph.graph["root"] = key


def _add_edges(graph: nx.DiGraph, words: WordMaps, step: Step, link: Link) -> None:
    above = link.above
    for row, s in enumerate(above.words.tolist()):
        total = int(link.counts[row].sum())
        head = f"{DECISION}_{s}" if above.layer == DECISION else words.vocabulary.key(above.layer, s)
        for t in step.selected.tolist():
            ratio, count = float(link.ratios[row, t]), int(link.counts[row, t])
            if ratio > NO_EVIDENCE and count > 0:
                graph.add_edge(
                    words.vocabulary.key(step.layer, t),
                    head,
                    log_ratio=ratio,
                    count=count,
                    frequency=count / total,
                    contribution=ratio * count,
                )


def could_be_chance(edge: Mapping[str, Any]) -> bool:
    """Tell whether an edge was tested and could be chance."""
    return edge.get("q_value", 0) > MOST_CHANCE


def seldom_kept(edge: Mapping[str, Any]) -> bool:
    """Tell whether there are resamples, and most of them do not keep an edge."""
    return edge.get("selected", 1) < LEAST_KEPT


def learnt_from_few(node: Mapping[str, Any]) -> bool:
    """Tell whether few of the fitted images have the decision of this node."""
    return node["n_fitted"] < FEW_FITTED


def learnt_from(node: Mapping[str, Any]) -> str:
    """Return as text how many of the fitted images have the decision of this node."""
    return f"learnt from {node['n_fitted']} image{'s' if node['n_fitted'] != 1 else ''}"


def why_no_word(graph: nx.DiGraph) -> str:
    """Return as text why a graph is its root alone."""
    root = graph.nodes[graph.graph["root"]]
    if root.get("n_fitted") == 0:
        return f"No fitted image was decided so: fit images that the network calls {root['class_name']}."
    return "No word speaks for it: none has enough evidence."


def percent(share: float) -> str:
    """Return a share as text."""
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"


def to_text(graph: nx.DiGraph) -> str:
    """Return an inference graph as text, layer by layer from the top down.

    Parameters
    ----------
    graph : networkx.DiGraph
        As made by :class:`InferenceGraph`.

    Returns
    -------
    text : str
        For each word the locations that show it and its evidence in bits; for each word that it explains the bits per
        location and the share of that word's receptive fields.  With resamples, also the interval of the bits and the
        share of resamples that select the word; with p-values, what could be chance.

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
            lines.append(f"{key} {_decision_text(node)}")
            continue
        if node["layer"] != layer:
            layer = node["layer"]
            lines.append(layer)
        name = f" {node['word_name']}" if "word_name" in node else ""
        where = f", here at row {node['row']}, column {node['column']}" if "row" in node else ""
        evidence = f"{node['count']} of {node['n_locations']} locations{where}, {node['score']:.1f} bits"
        kept = f", kept by {percent(node['selected'])} of resamples" if "selected" in node else ""
        lines.append(f"  {key}{name}: {evidence}{kept}")
        lines += [f"    for {head}: {_edge_text(edge)}" for _, head, edge in graph.out_edges(key, data=True)]
    return "\n".join(lines if len(graph) > 1 else [*lines, f"  {why_no_word(graph)}"])


def _decision_text(node: Mapping[str, Any]) -> str:
    against = f" rather than {node['contrast_name']}" if "contrast_name" in node else ""
    shown = f"the decision for {node['count']} of {node['n_locations']} images, {node['score']:.1f} bits"
    return f"{node['class_name']}{against}: {shown}, {learnt_from(node)}"


def _edge_text(edge: Mapping[str, Any]) -> str:
    between = f" ({edge['low']:.2f} to {edge['high']:.2f})" if "low" in edge else ""
    chance = ", could be chance" if could_be_chance(edge) else ""
    return f"{edge['log_ratio']:.2f} bits each{between}, {percent(edge['frequency'])} of its field{chance}"
