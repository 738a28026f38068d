"""Hierarchy of the modelled layers: which explain which, and in which windows, derived from the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx
import numpy as np

from ..dictionary import WordMaps
from ..features import NetworkSpec, ReceptiveField, Span

DECISION = "decision"
EFFECTIVE, WHOLE = FIELDS = ("effective", "whole")
Pair = tuple[str, str]  # upper and lower layer


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The decision and the modelled layers; orders are from the top down."""

    below: Mapping[str, tuple[str, ...]]  # for the decision and each layer, the layers that explain it
    above: Mapping[str, tuple[str, ...]]  # for each layer, the layers and decision that it explains
    descendants: Mapping[str, set[str]]  # all layers that a layer depends on
    depths: Mapping[str, int]  # the most steps from the decision down to each layer
    fields: Mapping[Pair, ReceptiveField]  # for each pair of `below`, the windows in which lower words count

    @classmethod
    def of(cls, spec: NetworkSpec, effective: Mapping[Pair, ReceptiveField]) -> Hierarchy:
        """Return the hierarchy of a network, with `effective` fields where given and whole fields elsewhere.

        A layer is explained by the layers that it depends on without another modelled layer between, the decision by
        the layers on which no other modelled layer depends; the field of the decision is the whole map.
        """
        _check_layers(spec)
        tops = set(spec.layers).difference(*spec.below.values())
        below = {DECISION: tuple(layer for layer in spec.layers[::-1] if layer in tops), **spec.below}
        above = {layer: tuple(upper for upper, lowers in below.items() if layer in lowers) for layer in spec.layers}
        fields = {(DECISION, top): _whole_map(spec.shapes[top][1:]) for top in below[DECISION]}
        fields |= {pair: effective.get(pair, spec.receptive_fields[pair]) for pair in _pairs(spec)}
        graph = nx.DiGraph(list(fields))
        descendants = {layer: nx.descendants(graph, layer) for layer in spec.layers}
        generations = enumerate(nx.topological_generations(graph))
        depths = {layer: depth for depth, layers in generations for layer in layers}
        return cls(below, above, descendants, depths, fields)


def effective_fields(spec: NetworkSpec) -> dict[Pair, ReceptiveField] | None:
    """Return the effective fields of all pairs of layers in the hierarchy; None if some were not measured."""
    pairs, fields = _pairs(spec), spec.effective_fields
    return {pair: fields[pair] for pair in pairs} if fields.keys() >= set(pairs) else None


def maps_of(words: WordMaps, layer: str) -> np.ndarray:
    """Return the words of a layer (n, H, W); those of the decision are the outputs, at one location."""
    return words.decisions[:, None, None] if layer == DECISION else words.words[layer]


def _pairs(spec: NetworkSpec) -> list[Pair]:
    return [(upper, lower) for upper, lowers in spec.below.items() for lower in lowers]


def _check_layers(spec: NetworkSpec) -> None:
    if DECISION in spec.layers:
        raise ValueError(f"A layer is called {DECISION!r}, the layer of outputs in graphs; rename it in the network.")
    place = {layer: number for number, layer in enumerate(spec.layers)}
    for upper, lower in spec.receptive_fields:
        if {upper, lower} <= set(place) and place[lower] > place[upper]:
            raise ValueError(
                f"The layers {list(spec.layers)} are not in the order of the network, the lowest first: {upper!r} "
                f"depends on {lower!r}."
            )


def _whole_map(size: tuple[int, ...]) -> ReceptiveField:
    height, width = size
    rows, columns = (Span(np.array([0]), np.array([length])) for length in size)
    return ReceptiveField(rows, columns, (height, width))
