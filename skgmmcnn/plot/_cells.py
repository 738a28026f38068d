"""Cells of an image: the parts that belong to the locations of a layer's map."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from ..features import NetworkSpec
from ._layout import Box

INFLUENCE_SHARE = 0.8  # of all influence of a word, of the locations that are outlined
_TAG_SIZE = (0.42, 0.2)
_SPOT = 0.085  # width of the smallest spot, as a share of the map


class Cells(NamedTuple):
    """Edges of the cells of a map's locations along both axes, as shares of the image."""

    rows: np.ndarray  # (H + 1,), from the top, 0, down to 1
    columns: np.ndarray  # (W + 1,), from the left, 0, to the right, 1

    def within(self, box: Box) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of the edges of cells over an image in `box`."""
        return box.left + self.columns * box.width, box.top - self.rows * box.height


def cells_of(spec: NetworkSpec, layer: str) -> Cells:
    """Return the cells of a layer's locations: the pixels nearest to the middle of each receptive field.

    With strides, or without padding, cells are not equal.  They are equal where the middles are unknown, as where all
    fields are the whole image.
    """
    edges = []
    for axis, size in enumerate(spec.shapes[layer][1:]):
        middles = _middles(spec, layer, axis)
        if middles is None:
            edges.append(np.linspace(0, 1, size + 1))
        else:
            inner = np.clip((middles[1:] + middles[:-1]) / 2, 0, 1)
            edges.append(np.concatenate([[0], inner, [1]]))
    return Cells(*edges)


def _middles(spec: NetworkSpec, layer: str, axis: int) -> np.ndarray | None:
    """Return the middles of the unclipped receptive fields along one axis, as shares of the image; None if unknown.

    Where too many fields are clipped, the fields in a layer below are followed by those of that layer.
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


def strongest_locations(mask: np.ndarray, influence: np.ndarray | None) -> np.ndarray:
    """Return the smallest part of a mask (H, W) with `INFLUENCE_SHARE` of its influence.

    Influence of the other sign than the sum is ignored.  Without influence the whole mask is returned.
    """
    if influence is None:
        return mask
    strength = np.where(mask, influence * np.sign(influence[mask].sum()), 0).clip(0)
    order = np.argsort(-strength, axis=None, kind="stable")
    total = np.cumsum(strength.ravel()[order])
    if not total[-1]:
        return mask
    n_locations = np.searchsorted(total, INFLUENCE_SHARE * total[-1]) + 1
    return np.isin(np.arange(mask.size), order[:n_locations]).reshape(mask.shape)


def dilate(mask: np.ndarray) -> np.ndarray:
    """Return a mask (H, W) of a fine map with locations grown to visible spots, a twelfth of the map wide."""
    sides = [2 * round((_SPOT * size - 1) / 2) + 1 for size in mask.shape]
    return ndimage.maximum_filter(mask, sides, mode="constant")


def grey(picture: np.ndarray) -> np.ndarray:
    """Return a picture in light grey, as a background of colours."""
    luminance = picture @ np.array([0.299, 0.587, 0.114])
    return (130 + 125 * luminance[..., None].repeat(3, 2) / 255).astype(np.uint8)


def highlight(picture: np.ndarray, places: Sequence[tuple[Cells, np.ndarray]]) -> np.ndarray:
    """Return a picture in light grey but for some places, masks (H, W) with their cells."""
    height, width = picture.shape[:2]
    in_colour = np.zeros((height, width), dtype=bool)
    for cells, mask in places:
        rows, columns = (
            np.clip(np.searchsorted(ends, _pixel_middles(size)) - 1, 0, len(ends) - 2)
            for ends, size in zip(cells, (height, width), strict=True)
        )
        in_colour |= mask[np.ix_(rows, columns)]
    return np.where(in_colour[..., None], picture, grey(picture))


def place_tag(box: Box, cells: Cells, mask: np.ndarray, occupied: Sequence[Box]) -> Box | None:
    """Return a free box in `box` for a tag on a location of a mask (H, W), as near to the middle as possible."""
    rows, columns = np.nonzero(mask)
    order = np.argsort((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2, kind="stable")
    width, height = _TAG_SIZE
    x, y = cells.within(box)
    for row, column in zip(rows[order], columns[order], strict=True):
        left = np.clip(x[column : column + 2].mean() - width / 2, box.left, box.right - width)
        bottom = np.clip(y[row : row + 2].mean() - height / 2, box.bottom, box.top - height)
        tag = Box(float(left), float(bottom), width, height)
        if not any(map(tag.overlaps, occupied)):
            return tag
    return None


def interpolate(values: np.ndarray, cells: Cells, size: tuple[int, int]) -> np.ndarray:
    """Return a map (H, W) as an image of a size (height, width), interpolated between the middles of its cells."""
    for axis, (ends, n_pixels) in enumerate(zip(cells, size, strict=True)):
        middles = (ends[1:] + ends[:-1]) / 2
        values = np.apply_along_axis(partial(np.interp, _pixel_middles(n_pixels), middles), axis, values)
    return values


def _pixel_middles(size: int) -> np.ndarray:
    """Return the middles of pixels along an axis, as shares of the image."""
    return (np.arange(size) + 0.5) / size
