"""How unexpected the words of an image are, given the words above them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..dictionary import WordMaps
from ..features import ReceptiveField
from ._counting import pair_chunks, spread
from ._evidence import Pair
from ._hierarchy import Hierarchy, maps_of

_CHUNK = 2**20


@dataclass(frozen=True, eq=False)
class Surprise:
    """How unexpected the words of n images are, given the words above them, in bits.

    Parameters
    ----------
    maps : dict of str to float32 array of shape (n, H, W)
        At each location the mean of -log2 P(word | word above) over the locations above that see it; NaN where none
        does.
    layers : dict of str to float array of shape (n,)
        The means over the locations of a layer; NaN where all of them are.
    images : float array of shape (n,)
        The sums over the layers, without those that are NaN.
    """

    maps: Mapping[str, np.ndarray]
    layers: Mapping[str, np.ndarray]
    images: np.ndarray


@dataclass(frozen=True, eq=False)
class Typicality:
    """How n images compare with reference images that the network gives the same class.

    Parameters
    ----------
    p_values : float array of shape (n,)
        The share of the reference images of the class that are at least as surprising, the image itself counted among
        them: (1 + how many are) / (1 + their number).  For an image that is like the reference images it is as likely
        to lie below any a as a says (conformal p-values).  NaN without reference images of the class.
    layer_p_values : dict of str to float array of shape (n,)
        The same for each layer.
    departs : list of str or None
        For images with some layer's p-value at most `level` divided by the number of layers, the layer whose
        surprise lies the most standard deviations above the mean of the class; None for typical images.
    """

    p_values: np.ndarray
    layer_p_values: Mapping[str, np.ndarray]
    departs: list[str | None]


def surprise(
    words: WordMaps, structure: Hierarchy, ratios: Mapping[Pair, np.ndarray], counts: Mapping[Pair, np.ndarray]
) -> Surprise:
    """Return how unexpected words are, given those above: at every location the mean over the words that see it.

    A lower word that was never counted is taken as seen at one window position.
    """
    maps = {}
    for layer, lower in words.words.items():
        total, covers = np.zeros(lower.shape), np.zeros(lower.shape[1:])
        for upper in structure.above(layer):
            pair, above = (upper, layer), maps_of(words, upper)
            columns = np.maximum(counts[pair].sum(0), 1)
            costs = -np.log2(columns / columns.sum()) - ratios[pair]  # -log2 P(t | s)
            total += _summed(above, lower, structure.fields[pair], costs)
            covers += spread(np.ones(above.shape[1:]), structure.fields[pair])
        maps[layer] = _ratio(total, covers).astype(np.float32)
    layers = {layer: _mean(values.reshape(len(values), -1)) for layer, values in maps.items()}
    return Surprise(maps, layers, np.nansum(list(layers.values()), axis=0))


def _summed(upper: np.ndarray, lower: np.ndarray, field: ReceptiveField, costs: np.ndarray) -> np.ndarray:
    """Return the sum of costs[h_p, h_q] over the locations p that see q, (n, h, w)."""
    total, size = np.zeros(lower.size), lower[0].size
    for first, places, cells in pair_chunks(upper, lower, field, costs.shape[1], _CHUNK):
        where = places + size * np.arange(len(cells))[:, None, None]
        part = slice(first * size, (first + len(cells)) * size)
        total[part] += np.bincount(where.ravel(), costs.ravel()[cells.ravel()], minlength=len(cells) * size)
    return total.reshape(lower.shape)


def _ratio(total: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Return total / number, NaN where there is none."""
    return np.where(number > 0, total / np.maximum(number, 1), np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the means of rows without NaN, NaN for rows that are nothing else."""
    return _ratio(np.nansum(values, axis=1, dtype=float), np.isfinite(values).sum(1))


def compare(found: Surprise, decisions: np.ndarray, usual: Surprise, classes: np.ndarray, level: float) -> Typicality:
    """Return how images with `decisions` compare with reference images of `classes`, class by class."""
    p_values = _p_values(found.images, decisions, usual.images, classes)
    by_layer = {layer: _p_values(x, decisions, usual.layers[layer], classes) for layer, x in found.layers.items()}
    excess = [_excess(x, decisions, usual.layers[layer], classes) for layer, x in found.layers.items()]
    names, table = list(by_layer), np.array(list(by_layer.values()))
    outlying = np.asarray(table <= level / len(table))
    worst = np.argmax(np.where(outlying, excess, -np.inf), axis=0)
    departs = [
        names[layer] if outlier else None for layer, outlier in zip(worst, np.any(outlying, axis=0), strict=True)
    ]
    return Typicality(p_values, by_layer, departs)


def _p_values(values: np.ndarray, decisions: np.ndarray, usual: np.ndarray, classes: np.ndarray) -> np.ndarray:
    p_values = np.full(len(values), np.nan)
    for output in np.unique(decisions):
        rows, of_class = decisions == output, np.sort(usual[classes == output])
        of_class = of_class[np.isfinite(of_class)]
        if len(of_class):
            above = len(of_class) - np.searchsorted(of_class, values[rows])
            p_values[rows] = np.where(np.isnan(values[rows]), np.nan, (1 + above) / (1 + len(of_class)))
    return p_values


def _excess(values: np.ndarray, decisions: np.ndarray, usual: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return how many standard deviations values lie above the mean of their class."""
    excess = np.full(len(values), -np.inf)
    for output in np.unique(decisions):
        rows, of_class = decisions == output, usual[classes == output]
        if np.isfinite(of_class).any():
            excess[rows] = (values[rows] - np.nanmean(of_class)) / max(np.nanstd(of_class), 1e-9)
    return excess
