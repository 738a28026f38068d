"""Images of all input kinds, validated and preprocessed."""

from __future__ import annotations

import copy
import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset

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
        if isinstance(first_layer, nn.Linear):
            return cls(vectors=True, channels=None)
        return cls(vectors=False, channels=getattr(first_layer, "in_channels", None))


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
        stamps = [self._stamp(row) for row in self._rows.tolist()] if self.of_data_set or self._of_files else []
        data, rows = self._data, self._rows
        if not self.of_data_set:
            rows = np.arange(len(rows))
            if isinstance(data, list):
                data = [data[row] for row in self._rows]
            elif not np.array_equal(self._rows, np.arange(len(data))):
                data = data[self._rows]
        data = data.numpy(force=True) if isinstance(data, Tensor) else data
        if isinstance(data, np.ndarray):  # in C order and not as a memory map, since hashes differ between these
            data = np.asarray(data).reshape(-1).reshape(data.shape)
        return {**self.__dict__, "_data": data, "_rows": rows, "_stamps": stamps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state.pop("_stamps")
        self.__dict__.update(state)

    def keys(self) -> list[bytes]:
        """Return the current hash of each image, 16 bytes.

        For data sets it depends on the set, the number of the image, and the size and time of its file if the set has a
        list `samples` of files, as in torchvision.
        """
        try:
            whole = joblib.hash(self._data) if self.of_data_set else ""
        except Exception as error:
            raise ValueError(
                f"The data set cannot be hashed, so a store cannot identify its images: {error}. Remove attributes "
                "that cannot be pickled."
            ) from error
        return [self._key(int(row), f"{self._mode} {whole}") for row in self._rows]

    def _key(self, row: int, what: str) -> bytes:
        digest = hashlib.blake2b(what.encode(), digest_size=16)
        item = (row, self._stamp(row)) if self.of_data_set else self._data[row]
        if isinstance(item, Tensor):
            item = (item.float() if item.is_floating_point() else item).numpy(force=True)
        if isinstance(item, Path):
            try:
                digest.update(item.read_bytes())
            except OSError as error:
                raise ValueError(f"{str(item)!r} cannot be read as an image: {error}") from error
        elif isinstance(item, np.ndarray):
            array = np.ascontiguousarray(item)
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
        else:
            digest.update(joblib.hash(item).encode())
        return digest.digest()

    @property
    def _of_files(self) -> bool:
        return isinstance(self._data, list) and any(isinstance(item, Path) for item in self._data)

    def _stamp(self, row: int) -> tuple[int, int] | None:
        """Return the size and the modification time of the file of an image, None without a file."""
        file = _file_in(self._data, row) if self.of_data_set else self._data[row]
        if not isinstance(file, (str, Path)) or not os.path.exists(file):
            return None
        status = os.stat(file)
        return status.st_size, status.st_mtime_ns

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
        rows = self._rows[start:stop]
        if self.preprocess is None and not isinstance(self._data, (list, Dataset)):
            batch = torch.as_tensor(self._data[rows]).float()
            _check_shape(batch[0], shape, first + start)
        else:
            images = [self._one(row, first + start + i) for i, row in enumerate(rows)]
            for i, image in enumerate(images):
                _check_shape(image, shape or tuple(images[0].shape), first + start + i)
            batch = torch.stack(images)
        if not torch.isfinite(batch.sum()):
            _refuse_non_finite(batch, first + start)
        return batch

    def raw(self, row: int) -> Any:
        """Return image `row` before preprocessing: a PIL image if it has 8 bits, else a tensor (C, H, W)."""
        return self._open(self._rows[row], row)

    def file_name(self, row: int) -> str:
        """Return the name of the file of image `row`, "" without a file."""
        item = self._data[int(self._rows[row])] if isinstance(self._data, list) else None
        return item.name if isinstance(item, Path) else ""

    def again(self, n_times: int) -> Iterator[Tensor]:
        """Yield the first image several times, preprocessed each time; a file is read once, data sets each time."""
        opened = None if self.of_data_set else self._open(self._rows[0], 0)
        for _ in range(n_times):
            yield self._one(self._rows[0], 0, copy.deepcopy(opened))

    def _one(self, row: int, place: int, opened: Any = None) -> Tensor:
        image = self._open(row, place) if opened is None else opened
        if self.preprocess is None and isinstance(self._data, Dataset) and isinstance(image, Tensor):
            return image
        if self.preprocess is None:
            raise ValueError(
                f"Image {place} is a {_kind(image)}, and there is no preprocessing; pass preprocess=..., for example "
                "torchvision.transforms.ToTensor() followed by the normalisation used in training."
            )
        try:
            result = self.preprocess(image)
        except Exception as error:
            raise UnreadableError(
                f"preprocess failed on image {place}{self._file(row)}, a {_kind(image)}: {type(error).__name__}: "
                f"{error}. It is called with one image, a PIL image for files and uint8 data, else a tensor (C, H, W)."
            ) from error
        if not isinstance(result, Tensor) or not result.is_floating_point():
            kind = f"a {result.dtype} tensor" if isinstance(result, Tensor) else f"a {type(result).__name__}"
            raise ValueError(f"preprocess must return a float tensor; for image {place} it returned {kind}.")
        return result.float()

    def _open(self, row: int, place: int) -> Any:
        try:
            item = self._data[int(row)]
        except Exception as error:
            raise UnreadableError.because(f"Image {place}: the data set fails on its item {row}", error) from error
        if isinstance(item, Path):
            return read(item, self._mode)
        image = _image_of(item, place) if isinstance(self._data, Dataset) else item
        if isinstance(image, Image.Image):
            try:
                return normalise(image, self._mode)
            except Exception as error:
                raise UnreadableError.because(f"Image {place} cannot be read", error) from error
        image = image.clone() if isinstance(image, Tensor) else torch.from_numpy(np.array(image))
        if image.dtype == torch.uint8 and image.ndim == 3 and len(image) in _PIL_MODES:
            return _to_pil(image.numpy(force=True)).convert(self._mode or _PIL_MODES[len(image)])
        return image.float()

    def _file(self, row: int) -> str:
        item = self._data[int(row)] if isinstance(self._data, list) else None
        return f" ({str(item)!r})" if isinstance(item, Path) else ""


def _file_in(data: Dataset, row: int) -> Any:
    """Return the file of an item of a data set with a list `samples`, as in torchvision; else any object."""
    if isinstance(data, Subset):
        return _file_in(data.dataset, data.indices[row])
    samples = getattr(data, "samples", None)  # as in ImageFolder
    item = samples[row] if isinstance(samples, list) and row < len(samples) else None
    return item[0] if isinstance(item, tuple) else item


def _image_of(item: Any, place: int) -> Any:
    """Return the image of an item of a data set: the item, or the first entry of (image, label)."""
    if isinstance(item, (tuple, list)) and item and _is_image(item[0]):
        return item[0]
    if _is_image(item):
        return item
    key = next((key for key, value in entries(item) if _is_image(value)), None)
    hint = "" if key is None else f" Entry {key!r} is an image: return only that from __getitem__."
    raise TypeError(
        f"Item {place} of the data set is a {type(item).__name__} instead of an image: a PIL image, a tensor or an "
        f"array of numbers, or a tuple that begins with one.{hint}"
    )


def _is_image(item: Any) -> bool:
    numbers = isinstance(item, Tensor) or (isinstance(item, np.ndarray) and item.dtype.kind in "biuf")
    return isinstance(item, Image.Image) or (numbers and item.ndim > 0)


def _kind(image: Any) -> str:
    return "PIL image" if isinstance(image, Image.Image) else type(image).__name__


def _read_part(images: Images, shape: tuple[int, ...], first: int) -> np.ndarray:
    """Read images in another process; returns an array, which is cheaper to transfer than a tensor."""
    return images.batch(0, len(images), shape, first).numpy()


def _to_pil(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def _check_shape(image: Tensor, shape: tuple[int, ...] | None, place: int) -> None:
    if shape is not None and tuple(image.shape) != shape:
        raise ValueError(
            f"Image {place} has shape {tuple(image.shape)} after preprocessing, where {shape} is expected; resize or "
            "crop images to equal size in preprocess."
        )


def _refuse_non_finite(batch: Tensor, start: int) -> None:
    bad = not_finite(batch)
    if bad:  # otherwise the sum overflowed
        raise UnreadableError(f"Image {start + bad[0]} contains NaN or infinity.")


def normalise_input(X: Any, *, existing: bool = True) -> Any:
    """Return X as a data set, a list of files or PIL images, or unchanged; checks what needs no network.

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
    if isinstance(X, (str, os.PathLike)):
        if X == "":
            raise ValueError("X is an empty path; give a folder, '.' for the current one.")
        X = files_in(Path(X))
    if isinstance(X, Dataset):
        _check_data_set(X)
        return X
    if isinstance(X, np.ndarray) and X.dtype.kind in "OU":
        X = X.tolist()
    if isinstance(X, (list, tuple)) and X and isinstance(X[0], (str, os.PathLike, Image.Image)):
        X = [item if isinstance(item, Image.Image) else _path(item, place) for place, item in enumerate(X)]
        check_files(X, existing=existing)
    return X


def _of_integers(data: Any) -> bool:
    if isinstance(data, Tensor):
        return not data.is_floating_point() and data.dtype != torch.bool
    return data.dtype.kind in "iu"


def _path(item: Any, place: int) -> Path:
    if not isinstance(item, (str, os.PathLike)):
        raise TypeError(f"X lists files and PIL images; item {place} is a {type(item).__name__}.")
    return Path(item)


def of_bytes(X: Any) -> bool:
    """Return whether X, from :func:`normalise_input`, contains files, PIL images or 8-bit data."""
    if isinstance(X, list):
        return bool(X) and isinstance(X[0], (Path, Image.Image))
    return getattr(X, "dtype", None) in (np.uint8, torch.uint8)


def make_images(X: Any, kind: InputKind, layout: str, preprocess: Callable | None, *, existing: bool = True) -> Images:
    """Return X as :class:`Images`, validated without reading files."""
    X = normalise_input(X, existing=existing)
    if isinstance(X, Dataset):
        return Images(X, preprocess, _mode(kind))
    if isinstance(X, list) and X and isinstance(X[0], (Path, Image.Image)):
        if kind.vectors and kind.channels is None and preprocess is None:
            raise ValueError("The network takes vectors; give an array (n, d), or preprocess=... that returns vectors.")
        data: Any = X
    else:
        data = _as_array(X)
        data = _channels_first(data, kind, layout, preprocess)
        if preprocess is None and data.ndim > 2 and _of_integers(data):
            raise ValueError(
                f"X contains {data.dtype} values, and there is no preprocessing. Pass preprocess=..., for example "
                "torchvision.transforms.ToTensor() followed by the normalisation used in training, or give "
                "preprocessed floats."
            )
    return Images(data, preprocess, _mode(kind))


def _mode(kind: InputKind) -> str | None:
    return _PIL_MODES.get(kind.channels) if kind.channels is not None else None


def warn_if_random(images: Images, first: Tensor) -> None:
    """Warn if preprocessing, or a data set, returns different values for the first image each time."""
    if images.preprocess is None and not images.of_data_set:
        return
    if any(not torch.equal(first[0], other) for other in images.again(_N_REPEATED)):
        source = "The data set" if images.preprocess is None else "preprocess"
        warnings.warn(
            f"{source} returns different values for the same image each time, as for training: leave out random crops, "
            "flips and noise, or words and graphs do not belong to the images shown.",
            stacklevel=4,
        )


def _check_data_set(data: Dataset) -> None:
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        raise ValueError(
            f"{type(data).__name__} is iterable only; a data set with __len__ and __getitem__ is needed, since images "
            "are read several times."
        )
    if not len(data):
        raise ValueError("X contains no images (n_samples = 0).")


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


def _as_array(X: Any) -> Any:
    if isinstance(X, Mapping):
        raise TypeError("X is a dict; give the entry with images.")
    if np.ma.is_masked(X):
        raise TypeError("X is a masked array; fill the masked values: X.filled(value).")
    if isinstance(X, Tensor) and (X.is_nested or X.layout != torch.strided):
        raise ValueError("X is a sparse or nested tensor; give a dense one: X.to_dense(), X.to_padded_tensor(0).")
    try:
        data = X.detach() if isinstance(X, Tensor) else np.asarray(X)
    except ValueError as error:  # of a list
        raise ValueError(
            "X contains arrays of different shapes; give PIL images, [Image.fromarray(image) for image in X], and a "
            "preprocess=... that returns equal sizes."
        ) from error
    if data.dtype.is_complex if isinstance(data, Tensor) else data.dtype.kind not in "biuf":
        raise ValueError(f"X must contain real numbers, image paths or PIL images; got an array of {data.dtype}.")
    if not data.ndim:
        raise ValueError(f"X is {X!r}; give images: an array, a list of files or PIL images, a folder or a data set.")
    if not len(data):
        raise ValueError("X contains no images (n_samples = 0).")
    return data


def _channels_first(data: Any, kind: InputKind, layout: str, preprocess: Callable | None) -> Any:
    """Return images as (n, C, H, W), vectors as (n, d)."""
    shape = tuple(data.shape)
    if len(shape) == 2:
        if not kind.vectors:
            raise ValueError(f"The network takes images of {kind.channels} channels; X is a 2-D array {shape}.")
        return data
    if len(shape) == 3:
        if shape[2] in (3, 4) and data.dtype in (np.uint8, torch.uint8):
            raise ValueError(f"X of shape {shape} looks like one colour image; give n images: X[None].")
        if kind.channels not in (None, 1) and (preprocess is None or data.dtype not in (np.uint8, torch.uint8)):
            raise ValueError(
                f"X contains grey images {shape}, and the network takes {kind.channels} channels; repeat the channel, "
                "or give uint8 images and preprocess=... ."
            )
        return data[:, None]
    if len(shape) != 4:
        raise ValueError(f"X must be (n, C, H, W), (n, H, W, C), (n, H, W) or (n, d); got shape {shape}.")
    if layout == "auto":
        layout = _guess_layout(shape, kind.channels)
    first = data if layout == "channels_first" else _move_channels(data)
    if kind.channels not in (None, first.shape[1]):
        raise ValueError(
            f"The network takes {kind.channels} channels; X has {first.shape[1]} (shape {shape}, {layout})."
        )
    return first


def _guess_layout(shape: tuple[int, ...], channels: int | None) -> str:
    wanted = (1, 3) if channels is None else (channels,)
    first, last = shape[1] in wanted, shape[3] in wanted
    if first and last:
        raise ValueError(
            f"X of shape {shape} could be channels first or last: the network takes {channels or '1 or 3'} channels. "
            "Set layout='channels_first' or layout='channels_last'."
        )
    if not first and not last:
        raise ValueError(f"X of shape {shape} has no axis of {channels or '1 or 3'} channels, as the network needs.")
    return "channels_first" if first else "channels_last"


def _move_channels(data: Any) -> Any:
    return data.permute(0, 3, 1, 2) if isinstance(data, Tensor) else data.transpose(0, 3, 1, 2)


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
        shown = (batch - black) / (white - black)
        shown = shown[:, :3] if batch.shape[1] >= 3 else shown[:, :1].expand(-1, 3, -1, -1)
        return (shown.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy(force=True)


def _level(preprocess: Callable, like: Image.Image, level: int) -> np.ndarray:
    """Return the mean per channel of a preprocessed image of one grey level."""
    plain = Image.new(like.mode, like.size, level if like.mode == "L" else (level,) * len(like.getbands()))
    return preprocess(plain).float().mean((1, 2)).numpy()
