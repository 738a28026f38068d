"""Interface of the kinds of evidence, and the words that they select for graphs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..dictionary import WordMaps
from ._hierarchy import Hierarchy
from ._targets import Targets
from ._wording import Wording

if TYPE_CHECKING:
    from ._inference_graph import InferenceGraph

NONE = -1  # no word, in arrays of words
Word = tuple[str, int]  # layer and number; "decision" and the output


@dataclass(eq=False)
class Selection:
    """Words of one graph, with the attributes of the graph, its nodes and its edges."""

    graph: dict[str, Any] = field(default_factory=dict)
    root: dict[str, Any] = field(default_factory=dict)
    # from the top down, in each layer the most important first
    words: dict[Word, dict[str, Any]] = field(default_factory=dict)
    # all pairs of a word and a word above or the root, and those with enough evidence for an edge
    pairs: dict[tuple[Word, Word], dict[str, float]] = field(default_factory=dict)
    edges: set[tuple[Word, Word]] = field(default_factory=set)


@dataclass(frozen=True)
class Strength:
    """Names of the attributes that hold the evidence of nodes and edges; negative values are against the target."""

    unit: str
    node: str  # of a word
    root: str
    support: str  # of a word; positive if it supports the target
    edge: str  # of an edge, as drawn
    total: str  # of an edge, to rank it
    compared: str  # of an edge, to compare it with others, and with exact effects
    part: str  # of an edge, what the lower word contributes
    share: str  # of an edge, `part` as a share of all that the upper word receives
    comparable: bool  # whether edges of different rows can be compared
    additive: bool  # whether evidence adds up over the images of a graph; else it is their mean

    def of_node(self, node: Mapping[str, Any]) -> float:
        """Return the strength of a node."""
        return node[self.node] if self.node in node else node[self.root]

    def of_edge(self, edge: Mapping[str, Any]) -> float:
        """Return the strength of an edge."""
        return edge[self.edge]

    def rank(self, edge: Mapping[str, Any]) -> float:
        """Return the key by which edges are sorted, the largest first."""
        return abs(edge[self.total])

    def merge_edges(self, edges: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
        """Return the attributes of one edge in place of several, given with their heads."""
        merged = {name: sum(edge[name] for _, edge in edges) for name in (self.part, self.total)}
        received = {head: edge[self.part] / edge[self.share] for head, edge in edges if edge[self.share]}
        whole = sum(received.values())
        merged[self.share] = merged[self.part] / whole if whole else 0.0
        if self.edge not in merged:
            merged[self.edge] = merged[self.total] / merged[self.part]
        return merged


class Evidence(ABC):
    """One kind of evidence, for the words of n images; graphs keep at most `n_nodes` words of each layer."""

    name: ClassVar[str]
    strength: ClassVar[Strength]
    wording: ClassVar[type[Wording]]
    uses_network: ClassVar[bool]  # whether it is measured in the network, or counted in the fitted images

    def __init__(
        self, estimator: InferenceGraph, words: WordMaps, structure: Hierarchy, n_nodes: Mapping[str, int]
    ) -> None:
        self.estimator, self.words, self.structure, self.n_nodes = estimator, words, structure, n_nodes

    @staticmethod
    @abstractmethod
    def check(estimator: InferenceGraph, words: WordMaps) -> None:
        """Raise ValueError for words, or parameters of the estimator, that this kind of evidence does not support."""

    @abstractmethod
    def select(self, targets: Targets) -> list[Selection]:
        """Return the selection for each image, or the only one for all images together."""

    @abstractmethod
    def totals(self) -> np.ndarray:
        """Return the evidence of every word for each image's decision, float (n, sum of K over the layers)."""

    def priority(self, evidence: np.ndarray, n_locations: np.ndarray) -> np.ndarray:
        """Return the keys (n, K) by which graphs choose words, from their evidence and numbers of locations."""
        return evidence
