"""Cells of an image: the parts that belong to the locations of a layer's map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..features import NetworkSpec
from ._layout import Box

HELD = 0.8  # share of the influence of words that the outlined locations hold
_TAG = (0.42, 0.2)
_SPOT = 0.085  # of a map: the width of the smallest spot


class Cells(NamedTuple):
    """Edges of the cells of a map's locations along both axes, as shares of the image."""

    rows: np.ndarray  # (H + 1,), from the top, 0, down to 1
    columns: np.ndarray  # (W + 1,), from the left, 0, to the right, 1

    def within(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of the edges of cells over an image in `box`."""
        return box.left + self.columns * box.width, box.top - self.rows * box.height


def cells_of(spec: NetworkSpec, layer: str) -> Cells:
    """Return the cells of a layer's locations: the pixels nearest to the middle of each receptive field.

    Strided layers can look to one side, and layers without padding leave out the border, so cells need not be equal.
    They are equal where the middles are unknown, as where all fields are the whole image.
    """
    edges = []
    for axis, size in enumerate(spec.shapes[layer][1:]):
        middles = _middles(spec, layer, axis)
        between = None if middles is None else np.clip((middles[1:] + middles[:-1]) / 2, 0, 1)
        edges.append(np.linspace(0, 1, size + 1) if between is None else np.concatenate([[0], between, [1]]))
    return Cells(*edges)


def _middles(spec: NetworkSpec, layer: str, axis: int) -> np.ndarray | None:
    """Return the middles of the uncut receptive fields along one axis, as shares of the image; None if unknown.

    Fields that are larger than the image are followed through a layer below, where they are not.
    """
    for lower in ("input", *spec.layers[::-1]):
        if (layer, lower) not in spec.receptive_fields:
            continue
        span, size = spec.receptive_fields[layer, lower].axes[axis]
        whole = span.whole(size)
        if whole is None:
            continue
        middles = (whole.start + whole.stop) / 2
        if lower == "input":
            return middles / size
        below = _middles(spec, lower, axis)
        if below is not None:
            return below[0] + (below[-1] - below[0]) / (len(below) - 1) * (middles - 0.5)
    return None


def strongest(shown: np.ndarray, influence: np.ndarray | None) -> np.ndarray:
    """Return the fewest of the locations `shown` (H, W) with a share `HELD` of their influence of the sign of its sum.

    All of them where the influence is unknown or zero.
    """
    if influence is None:
        return shown
    strength = np.where(shown, influence * np.sign(influence[shown].sum()), 0).clip(0)
    order = np.argsort(-strength, axis=None, kind="stable")
    total = np.cumsum(strength.ravel()[order])
    if not total[-1]:
        return shown
    kept = np.zeros(shown.size, dtype=bool)
    kept[order[: np.searchsorted(total, HELD * total[-1]) + 1]] = True
    return kept.reshape(shown.shape)


def grown(shown: np.ndarray) -> np.ndarray:
    """Return locations (H, W) of a fine map grown to visible spots, a twelfth of the map wide."""
    sides = [2 * round((_SPOT * size - 1) / 2) + 1 for size in shown.shape]
    return ndimage.maximum_filter(shown, sides, mode="constant")


def grey(picture: np.ndarray) -> np.ndarray:
    """Return a picture without colour, and lighter, to be tinted."""
    grey = picture @ np.array([0.299, 0.587, 0.114])
    return (130 + 125 * grey[..., None].repeat(3, 2) / 255).astype(np.uint8)


def lit(picture: np.ndarray, places: Sequence[tuple[Cells, np.ndarray]]) -> np.ndarray:
    """Return a picture that is grey and pale except at places, given as bool maps (H, W) with their cells."""
    height, width = picture.shape[:2]
    kept = np.zeros((height, width), dtype=bool)
    for cells, shown in places:
        rows, columns = (
            np.clip(np.searchsorted(ends, (np.arange(size) + 0.5) / size) - 1, 0, len(ends) - 2)
            for ends, size in zip(cells, (height, width), strict=True)
        )
        kept |= shown[np.ix_(rows, columns)]
    return np.where(kept[..., None], picture, grey(picture))


def place_tag(box: Box, cells: Cells, shown: np.ndarray, taken: Sequence[Box]) -> Box | None:
    """Return a free box in `box` for a tag on one of the locations `shown` (H, W), of those in the middle first."""
    rows, columns = np.nonzero(shown)
    order = np.argsort((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2, kind="stable")
    (width, height), (x, y) = _TAG, cells.within(box)
    for row, column in zip(rows[order], columns[order], strict=True):
        left = min(max(x[column : column + 2].mean() - width / 2, box.left), box.right - width)
        bottom = min(max(y[row : row + 2].mean() - height / 2, box.bottom), box.top - height)
        tag = Box(left, bottom, width, height)
        if not any(map(tag.overlaps, taken)):
            return tag
    return None


def smoothed(values: np.ndarray, cells: Cells, size: tuple[int, int]) -> np.ndarray:
    """Return a map (H, W) as an image of a size (height, width), interpolated between the middles of its cells."""
    down, along = (
        np.stack(
            [np.interp((np.arange(n) + 0.5) / n, (ends[1:] + ends[:-1]) / 2, unit) for unit in np.eye(len(ends) - 1)]
        )
        for ends, n in zip(cells, size, strict=True)
    )
    return down.T @ values @ along
