"""Interface of the kinds of evidence, and the words that they select for graphs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..dictionary import WordMaps
from ._hierarchy import Hierarchy
from ._targets import Targets

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
    edge: str  # of an edge, as drawn
    total: str  # of an edge, to rank it
    compared: str  # of an edge, to compare it with others, and with exact effects
    comparable: bool  # whether edges of different rows can be compared

    def of_node(self, node: Mapping[str, Any]) -> float:
        """Return the strength of a node."""
        return node[self.node] if self.node in node else node[self.root]

    def of_edge(self, edge: Mapping[str, Any]) -> float:
        """Return the strength of an edge."""
        return edge[self.edge]

    def rank(self, edge: Mapping[str, Any]) -> float:
        """Return the key by which edges are sorted, the largest first."""
        return abs(edge[self.total])


class Evidence(ABC):
    """One kind of evidence, for the words of n images; graphs keep at most `n_nodes` words of each layer."""

    name: ClassVar[str]
    strength: ClassVar[Strength]

    def __init__(
        self, estimator: InferenceGraph, words: WordMaps, structure: Hierarchy, n_nodes: Mapping[str, int]
    ) -> None:
        self.estimator, self.words, self.structure, self.n_nodes = estimator, words, structure, n_nodes

    @staticmethod
    @abstractmethod
    def check(estimator: InferenceGraph, words: WordMaps) -> None:
        """Refuse words, or parameters, that this kind of evidence cannot work with."""

    @abstractmethod
    def select(self, targets: Targets) -> list[Selection]:
        """Return the selection of each image, or the only one of targets together."""

    @abstractmethod
    def totals(self) -> np.ndarray:
        """Return the evidence of every word for each image's decision, float (n, sum of K over the layers)."""
