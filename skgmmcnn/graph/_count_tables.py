"""Counts of lower words in the receptive fields of upper words, and evidence from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..dictionary import WordMaps
from ..features import ReceptiveField
from ._hierarchy import DECISION, Hierarchy, Pair, maps_of

FEW_FITTED = 10  # images of a class; counts of fewer are unreliable
_CHUNK = 2**18  # pairs of locations counted at a time, so that the sums stay in the processor's cache


@dataclass(frozen=True, eq=False)
class Counts:
    """Counts over the fitted images; they add up."""

    classes: np.ndarray  # number of images decided for each output, (n_outputs,)
    transitions: dict[Pair, np.ndarray]  # of each lower word in the fields of each upper word, (K_upper, K_lower)

    @classmethod
    def of(cls, words: WordMaps, hierarchy: Hierarchy) -> Counts:
        """Count over images."""
        sizes = {DECISION: words.spec.n_outputs, **words.vocabulary.n_words}
        counts = {
            (upper, lower): count_pairs(maps_of(words, upper), words.words[lower], field, sizes[upper], sizes[lower])
            for (upper, lower), field in hierarchy.fields.items()
        }
        return cls(np.bincount(words.decisions, minlength=words.spec.n_outputs), counts)

    def __add__(self, other: Counts) -> Counts:
        added = {pair: counts + other.transitions[pair] for pair, counts in self.transitions.items()}
        return Counts(self.classes + other.classes, added)


def log_ratios(counts: np.ndarray, smoothing: float) -> np.ndarray:
    """Return log2 P(t | s) / P(t) in bits, shape (K_upper, K_lower), from counts C shrunk towards no evidence.

    With b the smoothing, P(t) = C[., t] / C[., .] and P(t | s) = (C[s, t] + b P(t)) / (C[s, .] + b).  A word t never
    counted, and a row s without counts, give 0 bits; a pair never seen is never positive evidence.
    """
    totals = counts.sum(-2, keepdims=True)
    marginal = totals / np.maximum(totals.sum(-1, keepdims=True), 1)
    occurs = marginal > 0
    lift = (counts / np.where(occurs, marginal, 1) + smoothing) / (counts.sum(-1, keepdims=True) + smoothing)
    return np.log2(np.where(occurs, lift, 1))


def count_pairs(upper: np.ndarray, lower: np.ndarray, field: ReceptiveField, n_upper: int, n_lower: int) -> np.ndarray:
    """Return C[s, t] = sum over images and upper locations p with word s of the number of q in R(p) with word t.

    The words are `upper` (n, H, W), below `n_upper`, and `lower` (n, h, w), below `n_lower`; the counts, of shape
    (n_upper, n_lower), are exact.
    """
    counts = np.zeros(n_upper * n_lower, dtype=np.int64)
    for _, _, cells in pair_chunks(upper, lower, field, n_lower, max(_CHUNK, len(counts))):
        counts += np.bincount(cells.ravel(), minlength=len(counts))
    return counts.reshape(n_upper, n_lower)


def pair_chunks(
    upper: np.ndarray, lower: np.ndarray, field: ReceptiveField, n_lower: int, chunk: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield all pairs of locations, about `chunk` at a time: of some images, or of some rows of one.

    Each item has the number of the first image, the places of the lower locations in their map (rows, columns), and
    the cells s * n_lower + t of both words (images, rows, columns).  Windows are rectangles: the pairs of an image are
    all pairs of rows times all pairs of columns.
    """
    (i, r), (j, c) = _pairs(*field.rows), _pairs(*field.columns)
    images_at_once = max(1, chunk // max(1, len(i) * len(j)))
    rows_at_once = max(1, chunk // max(1, len(j)))
    for first in range(0, len(upper), images_at_once):
        above = upper[first : first + images_at_once].take(j, axis=2).astype(np.int64) * n_lower
        below = lower[first : first + images_at_once].take(c, axis=2)
        for row in range(0, len(i), rows_at_once):
            part = slice(row, row + rows_at_once)
            cells = above.take(i[part], axis=1) + below.take(r[part], axis=1)
            yield first, r[part, None] * lower.shape[2] + c, cells


def _pairs(start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs (upper position, lower position in its interval) along one axis."""
    lengths = stop - start
    upper = np.repeat(np.arange(len(start)), lengths)
    first = np.cumsum(lengths) - lengths
    return upper, np.arange(len(upper)) - first[upper] + start[upper]


def coverage(words: WordMaps, class_counts: np.ndarray, predicted: np.ndarray, labels: np.ndarray | None) -> str:
    """Return the number of decisions with enough fitted images, and the share that the words predict, as text."""
    covered = class_counts[words.decisions] >= FEW_FITTED
    agree = predicted == words.decisions
    text = (
        f"{covered.sum()} of {len(words)} decisions are for classes with at least {FEW_FITTED} fitted images; counts "
        f"of words predict {agree.mean():.0%} of the decisions"
    )
    if labels is None:
        return text
    groups = {"right": labels == words.decisions, "wrong": labels != words.decisions}
    parts = [f"{agree[rows].mean():.0%} of the {name} ones" for name, rows in groups.items() if rows.any()]
    return f"{text}, {' and '.join(parts)}"
