"""All that is counted over the fitted images; it adds up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..dictionary import WordMaps
from ._counting import count_pairs
from ._evidence import Pair
from ._hierarchy import Hierarchy, maps_of, sizes_of


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts over images.

    Parameters
    ----------
    classes : int array of shape (n_outputs,)
        Number of images decided for each output.
    transitions : dict of (upper, lower) to int array of shape (K_upper, K_lower)
        How often each lower word lies in the fields of each upper word.
    """

    classes: np.ndarray
    transitions: dict[Pair, np.ndarray]

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.classes + other.classes,
            {pair: counts + other.transitions[pair] for pair, counts in self.transitions.items()},
        )


def tally(words: WordMaps, structure: Hierarchy) -> Tally:
    """Count over images."""
    sizes = sizes_of(words)
    counts = {
        (upper, lower): count_pairs(maps_of(words, upper), maps_of(words, lower), field, sizes[upper], sizes[lower])
        for (upper, lower), field in structure.fields.items()
    }
    return Tally(np.bincount(words.decisions, minlength=words.spec.n_outputs), counts)
