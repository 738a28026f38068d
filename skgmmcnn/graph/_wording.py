"""Texts about graphs, for text, pictures and pages: the base of each kind of evidence, and formats of numbers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import networkx as nx

from ._count_tables import FEW_FITTED
from ._hierarchy import DECISION

if TYPE_CHECKING:
    from ._evidence import Strength

_LEAST = 1e-4  # probabilities nearer to 0 or 1 are shown as a bound
_ROUGH = 1 / 3  # share of the influence above which an integration error is a warning

Attributes = Mapping[str, Any]


class Bar(NamedTuple):
    """A number as text, and the signed length of its bar as a share of the longest possible."""

    text: str
    length: float


class Wording(ABC):
    """Texts about one graph, from the attributes of the graph, its nodes and its edges."""

    names_root: ClassVar[bool]  # whether edges to the root have texts; else the texts of words say the same
    help: ClassVar[tuple[str, ...]]  # sentences on the bars and arrows of a page

    def __init__(self, graph: nx.DiGraph, strength: Strength) -> None:
        self._facts, self._strength = graph.graph, strength
        self._root = graph.nodes.get(self._facts.get("root"), {})
        self._several = self._facts["n_images"] > 1
        self._words = [node for node in graph.nodes.values() if self._has_evidence(node)]
        self._longest = max((abs(strength.of_node(node)) for node in self._words), default=1) or 1

    def _has_evidence(self, node: Attributes) -> bool:
        """Return whether a node is a word that explains; a word that is explained has no evidence of its own."""
        return node["layer"] != DECISION and self._strength.node in node

    # Clauses of text

    @abstractmethod
    def decision(self) -> list[str]:
        """Return the clauses about the decision."""

    @abstractmethod
    def word(self, node: Attributes) -> str:
        """Return the clause about a word, after its locations."""

    @abstractmethod
    def edge(self, edge: Attributes) -> str:
        """Return the clause about an edge."""

    @abstractmethod
    def why_no_word(self) -> str:
        """Return the reason why a graph has no word, as a sentence."""

    @abstractmethod
    def panel(self, node: Attributes) -> list[str]:
        """Return the sentences about a node on a page."""

    def _decided(self) -> str:
        return f"the decision for {self._images()}"

    def _images(self) -> str:
        return f"{self._root['count']} of {self._root['n_locations']} images"

    def locations(self, node: Attributes) -> str:
        """Return the number of locations of a word, of all locations."""
        return f"{node['count']} of {node['n_locations']} location{'s' if node['n_locations'] > 1 else ''}"

    def _locations_in_images(self, node: Attributes) -> str:
        images = f"over {self._facts['n_images']} images" if self._several else "in this image"
        return f"{self.locations(node)} {images}"

    def _occlusion(self) -> list[str]:
        """Return the result of :meth:`InferenceGraph.check` as one clause; none if it was not called."""
        if "probability_hidden" not in self._facts:
            return []
        hidden, elsewhere = (probable(self._facts[f"probability_hidden{name}"]) for name in ("", "_elsewhere"))
        return [f"{hidden} with the words' places hidden, {elsewhere} with other places"]

    # Short texts of pictures

    @abstractmethod
    def bar(self, node: Attributes) -> Bar:
        """Return the evidence of a word; of a word that is explained, its log-odds."""

    @abstractmethod
    def without(self, node: Attributes) -> str:
        """Return the effect of ablating a word, or the number of its locations if it was not ablated."""

    @abstractmethod
    def label(self, edge: Attributes) -> str:
        """Return the label of an arrow."""

    @abstractmethod
    def key(self) -> list[str]:
        """Return the meaning of bars, numbers and arrows, in sentences."""

    def rest(self, layer: str) -> Bar | None:
        """Return the evidence of all other words of a layer; None if it is unknown."""
        return None

    def probability(self) -> str:
        """Return the probability of the class that is explained; empty if it is unknown."""
        return ""

    def decision_bar(self) -> Bar | None:
        """Return the probability with its bar; None if it is unknown."""
        return None

    def against(self, node: Attributes) -> bool:
        """Return whether a word is against the target."""
        return self._strength.of_node(node) < 0

    def outcome(self) -> list[str]:
        """Return the lines below the class: contrast, images or runner-up, and check by occlusion."""
        return [*self._rivals(), *self._occlusion()]

    def _rivals(self) -> list[str]:
        return [f"rather than {self._facts['contrast_name']}"] if "contrast_name" in self._facts else []

    def warnings(
        self, n_fitted: int | None, predicted: str | None = None, residuals: Mapping[str, float] | None = None
    ) -> list[str]:
        """Return warnings about the graph of a decision, in sentences.

        `n_fitted` is the number of fitted images with this decision, `predicted` the class that the words predict, and
        `residuals` are the integration errors by layer, as shares of the influence; all None if unknown.
        """
        if "target" not in self._facts:
            return []
        lines = [] if predicted in (None, self._facts["class_name"]) else [f"Its words speak for {predicted}."]
        lines += self._doubts()
        if n_fitted is not None and n_fitted < FEW_FITTED:
            few = f"Only {n_fitted} fitted images have" if n_fitted > 1 else "Only one fitted image has"
            lines.append(f"{few if n_fitted else 'No fitted image has'} this decision.")
        layer, residual = max((residuals or {"": 0.0}).items(), key=lambda item: item[1])
        if residual > _ROUGH:
            lines.append(f"Rough in {layer}: {percent(residual)} of the influence does not add up.")
        return lines

    @abstractmethod
    def _doubts(self) -> list[str]:
        """Return warnings that follow from the attributes of the graph."""


def sentence(clause: str) -> str:
    """Return a clause as a sentence."""
    return f"{clause[:1].upper()}{clause[1:]}."


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


def with_number(name: str, number: str) -> str:
    """Return the name of a class with a number, after a colon if the name ends with a digit."""
    return f"{name}{':' if name[-1:].isdigit() else ''} {number}" if number else name
