"""Preprocessed images as pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ._images import Images


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


class Pictures:
    """Preprocessed images as uint8 pixels (height, width, 3).

    ``pictures[3]`` is one array, ``pictures[[3, 1]]`` are Pictures.
    """

    def __init__(self, images: Images, scale: PixelScale, shape: tuple[int, ...]) -> None:
        self._images, self._scale, self._shape = images, scale, shape

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, key: Any) -> Any:
        """Return one picture as an array, or several as Pictures."""
        if isinstance(key, (int, np.integer)):
            return self._scale.pixels(self._images.batch(int(key), int(key) + 1, self._shape))[0]
        return Pictures(self._images[key], self._scale, self._shape)

    def file_name(self, number: int) -> str:
        """Return the file name of a picture without its folder, "" if it is not from a file."""
        return self._images.file_name(number)
