"""The kinds of evidence: a new one is a subclass of `Evidence`, with its `Wording`, and an entry here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import networkx as nx

from ..dictionary import WordMaps
from ._count_evidence import CountEvidence
from ._evidence import Evidence, Strength
from ._hierarchy import Hierarchy
from ._influence_evidence import InfluenceEvidence
from ._wording import Wording

if TYPE_CHECKING:
    from ._inference_graph import InferenceGraph

AUTO = "auto"
KINDS: dict[str, type[Evidence]] = {kind.name: kind for kind in (InfluenceEvidence, CountEvidence)}


def kind_for(estimator: InferenceGraph, words: WordMaps) -> type[Evidence]:
    """Return the kind of evidence for words."""
    if estimator.evidence != AUTO:
        return KINDS[estimator.evidence]
    return CountEvidence if words.influence is None else InfluenceEvidence


def evidence_for(estimator: InferenceGraph, words: WordMaps, hierarchy: Hierarchy | None = None) -> Evidence:
    """Return the evidence for words, in the hierarchy of the fitted counts if none is given."""
    kind = kind_for(estimator, words)
    return kind(estimator, words, hierarchy or Hierarchy.of(words.spec, estimator._effective))


def kind_of(graph: nx.DiGraph) -> type[Evidence]:
    """Return the kind of evidence of a graph."""
    name = graph.graph.get("evidence")
    if name not in KINDS:
        raise ValueError(f"A graph has evidence {' or '.join(map(repr, KINDS))}; this one has {name!r}.")
    return KINDS[name]


def strength_of(graph: nx.DiGraph) -> Strength:
    """Return the names of the attributes that hold the evidence of a graph."""
    return kind_of(graph).strength


def wording_of(graph: nx.DiGraph) -> Wording:
    """Return the texts about a graph."""
    kind = kind_of(graph)
    return kind.wording(graph, kind.strength)


def check_graph(graph: Any) -> None:
    """Raise ValueError for anything but an inference graph."""
    if not isinstance(graph, nx.DiGraph) or not len(graph) or not all("layer" in node for node in graph.nodes.values()):
        kind = f"{type(graph).__name__} of {len(graph)} nodes" if isinstance(graph, nx.Graph) else type(graph).__name__
        raise ValueError(f"An inference graph is needed, as InferenceGraph.explain returns it; got a {kind}.")
