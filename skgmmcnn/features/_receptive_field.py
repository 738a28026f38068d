"""Receptive fields: which positions of a lower map one position of an upper map depends on.

Along one axis, *reach* is a boolean matrix (upper positions, lower positions).  Reaches compose by boolean matrix
products and unite by "or", so padding, holes (dilation, strides) and rows that a stride leaves unread need no special
care; the receptive field is the hull of the reach at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
    """Half-open intervals [start, stop) along one axis, one per upper position; empty where start == stop."""

    start: np.ndarray
    stop: np.ndarray


class Reach(NamedTuple):
    """Dependence along rows and along columns, boolean matrices (upper size, lower size)."""

    rows: np.ndarray
    columns: np.ndarray

    def __or__(self, other: Reach) -> Reach:
        return Reach(self.rows | other.rows, self.columns | other.columns)

    def over(self, upper: tuple[int, int], lower: tuple[int, int]) -> Reach:
        """Return the reach between maps of these sizes; what had a single location here has the same reach in all."""
        sizes = zip(self, upper, lower, strict=True)
        return Reach(*(np.broadcast_to(matrix, (above, below)) for matrix, above, below in sizes))

    def after(self, lower: Reach) -> Reach:
        """Return the reach through a middle map: `self` leads from the upper map to the middle, `lower` on from it."""
        return Reach(_compose(self.rows, lower.rows), _compose(self.columns, lower.columns))


def _compose(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    if np.array_equal(upper, np.eye(len(upper), dtype=bool)):
        return lower
    return upper.astype(np.float32) @ lower.astype(np.float32) > 0


def identity(size: tuple[int, int]) -> Reach:
    """Return the reach of an elementwise operation on a map of `size` (height, width)."""
    return Reach(np.eye(size[0], dtype=bool), np.eye(size[1], dtype=bool))


def everything(upper: tuple[int, int], lower: tuple[int, int]) -> Reach:
    """Return the reach of an operation in which every position depends on every position."""
    return Reach(np.ones((upper[0], lower[0]), dtype=bool), np.ones((upper[1], lower[1]), dtype=bool))


def nothing(upper: tuple[int, int], lower: tuple[int, int]) -> Reach:
    """Return the reach of an operation that reads no position at all."""
    return Reach(np.zeros((upper[0], lower[0]), dtype=bool), np.zeros((upper[1], lower[1]), dtype=bool))


def taps(upper: int, lower: int, kernel: int, stride: int, padding: int, dilation: int) -> np.ndarray:
    """Return the reach along one axis of a convolution or pooling: position i reads stride i - padding + dilation k."""
    read = stride * np.arange(upper)[:, None] - padding + dilation * np.arange(kernel)
    reach = np.zeros((upper, lower), dtype=bool)
    position, tap = np.nonzero((read >= 0) & (read < lower))
    reach[position, read[position, tap]] = True
    return reach


def adaptive_bins(upper: int, lower: int) -> np.ndarray:
    """Return the reach along one axis of adaptive pooling: bin i covers [floor(i n / m), ceil((i + 1) n / m))."""
    position, read = np.arange(upper)[:, None], np.arange(lower)
    return (read >= position * lower // upper) & (read < -(-(position + 1) * lower // upper))


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """The window of a lower map that every location of an upper map sees.

    Where a window has holes, as under dilation, it is the hull of what is seen.  It is cut at the border of the
    lower map, and can be empty where a location sees nothing but padding.

    Parameters
    ----------
    rows, columns : tuple of two int arrays (start, stop)
        Half-open intervals of lower positions, one per upper row and one per upper column.
    shape : tuple (height, width)
        Size of the lower map.

    Examples
    --------
    >>> import numpy as np
    >>> from skgmmcnn.features import ReceptiveField
    >>> axis = (np.array([0, 1, 3]), np.array([2, 4, 5]))
    >>> ReceptiveField(axis, axis, shape=(5, 5)).window(1, 2)
    (slice(1, 4, None), slice(3, 5, None))
    """

    rows: Span
    columns: Span
    shape: tuple[int, int]

    @classmethod
    def from_reach(cls, reach: Reach) -> ReceptiveField:
        """Return the hull of a reach.

        Parameters
        ----------
        reach : Reach
            Which lower rows and columns each upper row and column depends on.

        Returns
        -------
        field : ReceptiveField
            The windows.
        """
        return cls(_hull(reach.rows), _hull(reach.columns), (reach.rows.shape[1], reach.columns.shape[1]))

    def window(self, i: int, j: int) -> tuple[slice, slice]:
        """Return what one upper location sees.

        Parameters
        ----------
        i, j : int
            Row and column of the upper location.

        Returns
        -------
        window : tuple of two slices
            Rows and columns of the lower map.
        """
        return (
            slice(int(self.rows[0][i]), int(self.rows[1][i])),
            slice(int(self.columns[0][j]), int(self.columns[1][j])),
        )

    @property
    def stride(self) -> tuple[int | None, int | None]:
        """Step of the windows per upper row and column, None where it is not constant away from the border."""
        return _stride(self.rows, self.shape[0]), _stride(self.columns, self.shape[1])


def _hull(reach: np.ndarray) -> Span:
    seen = reach.any(1)
    start = np.where(seen, reach.argmax(1), 0)
    stop = np.where(seen, reach.shape[1] - reach[:, ::-1].argmax(1), 0)
    return Span(start, stop)


def _stride(span: tuple[np.ndarray, np.ndarray], size: int) -> int | None:
    start, stop = span
    for ends in (start[start > 0], stop[stop < size]):  # those that the border does not cut
        steps = np.diff(ends)
        if len(steps) and (steps == steps[0]).all():
            return int(steps[0])
    return None
