"""Conversion of layer tensors to maps (n, C, H, W)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

_MOST_EXTRA_TOKENS = 8  # class, distillation and register tokens precede those of the image


class Form(NamedTuple):
    """The conversion of the tensor of a layer to a map.

    Parameters
    ----------
    axes : tuple of int or None
        Axes of rows and columns in a 4-D tensor; None for vectors and tokens.
    grid : tuple (height, width) or None
        Grid of the last tokens of (n, T, C); None for vectors and maps.
    """

    axes: tuple[int, int] | None = None
    grid: tuple[int, int] | None = None

    @classmethod
    def of(cls, tensor: Tensor, place: Tensor | None, layout: str | None = None) -> Form | None:
        """Return the form of the tensor (1, ...) of one image, None if it is neither map, vector nor grid of tokens.

        `place` (2, 1, ...) is the row and the column of each value, infinite if unknown, with axes of length 1 where
        it is constant.  `layout` is set by the user.
        """
        if tensor.ndim == 2:
            return cls()
        if tensor.ndim == 4 and layout is not None:
            return cls(axes=(2, 3) if layout == "channels_first" else (1, 2))
        if len(tensor) > 1 or place is None:
            return None
        along = [_along(part) for part in place.numpy()]
        if tensor.ndim == 4:
            return cls._of_map(tensor, *along)
        return cls._of_tokens(place[:, 0, :, 0]) if tensor.ndim == 3 and set(along[0] + along[1]) == {1} else None

    @classmethod
    def _of_map(cls, tensor: Tensor, rows: list[int], columns: list[int]) -> Form | None:
        """Return the form of a map, given the axes along which the rows, and the columns, of values differ.

        Channels lie along an axis without differences, a longer one rather than an axis of length 1.
        """
        same = [axis for axis in (1, 2, 3) if axis not in rows + columns]
        long = [axis for axis in same if tensor.shape[axis] > 1]
        if len(rows) > 1 or len(columns) > 1 or len(long) > 1 or not same:
            return None
        (channels,) = long or same[:1]
        first, second = (axis for axis in (1, 2, 3) if axis != channels)
        return cls(axes=(second, first) if rows == [second] or columns == [first] else (first, second))

    @classmethod
    def _of_tokens(cls, places: Tensor) -> Form | None:
        """Return the form of tokens at `places` (2, T), the last of which form a grid in row-major order."""
        size = [len(part[part.isfinite()].unique()) for part in places]
        grid = places[:, places.shape[1] - size[0] * size[1] :]
        if grid.shape[1] <= _MOST_EXTRA_TOKENS or places.shape[1] - grid.shape[1] > _MOST_EXTRA_TOKENS:
            return None
        rows, columns = (part.view(size) for part in grid)
        in_order = (rows == rows[:, :1]).all() and (columns == columns[:1]).all()
        in_order = in_order and (rows[:, 0].diff() > 0).all() and (columns[0].diff() > 0).all()
        return cls(grid=(size[0], size[1])) if in_order else None

    @property
    def location_axes(self) -> tuple[int, ...]:
        """Axes along which locations lie."""
        if self.axes is not None:
            return self.axes
        return () if self.grid is None else (1,)

    def as_map(self, values: Tensor) -> Tensor:
        """Return activations as maps (n, C, H, W): vectors as one location, tokens without those before the grid."""
        if self.axes is not None:
            (channels,) = {1, 2, 3} - set(self.axes)
            return values.permute(0, channels, *self.axes)
        if self.grid is not None:
            return values[:, -self.grid[0] * self.grid[1] :].unflatten(1, self.grid).permute(0, 3, 1, 2)
        return values[:, :, None, None]

    def size(self, values: Tensor) -> tuple[int, int]:
        """Return (H, W) of the map."""
        return self.shape(values)[1:]

    def shape(self, values: Tensor) -> tuple[int, int, int]:
        """Return (C, H, W) of the map."""
        _, channels, height, width = self.as_map(values).shape
        return channels, height, width


def no_form(layer: str, values: Any) -> ValueError:
    """Return the error for a layer that has no form."""
    if not isinstance(values, Tensor):
        return ValueError(
            f"Layer {layer!r} returns a {type(values).__name__}, not a single tensor. Name a layer inside or behind it "
            "that returns the tensor."
        )
    if values.ndim == 4 and len(values) == 1:
        return ValueError(
            f"Layer {layer!r} returns a tensor of shape {tuple(values.shape)}, and its channel axis is unknown. Set "
            f"layout={{{layer!r}: 'channels_first'}} or 'channels_last'."
        )
    return ValueError(
        f"Layer {layer!r} returns a tensor of shape {tuple(values.shape)}; supported are maps (n, C, H, W) "
        "or (n, H, W, C), vectors (n, d), and tokens (n, T, d) of the locations of a map, row by row."
    )


def _along(place: np.ndarray) -> list[int]:
    """Return the axes along which the places of values differ everywhere.

    Channels into which patches of a map were merged differ a little, too: differences below half of those along another
    axis are ignored.
    """
    extents = {axis: _smallest_extent(place, axis) for axis in range(1, place.ndim) if place.shape[axis] > 1}
    return [axis for axis, extent in extents.items() if extent > 0 and extent >= max(extents.values()) / 2]


def _smallest_extent(place: np.ndarray, axis: int) -> float:
    """Return the smallest extent of places along an axis."""
    least = place.min(axis)
    most = np.where(np.isfinite(place), place, -np.inf).max(axis)
    finite = np.isfinite(least)
    return float((most - least)[finite].min()) if finite.any() else 0.0
