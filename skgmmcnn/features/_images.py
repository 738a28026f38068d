"""Images that are read and preprocessed when they are needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from joblib import Parallel, delayed, effective_n_jobs
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset
from torchvision.transforms.functional import to_pil_image

from .._warnings import warn
from ._decisions import entries, not_finite
from ._image_files import UnreadableError, normalise, read
from ._rows import ArrayRows, choose, plain

PIL_MODES = {1: "L", 3: "RGB"}  # by number of channels
_N_REPEATED = 7  # a random flip is missed once in 128 times


class Images:
    """An indexable set of images that are read and preprocessed lazily.

    `items` are an array (n, C, H, W) or (n, d), a list of paths or PIL images, or a data set.  `preprocess`
    returns a float tensor for one image: a ``PIL.Image`` for files, PIL images and uint8 data, else a tensor (C, H, W).
    `mode` is the PIL mode with the number of channels of the network.
    """

    def __init__(
        self, items: np.ndarray | ArrayRows | list[Any] | Dataset, preprocess: Callable | None, mode: str | None
    ) -> None:
        self._items: Any = items
        self.preprocess = preprocess
        self._mode = mode

    @property
    def of_data_set(self) -> bool:
        """Whether the images are those of a data set."""
        return isinstance(self._items, Dataset)

    @property
    def _of_array(self) -> bool:
        return isinstance(self._items, (np.ndarray, ArrayRows))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, key: Any) -> Images:
        items: Any
        rows = np.atleast_1d(np.arange(len(self))[key])
        if self.of_data_set:
            items = Subset(self._items, rows.tolist())
        elif isinstance(self._items, list):
            items = [self._items[row] for row in rows]
        else:
            items = choose(self._items, key if isinstance(key, slice) else rows)
        return Images(items, self.preprocess, self._mode)

    def __getstate__(self) -> dict[str, Any]:
        if self._of_array:
            return self.__dict__ | {"_items": plain(self._items)}
        return self.__dict__ | {"_stamps": [_stamp(self._items, row) for row in range(len(self))]}  # to detect changes

    def hashes(self) -> list[str]:
        """Return the current hash of each image.

        For data sets it depends on the set, the number of the image, and the size and time of its file if the set has a
        list `samples` of files, as in torchvision.
        """
        data_set = self._hash_of_data_set() if self.of_data_set and len(self) else None
        prefix = f"{self._mode} {data_set} ".encode()
        return [blake2b(prefix + self._content(row), digest_size=16).hexdigest() for row in range(len(self))]

    def _hash_of_data_set(self) -> str:
        data_set, _ = _origin(self._items, 0, exact=True)
        try:
            return joblib.hash(data_set)
        except Exception as error:
            raise ValueError(
                f"The data set cannot be hashed, so a store cannot identify its images: {error}. Remove attributes "
                "that cannot be pickled."
            ) from error

    def _content(self, row: int) -> bytes:
        """Return bytes that identify an image."""
        if self.of_data_set:
            _, number = _origin(self._items, row, exact=True)
            return repr((number, _stamp(self._items, row))).encode()
        item = self._items[row]
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

    def batch(self, start: int, stop: int, shape: tuple[int, ...] | None = None, offset: int = 0) -> Tensor:
        """Return the preprocessed images start to stop, of a given `shape`; errors count images from `offset`."""
        if self.preprocess is None and self._of_array:
            batch = torch.from_numpy(np.array(self._items[start:stop])).float()
            _check_shape(batch[0], shape, offset + start)
        else:
            images = [self._preprocessed(row, offset + row) for row in range(start, min(stop, len(self)))]
            for number, image in enumerate(images, offset + start):
                _check_shape(image, shape or tuple(images[0].shape), number)
            batch = torch.stack(images)
        bad_rows = not_finite(batch)
        if bad_rows:
            raise UnreadableError(f"Image {offset + start + bad_rows[0]} contains NaN or infinity.")
        return batch

    def raw(self, row: int) -> Any:
        """Return an image before preprocessing: a PIL image if it has 8 bits, else a tensor (C, H, W)."""
        return self._open(row, row)

    def file_name(self, row: int) -> str:
        """Return the name of the file of an image, "" without a file."""
        file = self._file(row)
        return "" if file is None else file.name

    def _file(self, row: int) -> Path | None:
        item = self._items[row] if isinstance(self._items, list) else None
        return item if isinstance(item, Path) else None

    def _preprocessed(self, row: int, number: int) -> Tensor:
        """Return a preprocessed image; errors give it a `number`."""
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
            item = self._items[row]
        except Exception as error:
            _, place = _origin(self._items, row)
            raise UnreadableError.because(f"Image {number}: the data set fails on its item {place}", error) from error
        if isinstance(item, Path):
            return read(item, self._mode)
        image = _image_of(item, number) if self.of_data_set else item
        if not isinstance(image, Image.Image):
            image = image.clone() if isinstance(image, Tensor) else torch.from_numpy(np.array(image))
            if image.dtype != torch.uint8 or image.ndim != 3 or len(image) not in PIL_MODES:
                return image.float()
            image = to_pil_image(image)
        try:
            return normalise(image, self._mode)
        except Exception as error:
            raise UnreadableError.because(f"Image {number} cannot be read", error) from error


def _origin(data: Any, row: int, *, exact: bool = False) -> tuple[Any, int]:
    """Return the data set behind subsets, and the number of an image in it.

    With `exact` those of a subclass of torch's ``Subset`` are left, since it can return other items.
    """
    while type(data) is Subset or (isinstance(data, Subset) and not exact):
        data, row = data.dataset, int(data.indices[row])
    return data, row


def _stamp(items: Any, row: int) -> tuple[int, int] | None:
    """Return the size and the modification time of the file of an image, None without a file.

    A data set can have a list `samples` of files, or of tuples that begin with one, as in torchvision.
    """
    data, row = _origin(items, row)
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


def _read_part(images: Images, shape: tuple[int, ...], offset: int) -> np.ndarray:
    """Return images as an array, which is cheaper to transfer between processes than a tensor."""
    return images.batch(0, len(images), shape, offset).numpy()


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
        warn(
            f"{source} returns different values for the same image each time, as for training: leave out random crops, "
            "flips and noise, or words and graphs do not belong to the images shown.",
        )


def unreadable(images: Images, n_jobs: int | None) -> dict[int, str]:
    """Preprocess all images, and return the errors of those that cannot be read, by number."""
    size = max(1, min(64, len(images) // effective_n_jobs(n_jobs)))
    parts = (delayed(_errors_of)(images[start : start + size], start) for start in range(0, len(images), size))
    return {number: error for errors in Parallel(n_jobs)(parts) for number, error in errors.items()}


def _errors_of(images: Images, offset: int) -> dict[int, str]:
    errors = {}
    for row in range(len(images)):
        try:
            images.batch(row, row + 1, offset=offset)
        except UnreadableError as error:
            errors[offset + row] = error.args[0]
    return errors
