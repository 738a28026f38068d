"""Images as they come, and as the network takes them."""

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
from ._image_files import UnreadableError, check_files, files_in, read, usual
from ._spec import NetworkSpec

_N_REPEATED = 7  # a random flip goes unnoticed once in 128 times
_PIL_MODES = {1: "L", 3: "RGB"}


class InputKind(NamedTuple):
    """What the network takes: images of so many channels (None where any will do), or vectors."""

    vectors: bool
    channels: int | None

    @classmethod
    def of(cls, first_layer: nn.Module | None) -> InputKind:
        """Tell it from the first layer that runs."""
        if isinstance(first_layer, (nn.Conv1d, nn.Conv3d)):
            raise ValueError(
                f"The network begins with a {type(first_layer).__name__}, and takes signals or volumes; only images "
                "(n, C, H, W) and vectors (n, d) can be explained. Signals can be images of one row: with nn.Conv2d, "
                "kernels (1, k) and X[:, :, None]."
            )
        if isinstance(first_layer, nn.Linear):
            return cls(vectors=True, channels=None)
        return cls(vectors=False, channels=getattr(first_layer, "in_channels", None))


class Images:
    """A row-indexable set of images that are read and preprocessed when asked for.

    Parameters
    ----------
    data : array, tensor, list or Dataset
        Images (n, C, H, W) or vectors (n, d) in memory, a list of paths or PIL images, or a map-style data set.
    preprocess : callable or None
        Called with one image: with a ``PIL.Image`` where the image comes from a file, from PIL or from uint8 data,
        else with a tensor (C, H, W).  Returns a float tensor.
    mode : str or None
        The PIL mode that the network's channels ask for.
    rows : int array or None
        The images that are meant, in order; all by default.
    """

    def __init__(
        self, data: Any, preprocess: Callable | None, mode: str | None, rows: np.ndarray | None = None
    ) -> None:
        self._data, self.preprocess, self._mode = data, preprocess, mode
        self._rows = np.arange(len(data)) if rows is None else rows

    @property
    def of_data_set(self) -> bool:
        """Whether the images are items of a data set."""
        return isinstance(self._data, Dataset)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: Any) -> Images:
        return Images(self._data, self.preprocess, self._mode, np.atleast_1d(self._rows[key]))

    def __getstate__(self) -> dict[str, Any]:
        # No data but these images'.  Files are named; sizes and times of change show that one was replaced.
        stamps = [self._stamp(row) for row in self._rows.tolist()] if self.of_data_set or self._of_files else []
        data, rows = self._data, self._rows
        if not self.of_data_set:
            rows = np.arange(len(rows))
            if isinstance(data, list):
                data = [data[row] for row in self._rows]
            elif not np.array_equal(self._rows, np.arange(len(data))):
                data = data[self._rows]
        data = data.numpy(force=True) if isinstance(data, Tensor) else data
        if isinstance(data, np.ndarray):  # in plain C order and no memory map, since hashes tell those apart
            data = np.asarray(data).reshape(-1).reshape(data.shape)
        return {**self.__dict__, "_data": data, "_rows": rows, "_stamps": stamps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state.pop("_stamps")
        self.__dict__.update(state)

    def keys(self) -> list[bytes]:
        """Return a hash of each image, 16 bytes, as it is now.

        Of a data set it is that of the set, the image's number, and the size and time of change of its file, if the set
        lists files as those of torchvision do.
        """
        try:
            whole = joblib.hash(self._data) if self.of_data_set else ""
        except Exception as error:
            raise ValueError(
                f"The data set cannot be hashed, so a store could not find its images: {error}. Keep in it only what "
                "can be pickled."
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
        """Return the size and the time of change of an image's file, None where there is none."""
        file = _file_in(self._data, row) if self.of_data_set else self._data[row]
        if not isinstance(file, (str, Path)) or not os.path.exists(file):
            return None
        found = os.stat(file)
        return found.st_size, found.st_mtime_ns

    def batches(self, size: int, shape: tuple[int, ...], n_jobs: int | None) -> Iterator[Tensor]:
        """Yield the images in order, `size` at a time, read and preprocessed by `n_jobs` processes."""
        starts = range(0, len(self), size)
        if effective_n_jobs(n_jobs) == 1:
            yield from (self.batch(start, start + size, shape) for start in starts)
            return
        tasks = (delayed(_read_part)(self[start : start + size], shape, start) for start in starts)
        yield from map(torch.from_numpy, Parallel(n_jobs, return_as="generator")(tasks))

    def batch(self, start: int, stop: int, shape: tuple[int, ...] | None = None, first: int = 0) -> Tensor:
        """Return images start to stop as the network takes them, each of `shape` if that is given.

        Errors count images from `first` on.
        """
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
        """Return image `row` before preprocessing: a PIL image, or a tensor (C, H, W) where it is not of bytes."""
        return self._open(self._rows[row], row)

    def file_name(self, row: int) -> str:
        """Return the name of the file of image `row`, "" where it has none."""
        item = self._data[int(self._rows[row])] if isinstance(self._data, list) else None
        return item.name if isinstance(item, Path) else ""

    def again(self, n_times: int) -> Iterator[Tensor]:
        """Yield the first image as the network takes it several times; a file is opened once, data sets are asked."""
        opened = None if self.of_data_set else self._open(self._rows[0], 0)
        for _ in range(n_times):
            yield self._one(self._rows[0], 0, copy.deepcopy(opened))

    def _one(self, row: int, place: int, opened: Any = None) -> Tensor:
        image = self._open(row, place) if opened is None else opened
        if self.preprocess is None and isinstance(self._data, Dataset) and isinstance(image, Tensor):
            return image
        if self.preprocess is None:
            raise ValueError(
                f"Image {place} is a {_kind(image)}, and there is no preprocessing to make the network's input of it; "
                "pass preprocess=..., for example torchvision.transforms.ToTensor() followed by the "
                "normalisation that the network was trained with."
            )
        try:
            result = self.preprocess(image)
        except Exception as error:
            raise UnreadableError(
                f"preprocess failed on image {place}{self._file(row)}, a {_kind(image)}: {type(error).__name__}: "
                f"{error}. It is called with one image, a PIL image for files and uint8 data, else a tensor (C, H, W)."
            ) from error
        if not isinstance(result, Tensor) or not result.is_floating_point():
            found = f"a {result.dtype} tensor" if isinstance(result, Tensor) else f"a {type(result).__name__}"
            raise ValueError(f"preprocess must return a float tensor; for image {place} it returned {found}.")
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
                return usual(image, self._mode)
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
    """Return the file of an item of a data set that lists them as torchvision's do, or another thing."""
    if isinstance(data, Subset):
        return _file_in(data.dataset, data.indices[row])
    samples = getattr(data, "samples", None)  # of ImageFolder and its like
    item = samples[row] if isinstance(samples, list) and row < len(samples) else None
    return item[0] if isinstance(item, tuple) else item


def _image_of(item: Any, place: int) -> Any:
    """Return the image in an item of a data set: the item itself, or the first of (image, label)."""
    if isinstance(item, (tuple, list)) and item and _is_image(item[0]):
        return item[0]
    if _is_image(item):
        return item
    key = next((key for key, value in entries(item) if _is_image(value)), None)
    inside = "" if key is None else f" Its entry {key!r} holds one: let __getitem__ return that alone."
    raise TypeError(
        f"Item {place} of the data set is a {type(item).__name__}; one image a row is expected: a PIL image, a tensor "
        f"or an array of numbers, or a tuple that begins with one.{inside}"
    )


def _is_image(item: Any) -> bool:
    numbers = isinstance(item, Tensor) or (isinstance(item, np.ndarray) and item.dtype.kind in "biuf")
    return isinstance(item, Image.Image) or (numbers and item.ndim > 0)


def _kind(image: Any) -> str:
    return "PIL image" if isinstance(image, Image.Image) else type(image).__name__


def _read_part(images: Images, shape: tuple[int, ...], first: int) -> np.ndarray:
    """Read images in another process; tensors travel between processes as arrays."""
    return images.batch(0, len(images), shape, first).numpy()


def _to_pil(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def _check_shape(image: Tensor, shape: tuple[int, ...] | None, place: int) -> None:
    if shape is not None and tuple(image.shape) != shape:
        raise ValueError(
            f"Image {place} has shape {tuple(image.shape)} as the network would get it, where {shape} is expected; "
            "images must become equal in size: resize or crop them in preprocess."
        )


def _refuse_non_finite(batch: Tensor, start: int) -> None:
    bad = not_finite(batch)
    if bad:  # else the sum alone overflowed
        raise UnreadableError(f"Image {start + bad[0]} holds NaN or infinity.")


def listed(X: Any, *, existing: bool = True) -> Any:
    """Return a data set, a list of files or PIL images, or what else X is: all that needs no network.

    Files must be `existing`, if not told otherwise.
    """
    if isinstance(getattr(X, "spec", None), NetworkSpec):
        raise TypeError(
            f"X is {type(X).__name__}, which was made of images; images are expected here. Give it to the step of the "
            "pipeline that comes behind the one that made it, or give images."
        )
    if hasattr(X, "to_numpy"):  # a column of a data frame
        X = X.to_numpy()
    if isinstance(X, Image.Image):
        raise ValueError("X is one PIL image; give a list of images: [image].")
    if isinstance(X, DataLoader):
        raise ValueError("X is a DataLoader, which makes batches; give its data set, X.dataset.")
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
    """Whether X, from :func:`listed`, holds files, PIL images or bytes, which no network takes as they are."""
    if isinstance(X, list):
        return bool(X) and isinstance(X[0], (Path, Image.Image))
    return getattr(X, "dtype", None) in (np.uint8, torch.uint8)


def gather(X: Any, kind: InputKind, layout: str, preprocess: Callable | None, *, existing: bool = True) -> Images:
    """Return the user's X as :class:`Images`, having checked what can be checked without reading files."""
    X = listed(X, existing=existing)
    if isinstance(X, Dataset):
        return Images(X, preprocess, _mode(kind))
    if isinstance(X, list) and X and isinstance(X[0], (Path, Image.Image)):
        if kind.vectors and kind.channels is None and preprocess is None:
            raise ValueError("The network takes vectors; give an array (n, d), or preprocess=... that makes them.")
        data: Any = X
    else:
        data = _as_array(X)
        data = _channels_first(data, kind, layout, preprocess)
        if preprocess is None and data.ndim > 2 and _of_integers(data):
            raise ValueError(
                f"X holds {data.dtype} values, and there is no preprocessing to make the network's input of them. Pass "
                "preprocess=..., for example torchvision.transforms.ToTensor() followed by the normalisation that the "
                "network was trained with, or give floats that are ready."
            )
    return Images(data, preprocess, _mode(kind))


def _mode(kind: InputKind) -> str | None:
    return _PIL_MODES.get(kind.channels) if kind.channels is not None else None


def warn_if_random(images: Images, first: Tensor) -> None:
    """Warn where preprocessing, or a data set, makes something else of the first image each time."""
    if images.preprocess is None and not images.of_data_set:
        return
    if any(not torch.equal(first[0], other) for other in images.again(_N_REPEATED)):
        source = "The data set" if images.preprocess is None else "preprocess"
        warnings.warn(
            f"{source} gives different values for the same image twice, as for training: leave out random crops, flips "
            "and noise, or words and graphs are not those of the images that are shown.",
            stacklevel=4,
        )


def _check_data_set(data: Dataset) -> None:
    if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
        raise ValueError(
            f"{type(data).__name__} yields images once and in its own order; a data set with __len__ and __getitem__ "
            "is needed, since images are passed over several times."
        )
    if not len(data):
        raise ValueError("X holds no images (n_samples = 0).")


def unreadable(images: Images, n_jobs: int | None) -> dict[int, str]:
    """Make every image ready, and return what is wrong with those that cannot be read, by number."""
    size = max(1, min(64, len(images) // effective_n_jobs(n_jobs)))
    parts = (delayed(_try_part)(images[start : start + size], start) for start in range(0, len(images), size))
    return {number: error for found in Parallel(n_jobs)(parts) for number, error in found.items()}


def _try_part(images: Images, first: int) -> dict[int, str]:
    found = {}
    for row in range(len(images)):
        try:
            images.batch(row, row + 1, first=first)
        except UnreadableError as error:
            found[first + row] = error.args[0]
    return found


def _as_array(X: Any) -> Any:
    if isinstance(X, Mapping):
        raise TypeError("X is a dict; give the one of its values that holds images.")
    if np.ma.is_masked(X):
        raise TypeError("X is a masked array; fill what is masked: X.filled(value).")
    if isinstance(X, Tensor) and (X.is_nested or X.layout != torch.strided):
        raise ValueError("X is a sparse or nested tensor; give a dense one: X.to_dense(), X.to_padded_tensor(0).")
    try:
        data = X.detach() if isinstance(X, Tensor) else np.asarray(X)
    except ValueError as error:  # of a list
        raise ValueError(
            "X lists arrays of different shapes; give PIL images, [Image.fromarray(image) for image in X], and a "
            "preprocess=... that makes them equal in size."
        ) from error
    if data.dtype.is_complex if isinstance(data, Tensor) else data.dtype.kind not in "biuf":
        raise ValueError(f"X must hold real numbers, image paths or PIL images; got an array of {data.dtype}.")
    if not data.ndim:
        raise ValueError(f"X is {X!r}; give images: an array, a list of files or PIL images, a folder or a data set.")
    if not len(data):
        raise ValueError("X holds no images (n_samples = 0).")
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
            raise ValueError(f"X of shape {shape} looks like one image in colour; give n images: X[None].")
        if kind.channels not in (None, 1) and (preprocess is None or data.dtype not in (np.uint8, torch.uint8)):
            raise ValueError(
                f"X holds grey images {shape}, and the network takes {kind.channels} channels; repeat the channel, "
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
            "Say layout='channels_first' or layout='channels_last'."
        )
    if not first and not last:
        raise ValueError(f"X of shape {shape} has no axis of {channels or '1 or 3'} channels, which the network takes.")
    return "channels_first" if first else "channels_last"


def _move_channels(data: Any) -> Any:
    return data.permute(0, 3, 1, 2) if isinstance(data, Tensor) else data.transpose(0, 3, 1, 2)


class PixelScale(NamedTuple):
    """The values that stand for black and for white in the network's input, per channel."""

    black: np.ndarray
    white: np.ndarray

    @classmethod
    def of(cls, images: Images, image: Tensor) -> PixelScale | None:
        """Find them, None for vectors; `image` (1, ...) is the first as the network takes it.

        Preprocessing is asked what it makes of a black and of a white image.  Where there is none, values in [0, 1]
        are pixels, and others are stretched from the smallest to the largest of each channel in the first images.
        """
        if image.ndim != 4:
            return None
        batch = (images.batch(0, min(len(images), 64)) if images.preprocess is None else image).numpy(force=True)
        first = images.raw(0)
        if isinstance(first, Image.Image) and images.preprocess is not None:
            try:
                scale = cls(*(_level(images.preprocess, first, level) for level in (0, 255)))
            except Exception:  # as of a preprocessing that looks for something in the image
                scale = None
            if scale is not None and np.abs(scale.white - scale.black).min() > 1e-6:
                return scale
        low, high = batch.min((0, 2, 3)), batch.max((0, 2, 3))
        if low.min() >= 0 and high.max() <= 1:
            low, high = np.zeros_like(low), np.ones_like(high)
        return cls(low, np.maximum(high, low + 1e-6))

    def pixels(self, batch: Tensor) -> np.ndarray:
        """Return preprocessed images (n, C, H, W) as uint8 pictures (n, H, W, 3); one channel becomes grey."""
        black, white = (torch.from_numpy(level)[:, None, None] for level in self)
        shown = (batch - black) / (white - black)
        shown = shown[:, :3] if batch.shape[1] >= 3 else shown[:, :1].expand(-1, 3, -1, -1)
        return (shown.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy(force=True)


def _level(preprocess: Callable, like: Image.Image, level: int) -> np.ndarray:
    """Return per channel what `preprocess` makes of an image all of one grey level."""
    plain = Image.new(like.mode, like.size, level if like.mode == "L" else (level,) * len(like.getbands()))
    return preprocess(plain).float().mean((1, 2)).numpy()
