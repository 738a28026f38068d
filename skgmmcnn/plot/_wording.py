"""Texts on the picture of a graph, for either kind of evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

from ..dictionary import WordMaps
from ..graph import DECISION, FEW_FITTED, evidence_of, is_part, nats, percent, probable, strength_of
from ._reading import classes_of

_RARE = 0.03  # share of a word's locations below which a class is not named
_SURE = 1 / 3  # share of the influence above which what does not add up is a warning


def counted(name: str, number: str) -> str:
    """Return a class with a number, after a colon where the name ends with a digit."""
    return f"{name}{':' * name[-1:].isdigit()} {number}".strip() if number else name


def verdict(words: WordMaps, row: int, labels: np.ndarray) -> str:
    """Return whether the decision for an image is right, and its label."""
    right = labels[row] == words.decisions[row]
    return f"{'right' if right else 'wrong'}: labelled {words.spec.class_name(int(labels[row]))}"


class Bar(NamedTuple):
    """A number as text, and the signed length of its bar as a share of the longest possible."""

    text: str
    length: float


class Wording:
    """Texts on a graph of the images `words`."""

    def __init__(self, graph: nx.DiGraph, words: WordMaps) -> None:
        self._graph, self._of, self._words = graph, graph.graph, words
        self._root, self._strength = graph.nodes[graph.graph["root"]], strength_of(graph)
        self.counts, self.several = evidence_of(graph) == "counts", graph.graph["n_images"] > 1
        nodes = [node for node in graph.nodes.values() if self._is_measured(node)]
        self._longest = max((abs(self._strength.of_node(node)) for node in nodes), default=1) or 1
        self._shares = not self.counts and all(map(is_part, nodes))

    def _is_measured(self, node: Mapping[str, Any]) -> bool:
        return node["layer"] != DECISION and (self.counts or "influence" in node)

    def _bar(self, value: float, share: float) -> Bar:
        """Return a share of the whole, where all shares are parts of it; else nats or bits, relative to the largest."""
        if self._shares:
            return Bar(percent(share), max(-1.0, min(share, 1.0)))
        text = f"{value:.1f} bits" if self.counts else nats(value)
        return Bar(text, max(-1.0, min(value / self._longest, 1.0)))

    def bar(self, node: Mapping[str, Any]) -> Bar:
        """Return the contribution of a word; of a word that is explained, its log-odds."""
        if not self._is_measured(node):
            return Bar(nats(node["margin"]), 1.0)
        value = self._strength.of_node(node)
        return self._bar(value, math.copysign(node.get("share", 0), value))

    def against(self, node: Mapping[str, Any]) -> bool:
        """Return whether a word is against the target."""
        return self._strength.of_node(node) < 0

    def rest(self, layer: str) -> Bar | None:
        """Return the sum over all other words of a layer; None where it is unknown."""
        baseline = f"baseline_margin_{layer}"
        if self.counts or baseline not in self._of:
            return None
        lead = self._of["margin"] - self._of[baseline]
        value = lead - sum(node.get("influence", 0) for node in self._graph.nodes.values() if node["layer"] == layer)
        return self._bar(value, value / lead if lead else 0)

    def without(self, node: Mapping[str, Any]) -> str:
        """Return the probability before and after ablation of a word; of counts, the number of its locations."""
        if self.counts or "effect" not in node:
            return f"{node['count']} of {node['n_locations']} locations"
        if "probability_without" not in node:
            return f"without it {nats(-node['effect'])}"
        before, after = probable(self._of["probability"]), probable(node["probability_without"])
        if before == after:
            return f"without it {nats(-node['effect'])}"
        decision = self._of.get("decision")
        other = f", {node['class_without']}" if node.get("decision_without", decision) != decision else ""
        changed = f", {percent(node['changed'])} change" if node.get("changed") else ""
        return f"without it {before} → {after}{other}{changed}"

    def classes(self, node: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return the two commonest classes of the fitted images that show a word, with their shares."""
        statistics = self._words.vocabulary.statistics.get(node["layer"])
        if statistics is None:
            return []
        first = classes_of(statistics, node.get("words", [node["word"]]))[:2]
        return [(self._words.spec.class_name(label), percent(share)) for label, share in first if share > _RARE]

    def edge(self, edge: Mapping[str, Any]) -> str:
        """Return the label of an arrow: the share of the upper word's effect that is due to the lower one."""
        if self.counts:
            return f"{edge['log_ratio']:.2f} bits, {percent(edge['frequency'])}"
        if self.several:
            return nats(edge["effect"])
        return percent(edge["share"]) if 0 <= edge["share"] <= 1 and edge["effect"] > 0 else ""

    def probability(self) -> str:
        """Return the probability of the class that is explained; nothing of counts."""
        return "" if self.counts else probable(self._of["probability"])

    def outcome(self) -> list[str]:
        """Return the lines below the class: contrast, runner-up, and check by occlusion."""
        of, contrast, other = self._of, self._of.get("contrast_name"), self._of.get("runner_up_name")
        lines = [] if contrast is None else [f"rather than {contrast}"]
        if self.several:
            mean = "" if self.counts else f", the mean of {of['n_explained']}"
            lines.append(f"{self._root['count']} of {self._root['n_locations']} images{mean}")
        elif other is not None:
            second = probable(of["runner_up_probability"])
            says = "then" if of["decision"] == of["target"] else "the network says"
            if other == contrast:
                lines = [counted(lines[0], second)]
            else:
                lines.append(f"{says} {counted(other, second)}")
        if "probability_hidden" in of:
            here, there = probable(of["probability_hidden"]), probable(of["probability_hidden_elsewhere"])
            lines.append(f"{here} with the words' places hidden, {there} with other places")
        return lines

    def warnings(self, predicted: str | None = None, residuals: Mapping[str, float] | None = None) -> list[str]:
        """Return warnings about the graph, one line each."""
        of, lines = self._of, []
        if "target" not in of:
            return []
        if not of.get("held", True) and ("contrast" in of or of["decision"] == of["target"]):
            lines.append("Incomplete: these words alone do not keep the decision.")
        if predicted not in (None, of["class_name"]):
            lines.append(f"Its words speak for {predicted}.")
        if "contrast" in of and self._root.get("score", 0) < 0:
            lines.append("All its words together speak against it.")
        n_fitted = self._n_fitted()
        if n_fitted is not None and n_fitted < FEW_FITTED:
            few = f"Only {n_fitted} fitted images have" if n_fitted > 1 else "Only one fitted image has"
            lines.append(f"{few if n_fitted else 'No fitted image has'} this decision.")
        layer, residual = max((residuals or {"": 0.0}).items(), key=lambda item: item[1])
        if residual > _SURE:
            lines.append(f"Rough in {layer}: {percent(residual)} of the influence does not add up.")
        return lines

    def _n_fitted(self) -> int | None:
        """Return the number of fitted images with the decision that is explained."""
        if "n_fitted" in self._root:
            return self._root["n_fitted"]
        for layer, statistics in self._words.vocabulary.statistics.items():
            return int(statistics.counts[:, self._root["word"]].sum()) // self._words.words[layer][0].size
        return None

    def key(self) -> list[str]:
        """Return the meaning of bars, numbers and arrows."""
        if self.counts:
            return [
                "Bits: evidence of a word for the words or the decision above it.",
                "Arrows: evidence per location, and the share of the upper word's fields that show the lower word.",
            ]
        what = f"the lead over {self._of['contrast_name']}" if "contrast" in self._of else "the log-odds"
        bars = f"Bars: the share of {what} that the word carries" if self._shares else f"Bars: nats of {what}"
        edges = "mean fall of that without the" if self.several else "share of the upper word's effect due to the"
        parts = [f"{bars}; orange is against it.", "Without it: the probability after ablation of the word."]
        return [*parts, f"Arrows: the {edges} lower word."]
