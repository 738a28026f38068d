"""Graphs as text, and pieces of text for pictures and pages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import networkx as nx

from ._hierarchy import DECISION
from ._kinds import check_graph, evidence_of

_LEAST = 1e-4  # probabilities nearer to 0 or 1 are shown as a bound


def to_text(graph: nx.DiGraph) -> str:
    """Return an inference graph as text, layer by layer from the top down.

    Parameters
    ----------
    graph : networkx.DiGraph
        As made by :class:`InferenceGraph`.

    Returns
    -------
    text : str
        For each word the locations that show it.  Of a graph of influence, which share of the log-odds it carries and
        what happens without it; for each word that it contributes to, how much, and which share that is.  Of a graph of
        counts, its evidence in bits; for each word that it explains the bits per location and the share of that word's
        receptive fields.  After :meth:`InferenceGraph.check`, also what it found.

    Examples
    --------
    >>> import networkx as nx
    >>> from skgmmcnn.graph import to_text
    >>> graph = nx.DiGraph(evidence="influence", n_images=1, root="decision_7", target=7, decision=7, probability=0.93,
    ...                    runner_up_name="one", runner_up_probability=0.04, held=True)
    >>> graph.add_node("decision_7", layer="decision", word=7, count=1, n_locations=1, class_name="seven")
    >>> graph.add_node("conv_w003", layer="conv", word=3, count=6, n_locations=16, influence=2.1, share=0.31,
    ...                effect=2.9, probability_without=0.41, decision_without=1, class_without="one")
    >>> print(to_text(graph))
    decision_7 seven: probability 0.93, then one 0.04; these words alone keep the decision
    conv
      conv_w003: 6 of 16 locations, carries 31 % of the log-odds (+2.1 nats); without it 2.9 nats less: 0.93 becomes
      0.41, and the network says one
    """
    check_graph(graph)
    text, lines, layer = telling(graph), [], None
    for key, node in graph.nodes(data=True):
        if node["layer"] == DECISION:
            lines.append(f"{key} {text.decision(node)}")
            continue
        if node["layer"] != layer:
            layer = node["layer"]
            lines.append(layer)
        name = f" {node['word_name']}" if "word_name" in node else ""
        where = f", here at row {node['row']}, column {node['column']}" if "row" in node else ""
        shown = f"{node['count']} of {node['n_locations']} locations{where}"
        lines.append(f"  {key}{name}: {shown}, {text.word(node)}")
        edges = graph.out_edges(key, data=True)
        lines += [f"    for {head}: {text.edge(edge)}" for _, head, edge in edges if text.has_edge(head)]
    return "\n".join(lines if len(graph) > 1 else [*lines, f"  {text.why_no_word()}"])


class _Influence:
    """Text of graphs of influence, in pieces."""

    def __init__(self, graph: nx.DiGraph) -> None:
        self._graph = graph
        self._of = graph.graph

    def decision(self, node: Mapping[str, Any]) -> str:
        """Return what text says of the decision."""
        images = f"the decision for {node['count']} of {node['n_locations']} images, " if self._several() else ""
        parts = [f"{images}{self._outcome()}", self._alone(), *hidden(self._graph)]
        return f"{target_name(node)}: " + "; ".join(filter(None, parts))

    def _several(self) -> bool:
        """Return whether the graph is of more images than one."""
        return self._of["n_images"] > 1

    def _outcome(self) -> str:
        """Return how probable the target is, and what the network says else."""
        probability = f"probability {probable(self._of['probability'])}"
        if self._several():
            n, of = self._of["n_explained"], self._of["n_images"]
            return f"mean {probability}" + (f" in {n} of them, which are explained" if n < of else "")
        name, second = self._of["runner_up_name"], probable(self._of["runner_up_probability"])
        if self._of["decision"] == self._of["target"]:
            return f"{probability}, then {name} {second}"
        return f"{probability}, where the network says {name}, {second}"

    def _alone(self) -> str:
        """Return whether the words kept are enough; nothing, where that says nothing of what is explained."""
        of = self._of
        if "held" not in of or ("contrast" not in of and of["decision"] != of["target"]):
            return ""
        what = "the lead" if "contrast" in of else "the decision"
        return f"these words alone {'keep' if of['held'] else 'do not keep'} {what}"

    def word(self, node: Mapping[str, Any]) -> str:
        """Return what text says of a word, after the locations that show it."""
        if "influence" not in node:
            return f"log-odds of this word {nats(node['margin'])}"
        between = f", {node['low']:+.1f} to {node['high']:+.1f}" if "low" in node else ""
        carried = f"{nats(node['influence'])}{between}"
        if is_part(node):
            carried = f"{percent(abs(node['share']))} of {self._margin()} ({carried})"
        does = "carries" if node["influence"] > 0 else "speaks against it by"
        kept = f", among the first in {percent(node['selected'])} of the images" if "selected" in node else ""
        return f"{does} {carried}{kept}; without it {self._without(node)}"

    def _margin(self) -> str:
        """Return the name of what is explained."""
        return f"the lead over {self._of['contrast_name']}" if "contrast" in self._of else "the log-odds"

    def _without(self, node: Mapping[str, Any]) -> str:
        """Return what happens without a word."""
        less = f"{nats(abs(node['effect']), sign='')} {'less' if node['effect'] > 0 else 'more'}"
        if "probability_without" not in node:
            return less
        after = probable(node["probability_without"])
        before = "still" if self._is_still(node) else f"{probable(self._of['probability'])} becomes"
        becomes = f"{less}: {before} {after}"
        if node.get("changed"):
            becomes += f", and {percent(node['changed'])} of the decisions change"
        return becomes + (f", and the network says {node['class_without']}" if self._changes(node) else "")

    def _is_still(self, node: Mapping[str, Any]) -> bool:
        """Return whether a probability without a word reads as the one with it."""
        return probable(self._of["probability"]) == probable(node["probability_without"])

    def _changes(self, node: Mapping[str, Any]) -> bool:
        """Return whether the network decides something else without a word."""
        return "decision_without" in node and node["decision_without"] != self._of["decision"]

    def edge(self, edge: Mapping[str, Any]) -> str:
        """Return what text says of an edge."""
        share = self._share(edge)
        return nats(edge["effect"]) + (f" ({share} of it)" if share else "") + " come from here"

    def _share(self, edge: Mapping[str, Any]) -> str:
        """Return how much of what the upper word does comes from the lower one; nothing where it does the opposite.

        Nothing of several images, either: a mean of shares says little.
        """
        return "" if self._several() or not 0 <= edge["share"] <= 1 else percent(edge["share"])

    def has_edge(self, head: str) -> bool:
        """Return whether edges to a node are written, beside the text of the word."""
        return head != self._of["root"]

    def panel(self, node: Mapping[str, Any]) -> list[str]:
        """Return what a page says of a node beside the warnings, in paragraphs."""
        if node["layer"] == DECISION:
            alone = self._alone() if self._of.get("held") else ""
            return [sentence(part) for part in (self._outcome(), alone, *hidden(self._graph)) if part]
        return [sentence(locations(self._graph, node)), sentence(self.word(node))]

    def why_no_word(self) -> str:
        """Return the reason why a graph has no word."""
        return "No word speaks for it: without any of those tried it would be no less likely."


class _Counts:
    """Text of graphs of counts, in the same pieces."""

    def __init__(self, graph: nx.DiGraph) -> None:
        self._graph = graph

    def decision(self, node: Mapping[str, Any]) -> str:
        shown = f"the decision for {node['count']} of {node['n_locations']} images, {node['score']:.1f} bits"
        return f"{target_name(node)}: " + "; ".join([f"{shown}, {learnt_from(node)}", *hidden(self._graph)])

    def word(self, node: Mapping[str, Any]) -> str:
        return f"{node['score']:.1f} bits"

    def edge(self, edge: Mapping[str, Any]) -> str:
        return f"{edge['log_ratio']:.2f} bits each, {percent(edge['frequency'])} of its field"

    def has_edge(self, head: str) -> bool:
        return True

    def panel(self, node: Mapping[str, Any]) -> list[str]:
        bits = f"{node['score']:.1f} bits"
        if node["layer"] != DECISION:
            return [f"{locations(self._graph, node)}, {bits}."]
        learnt = f"{learnt_from(node).capitalize()} with this decision."
        return [f"{bits} of evidence from all words below.", learnt, *map(sentence, hidden(self._graph))]

    def why_no_word(self) -> str:
        root = self._graph.nodes[self._graph.graph["root"]]
        if root.get("n_fitted") == 0:
            return f"No fitted image was decided so: fit images that the network calls {root['class_name']}."
        return "No word speaks for it: none has enough evidence."


_TEXTS: dict[str, type[_Influence] | type[_Counts]] = {"influence": _Influence, "counts": _Counts}


def telling(graph: nx.DiGraph) -> _Counts | _Influence:
    """Return the text of a graph, in pieces."""
    return _TEXTS[evidence_of(graph)](graph)


def target_name(node: Mapping[str, Any]) -> str:
    """Return the class that is explained, and what it is contrasted with."""
    return node["class_name"] + (f" rather than {node['contrast_name']}" if "contrast_name" in node else "")


def hidden(graph: nx.DiGraph) -> list[str]:
    """Return what :meth:`InferenceGraph.check` measured, in one piece of text; none where it was not called."""
    of = graph.graph
    if "probability_hidden" not in of:
        return []
    here, elsewhere = probable(of["probability_hidden"]), probable(of["probability_hidden_elsewhere"])
    return [f"with the words' places hidden in the image {here}, with as many others {elsewhere}"]


def locations(graph: nx.DiGraph, node: Mapping[str, Any]) -> str:
    """Return how many locations show a word, and where."""
    where = f"over {graph.graph['n_images']} images" if graph.graph["n_images"] > 1 else "in this image"
    return f"{node['count']} of {node['n_locations']} location{'s' if node['n_locations'] > 1 else ''} {where}"


def sentence(text: str) -> str:
    """Return text with a large letter in front and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def learnt_from(node: Mapping[str, Any]) -> str:
    """Return as text how many of the fitted images have the decision of this node."""
    return f"learnt from {node['n_fitted']} image{'s' if node['n_fitted'] != 1 else ''}"


def is_part(node: Mapping[str, Any]) -> bool:
    """Return whether a share says something: not where the sum is near 0 or has another sign."""
    return abs(node["share"]) <= 1 and node["share"] * node["influence"] > 0


def percent(share: float) -> str:
    """Return a share as text."""
    if abs(share) < 0.01:
        return "under 1 %"
    return f"{100 * share:.0f} %"


def nats(value: float, sign: str = "+") -> str:
    """Return a number of nats as text, with its sign by default."""
    digits = next((digits for least, digits in ((1, 1), (0.01, 2), (1e-4, 4)) if abs(value) >= least), 0)
    return f"{value:{sign}.{digits}f} nats"


def probable(probability: float) -> str:
    """Return a probability as text, near 0 and 1 with more digits."""
    rest = min(probability, 1 - probability)
    if rest < _LEAST:
        return f">{1 - _LEAST}" if probability > 0.5 else f"<{_LEAST:.4f}"
    return f"{probability:.{max(2, math.ceil(-math.log10(rest)))}f}"
