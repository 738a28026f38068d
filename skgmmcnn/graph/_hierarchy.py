"""The modelled layers as a graph: what is explained by what, derived from the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..dictionary import WordMaps
from ..features import NetworkSpec, ReceptiveField

DECISION = "decision"
EFFECTIVE, WHOLE = FIELDS = ("effective", "whole")
Pair = tuple[str, str]  # upper and lower layer


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The decision, the modelled layers, and what lies directly below each."""

    # for the decision and each layer, from the top down, the layers that explain it, the uppermost first; and
    # for each layer what it explains
    below: Mapping[str, tuple[str, ...]]
    above: Mapping[str, tuple[str, ...]]
    reached: Mapping[str, set[str]]  # all layers that a layer depends on
    depths: Mapping[str, int]  # the most steps from the decision down to each layer
    # for each pair of `below` the window in which the lower words of an upper location count; the decision's is
    # the whole map
    fields: Mapping[Pair, ReceptiveField]


def hierarchy(spec: NetworkSpec, effective: Mapping[Pair, ReceptiveField]) -> Hierarchy:
    """Return what explains what in a network.

    A layer is explained by the layers that it depends on without another modelled layer between, the decision by the
    layers on which no other modelled layer depends.  Where there is no `effective` field, the whole one is taken.
    """
    _check_layers(spec)
    tops = set(spec.layers).difference(*spec.below.values())
    below = {DECISION: tuple(layer for layer in spec.layers[::-1] if layer in tops), **spec.below}
    above = {layer: tuple(upper for upper, lowers in below.items() if layer in lowers) for layer in spec.layers}
    fields = {(DECISION, top): _whole_map(spec.shapes[top][1:]) for top in below[DECISION]}
    fields |= {pair: effective.get(pair, spec.receptive_fields[pair]) for pair in _pairs(spec)}
    reached: dict[str, set[str]] = {}
    for layer in spec.layers:
        reached[layer] = set(below[layer]).union(*(reached[lower] for lower in below[layer]))
    depths = {DECISION: 0}
    for layer in list(below)[1:]:
        depths[layer] = 1 + max(depths[upper] for upper in above[layer])
    return Hierarchy(below, above, reached, depths, fields)


def effective_fields(spec: NetworkSpec) -> dict[Pair, ReceptiveField] | None:
    """Return the effective fields of all layers that explain each other; None where some were not measured."""
    known = spec.effective_fields
    return {pair: known[pair] for pair in _pairs(spec)} if set(known).issuperset(_pairs(spec)) else None


def _pairs(spec: NetworkSpec) -> list[Pair]:
    return [(upper, lower) for upper, lowers in spec.below.items() for lower in lowers]


def _check_layers(spec: NetworkSpec) -> None:
    if DECISION in spec.layers:
        raise ValueError(f"A layer is called {DECISION!r}, the name of what graphs explain; rename it in the network.")
    place = {layer: number for number, layer in enumerate(spec.layers)}
    for upper, lower in spec.receptive_fields:
        if {upper, lower} <= set(place) and place[lower] > place[upper]:
            raise ValueError(
                f"The layers {list(spec.layers)} are not in the order of the network, the lowest first: {upper!r} "
                f"depends on {lower!r}."
            )


def _whole_map(size: tuple[int, ...]) -> ReceptiveField:
    rows, columns = ((np.array([0]), np.array([n])) for n in size)
    return ReceptiveField(rows, columns, size)  # type: ignore[arg-type]


def maps_of(words: WordMaps, layer: str) -> np.ndarray:
    """Return the words of a layer (n, H, W); those of the decision are the outputs, at one location."""
    return words.decisions[:, None, None] if layer == DECISION else words.words[layer]
