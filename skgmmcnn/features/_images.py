"""Images of all input kinds, validated and preprocessed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset
from torchvision.transforms.functional import to_pil_image

from ._decisions import entries, not_finite
from ._image_files import UnreadableError, check_files, files_in, normalise, read
from ._spec import NetworkSpec

_N_REPEATED = 7  # a random flip is missed once in 128 times
_PIL_MODES = {1: "L", 3: "RGB"}


class InputKind(NamedTuple):
    """The input of a network: vectors, or images with a number of channels, None if unknown."""

    vectors: bool
    channels: int | None

    @classmethod
    def of(cls, first_layer: nn.Module | None) -> InputKind:
        """Return the input kind for the first layer of a network."""
        if isinstance(first_layer, (nn.Conv1d, nn.Conv3d)):
            raise ValueError(
                f"The network begins with a {type(first_layer).__name__} for signals or volumes; only images (n, C, H, "
                "W) and vectors (n, d) are supported. Signals can be images of one row: with nn.Conv2d, kernels (1, k) "
                "and X[:, :, None]."
            )
        vectors = isinstance(first_layer, nn.Linear)
        return cls(vectors, None if vectors else getattr(first_layer, "in_channels", None))


class Images:
    """An indexable set of images that are read and preprocessed lazily.

    `data` is an array (n, C, H, W) or (n, d), a list of paths or PIL images, or a data set; `rows` selects some.
    `preprocess` returns a float tensor for one image: a ``PIL.Image`` for files, PIL images and uint8 data, else a
    tensor (C, H, W).  `mode` is the PIL mode with the number of channels of the network.
    """

    def __init__(
        self, data: Any, preprocess: Callable | None, mode: str | None, rows: np.ndarray | None = None
    ) -> None:
        self._data, self.preprocess, self._mode = data, preprocess, mode
        self._rows = np.arange(len(data)) if rows is None else rows

    @property
    def of_data_set(self) -> bool:
        """Whether the images are those of a data set."""
        return isinstance(self._data, Dataset)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Images:
        return Images(self._data, self.preprocess, self._mode, np.atleast_1d(self._rows[key]))

    def __getstate__(self) -> dict[str, Any]:
        # Only the selected images are pickled, files by path with size and time to detect changes.
        rows = {"_rows": np.arange(len(self))}
        if isinstance(self._data, np.ndarray):
            return self.__dict__ | rows | {"_data": _plain(self._data[self._rows])}
        stamps = {"_stamps": [_stamp(self._data, row) for row in self._rows.tolist()]}
        if self.of_data_set:
            return self.__dict__ | stamps
        return self.__dict__ | rows | stamps | {"_data": [self._data[row] for row in self._rows]}

    def hashes(self) -> list[str]:
        """Return the current hash of each image.

        For data sets it depends on the set, the number of the image, and the size and time of its file if the set has a
        list `samples` of files, as in torchvision.
        """
        try:
            whole = joblib.hash(self._data) if self.of_data_set else None
        except Exception as error:
            raise ValueError(
                f"The data set cannot be hashed, so a store cannot identify its images: {error}. Remove attributes "
                "that cannot be pickled."
            ) from error
        prefix = f"{self._mode} {whole} ".encode()
        return [blake2b(prefix + self._content(row), digest_size=16).hexdigest() for row in self._rows.tolist()]

    def _content(self, row: int) -> bytes:
        """Return bytes that identify the content of an image."""
        if self.of_data_set:
            return repr((row, _stamp(self._data, row))).encode()
        item = self._data[row]
        if isinstance(item, Path):
            try:
                return item.read_bytes()
            except OSError as error:
                raise ValueError(f"{str(item)!r} cannot be read as an image: {error}") from error
        if isinstance(item, np.ndarray):
            return f"{item.dtype} {item.shape} ".encode() + item.tobytes()
        return joblib.hash(item).encode()

    def batches(self, size: int, shape: tuple[int, ...], n_jobs: int | None) -> Iterator[Tensor]:
        """Yield batches of `size` images, read and preprocessed by `n_jobs` processes."""
        starts = range(0, len(self), size)
        if effective_n_jobs(n_jobs) == 1:
            yield from (self.batch(start, start + size, shape) for start in starts)
            return
        tasks = (delayed(_read_part)(self[start : start + size], shape, start) for start in starts)
        yield from map(torch.from_numpy, Parallel(n_jobs, return_as="generator")(tasks))

    def batch(self, start: int, stop: int, shape: tuple[int, ...] | None = None, first: int = 0) -> Tensor:
        """Return the preprocessed images start to stop, of a given `shape`; errors count images from `first`."""
        rows, first = self._rows[start:stop].tolist(), first + start
        if self.preprocess is None and isinstance(self._data, np.ndarray):
            batch = torch.from_numpy(self._data[rows]).float()
            _check_shape(batch[0], shape, first)
        else:
            images = [self._one(row, first + i) for i, row in enumerate(rows)]
            for i, image in enumerate(images):
                _check_shape(image, shape or tuple(images[0].shape), first + i)
            batch = torch.stack(images)
        bad = not_finite(batch)
        if bad:
            raise UnreadableError(f"Image {first + bad[0]} contains NaN or infinity.")
        return batch

    def raw(self, number: int) -> Any:
        """Return an image before preprocessing: a PIL image if it has 8 bits, else a tensor (C, H, W)."""
        return self._open(int(self._rows[number]), number)

    def file_name(self, number: int) -> str:
        """Return the name of the file of an image, "" without a file."""
        file = self._file(int(self._rows[number]))
        return "" if file is None else file.name

    def _file(self, row: int) -> Path | None:
        item = self._data[row] if isinstance(self._data, list) else None
        return item if isinstance(item, Path) else None

    def _one(self, row: int, number: int) -> Tensor:
        """Return image `row` of the data, preprocessed; errors give it a `number`."""
        image = self._open(row, number)
        kind = "PIL image" if isinstance(image, Image.Image) else type(image).__name__
        if self.preprocess is None:
            if self.of_data_set and isinstance(image, Tensor):
                return image
            raise ValueError(
                f"Image {number} is a {kind}, and there is no preprocessing; pass preprocess=..., for example "
                "torchvision.transforms.ToTensor() followed by the normalisation used in training."
            )
        try:
            result = self.preprocess(image)
        except Exception as error:
            file = self._file(row)
            name = "" if file is None else f" ({str(file)!r})"
            raise UnreadableError(
                f"preprocess failed on image {number}{name}, a {kind}: {type(error).__name__}: {error}. It is called "
                "with one image, a PIL image for files and uint8 data, else a tensor (C, H, W)."
            ) from error
        if not isinstance(result, Tensor) or not result.is_floating_point():
            kind = f"a {result.dtype} tensor" if isinstance(result, Tensor) else f"a {type(result).__name__}"
            raise ValueError(f"preprocess must return a float tensor; for image {number} it returned {kind}.")
        return result.float()

    def _open(self, row: int, number: int) -> Any:
        try:
            item = self._data[row]
        except Exception as error:
            raise UnreadableError.because(f"Image {number}: the data set fails on its item {row}", error) from error
        if isinstance(item, Path):
            return read(item, self._mode)
        image = _image_of(item, number) if self.of_data_set else item
        if not isinstance(image, Image.Image):
            image = image.clone() if isinstance(image, Tensor) else torch.from_numpy(np.array(image))
            if image.dtype != torch.uint8 or image.ndim != 3 or len(image) not in _PIL_MODES:
                return image.float()
            image = to_pil_image(image)
        try:
            return normalise(image, self._mode)
        except Exception as error:
            raise UnreadableError.because(f"Image {number} cannot be read", error) from error


def _plain(array: np.ndarray) -> np.ndarray:
    """Return an array in C order that is no memory map, since hashes differ between these."""
    return np.asarray(array).ravel().reshape(array.shape)


def _stamp(data: Any, row: int) -> tuple[int, int] | None:
    """Return the size and the modification time of the file of an image, None without a file.

    A data set can have a list `samples` of files, or of tuples that begin with one, as in torchvision.
    """
    while isinstance(data, Subset):
        data, row = data.dataset, data.indices[row]
    files = getattr(data, "samples", None) if isinstance(data, Dataset) else data
    file = files[row] if isinstance(files, list) and row < len(files) else None
    file = file[0] if isinstance(file, tuple) else file
    if not isinstance(file, (str, Path)) or not os.path.exists(file):
        return None
    status = os.stat(file)
    return status.st_size, status.st_mtime_ns


def _image_of(item: Any, number: int) -> Any:
    """Return the image of an item of a data set: the item, or the first entry of (image, label)."""
    if isinstance(item, (tuple, list)) and item and _is_image(item[0]):
        return item[0]
    if _is_image(item):
        return item
    key = next((key for key, value in entries(item) if _is_image(value)), None)
    hint = "" if key is None else f" Entry {key!r} is an image: return only that from __getitem__."
    raise TypeError(
        f"Item {number} of the data set is a {type(item).__name__} instead of an image: a PIL image, a tensor or an "
        f"array of numbers, or a tuple that begins with one.{hint}"
    )


def _is_image(item: Any) -> bool:
    numbers = isinstance(item, Tensor) or (isinstance(item, np.ndarray) and item.dtype.kind in "biuf")
    return isinstance(item, Image.Image) or (numbers and item.ndim > 0)


def _read_part(images: Images, shape: tuple[int, ...], first: int) -> np.ndarray:
    """Read images in another process; returns an array, which is cheaper to transfer than a tensor."""
    return images.batch(0, len(images), shape, first).numpy()


def _check_shape(image: Tensor, shape: tuple[int, ...] | None, number: int) -> None:
    if shape is not None and tuple(image.shape) != shape:
        raise ValueError(
            f"Image {number} has shape {tuple(image.shape)} after preprocessing, where {shape} is expected; resize or "
            "crop images to equal size in preprocess."
        )


def warn_if_random(images: Images, first: Tensor) -> None:
    """Warn if preprocessing, or a data set, returns different values for the first image each time."""
    if images.preprocess is None and not images.of_data_set:
        return
    if any(not torch.equal(first, images.batch(0, 1)) for _ in range(_N_REPEATED)):
        source = "The data set" if images.preprocess is None else "preprocess"
        warnings.warn(
            f"{source} returns different values for the same image each time, as for training: leave out random crops, "
            "flips and noise, or words and graphs do not belong to the images shown.",
            stacklevel=4,
        )


def unreadable(images: Images, n_jobs: int | None) -> dict[int, str]:
    """Preprocess all images, and return the errors of those that cannot be read, by number."""
    size = max(1, min(64, len(images) // effective_n_jobs(n_jobs)))
    parts = (delayed(_try_part)(images[start : start + size], start) for start in range(0, len(images), size))
    return {number: error for errors in Parallel(n_jobs)(parts) for number, error in errors.items()}


def _try_part(images: Images, first: int) -> dict[int, str]:
    errors = {}
    for row in range(len(images)):
        try:
            images.batch(row, row + 1, first=first)
        except UnreadableError as error:
            errors[first + row] = error.args[0]
    return errors


def make_images(
    X: Any, first_layer: nn.Module | None, layout: str, preprocess: Callable | None, *, existing: bool = True
) -> Images:
    """Return X as :class:`Images` for a network with this first layer, validated without reading files."""
    kind, data = InputKind.of(first_layer), normalise_input(X, existing=existing)
    if isinstance(data, np.ndarray):
        data = _channels_first(data, kind, layout, preprocess)
        if preprocess is None and data.ndim > 2 and data.dtype.kind in "iu":
            raise ValueError(
                f"X contains {data.dtype} values, and there is no preprocessing. Pass preprocess=..., for example "
                "torchvision.transforms.ToTensor() followed by the normalisation used in training, or give "
                "preprocessed floats."
            )
    elif isinstance(data, list) and kind.vectors and preprocess is None:
        raise ValueError("The network takes vectors; give an array (n, d), or preprocess=... that returns vectors.")
    return Images(data, preprocess, None if kind.channels is None else _PIL_MODES.get(kind.channels))


def of_bytes(X: Any) -> bool:
    """Return whether X, from :func:`normalise_input`, contains files, PIL images or 8-bit data."""
    return isinstance(X, list) or (isinstance(X, np.ndarray) and X.dtype == np.uint8)


def normalise_input(X: Any, *, existing: bool = True) -> Any:
    """Return X as a data set, a list of paths and PIL images, or an array of numbers; checks what needs no network.

    An error is raised for missing files if they must be `existing`.
    """
    if isinstance(getattr(X, "spec", None), NetworkSpec):
        raise TypeError(
            f"X is {type(X).__name__}, the output of a transformer, where images are expected. Give it to the next "
            "step of the pipeline, or give images."
        )
    if hasattr(X, "to_numpy"):  # a column of a data frame
        X = X.to_numpy()
    if isinstance(X, Image.Image):
        raise ValueError("X is one PIL image; give a list of images: [image].")
    if isinstance(X, DataLoader):
        raise ValueError("X is a DataLoader, which yields batches; give its data set, X.dataset.")
    if isinstance(X, Mapping):
        raise TypeError("X is a dict; give the entry with images.")
    if isinstance(X, (str, os.PathLike)):
        if X == "":
            raise ValueError("X is an empty path; give a folder, '.' for the current one.")
        X = files_in(Path(X))
    if isinstance(X, np.ndarray) and X.dtype.kind in "OU":
        X = X.tolist()
    if isinstance(X, Dataset):
        if isinstance(X, IterableDataset) or not hasattr(X, "__len__"):
            raise ValueError(
                f"{type(X).__name__} is iterable only; a data set with __len__ and __getitem__ is needed, since images "
                "are read several times."
            )
    elif isinstance(X, (list, tuple)) and X and isinstance(X[0], (str, os.PathLike, Image.Image)):
        X = [item if isinstance(item, Image.Image) else _path(item, place) for place, item in enumerate(X)]
        check_files(X, existing=existing)
    else:
        X = _as_array(X)
    if not len(X):
        raise ValueError("X contains no images (n_samples = 0).")
    return X


def _path(item: Any, place: int) -> Path:
    if not isinstance(item, (str, os.PathLike)):
        raise TypeError(f"X lists files and PIL images; item {place} is a {type(item).__name__}.")
    return Path(item)


def _as_array(X: Any) -> np.ndarray:
    """Return an array of real numbers; a tensor is not copied if numpy knows its type."""
    if np.ma.is_masked(X):
        raise TypeError("X is a masked array; fill the masked values: X.filled(value).")
    if isinstance(X, Tensor):
        if X.is_nested or X.layout != torch.strided:
            raise ValueError("X is a sparse or nested tensor; give a dense one: X.to_dense(), X.to_padded_tensor(0).")
        X = (X.float() if X.is_floating_point() else X).numpy(force=True)
    try:
        data = np.asarray(X)
    except ValueError as error:  # of a list
        raise ValueError(
            "X contains arrays of different shapes; give PIL images, [Image.fromarray(image) for image in X], and a "
            "preprocess=... that returns equal sizes."
        ) from error
    if data.dtype.kind not in "biuf":
        raise ValueError(f"X must contain real numbers, image paths or PIL images; got an array of {data.dtype}.")
    if not data.ndim:
        raise ValueError(f"X is {X!r}; give images: an array, a list of files or PIL images, a folder or a data set.")
    return data


def _channels_first(data: np.ndarray, kind: InputKind, layout: str, preprocess: Callable | None) -> np.ndarray:
    """Return images as (n, C, H, W), vectors as (n, d)."""
    shape, eight_bits = data.shape, data.dtype == np.uint8
    if data.ndim == 2:
        if not kind.vectors:
            raise ValueError(f"The network takes images of {kind.channels} channels; X is a 2-D array {shape}.")
        return data
    if data.ndim == 3:
        if shape[2] in (3, 4) and eight_bits:
            raise ValueError(f"X of shape {shape} looks like one colour image; give n images: X[None].")
        if kind.channels not in (None, 1) and (preprocess is None or not eight_bits):
            raise ValueError(
                f"X contains grey images {shape}, and the network takes {kind.channels} channels; repeat the channel, "
                "or give uint8 images and preprocess=... ."
            )
        return data[:, None]
    if data.ndim != 4:
        raise ValueError(f"X must be (n, C, H, W), (n, H, W, C), (n, H, W) or (n, d); got shape {shape}.")
    if layout == "auto":
        layout = _guess_layout(shape, kind.channels)
    first = data if layout == "channels_first" else data.transpose(0, 3, 1, 2)
    if kind.channels not in (None, first.shape[1]):
        raise ValueError(
            f"The network takes {kind.channels} channels; X has {first.shape[1]} (shape {shape}, {layout})."
        )
    return first


def _guess_layout(shape: tuple[int, ...], channels: int | None) -> str:
    possible = (1, 3) if channels is None else (channels,)
    first, last = shape[1] in possible, shape[3] in possible
    if first and last:
        raise ValueError(
            f"X of shape {shape} could be channels first or last: the network takes {channels or '1 or 3'} channels. "
            "Set layout='channels_first' or layout='channels_last'."
        )
    if not first and not last:
        raise ValueError(f"X of shape {shape} has no axis of {channels or '1 or 3'} channels, as the network needs.")
    return "channels_first" if first else "channels_last"


class PixelScale(NamedTuple):
    """The values of black and white in the input of the network, per channel."""

    black: np.ndarray
    white: np.ndarray

    @classmethod
    def of(cls, images: Images, image: Tensor) -> PixelScale | None:
        """Return the scale of images, None for vectors; `image` (1, ...) is the first preprocessed one.

        It is determined by preprocessing a black and a white image.  Without preprocessing, values in [0, 1] are
        pixels, and others are scaled by the minimum and maximum of each channel in the first images.
        """
        if image.ndim != 4:
            return None
        batch = (images.batch(0, min(len(images), 64)) if images.preprocess is None else image).numpy(force=True)
        first = images.raw(0)
        if isinstance(first, Image.Image) and images.preprocess is not None:
            try:
                scale = cls(*(_level(images.preprocess, first, level) for level in (0, 255)))
            except Exception:  # such as a preprocessing that detects an object
                scale = None
            if scale is not None and np.abs(scale.white - scale.black).min() > 1e-6:
                return scale
        low, high = batch.min((0, 2, 3)), batch.max((0, 2, 3))
        if low.min() >= 0 and high.max() <= 1:
            low, high = np.zeros_like(low), np.ones_like(high)
        return cls(low, np.maximum(high, low + 1e-6))

    def pixels(self, batch: Tensor) -> np.ndarray:
        """Return preprocessed images (n, C, H, W) as uint8 pixels (n, H, W, 3); one channel becomes grey."""
        black, white = (torch.from_numpy(level)[:, None, None] for level in self)
        levels = (batch - black) / (white - black)
        levels = levels[:, :3] if batch.shape[1] >= 3 else levels[:, :1].expand(-1, 3, -1, -1)
        return (levels.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy(force=True)


def _level(preprocess: Callable, like: Image.Image, level: int) -> np.ndarray:
    """Return the mean per channel of a preprocessed image of one grey level."""
    plain = Image.new(like.mode, like.size, level if like.mode == "L" else (level,) * len(like.getbands()))
    return preprocess(plain).float().mean((1, 2)).numpy()
