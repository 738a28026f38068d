"""Maps of lower words in the receptive fields of upper words."""

from __future__ import annotations

import networkx as nx
import numpy as np
from sklearn.utils import gen_batches

from ..dictionary import WordMaps
from ..features import ReceptiveField
from ..graph import InferenceGraph
from ._reading import locations_of

_BATCH_ELEMENTS = 2**22


def edge_maps(estimator: InferenceGraph, words: WordMaps, graph: nx.DiGraph) -> dict[tuple[str, str], np.ndarray]:
    """Return the map of each edge (tail, head) of a graph of these words."""
    fields, maps = estimator.receptive_fields(words), {}
    for tail, head in graph.edges:
        lower, upper = graph.nodes[tail], graph.nodes[head]
        field = fields[upper["layer"], lower["layer"]]
        maps[tail, head] = edge_map(locations_of(words, lower), locations_of(words, upper), field)
    return maps


def edge_map(lower: np.ndarray, upper: np.ndarray, field: ReceptiveField) -> np.ndarray:
    """Return the mean of masks `lower` (n, h, w) in the fields of the locations of masks `upper` (n, H, W).

    Clipped fields are aligned with whole ones.  NaN where no field reaches.
    """
    rows, columns = (span.whole(size) or span.unclipped(size) for span, size in field.axes)
    flat_lower, flat_upper = (masks.reshape(len(masks), -1) for masks in (lower, upper))
    batches = gen_batches(len(lower), max(1, _BATCH_ELEMENTS // flat_lower.shape[1]))
    sums = sum(flat_upper[part].T.astype(float) @ flat_lower[part] for part in batches)
    total, number = np.zeros((2, max(1, rows.longest), max(1, columns.longest)))
    for place, (i, j) in enumerate(np.ndindex(upper.shape[1:])):
        down, along = field.window(i, j)
        top, left = rows.start[i], columns.start[j]
        into = np.s_[down.start - top : down.stop - top, along.start - left : along.stop - left]
        total[into] += sums[place].reshape(field.shape)[down, along]
        number[into] += flat_upper[:, place].sum()
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)
