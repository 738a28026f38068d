"""A uniform sample of the locations of a layer, the same however the images are batched."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .._distributed import gathered, n_processes
from .._hashing import mixed

MAX_BYTES = 2**28


class Reservoir:
    """Keep the rows of at most `max_samples` locations: those with the smallest hash of (seed, image, location).

    Parameters
    ----------
    n_images : int
        Number of images that will be seen.
    shape : tuple (channels, height, width)
        Size of the layer's map.
    max_samples : int
        Most rows to keep; fewer are kept where they would take more than 256 MiB.
    seed : int
        Chooses the sample.
    """

    def __init__(self, n_images: int, shape: tuple[int, int, int], max_samples: int, seed: int) -> None:
        channels, height, width = shape
        self._n_locations, self._seed = height * width, seed
        self._limit = min(max_samples, max(1, MAX_BYTES // (4 * channels)))
        total = n_images * self._n_locations
        # A hash below the threshold is as likely as the share wanted; the margin of six standard deviations makes too
        # few rows all but impossible, and the surplus is dropped at the end.
        share = min(1.0, (self._limit + 6 * self._limit**0.5 + 40) / total)
        self._threshold = np.uint64(min(share * 2.0**64, 2.0**64 - 2.0**12))
        self._everything = total <= self._limit
        self._rows: list[Tensor] = []
        self._keys: list[np.ndarray] = []
        self._images: list[np.ndarray] = []

    def add(self, start: int, rows: Tensor) -> None:
        """See the rows (n, C) of all locations of consecutive images, of which the first is number `start`."""
        numbers = np.arange(len(rows), dtype=np.uint64) + np.uint64(start * self._n_locations)
        keys = mixed(mixed(numbers) ^ np.uint64(self._seed))
        if not self._everything:
            chosen = np.flatnonzero(keys <= self._threshold)
            keys, numbers, rows = keys[chosen], numbers[chosen], rows[torch.from_numpy(chosen).to(rows.device)]
        self._keys.append(keys)
        self._images.append((numbers // np.uint64(self._n_locations)).astype(np.int64))
        self._rows.append(rows)

    def merge(self) -> None:
        """Add the rows that the other processes have seen; all must call this."""
        if n_processes() == 1:
            return
        device = self._rows[0].device
        mine = np.concatenate(self._keys), np.concatenate(self._images), torch.cat(self._rows).cpu()
        keys, images, rows = zip(*gathered(mine), strict=True)
        self._keys, self._images, self._rows = list(keys), list(images), [part.to(device) for part in rows]

    def sample(self) -> tuple[Tensor, np.ndarray]:
        """Return the rows (n, C) in the order of their hashes, a random one, and the numbers of their images (n,)."""
        order = np.argsort(np.concatenate(self._keys), kind="stable")[: self._limit]
        rows = torch.cat(self._rows)[torch.from_numpy(order).to(self._rows[0].device)]
        return rows, np.concatenate(self._images)[order]
