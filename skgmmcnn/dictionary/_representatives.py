"""Representatives of words: the most typical locations and their image patches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor

from .._distributed import all_gather
from ..features import NetworkSpec, Pictures, ReceptiveField, Span

PATCH_SIDE = 64
OUTSIDE = 225  # grey value outside the image
_MOST = 0.5  # of the image along each axis: larger patches would not show which part is meant
_LEAST = 8  # pixels: smaller patches could not be recognised


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
        self._n_words, self._n_best = n_words, n_best
        self._table = np.empty(
            0, [("word", "i8"), ("turn", "i8"), ("proba", "f4"), ("density", "f4"), ("image", "i8"), ("location", "i8")]
        )

    def add(self, start: int, words: np.ndarray, posterior: Tensor, log_density: Tensor) -> None:
        """Add the words (n, L) at all locations of consecutive images, the first of index `start`."""
        table = np.empty(words.size, self._table.dtype)
        table["word"], table["turn"] = words.ravel(), 0
        table["proba"], table["density"] = posterior.numpy(force=True), log_density.numpy(force=True)
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
        place = self._table["word"], _rank(self._table["word"])
        images[place], locations[place] = self._table["image"], self._table["location"]
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
    field = _patch_field(spec, layer)
    if field is None:
        return Representatives(images, locations, None, np.full(locations.shape, 0.5))
    windows = [_windows(field, locations[..., axis], axis, size) for axis, size in enumerate((height, width))]
    boxes = np.stack([windows[0][0], windows[1][0], windows[0][1], windows[1][1]], axis=-1)
    marks = np.stack([window[2] for window in windows], axis=-1)
    patches = None if pictures is None else _cut(pictures, images, boxes)
    return Representatives(images, locations, patches, marks, _sees_all(field))


def _patch_field(spec: NetworkSpec, layer: str) -> ReceptiveField | None:
    """Return windows of the size of the effective fields, if measured, or the whole fields; None for vectors."""
    field = spec.receptive_fields.get((layer, "input"))
    if field is None or not spec.effective_fields:
        return field
    rows, columns = (_around(field, axis, _length(spec, layer, axis)) for axis in (0, 1))
    return ReceptiveField(rows, columns, field.shape)


def _length(spec: NetworkSpec, layer: str, axis: int) -> int:
    """Return the length in the image of the effective fields of a layer, through the layers below it."""
    (start, stop), extent = _axis(spec.receptive_fields[layer, "input"], axis)
    longest = int((stop - start).max())
    lengths = []
    for lower in spec.below[layer]:
        (first, last), size = _axis(spec.effective_fields[layer, lower], axis)
        lengths.append(int((last - first).max() - 1) * extent // size + _length(spec, lower, axis))
    return min(longest, max(lengths, default=longest))


def _around(field: ReceptiveField, axis: int, length: int) -> Span:
    """Return windows of a length, at most half the image, around the locations; the whole field for one location."""
    (start, stop), extent = _axis(field, axis)
    if len(start) == 1:
        return Span(start, stop)
    length = min(length, max(int(_MOST * extent), _LEAST), extent)
    place = (np.arange(len(start)) + 0.5) * extent / len(start)
    middle = np.where((start > 0) & (stop < extent), (start + stop) / 2, place)
    first = np.clip(np.floor(middle - length / 2 + 0.5).astype(np.intp), 0, extent - length)
    return Span(first, first + length)


def _axis(field: ReceptiveField, axis: int) -> tuple[tuple[np.ndarray, np.ndarray], int]:
    return (field.rows, field.columns)[axis], field.shape[axis]


def _sees_all(field: ReceptiveField) -> bool:
    """Return whether the location in the middle of the map sees nearly the whole image."""
    window = field.window(len(field.rows[0]) // 2, len(field.columns[0]) // 2)
    return all(part.stop - part.start > 0.8 * size for part, size in zip(window, field.shape, strict=True))


def _windows(field: ReceptiveField, positions: np.ndarray, axis: int, size: int) -> tuple[np.ndarray, ...]:
    """Return start and stop of the windows of `positions` along one axis, and the relative position in the window.

    A window that the border cuts at one end is extended to its full length outside the image.
    """
    span, extent = _axis(field, axis)
    full = int((span[1] - span[0]).max())
    start, stop = (ends[positions] for ends in span)
    start = np.where((start == 0) & (stop < extent), stop - full, start)
    stop = np.where((stop == extent) & (start > 0), start + full, stop)
    return start, stop, np.clip(((positions + 0.5) * extent / size - start) / np.maximum(stop - start, 1), 0, 1)


def _cut(pictures: Pictures, images: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the patches of `boxes` (top, left, bottom, right); each image is read once."""
    sides = boxes[..., 2:] - boxes[..., :2]
    height, width = np.minimum(sides.reshape(-1, 2).max(0), PATCH_SIDE)
    patches = np.full((*images.shape, height, width, 3), OUTSIDE, dtype=np.uint8)
    for number in np.unique(images[images >= 0]):
        picture = pictures[int(number)]
        for place in zip(*np.nonzero(images == number), strict=True):
            patches[place] = _crop(picture, boxes[place], (width, height))
    return patches


def _crop(picture: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left, bottom, right = box.tolist()
    above, before = max(0, -top), max(0, -left)
    below, behind = max(0, bottom - picture.shape[0]), max(0, right - picture.shape[1])
    padded = np.pad(picture, ((above, below), (before, behind), (0, 0)), constant_values=OUTSIDE)
    cut = padded[top + above : bottom + above, left + before : right + before]
    return np.asarray(Image.fromarray(cut).resize((int(size[0]), int(size[1])), Image.Resampling.LANCZOS))
