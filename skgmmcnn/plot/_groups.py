"""Words of a layer that are nearly the same and lie side by side, as the blues of a sky: drawn as one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import torch

from ..dictionary import WordMaps
from ..features import Rerun, proba_of

# Of SqueezeNet's 100 words of photographs these are pairs that look the same: a word's nearest neighbour has a cosine
# of 0.54 to 0.75, by layer, half of all pairs less than 0.
_NEAR = 0.55  # cosine of what two words add to the mean of the layer
_TOUCHING = 0.25  # share of the places of one that border on the other

Group = tuple[str, ...]


def alike(graph: nx.DiGraph, words: WordMaps) -> list[Group]:
    """Return the nodes of words that are nearly the same and touch, two or more in each group, the strongest first.

    Words that a person named differently, and words for and against, stay apart.
    """
    if words.influence is None:
        return []
    pairs: nx.Graph = nx.Graph()
    candidates = [key for key, node in graph.nodes.items() if "influence" in node]
    for one, other in itertools.combinations(candidates, 2):
        first, second = graph.nodes[one], graph.nodes[other]
        same = all(first.get(name) == second.get(name) for name in ("layer", "word_name"))
        if same and first["influence"] * second["influence"] > 0 and _touch(words, first, second):
            pairs.add_edge(one, other)
    return [tuple(key for key in graph if key in group) for group in nx.connected_components(pairs)]


def _touch(words: WordMaps, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two words of a layer are nearly the same and border on each other."""
    assert words.influence is not None
    mixture, shown = words.influence.mixtures[one["layer"]], words.words[one["layer"]]
    means = mixture.emitted_means_[[one["word"], other["word"]]] - mixture.weights_ @ mixture.emitted_means_
    if means[0] @ means[1] < _NEAR * np.linalg.norm(means[0]) * np.linalg.norm(means[1]):
        return False
    here, there = shown == one["word"], np.pad(shown == other["word"], [(0, 0), (1, 1), (1, 1)])
    beside = there[:, :-2, 1:-1] | there[:, 2:, 1:-1] | there[:, 1:-1, :-2] | there[:, 1:-1, 2:]
    return bool((here & beside).sum() >= _TOUCHING * min(here.sum(), there.sum()))


def measured(graph: nx.DiGraph, words: WordMaps, group: Group) -> dict[str, Any]:
    """Return what the network says of the only image without all words of a group."""
    layer, numbers = graph.nodes[group[0]]["layer"], [graph.nodes[key]["word"] for key in group]
    where, influence = np.isin(words.words[layer], numbers), words.influence
    assert influence is not None

    def work(part: Rerun) -> tuple[np.ndarray, np.ndarray]:
        mask = torch.from_numpy(where[part.rows])[:, None]
        found = part.run({layer: lambda x: torch.where(mask.to(x.device), influence.baseline(layer, x), x)})
        return proba_of(found.outputs, np.array([graph.graph["target"]])), found.decisions

    ((proba, decisions),) = influence.rerun(work, "groups")
    decided = int(decisions[0])
    name = words.spec.class_name(decided)
    return {"probability_without": float(proba[0]), "decision_without": decided, "class_without": name}


def merged(graph: nx.DiGraph, groups: Mapping[Group, Mapping[str, Any]]) -> nx.DiGraph:
    """Return a graph in which each group is one node, its first, with the sums of its words and what was measured."""
    firsts = {key: group[0] for group in groups for key in group}
    small = nx.DiGraph(**graph.graph)
    for key, node in graph.nodes.items():
        if firsts.get(key, key) == key:
            small.add_node(key, **node)  # the first of a group changes below
    for group, found in groups.items():
        nodes, kept = [graph.nodes[key] for key in group], small.nodes[group[0]]
        for name in ("effect", "probability_without", "decision_without", "class_without", "changed"):
            kept.pop(name, None)
        sums = {name: sum(node[name] for node in nodes) for name in ("count", "influence", "share")}
        kept.update(sums, words=[node["word"] for node in nodes], **found)
    edges: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for tail, head, edge in graph.edges(data=True):
        edges.setdefault((firsts.get(tail, tail), firsts.get(head, head)), []).append((head, edge))
    for ends, parts in edges.items():
        small.add_edge(*ends, **_together(parts))
    return small


def _together(parts: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the attributes of edges, each with its head, that become one: first-order flows add up."""
    if len(parts) == 1:
        return dict(parts[0][1])
    flow, effect = (_sum(parts, name) for name in ("flow", "effect"))
    wholes = {head: edge["flow"] / edge["share"] for head, edge in parts if edge["share"]}
    whole = sum(wholes.values())
    return {"flow": flow, "effect": effect, "share": flow / whole if whole else 0.0}


def _sum(parts: Iterable[tuple[str, Mapping[str, Any]]], name: str) -> float:
    return sum(edge[name] for _, edge in parts)
