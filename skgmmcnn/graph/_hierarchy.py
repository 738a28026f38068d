"""What is explained by what: the modelled layers as a graph, derived from the network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..dictionary import WordMaps
from ..features import NetworkSpec, ReceptiveField

DECISION = "decision"


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """The decision, the modelled layers, and what lies directly below each.

    Parameters
    ----------
    below : dict of str to tuple of str
        For the decision and each layer, from the top down, the layers that explain it, the uppermost first.
    fields : dict of (upper, lower) to ReceptiveField
        For each of these pairs what a location sees; the decision sees all of a map.
    """

    below: Mapping[str, tuple[str, ...]]
    fields: Mapping[tuple[str, str], ReceptiveField]

    def above(self, layer: str) -> list[str]:
        """Return what a layer explains: layers, or the decision."""
        return [upper for upper, lowers in self.below.items() if layer in lowers]

    def depths(self) -> dict[str, int]:
        """Return the most steps from the decision down to each layer."""
        found = {DECISION: 0}
        for layer in list(self.below)[1:]:
            found[layer] = 1 + max(found[upper] for upper in self.above(layer))
        return found


def hierarchy(spec: NetworkSpec) -> Hierarchy:
    """Return what explains what in a network.

    A layer is explained by the layers that it depends on without another modelled layer between (the transitive
    reduction of the dependences), the decision by the layers on which no other modelled layer depends.
    """
    lowers = {upper: {v for v in spec.layers if (upper, v) in spec.receptive_fields} for upper in spec.layers}
    _check_layers(spec.layers, lowers)
    descending = spec.layers[::-1]
    tops = set(spec.layers).difference(*lowers.values())
    below = {DECISION: tuple(layer for layer in descending if layer in tops)}
    for upper in descending:
        direct = lowers[upper].difference(*(lowers[middle] for middle in lowers[upper]))
        below[upper] = tuple(layer for layer in descending if layer in direct)
    fields = {(DECISION, top): _whole(spec.shapes[top][1:]) for top in below[DECISION]}
    for upper in descending:
        fields |= {(upper, lower): spec.receptive_fields[upper, lower] for lower in below[upper]}
    return Hierarchy(below, fields)


def _check_layers(layers: tuple[str, ...], lowers: Mapping[str, set[str]]) -> None:
    if DECISION in layers:
        raise ValueError(f"A layer is called {DECISION!r}, the name of what graphs explain; rename it in the network.")
    for place, upper in enumerate(layers):
        for lower in lowers[upper].difference(layers[:place]):
            raise ValueError(
                f"The layers {list(layers)} are not in the order of the network, the lowest first: {upper!r} depends "
                f"on {lower!r}."
            )


def _whole(size: tuple[int, ...]) -> ReceptiveField:
    rows, columns = ((np.array([0]), np.array([n])) for n in size)
    return ReceptiveField(rows, columns, size)  # type: ignore[arg-type]


def maps_of(words: WordMaps, layer: str) -> np.ndarray:
    """Return the words of a layer (n, H, W); those of the decision are the outputs, at one location."""
    return words.decisions[:, None, None] if layer == DECISION else words.words[layer]


def sizes_of(words: WordMaps) -> dict[str, int]:
    """Return the number of words of each layer, and of outputs for the decision."""
    return {DECISION: words.spec.n_outputs, **words.vocabulary.n_words}
