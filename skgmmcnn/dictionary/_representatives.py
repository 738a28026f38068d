"""Representatives of words: the most typical locations and their image patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from .._distributed import all_gather
from ..features import NetworkSpec, Pictures, Span

PATCH_SIDE = 64
OUTSIDE = 225  # grey value outside the image
_MOST = 0.5  # of the image along each axis: larger patches would not show which part is meant
_LEAST = 8  # pixels: smaller patches could not be recognised
_WHOLE = 0.8  # of the image: larger patches count as the whole image
# Of a location: word, rank among the locations of the word in its image, posterior, log-density, image, position.
_FIELDS = [("word", "i8"), ("turn", "i8"), ("proba", "f4"), ("density", "f4"), ("image", "i8"), ("location", "i8")]


@dataclass(frozen=True, eq=False)
class Representatives:
    """The most typical locations of each of K words of a layer, best first; see :class:`Vocabulary`.

    `whole` is True if patches are nearly the whole image, so that only the marks distinguish them.
    """

    images: np.ndarray
    locations: np.ndarray
    patches: np.ndarray | None
    marks: np.ndarray
    whole: bool = False


class Typical:
    """Running selection of the `n_best` locations of each word with the highest posterior, ties broken by log-density.

    The best location of each image comes before any second best one.
    """

    def __init__(self, n_words: int, n_best: int) -> None:
        self._n_words = n_words
        self._n_best = n_best
        self._table = np.empty(0, _FIELDS)

    def add(self, start: int, words: np.ndarray, posterior: Tensor, log_density: Tensor) -> None:
        """Add the words (n, L) at all locations of consecutive images, the first of index `start`."""
        table = np.zeros(words.size, _FIELDS)
        table["word"] = words.ravel()
        table["proba"] = posterior.numpy(force=True)
        table["density"] = log_density.numpy(force=True)
        table["image"] = np.repeat(np.arange(start, start + len(words)), words.shape[1])
        table["location"] = np.tile(np.arange(words.shape[1]), len(words))
        table = table[_order(table, "image")]
        table["turn"] = _rank(table["word"], table["image"])
        self._table = self._best(np.concatenate([self._table, table[table["turn"] < self._n_best]]))

    def merge(self) -> None:
        """Merge the selections of all processes; every process must call this."""
        self._table = self._best(np.concatenate(all_gather(self._table)))

    def _best(self, table: np.ndarray) -> np.ndarray:
        table = table[_order(table, "turn")]
        return table[_rank(table["word"]) < self._n_best]

    def selection(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of images and of locations, each (K, R), padded with -1."""
        images = np.full((self._n_words, self._n_best), -1)
        locations = np.full_like(images, -1)
        cells = self._table["word"], _rank(self._table["word"])
        images[cells] = self._table["image"]
        locations[cells] = self._table["location"]
        return images, locations


def _order(table: np.ndarray, second: str) -> np.ndarray:
    """Return the order by word, then by `second`, then by decreasing typicality."""
    return np.lexsort(
        (table["location"], table["image"], -table["density"], -table["proba"], table[second], table["word"])
    )


def _rank(*keys: np.ndarray) -> np.ndarray:
    """Return the number of equal entries before each entry of sorted keys."""
    new = np.ones(len(keys[0]), dtype=bool)
    new[1:] = np.any([key[1:] != key[:-1] for key in keys], axis=0)
    first = np.flatnonzero(new)
    return np.arange(len(new)) - np.repeat(first, np.diff(np.append(first, len(new))))


def illustrate(typical: Typical, layer: str, spec: NetworkSpec, pictures: Pictures | None) -> Representatives:
    """Return the representatives of the words of a layer, with patches if `pictures` are given."""
    images, flat = typical.selection()
    _, height, width = spec.shapes[layer]
    locations = np.stack(np.divmod(flat, width), axis=-1)
    if (layer, "input") not in spec.receptive_fields:
        return Representatives(images, locations, None, np.full(locations.shape, 0.5))
    shape = spec.receptive_fields[layer, "input"].shape
    spans = _patch_spans(spec, layer)
    corners = []
    whole = True
    for axis, (span, size) in enumerate(zip(spans, shape, strict=True)):
        corners.append([edge[locations[..., axis]] for edge in span.unclipped(size)])
        middle = len(span.start) // 2
        whole &= bool(span.stop[middle] - span.start[middle] > _WHOLE * size)
    start, stop = (np.stack(edges, axis=-1) for edges in zip(*corners, strict=True))
    centres = (locations + 0.5) * shape / (height, width)
    marks = np.clip((centres - start) / np.maximum(stop - start, 1), 0, 1)
    patches = None if pictures is None else _cut(pictures, images, np.concatenate([start, stop], axis=-1))
    return Representatives(images, locations, patches, marks, whole)


def _patch_spans(spec: NetworkSpec, layer: str) -> list[Span]:
    """Return windows of the size of the effective fields along both axes, or the whole fields if not measured."""
    spans = []
    for axis, (span, extent) in enumerate(spec.receptive_fields[layer, "input"].axes):
        if spec.effective_fields and len(span.start) > 1:
            length = min(_length(spec, layer, axis), max(int(_MOST * extent), _LEAST), extent)
            spans.append(span.around(length, extent))
        else:
            spans.append(span)
    return spans


def _length(spec: NetworkSpec, layer: str, axis: int) -> int:
    """Return the length in the image of the effective fields of a layer, through the layers below it."""
    whole, extent = spec.receptive_fields[layer, "input"].axes[axis]
    lengths = []
    for lower in spec.below[layer]:
        span, size = spec.effective_fields[layer, lower].axes[axis]
        lengths.append((span.longest - 1) * extent // size + _length(spec, lower, axis))
    return min(whole.longest, max(lengths, default=whole.longest))


def _cut(pictures: Pictures, images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the patches of `boxes` (top, left, bottom, right); each image is read once."""
    sides = boxes[..., 2:] - boxes[..., :2]
    height, width = np.minimum(sides.reshape(-1, 2).max(0), PATCH_SIDE).tolist()
    patches = np.full((*images.shape, height, width, 3), OUTSIDE, dtype=np.uint8)
    for number in np.unique(images[images >= 0]):
        picture = Image.fromarray(pictures[int(number)])
        for word, rank in np.argwhere(images == number):
            top, left, bottom, right = boxes[word, rank].tolist()
            patch = Image.new("RGB", (right - left, bottom - top), (OUTSIDE,) * 3)
            patch.paste(picture, (-left, -top))
            patches[word, rank] = patch.resize((width, height), Image.Resampling.LANCZOS)
    return patches
