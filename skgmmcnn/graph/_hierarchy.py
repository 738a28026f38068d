"""What is explained by what: the modelled layers as a graph, derived from the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..dictionary import WordMaps
from ..features import NetworkSpec, ReceptiveField

DECISION = "decision"
EFFECTIVE, WHOLE = FIELDS = ("effective", "whole")


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The decision, the modelled layers, and what lies directly below each.

    Parameters
    ----------
    below : dict of str to tuple of str
        For the decision and each layer, from the top down, the layers that explain it, the uppermost first.
    fields : dict of (upper, lower) to ReceptiveField
        For each of these pairs the window in which the lower words of an upper location count; the decision's is the
        whole map.
    """

    below: Mapping[str, tuple[str, ...]]
    fields: Mapping[tuple[str, str], ReceptiveField]

    def above(self, layer: str) -> list[str]:
        """Return what a layer explains: layers, or the decision."""
        return [upper for upper, lowers in self.below.items() if layer in lowers]

    def reached(self, layer: str) -> set[str]:
        """Return all layers that a layer depends on."""
        found: set[str] = set()
        todo = list(self.below[layer])
        while todo:
            lower = todo.pop()
            if lower not in found:
                found.add(lower)
                todo += self.below[lower]
        return found

    def depths(self) -> dict[str, int]:
        """Return the most steps from the decision down to each layer."""
        found = {DECISION: 0}
        for layer in list(self.below)[1:]:
            found[layer] = 1 + max(found[upper] for upper in self.above(layer))
        return found


def hierarchy(spec: NetworkSpec, fields: str) -> Hierarchy:
    """Return what explains what in a network.

    A layer is explained by the layers that it depends on without another modelled layer between, the decision by the
    layers on which no other modelled layer depends.  Fields are the "effective" ones, or the "whole" ones.
    """
    _check_layers(spec)
    tops = set(spec.layers).difference(*spec.below.values())
    below = {DECISION: tuple(layer for layer in spec.layers[::-1] if layer in tops), **spec.below}
    chosen = {(DECISION, top): _whole_map(spec.shapes[top][1:]) for top in below[DECISION]}
    known = spec.effective_fields if fields == EFFECTIVE else spec.receptive_fields
    chosen |= {(upper, lower): known[upper, lower] for upper, lowers in spec.below.items() for lower in lowers}
    return Hierarchy(below, chosen)


def measured(spec: NetworkSpec) -> bool:
    """Tell whether there are effective fields of all layers that explain each other."""
    return all((upper, lower) in spec.effective_fields for upper, lowers in spec.below.items() for lower in lowers)


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


def sizes_of(words: WordMaps) -> dict[str, int]:
    """Return the number of words of each layer, and of outputs for the decision."""
    return {DECISION: words.spec.n_outputs, **words.vocabulary.n_words}
