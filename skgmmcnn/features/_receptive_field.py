"""Receptive fields between maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Span(NamedTuple):
    """Half-open intervals [start, stop) along one axis, one per upper position; empty where start == stop."""

    start: np.ndarray
    stop: np.ndarray

    @property
    def longest(self) -> int:
        """Length of the longest interval."""
        return int((self.stop - self.start).max(initial=0))

    def mask(self, extent: int) -> np.ndarray:
        """Return whether each interval contains each of `extent` positions, bool (n, extent)."""
        positions = np.arange(extent)
        return (self.start[:, None] <= positions) & (positions < self.stop[:, None])

    def around(self, length: int, extent: int) -> Span:
        """Return intervals of equal length around these, within an axis of `extent` positions.

        Clipped intervals have unknown middles; the locations of the upper map are laid evenly over the lower one.
        """
        start, stop = self
        place = (np.arange(len(start)) + 0.5) * extent / len(start)
        middle = np.where((start > 0) & (stop < extent), (start + stop) / 2, place)
        first = np.clip(np.floor(middle - length / 2 + 0.5).astype(np.intp), 0, extent - length)
        return Span(first, first + length)

    def whole(self, extent: int) -> Span | None:
        """Return the windows without a border, of equal length and step, inferred from the unclipped intervals.

        None where these are too few, or where the intervals do not come from such windows.
        """
        start, stop = self
        starts, stops = start[start > 0], stop[stop < extent]
        steps = np.unique(np.concatenate([np.diff(starts), np.diff(stops)]))
        if min(len(starts), len(stops)) < 2 or len(steps) > 1:
            return None
        first = starts[-1] + steps * np.arange(1 - len(start), 1)
        last = first + (stops[0] - first[0])
        return Span(first, last) if (first <= start).all() and (stop <= last).all() else None

    def unclipped(self, extent: int) -> Span:
        """Return the intervals with those that the border clips at one end extended to the greatest length."""
        start = np.where((self.start == 0) & (self.stop < extent), self.stop - self.longest, self.start)
        return Span(start, np.where((self.stop == extent) & (start > 0), start + self.longest, self.stop))


@dataclass(frozen=True, eq=False)
class ReceptiveField:
    """Windows of a lower map on which the locations of an upper map depend.

    With dilation a window includes the positions in between.  Windows are clipped at the border of the lower map, and
    empty for locations that depend only on padding.

    Parameters
    ----------
    rows, columns : tuple of two int arrays (start, stop)
        Half-open intervals of lower positions, one per upper row and one per upper column.
    shape : tuple (height, width)
        Size of the lower map.
    """

    rows: Span
    columns: Span
    shape: tuple[int, int]

    def window(self, i: int, j: int) -> tuple[slice, slice]:
        """Return the window of one upper location.

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
    def axes(self) -> tuple[tuple[Span, int], tuple[Span, int]]:
        """Windows and size of the lower map along rows, and along columns."""
        return (self.rows, self.shape[0]), (self.columns, self.shape[1])

    @property
    def stride(self) -> tuple[int | None, int | None]:
        """Step between windows along rows and columns, None if it is not constant away from the border."""
        rows, columns = (_stride(*axis) for axis in self.axes)
        return rows, columns


def _stride(span: Span, size: int) -> int | None:
    start, stop = span
    for ends in (start[start > 0], stop[stop < size]):  # not clipped at the border
        steps = np.diff(ends)
        if len(steps) and (steps == steps[0]).all():
            return int(steps[0])
    return None
