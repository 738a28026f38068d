"""All that is counted over the fitted images; it adds up."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ..dictionary import WordMaps
from ..features import ReceptiveField
from . import _chance
from ._chance import Sums
from ._counting import count_by_image, count_pairs
from ._evidence import Pair
from ._hierarchy import Hierarchy, maps_of, sizes_of
from ._resampling import Resampler, poisson_weights


@dataclass(frozen=True, eq=False)
class Tally:
    """Counts over images.

    Parameters
    ----------
    classes : int array of shape (n_outputs,)
        Number of images decided for each output.
    transitions : dict of (upper, lower) to int array of shape (K_upper, K_lower)
        How often each lower word lies in the fields of each upper word.
    resampled : dict of (upper, lower) to int array of shape (K_upper, K_lower, n_bootstrap)
        The same for resamples; empty where none are asked for.
    chance : dict of (upper, lower) to Sums
        What p-values need; empty where none are asked for.
    """

    classes: np.ndarray
    transitions: dict[Pair, np.ndarray]
    resampled: dict[Pair, np.ndarray]
    chance: dict[Pair, Sums]

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.classes + other.classes,
            {pair: counts + other.transitions[pair] for pair, counts in self.transitions.items()},
            {pair: counts + other.resampled[pair] for pair, counts in self.resampled.items()},
            {pair: sums.plus(other.chance[pair]) for pair, sums in self.chance.items()},
        )


def check_memory(words: WordMaps, structure: Hierarchy, *, n_bootstrap: int, chance: bool) -> None:
    """Raise an error if resamples and what p-values need would take more than half of the machine's memory."""
    sizes = sizes_of(words)
    cells = sum(sizes[upper] * sizes[lower] for upper, lower in structure.fields)
    sums = chance * sum(
        _chance.n_numbers(maps_of(words, upper).shape[1:], sizes[upper], sizes[lower])
        for upper, lower in structure.fields
    )
    needed, there = 8 * (n_bootstrap * cells + sums), _memory() // 2
    if needed > there:
        raise MemoryError(
            f"Counting n_bootstrap={n_bootstrap} resamples of {cells} pairs of words with p_values={chance} would take "
            f"{needed / 2**30:.1f} GiB, of {there / 2**30:.1f} GiB that it may take here (half of the memory). "
            f"n_bootstrap={max(0, there // 8 - sums) // cells} fits, or take fewer words."
        )


def _memory() -> int:
    """Return the bytes of memory of this machine; 8 GiB are taken for granted where it cannot be asked."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**33


def tally(words: WordMaps, structure: Hierarchy, first: int, *, seed: int, n_bootstrap: int, chance: bool) -> Tally:
    """Count over images, of which the first is number `first` among all."""
    sizes, weights = sizes_of(words), poisson_weights(seed, first + np.arange(len(words)), n_bootstrap)
    found = Tally(np.bincount(words.decisions, minlength=words.spec.n_outputs), {}, {}, {})
    for (upper, lower), field in structure.fields.items():
        maps, n_words = (maps_of(words, upper), maps_of(words, lower)), (sizes[upper], sizes[lower])
        found.transitions[upper, lower] = count_pairs(*maps, field, *n_words)
        if n_bootstrap or chance:
            resampled, support = _over_images(maps, field, n_words, weights)
            if n_bootstrap:
                found.resampled[upper, lower] = resampled
            if chance:
                found.chance[upper, lower] = _chance.sum_up(*maps, field, support, sizes[lower])
    return found


def _over_images(
    maps: tuple[np.ndarray, np.ndarray], field: ReceptiveField, n_words: tuple[int, int], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts of resamples, and how many images show each pair."""
    resampler, support = Resampler(*n_words, weights.shape[1]), np.zeros(n_words, dtype=np.int64)
    for first, rows in count_by_image(*maps, field, *n_words):
        resampler.add(rows, weights[first : first + rows.shape[0]])
        support += _chance.support_of(rows).reshape(n_words)
    return resampler.counts, support
