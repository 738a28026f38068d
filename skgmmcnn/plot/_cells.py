"""Which part of an image belongs to which location of a layer's map."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..features import NetworkSpec
from ._edge_maps import whole_windows
from ._layout import Box


class Cells(NamedTuple):
    """Where along each axis the cells of a map's locations begin and end, as shares of the image.

    Parameters
    ----------
    rows : float array of shape (H + 1,)
        From the top, 0, down to 1.
    columns : float array of shape (W + 1,)
        From the left, 0, to the right, 1.
    """

    rows: np.ndarray
    columns: np.ndarray


def equal_cells(size: tuple[int, int]) -> Cells:
    """Return cells of equal size."""
    return Cells(*(np.linspace(0, 1, n + 1) for n in size))


def cells_of(spec: NetworkSpec, layer: str) -> Cells:
    """Return the cells of a layer's locations: what is nearest to the middle of a location's receptive field.

    Strided layers can look to one side, and layers without padding leave out the border, so cells need not be equal.
    They are where receptive fields do not tell their middle, as where all see the whole image.
    """
    equal = equal_cells(spec.shapes[layer][1:])
    return Cells(*(_ends(_middles(spec, layer, axis), same) for axis, same in enumerate(equal)))


def _ends(middles: np.ndarray | None, equal: np.ndarray) -> np.ndarray:
    if middles is None:
        return equal
    return np.clip(np.concatenate([[0], (middles[1:] + middles[:-1]) / 2, [1]]), 0, 1)


def _middles(spec: NetworkSpec, layer: str, axis: int) -> np.ndarray | None:
    """Return the middles of the uncut receptive fields along one axis, as shares of the image; None if unknown.

    Fields that are larger than the image are followed through a layer below, where they are not.
    """
    for lower in ("input", *spec.layers[::-1]):
        field = spec.receptive_fields.get((layer, lower))
        if field is None:
            continue
        size = field.shape[axis]
        whole = whole_windows((field.rows, field.columns)[axis], size)
        if whole is None:
            continue
        middles = whole[0] + whole[1] / 2
        if lower == "input":
            return middles / size
        below = _middles(spec, lower, axis)
        if below is not None:
            step = (below[-1] - below[0]) / (size - 1)
            return below[0] + step * (middles - 0.5)
    return None


def draw_cells(ax: Any, box: Box, cells: Cells, colours: np.ndarray) -> None:
    """Tint the cells of a map (H, W) in `colours` (H, W, 4) over the image in `box`."""
    x, y = box.left + cells.columns * box.width, box.top - cells.rows * box.height
    ax.pcolormesh(x, y, colours, linewidth=0, antialiased=False, rasterized=True, zorder=3.5)


def draw_borders(ax: Any, box: Box, cells: Cells, kinds: np.ndarray) -> None:
    """Draw lines between cells of different kinds (H, W) over the image in `box`."""
    from matplotlib.collections import LineCollection

    x, y = box.left + cells.columns * box.width, box.top - cells.rows * box.height
    upright = [[(x[j + 1], y[i]), (x[j + 1], y[i + 1])] for i, j in np.argwhere(kinds[:, 1:] != kinds[:, :-1])]
    level = [[(x[j], y[i + 1]), (x[j + 1], y[i + 1])] for i, j in np.argwhere(kinds[1:] != kinds[:-1])]
    width = min(0.8, 16 / max(kinds.shape))  # points; finer maps would drown in them
    ax.add_collection(LineCollection(upright + level, colors="white", linewidths=width, zorder=3.7), autolim=False)
