"""Texts about graphs of counts."""

from __future__ import annotations

from ._hierarchy import DECISION
from ._wording import Attributes, Bar, Wording, percent, sentence


class CountWording(Wording):
    """Evidence in bits, and numbers of locations."""

    names_root = True
    help = (
        "The bar and its bits are the evidence of the word for the words or the decision above it: 2 bits on an arrow "
        "mean that the lower word is 4 times as frequent in the fields of the upper word as elsewhere. Compare bits "
        "within a row, not between rows.",
        "The graph shows which words occur together in the fitted images. This is evidence, not proof, of what the "
        "network uses.",
    )

    def decision(self) -> list[str]:
        return [f"{self._decided()}, {self.word(self._root)}, {self._fitted()}", *self._occlusion()]

    def _fitted(self) -> str:
        n_fitted = self._root["n_fitted"]
        return f"learnt from {n_fitted} image{'s' if n_fitted != 1 else ''}"

    def word(self, node: Attributes) -> str:
        return f"{node['score']:.1f} bits"

    def edge(self, edge: Attributes) -> str:
        return f"{edge['log_ratio']:.2f} bits each, {percent(edge['frequency'])} of its field"

    def panel(self, node: Attributes) -> list[str]:
        if node["layer"] != DECISION:
            return [f"{self._locations_in_images(node)}, {self.word(node)}."]
        fitted = f"{self._fitted()} with this decision"
        return [f"{self.word(node)} of evidence from all words below.", *map(sentence, [fitted, *self._occlusion()])]

    def why_no_word(self) -> str:
        if self._root.get("n_fitted") == 0:
            return f"No fitted image was decided so: fit images that the network calls {self._root['class_name']}."
        return "No word speaks for it: none has enough evidence."

    def bar(self, node: Attributes) -> Bar:
        return Bar(self.word(node), max(-1.0, min(node["score"] / self._longest, 1.0)))

    def without(self, node: Attributes) -> str:
        return self.locations(node)

    def label(self, edge: Attributes) -> str:
        return f"{edge['log_ratio']:.2f} bits, {percent(edge['frequency'])}"

    def key(self) -> list[str]:
        return [
            "Bits: evidence of a word for the words or the decision above it.",
            "Arrows: evidence per location, and the share of the upper word's fields that show the lower word.",
        ]

    def _rivals(self) -> list[str]:
        return [*super()._rivals(), *([self._images()] if self._several else [])]

    def _doubts(self) -> list[str]:
        denied = "contrast" in self._facts and self._root["score"] < 0
        return ["All its words together speak against it."] if denied else []
