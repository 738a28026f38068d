"""Counting which lower words lie in the receptive fields of upper words.

Windows are rectangles, so the pairs (p, q) of an image are all pairs of rows times all pairs of columns.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..features import ReceptiveField

_CHUNK = 2**18  # pairs of locations counted at a time: what is added up stays in the processor's cache
_HELD = 2**22  # numbers held at a time where the cache is of no use


def count_pairs(upper: np.ndarray, lower: np.ndarray, field: ReceptiveField, n_upper: int, n_lower: int) -> np.ndarray:
    """Return C[s, t] = sum over images and upper locations p with word s of the number of q in R(p) with word t.

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
    counts = np.zeros(n_upper * n_lower, dtype=np.int64)
    for _, _, cells in pair_chunks(upper, lower, field, n_lower, max(_CHUNK, len(counts))):
        counts += np.bincount(cells.ravel(), minlength=len(counts))
    return counts.reshape(n_upper, n_lower)


def pair_chunks(
    upper: np.ndarray, lower: np.ndarray, field: ReceptiveField, n_lower: int, chunk: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield all pairs of locations, about `chunk` at a time: some images, or some rows of one.

    Each time the number of the first image, the places of the lower locations in their map (rows, columns), and the
    cells s K + t of the two words (images, rows, columns), K being `n_lower`.
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


def chunks(n: int, each: int, held: int = _HELD) -> Iterator[slice]:
    """Yield slices of n things, so many at a time that `held` numbers suffice where each needs so many."""
    at_once = max(1, held // max(1, each))
    for first in range(0, n, at_once):
        yield slice(first, min(n, first + at_once))


def spread(values: np.ndarray, field: ReceptiveField) -> np.ndarray:
    """Return for each lower location the sum of `values` (..., H, W) over the upper ones that see it, (..., h, w)."""
    rows, columns = (  # which lower positions each upper one sees along both axes, as ones and zeros
        ((start[:, None] <= np.arange(size)) & (np.arange(size) < stop[:, None])).astype(values.dtype)
        for (start, stop), size in zip((field.rows, field.columns), field.shape, strict=True)
    )
    return rows.T @ values @ columns
