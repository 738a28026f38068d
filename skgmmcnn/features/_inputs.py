"""Validation of input of all kinds."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from ._image_files import check_files, files_in
from ._images import PIL_MODES, Images
from ._spec import NetworkSpec


def normalise_input(X: Any, *, existing: bool = True) -> Any:
    """Return X as a data set, a list of paths and PIL images, or an array of numbers, validated without the network.

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


def of_bytes(X: Any) -> bool:
    """Return whether X, from :func:`normalise_input`, contains files, PIL images or 8-bit data."""
    return isinstance(X, list) or (isinstance(X, np.ndarray) and X.dtype == np.uint8)


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


def make_images(X: Any, first_layer: nn.Module | None, layout: str, preprocess: Callable | None) -> Images:
    """Return X, from :func:`normalise_input`, as :class:`Images` for a network with this first layer."""
    kind = InputKind.of(first_layer)
    if isinstance(X, np.ndarray):
        X = _channels_first(X, kind, layout, preprocess)
        if preprocess is None and X.ndim > 2 and X.dtype.kind in "iu":
            raise ValueError(
                f"X contains {X.dtype} values, and there is no preprocessing. Pass preprocess=..., for example "
                "torchvision.transforms.ToTensor() followed by the normalisation used in training, or give "
                "preprocessed floats."
            )
    elif isinstance(X, list) and kind.vectors and preprocess is None:
        raise ValueError("The network takes vectors; give an array (n, d), or preprocess=... that returns vectors.")
    return Images(X, preprocess, None if kind.channels is None else PIL_MODES.get(kind.channels))


def _channels_first(data: np.ndarray, kind: InputKind, layout: str, preprocess: Callable | None) -> np.ndarray:
    """Return images as (n, C, H, W), vectors as (n, d)."""
    shape = data.shape
    eight_bits = data.dtype == np.uint8
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
