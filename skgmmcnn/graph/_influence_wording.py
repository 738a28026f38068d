"""Texts about graphs of influence."""

from __future__ import annotations

import math

import networkx as nx

from ._evidence import Strength
from ._hierarchy import DECISION
from ._wording import Attributes, Bar, Wording, nats, percent, probable, sentence, with_number


class InfluenceWording(Wording):
    """Shares of the log-odds, and probabilities without words."""

    names_root = False
    help = (
        'The bar is the share of the decision\'s log-odds that the word carries. "Without it 0.93 → 0.41": without the'
        " word, the network gives the decision a probability of 0.41, not 0.93; a class that follows is the decision "
        "without the word. Effects of several words need not add up.",
        "The number on an arrow is the share of the upper word's effect that is due to the lower word. All arrows are "
        "drawn to one scale. Orange works against the decision.",
    )

    def __init__(self, graph: nx.DiGraph, strength: Strength) -> None:
        super().__init__(graph, strength)
        self._as_shares = all(map(is_part, self._words))
        self._whole = f"the lead over {self._facts['contrast_name']}" if "contrast" in self._facts else "the log-odds"

    def decision(self) -> list[str]:
        images = f"{self._decided()}, " if self._several else ""
        return [f"{images}{self._probability_clause()}", *self._sufficiency(), *self._occlusion()]

    def _probability_clause(self) -> str:
        """Return the probability of the target, and the decision or the runner-up."""
        probability = f"probability {self.probability()}"
        if not self._several:
            return f"{probability}, {self._runner_up()}"
        n_explained, n_images = self._facts["n_explained"], self._facts["n_images"]
        which = f" in {n_explained} of them, which are explained" if n_explained < n_images else ""
        return f"mean {probability}{which}"

    def _runner_up(self) -> str:
        """Return the runner-up, or the decision if another class is explained, with its probability."""
        verb = "then" if self._facts["decision"] == self._facts["target"] else "the network says"
        return f"{verb} {with_number(self._facts['runner_up_name'], probable(self._facts['runner_up_probability']))}"

    def _sufficiency(self) -> list[str]:
        """Return one clause on whether the words kept are sufficient; none if another class is explained."""
        facts, has_contrast = self._facts, "contrast" in self._facts
        if "held" not in facts or not (has_contrast or facts["decision"] == facts["target"]):
            return []
        verb, margin = "keep" if facts["held"] else "do not keep", "lead" if has_contrast else "decision"
        return [f"these words alone {verb} the {margin}"]

    def word(self, node: Attributes) -> str:
        if not self._has_evidence(node):
            return f"log-odds of this word {nats(node['margin'])}"
        interval = f", {node['low']:+.1f} to {node['high']:+.1f}" if "low" in node else ""
        influence = f"{nats(node['influence'])}{interval}"
        if is_part(node):
            influence = f"{percent(abs(node['share']))} of {self._whole} ({influence})"
        verb = "carries" if node["influence"] > 0 else "speaks against it by"
        selected = f", among the first in {percent(node['selected'])} of the images" if "selected" in node else ""
        return f"{verb} {influence}{selected}; without it {self._effect(node)}"

    def _effect(self, node: Attributes) -> str:
        """Return the effect of ablating a word, in nats and as probabilities."""
        text = f"{nats(abs(node['effect']), sign='')} {'less' if node['effect'] > 0 else 'more'}"
        if "probability_without" not in node:
            return text
        before, after = self.probability(), probable(node["probability_without"])
        text += f": still {after}" if before == after else f": {before} becomes {after}"
        if node.get("changed"):
            text += f", and {percent(node['changed'])} of the decisions change"
        if self._other_class(node):
            text += f", and the network says {self._other_class(node)}"
        return text

    def _other_class(self, node: Attributes) -> str:
        """Return the decision without a word if it is another one; else an empty string."""
        decision = self._facts.get("decision")
        return node["class_without"] if node.get("decision_without", decision) != decision else ""

    def edge(self, edge: Attributes) -> str:
        """Return the clause about an edge, with its share only where it is a part, and no mean over images."""
        share = "" if self._several or not 0 <= edge["share"] <= 1 else f" ({percent(edge['share'])} of it)"
        return f"{nats(edge['effect'])}{share} come from here"

    def panel(self, node: Attributes) -> list[str]:
        if node["layer"] != DECISION:
            return [sentence(self._locations_in_images(node)), sentence(self.word(node))]
        sufficiency = self._sufficiency() if self._facts.get("held") else []
        return [sentence(clause) for clause in (self._probability_clause(), *sufficiency, *self._occlusion())]

    def why_no_word(self) -> str:
        return "No word speaks for it: without any of those tried it would be no less likely."

    def bar(self, node: Attributes) -> Bar:
        if not self._has_evidence(node):
            return Bar(nats(node["margin"]), 1.0)
        return self._bar(node["influence"], math.copysign(node["share"], node["influence"]))

    def _bar(self, value: float, share: float) -> Bar:
        """Return a share of the whole, or nats relative to the largest if the shares of some words are no parts."""
        text, length = (percent(share), share) if self._as_shares else (nats(value), value / self._longest)
        return Bar(text, max(-1.0, min(length, 1.0)))

    def rest(self, layer: str) -> Bar | None:
        if f"baseline_margin_{layer}" not in self._facts:
            return None
        lead = self._facts["margin"] - self._facts[f"baseline_margin_{layer}"]
        value = lead - sum(node["influence"] for node in self._words if node["layer"] == layer)
        return self._bar(value, value / lead if lead else 0)

    def without(self, node: Attributes) -> str:
        if "effect" not in node:
            return self.locations(node)
        before, after = self._facts.get("probability"), node.get("probability_without")
        if before is None or after is None or probable(before) == probable(after):
            return f"without it {nats(-node['effect'])}"
        other = f", {self._other_class(node)}" if self._other_class(node) else ""
        changed = f", {percent(node['changed'])} change" if node.get("changed") else ""
        return f"without it {probable(before)} → {probable(after)}{other}{changed}"

    def label(self, edge: Attributes) -> str:
        """Return the share of the upper word's effect that is due to the lower word."""
        if self._several:
            return nats(edge["effect"])
        return percent(edge["share"]) if 0 <= edge["share"] <= 1 and edge["effect"] > 0 else ""

    def key(self) -> list[str]:
        bars = f"the share of {self._whole} that the word carries" if self._as_shares else f"nats of {self._whole}"
        edges = "mean fall of that without the" if self._several else "share of the upper word's effect due to the"
        return [
            f"Bars: {bars}; orange is against it.",
            "Without it: the probability after ablation of the word.",
            f"Arrows: the {edges} lower word.",
        ]

    def probability(self) -> str:
        return probable(self._facts["probability"])

    def decision_bar(self) -> Bar | None:
        return Bar(self.probability(), self._facts["probability"])

    def _rivals(self) -> list[str]:
        contrast = super()._rivals()
        if self._several:
            return [*contrast, f"{self._images()}, the mean of {self._facts['n_explained']}"]
        if self._facts["runner_up_name"] == self._facts.get("contrast_name"):
            return [with_number(contrast[0], probable(self._facts["runner_up_probability"]))]
        return [*contrast, self._runner_up()]

    def _doubts(self) -> list[str]:
        return [] if self._facts.get("held", True) else [f"Incomplete: {clause}." for clause in self._sufficiency()]


def is_part(node: Attributes) -> bool:
    """Return whether a share says something: not where the sum is near 0 or has another sign."""
    return abs(node["share"]) <= 1 and node["share"] * node["influence"] > 0
