"""Groups of similar words of a layer that touch, as the blues of a sky, drawn as one."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx
import numpy as np
import torch

from ..dictionary import WordMaps
from ..features import Rerun, margins, proba_of

_TOUCHING = 0.25  # share of the locations of the smaller word that border on the other

Group = tuple[str, ...]


def alike(graph: nx.DiGraph, words: WordMaps) -> list[Group]:
    """Return groups of nodes of similar words that touch, the strongest first in each.

    Words are similar if the cosine of their means is at least the median over nearest neighbours in their layer.  Words
    with different names, and words for and against the target, stay apart.
    """
    if words.influence is None:
        return []
    pairs: nx.Graph = nx.Graph()
    near = {layer: near_words(words, layer) for layer in words.layers}
    nodes = {key: node for key, node in graph.nodes.items() if node["layer"] in near and key != graph.graph["root"]}
    signs = {key: np.sign(node.get("influence", node.get("score", 0))) for key, node in nodes.items()}
    for one, other in itertools.combinations(nodes, 2):
        (layer, first), (other_layer, second) = ((nodes[key]["layer"], nodes[key]["word"]) for key in (one, other))
        same = layer == other_layer and nodes[one].get("word_name") == nodes[other].get("word_name")
        if same and signs[one] == signs[other] and near[layer][first, second]:
            shown = words.words[layer]
            if _touch(shown == first, shown == second):
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
    wide = np.pad(there, [(0, 0), (1, 1), (1, 1)])
    beside = wide[:, :-2, 1:-1] | wide[:, 2:, 1:-1] | wide[:, 1:-1, :-2] | wide[:, 1:-1, 2:]
    return bool((here & beside).sum() >= _TOUCHING * min(here.sum(), there.sum()))


def measured(graph: nx.DiGraph, words: WordMaps, group: Group) -> dict[str, Any]:
    """Return the effect of the ablation of a group in the only image, and the decision without it."""
    layer, numbers = graph.nodes[group[0]]["layer"], [graph.nodes[key]["word"] for key in group]
    where, influence, of = np.isin(words.words[layer], numbers), words.influence, graph.graph
    assert influence is not None
    target, contrast = np.array([of["target"]]), np.array([of["contrast"]]) if "contrast" in of else None

    def work(part: Rerun) -> tuple[float, float, int]:
        mask = torch.from_numpy(where[part.rows])[:, None]
        output = part.run({layer: lambda x: torch.where(mask.to(x.device), influence.baseline(layer, x), x)})
        left = margins(output.outputs, target, contrast)
        return float(left[0]), float(proba_of(output.outputs, target)[0]), int(output.decisions[0])

    ((left, proba, decided),) = influence.rerun(work, "groups")
    name = words.spec.class_name(decided)
    effect = of["margin"] - left
    return {"effect": effect, "probability_without": proba, "decision_without": decided, "class_without": name}


def merged(graph: nx.DiGraph, groups: Mapping[Group, Mapping[str, Any]]) -> nx.DiGraph:
    """Return a graph with one node for each group, its first, with sums over its words and its measured effect."""
    firsts = {key: group[0] for group in groups for key in group}
    small = nx.DiGraph(**graph.graph)
    for key, node in graph.nodes.items():
        if firsts.get(key, key) == key:
            small.add_node(key, **node)  # the first of a group changes below
    for group, effects in groups.items():
        nodes, kept = [graph.nodes[key] for key in group], small.nodes[group[0]]
        for name in ("effect", "probability_without", "decision_without", "class_without", "changed"):
            kept.pop(name, None)
        sums = {
            name: sum(node[name] for node in nodes) for name in ("count", "influence", "share", "score") if name in kept
        }
        kept.update(sums, words=[node["word"] for node in nodes], **effects)
    edges: dict[tuple[str, str], list[tuple[str, Mapping[str, Any]]]] = {}
    for tail, head, edge in graph.edges(data=True):
        edges.setdefault((firsts.get(tail, tail), firsts.get(head, head)), []).append((head, edge))
    for ends, parts in edges.items():
        small.add_edge(*ends, **_together(parts))
    return small


def _together(parts: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the attributes of one edge in place of several, each with its head; flows and counts add up."""
    if len(parts) == 1:
        return dict(parts[0][1])
    counts = "contribution" in parts[0][1]
    added, share, others = ("count", "frequency", ["contribution"]) if counts else ("flow", "share", ["effect"])
    sums: dict[str, Any] = {name: sum(edge[name] for _, edge in parts) for name in (added, *others)}
    whole = sum({head: edge[added] / edge[share] for head, edge in parts if edge[share]}.values())
    sums[share] = sums[added] / whole if whole else 0.0
    return sums | ({"log_ratio": sums["contribution"] / sums["count"]} if counts else {})
