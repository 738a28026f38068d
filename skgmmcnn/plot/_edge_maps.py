"""Maps of lower words in the receptive fields of upper words."""

from __future__ import annotations

import networkx as nx
import numpy as np
from sklearn.utils import gen_batches

from ..dictionary import WordMaps
from ..features import ReceptiveField
from ..graph import InferenceGraph
from ._reading import locations_of

Axis = tuple[np.ndarray, np.ndarray]
_HELD = 2**22  # numbers held at a time


def edge_maps(estimator: InferenceGraph, words: WordMaps, graph: nx.DiGraph) -> dict[tuple[str, str], np.ndarray]:
    """Return the map of each edge (tail, head) of a graph of these words."""
    fields, maps = estimator.receptive_fields(words), {}
    for tail, head in graph.edges:
        lower, upper = graph.nodes[tail], graph.nodes[head]
        field = fields[upper["layer"], lower["layer"]]
        maps[tail, head] = edge_map(locations_of(words, lower), locations_of(words, upper), field)
    return maps


def edge_map(shown: np.ndarray, present: np.ndarray, field: ReceptiveField) -> np.ndarray:
    """Return the mean of the maps `shown` (n, h, w) in the fields of the locations `present` (n, H, W).

    Fields that the border cuts are laid where they would be in a whole one.  NaN where no field reaches.
    """
    (rows, height), (columns, width) = map(_origins, (field.rows, field.columns), field.shape)
    upper, lower = (maps.reshape(len(maps), -1) for maps in (present, shown))
    batches = gen_batches(len(shown), max(1, _HELD // lower.shape[1]))
    sums = sum(upper[part].T.astype(float) @ lower[part] for part in batches)
    total, number = np.zeros((height, width)), np.zeros((height, width))
    for place, (i, j) in enumerate(np.ndindex(present.shape[1:])):
        down, along = field.window(i, j)
        into = np.s_[down.start - rows[i] : down.stop - rows[i], along.start - columns[j] : along.stop - columns[j]]
        total[into] += sums[place].reshape(field.shape)[down, along]
        number[into] += upper[:, place].sum()
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _origins(axis: Axis, size: int) -> tuple[np.ndarray, int]:
    """Return where each window would start if no border cut it, and the length of a whole window.

    Where too few windows are uncut, the longest window counts as a whole one.
    """
    start, stop = axis
    longest = int((stop - start).max(initial=1))
    return whole_windows(axis, size) or (np.where((start == 0) & (stop < size), stop - longest, start), longest)


def whole_windows(axis: Axis, size: int) -> tuple[np.ndarray, int] | None:
    """Return where windows would start if no border cut them, and their length, inferred from the uncut ones.

    None where these are too few, or where windows are not equally long and equally far from each other.
    """
    start, stop = axis
    starts, stops = start[start > 0], stop[stop < size]
    steps = np.unique(np.concatenate([np.diff(starts), np.diff(stops)]))
    if min(len(starts), len(stops)) < 2 or len(steps) > 1:
        return None
    origins = starts[-1] + steps * np.arange(1 - len(start), 1)
    length = int(stops[0] - origins[0])
    inside = length >= (stop - start).max() and ((origins <= start) & (stop <= origins + length)).all()
    return (origins, length) if inside else None
