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
        For each word the locations that show it.  Under influence its share of the log-odds and the effect of ablating
        it, and its contributions to words above.  Under counts its evidence in bits, and for each word that it explains
        the bits per location and the share of the fields.  Also the results of :meth:`InferenceGraph.check`.

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
    text, lines, layer = text_of(graph), [], None
    for key, node in graph.nodes(data=True):
        if node["layer"] == DECISION:
            contrast = f" rather than {node['contrast_name']}" if "contrast_name" in node else ""
            lines.append(f"{key} {node['class_name']}{contrast}: {'; '.join(text.decision(node))}")
            continue
        if node["layer"] != layer:
            layer = node["layer"]
            lines.append(layer)
        name = f" {node['word_name']}" if "word_name" in node else ""
        where = f", here at row {node['row']}, column {node['column']}" if "row" in node else ""
        shown = f"{node['count']} of {node['n_locations']} locations{where}"
        lines.append(f"  {key}{name}: {shown}, {text.word(node)}")
        heads = [head for head in graph.successors(key) if text.names_root or head != graph.graph["root"]]
        lines += [f"    for {head}: {text.edge(graph.edges[key, head])}" for head in heads]
    return "\n".join(lines if len(graph) > 1 else [*lines, f"  {text.why_no_word()}"])


class _Text:
    """Pieces of the text of a graph, of either kind of evidence."""

    def __init__(self, graph: nx.DiGraph) -> None:
        self._graph, self._of, self._several = graph, graph.graph, graph.graph["n_images"] > 1

    def _decided(self, node: Mapping[str, Any]) -> str:
        return f"the decision for {node['count']} of {node['n_locations']} images"

    def _hidden(self) -> list[str]:
        """Return the result of :meth:`InferenceGraph.check` in one piece; none where it was not called."""
        if "probability_hidden" not in self._of:
            return []
        here, elsewhere = probable(self._of["probability_hidden"]), probable(self._of["probability_hidden_elsewhere"])
        return [f"with the words' places hidden in the image {here}, with as many others {elsewhere}"]

    def _locations(self, node: Mapping[str, Any]) -> str:
        where = f"over {self._of['n_images']} images" if self._several else "in this image"
        return f"{node['count']} of {node['n_locations']} location{'s' if node['n_locations'] > 1 else ''} {where}"


class _InfluenceText(_Text):
    names_root = False  # the text of a word says what an edge to the root would

    def decision(self, node: Mapping[str, Any]) -> list[str]:
        """Return the pieces about the decision."""
        images = f"{self._decided(node)}, " if self._several else ""
        return [f"{images}{self._outcome()}", *self._alone(), *self._hidden()]

    def _outcome(self) -> str:
        """Return the probability of the target, and the decision or the runner-up."""
        probability = f"probability {probable(self._of['probability'])}"
        if self._several:
            n, n_images = self._of["n_explained"], self._of["n_images"]
            return f"mean {probability}" + (f" in {n} of them, which are explained" if n < n_images else "")
        name, second = self._of["runner_up_name"], probable(self._of["runner_up_probability"])
        if self._of["decision"] == self._of["target"]:
            return f"{probability}, then {name} {second}"
        return f"{probability}, where the network says {name}, {second}"

    def _alone(self) -> list[str]:
        """Return whether the words are enough; nothing if they are not for what is explained."""
        of = self._of
        if "held" not in of or ("contrast" not in of and of["decision"] != of["target"]):
            return []
        margin = "the lead" if "contrast" in of else "the decision"
        return [f"these words alone {'keep' if of['held'] else 'do not keep'} {margin}"]

    def word(self, node: Mapping[str, Any]) -> str:
        """Return the text of a word, after its locations."""
        if "influence" not in node:
            return f"log-odds of this word {nats(node['margin'])}"
        interval = f", {node['low']:+.1f} to {node['high']:+.1f}" if "low" in node else ""
        influence = f"{nats(node['influence'])}{interval}"
        if is_part(node):
            whole = f"the lead over {self._of['contrast_name']}" if "contrast" in self._of else "the log-odds"
            influence = f"{percent(abs(node['share']))} of {whole} ({influence})"
        verb = "carries" if node["influence"] > 0 else "speaks against it by"
        selected = f", among the first in {percent(node['selected'])} of the images" if "selected" in node else ""
        return f"{verb} {influence}{selected}; without it {self._without(node)}"

    def _without(self, node: Mapping[str, Any]) -> str:
        """Return the effect of ablating a word."""
        text = f"{nats(abs(node['effect']), sign='')} {'less' if node['effect'] > 0 else 'more'}"
        if "probability_without" not in node:
            return text
        before, after = probable(self._of["probability"]), probable(node["probability_without"])
        text += f": still {after}" if before == after else f": {before} becomes {after}"
        if node.get("changed"):
            text += f", and {percent(node['changed'])} of the decisions change"
        if "decision_without" in node and node["decision_without"] != self._of["decision"]:
            text += f", and the network says {node['class_without']}"
        return text

    def edge(self, edge: Mapping[str, Any]) -> str:
        """Return the text of an edge; the share only where it is a part, and no mean over images."""
        share = "" if self._several or not 0 <= edge["share"] <= 1 else f" ({percent(edge['share'])} of it)"
        return f"{nats(edge['effect'])}{share} come from here"

    def panel(self, node: Mapping[str, Any]) -> list[str]:
        """Return the paragraphs about a node on a page."""
        if node["layer"] != DECISION:
            return [_sentence(self._locations(node)), _sentence(self.word(node))]
        alone = self._alone() if self._of.get("held") else []
        return [_sentence(piece) for piece in (self._outcome(), *alone, *self._hidden())]

    def why_no_word(self) -> str:
        """Return the reason why a graph has no word."""
        return "No word speaks for it: without any of those tried it would be no less likely."


class _CountsText(_Text):
    names_root = True

    def decision(self, node: Mapping[str, Any]) -> list[str]:
        return [f"{self._decided(node)}, {self.word(node)}, {self._learnt(node)}", *self._hidden()]

    def _learnt(self, node: Mapping[str, Any]) -> str:
        return f"learnt from {node['n_fitted']} image{'s' if node['n_fitted'] != 1 else ''}"

    def word(self, node: Mapping[str, Any]) -> str:
        return f"{node['score']:.1f} bits"

    def edge(self, edge: Mapping[str, Any]) -> str:
        return f"{edge['log_ratio']:.2f} bits each, {percent(edge['frequency'])} of its field"

    def panel(self, node: Mapping[str, Any]) -> list[str]:
        if node["layer"] != DECISION:
            return [f"{self._locations(node)}, {self.word(node)}."]
        learnt = f"{self._learnt(node)} with this decision"
        return [f"{self.word(node)} of evidence from all words below.", *map(_sentence, [learnt, *self._hidden()])]

    def why_no_word(self) -> str:
        root = self._graph.nodes[self._of["root"]]
        if root.get("n_fitted") == 0:
            return f"No fitted image was decided so: fit images that the network calls {root['class_name']}."
        return "No word speaks for it: none has enough evidence."


_TEXTS: dict[str, type[_InfluenceText] | type[_CountsText]] = {"influence": _InfluenceText, "counts": _CountsText}


def text_of(graph: nx.DiGraph) -> _InfluenceText | _CountsText:
    """Return the text of a graph, in pieces."""
    return _TEXTS[evidence_of(graph)](graph)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


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
