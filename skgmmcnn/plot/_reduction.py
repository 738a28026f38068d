"""Reduction of graphs to what a picture can hold: similar words as one node, and the strongest nodes and edges."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

import networkx as nx
import numpy as np
import torch
from scipy import ndimage

from ..dictionary import WordMaps
from ..features import Rerun, margins, proba_of
from ..graph import DECISION, strength_of

_TOUCHING = 0.25  # share of the locations of the smaller word that border on the other
_NEIGHBOURS = np.array([[[0, 1, 0], [1, 0, 1], [0, 1, 0]]])  # in maps (n, H, W)

Group = tuple[str, ...]


def similar_groups(graph: nx.DiGraph, words: WordMaps) -> list[Group]:
    """Return groups of nodes of similar words that touch, the strongest first in each.

    Words are similar if the cosine of their means is at least the median over nearest neighbours in their layer.  Words
    with different names, and words for and against the target, stay apart.
    """
    if words.influence is None:
        return []
    kinds: dict[tuple[str, Any, float], list[str]] = defaultdict(list)
    for key, node in graph.nodes.items():
        if node["layer"] != DECISION and key != graph.graph["root"]:
            kinds[node["layer"], node.get("word_name"), np.sign(strength_of(graph).of_node(node))].append(key)
    pairs: nx.Graph = nx.Graph()
    for (layer, *_), keys in kinds.items():
        near, shown = near_words(words, layer), words.words[layer]
        for one, other in itertools.combinations(keys, 2):
            first, second = graph.nodes[one]["word"], graph.nodes[other]["word"]
            if near[first, second] and _touch(shown == first, shown == second):
                pairs.add_edge(one, other)
    return [tuple(key for key in graph if key in group) for group in nx.connected_components(pairs)]


def near_words(words: WordMaps, layer: str) -> np.ndarray:
    """Return which pairs of words of a layer have similar means, bool (K, K), by the cosine around the layer's mean."""
    assert words.influence is not None
    mixture = words.influence.mixtures[layer]
    means = mixture.emitted_means_ - mixture.weights_ @ mixture.emitted_means_
    means = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), np.finfo(float).tiny)
    cosines = means @ means.T
    np.fill_diagonal(cosines, -1)
    return cosines >= np.median(cosines.max(1))


def _touch(here: np.ndarray, there: np.ndarray) -> bool:
    """Return whether the locations (n, H, W) of two words border on each other."""
    beside = ndimage.binary_dilation(there, _NEIGHBOURS)
    return bool((here & beside).sum() >= _TOUCHING * min(here.sum(), there.sum()))


def ablate_group(graph: nx.DiGraph, words: WordMaps, group: Group) -> dict[str, Any]:
    """Return the effect of the ablation of a group in the only image, and the decision without it."""
    layer, numbers = graph.nodes[group[0]]["layer"], [graph.nodes[key]["word"] for key in group]
    where, influence, of = np.isin(words.words[layer], numbers), words.influence, graph.graph
    assert influence is not None
    target, contrast = np.array([of["target"]]), np.array([of["contrast"]]) if "contrast" in of else None

    def ablate(part: Rerun) -> dict[str, Any]:
        mask = torch.from_numpy(where[part.rows])[:, None]
        output = part.run({layer: lambda x: torch.where(mask.to(x.device), influence.baseline(layer, x), x)})
        decision = int(output.decisions[0])
        return {
            "effect": of["margin"] - float(margins(output.outputs, target, contrast)[0]),
            "probability_without": float(proba_of(output.outputs, target)[0]),
            "decision_without": decision,
            "class_without": words.spec.class_name(decision),
        }

    (effects,) = influence.rerun(ablate, "groups")
    return effects


def merge_groups(graph: nx.DiGraph, groups: Mapping[Group, Mapping[str, Any]]) -> nx.DiGraph:
    """Return a graph with one node for each group, its first, with sums over its words and its measured effect."""
    strength = strength_of(graph)
    firsts = {key: key for key in graph} | {key: group[0] for group in groups for key in group}
    by_first = {group[0]: group for group in groups}
    merged = nx.DiGraph(**graph.graph)
    for key, node in graph.nodes.items():
        if key in by_first:
            nodes = [graph.nodes[member] for member in by_first[key]]
            numbers = [each["word"] for each in nodes]
            merged.add_node(key, **strength.merge_nodes(nodes), **groups[by_first[key]], words=numbers)
        elif firsts[key] == key:
            merged.add_node(key, **node)
    edges: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
    for tail, head, edge in graph.edges(data=True):
        edges[firsts[tail], firsts[head]].append((head, edge))
    for (tail, head), parallel in edges.items():
        merged.add_edge(tail, head, **(strength.merge_edges(parallel) if len(parallel) > 1 else parallel[0][1]))
    return merged


def prune(graph: nx.DiGraph, max_nodes: int, max_edges: int) -> nx.DiGraph:
    """Return the strongest nodes of a graph, balanced over layers, and edges, balanced over their tails."""
    root, of = graph.graph["root"], strength_of(graph)
    nodes = {key: (node["layer"], abs(of.of_node(node))) for key, node in graph.nodes.items() if key != root}
    part = graph.subgraph([root, *_first(nodes, max_nodes - 1)])
    edges = _first({(tail, head): (tail, of.magnitude(edge)) for tail, head, edge in part.edges(data=True)}, max_edges)
    kept = nx.DiGraph(**graph.graph)
    kept.add_nodes_from((key, node) for key, node in graph.nodes.items() if key in part)
    kept.add_edges_from((*edge, part.edges[edge]) for edge in part.edges if edge in edges)
    return kept


def _first(items: Mapping[Any, tuple[str, float]], most: int) -> set[Any]:
    """Return at most `most` items, given with group and strength: the strongest of each group, then the second, ..."""
    taken: Counter[str] = Counter()
    ranks = {}
    for item, (group, _) in sorted(items.items(), key=lambda entry: -entry[1][1]):
        ranks[item] = taken[group]
        taken[group] += 1
    return set(sorted(ranks, key=ranks.__getitem__)[:most])
