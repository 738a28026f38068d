"""Interface of the kinds of evidence, and the words that they select for graphs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..dictionary import WordMaps
from ._hierarchy import Hierarchy
from ._targets import Targets
from ._wording import Wording

if TYPE_CHECKING:
    from ._inference_graph import InferenceGraph

ENOUGH = "enough"
N_NODES = 3  # words of a layer, by default and where "enough" does not apply
NONE = -1  # no word, in arrays of words
IDENTITY = ("layer", "word", "word_name", "n_locations", "depth")  # attributes of a node, whatever its evidence
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
    total: str  # of an edge, over all locations
    evidence: str  # of an edge, the estimate that is compared between graphs, and with exact effects
    part: str  # of an edge, what the lower word contributes
    share: str  # of an edge, `part` as a share of all that the upper word receives
    comparable_across_rows: bool  # of edges, as drawn
    additive: bool  # whether evidence adds up over the images of a graph; else it is their mean

    def of_node(self, node: Mapping[str, Any]) -> float:
        """Return the strength of a node."""
        return node[self.node] if self.node in node else node[self.root]

    def of_edge(self, edge: Mapping[str, Any]) -> float:
        """Return the strength of an edge."""
        return edge[self.edge]

    def magnitude(self, edge: Mapping[str, Any]) -> float:
        """Return the magnitude of an edge, by which edges are ranked."""
        return abs(edge[self.total])

    def merge_nodes(self, nodes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the attributes of one node in place of several of a layer: the identity of the first, and sums."""
        merged = {name: nodes[0][name] for name in IDENTITY if name in nodes[0]}
        sums = [name for name in ("count", self.node, "share") if name in nodes[0]]
        return merged | {name: sum(node[name] for node in nodes) for name in sums}

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
    uses_network: ClassVar[bool]  # whether it is measured in the network, with effects, or counted in fitted images

    def __init__(self, estimator: InferenceGraph, words: WordMaps, hierarchy: Hierarchy) -> None:
        self.estimator = estimator
        self.words = words
        self.hierarchy = hierarchy
        self.n_nodes = _by_layer(estimator.n_nodes, words.layers)
        self._validate()

    @abstractmethod
    def _validate(self) -> None:
        """Raise ValueError for words, or parameters of the estimator, that this kind of evidence does not support."""

    @abstractmethod
    def select(self, targets: Targets) -> list[Selection]:
        """Return the selection for each image, or the only one for all images together."""

    @abstractmethod
    def totals(self) -> np.ndarray:
        """Return the evidence of every word for each image's decision, float (n, sum of K over the layers)."""

    @staticmethod
    def priority(n_nodes: Any, evidence: np.ndarray, n_locations: np.ndarray) -> np.ndarray:
        """Return the keys (n, K) by which graphs choose words, from their evidence and numbers of locations."""
        return evidence


def _by_layer(n_nodes: int | Mapping[str, int] | str, layers: tuple[str, ...]) -> dict[str, int]:
    """Return the maximum number of words to keep of each layer."""
    if not isinstance(n_nodes, Mapping):
        return dict.fromkeys(layers, N_NODES if isinstance(n_nodes, str) else n_nodes)
    if set(n_nodes) != set(layers):
        raise ValueError(f"n_nodes names layers {list(n_nodes)}; the layers are {list(layers)}.")
    if not all(isinstance(n, Integral) and n >= 1 for n in n_nodes.values()):
        raise ValueError(f"n_nodes must keep at least one word of every layer; got {dict(n_nodes)}.")
    return dict(n_nodes)
