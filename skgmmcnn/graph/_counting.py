"""Counting which lower words lie in the receptive fields of upper words."""

from __future__ import annotations

import numpy as np

from ..features import ReceptiveField

_CHUNK = 2**22  # pairs of locations counted at a time, 8 bytes each


def count_pairs(upper: np.ndarray, lower: np.ndarray, field: ReceptiveField, n_upper: int, n_lower: int) -> np.ndarray:
    """Return C[s, t] = sum over images and upper locations p with word s of the number of q in R(p) with word t.

    Windows are rectangles, so the pairs (p, q) of an image are all pairs of rows times all pairs of columns.

    Parameters
    ----------
    upper : int array of shape (n, H, W)
        Words of the upper layer, below `n_upper`.
    lower : int array of shape (n, h, w)
        Words of the lower layer, below `n_lower`.
    field : ReceptiveField
        What each upper location sees of the lower map.
    n_upper, n_lower : int
        Numbers of words.

    Returns
    -------
    counts : int64 array of shape (n_upper, n_lower)
        Exact numbers of pairs.
    """
    (i, r), (j, c) = _pairs(*field.rows), _pairs(*field.columns)
    counts = np.zeros(n_upper * n_lower, dtype=np.int64)
    images_at_once = max(1, _CHUNK // max(1, len(i) * len(j)))
    rows_at_once = max(1, _CHUNK // max(1, len(j)))
    for first in range(0, len(upper), images_at_once):
        above = upper[first : first + images_at_once].take(j, axis=2).astype(np.int64) * n_lower
        below = lower[first : first + images_at_once].take(c, axis=2)
        for row in range(0, len(i), rows_at_once):
            part = slice(row, row + rows_at_once)
            cells = above.take(i[part], axis=1) + below.take(r[part], axis=1)
            counts += np.bincount(cells.ravel(), minlength=len(counts))
    return counts.reshape(n_upper, n_lower)


def _pairs(start: np.ndarray, stop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return all pairs (upper position, lower position in its interval) along one axis."""
    lengths = stop - start
    upper = np.repeat(np.arange(len(start)), lengths)
    first = np.cumsum(lengths) - lengths
    return upper, np.arange(len(upper)) - first[upper] + start[upper]
