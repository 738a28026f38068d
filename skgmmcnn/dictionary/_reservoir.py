"""Uniform samples of the locations of layers, independent of the batch size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from .._distributed import all_gather, local_slice, n_processes
from .._hashing import mixed
from ..features import FeatureMaps
from ._labelling import as_rows
from ._training import Sample

_MOST_BYTES = 2**28


class Reservoir:
    """The `max_samples` locations of `n_images` images with the smallest hashes of seed, image and location."""

    def __init__(self, n_images: int, n_locations: int, max_samples: int, seed: int) -> None:
        self._n_locations, self._seed, self._limit = n_locations, seed, max_samples
        total = n_images * self._n_locations
        # A fraction of the hashes lies below the threshold.  A margin of six standard deviations makes too few rows
        # all but impossible; the surplus is dropped at the end.
        fraction = min(1.0, (self._limit + 6 * self._limit**0.5 + 40) / total)
        self._threshold = np.uint64(min(fraction * 2.0**64, 2.0**64 - 2.0**12))
        self._everything = total <= self._limit
        self._rows: list[Tensor] = []
        self._keys: list[np.ndarray] = []
        self._images: list[np.ndarray] = []

    def add(self, start: int, rows: Tensor) -> None:
        """Add the rows (n, C) of all locations of consecutive images, the first of index `start`."""
        numbers = np.arange(len(rows), dtype=np.uint64) + np.uint64(start * self._n_locations)
        keys = mixed(mixed(numbers) ^ np.uint64(self._seed))
        if not self._everything:
            chosen = np.flatnonzero(keys <= self._threshold)
            keys, numbers, rows = keys[chosen], numbers[chosen], rows[torch.from_numpy(chosen).to(rows.device)]
        self._keys.append(keys)
        self._images.append((numbers // np.uint64(self._n_locations)).astype(np.int64))
        self._rows.append(rows)

    def merge(self) -> None:
        """Merge the rows of all processes; every process must call this."""
        if n_processes() == 1:
            return
        device = self._rows[0].device
        local = np.concatenate(self._keys), np.concatenate(self._images), torch.cat(self._rows).cpu()
        keys, images, rows = zip(*all_gather(local), strict=True)
        self._keys, self._images, self._rows = list(keys), list(images), [part.to(device) for part in rows]

    def sample(self) -> tuple[Tensor, np.ndarray]:
        """Return the rows (n, C) in the random order of their hashes, and the indices of their images (n,)."""
        order = np.argsort(np.concatenate(self._keys), kind="stable")[: self._limit]
        rows = torch.cat(self._rows)[torch.from_numpy(order).to(self._rows[0].device)]
        return rows, np.concatenate(self._images)[order]


def draw(
    maps: FeatureMaps, max_samples: int, random_state: Any, *, same_locations: bool = False
) -> tuple[dict[str, Sample], np.ndarray]:
    """Return a sample of the rows of each layer and the decisions (n,), after one pass through the network.

    At most `max_samples` rows and 256 MiB are drawn, independently for each layer, or at the same locations of all
    layers with `same_locations`.
    """
    seeds = check_random_state(random_state).randint(2**31, size=1 if same_locations else len(maps.layers))
    generators = [(seed, torch.Generator().manual_seed(seed)) for seed in all_gather(seeds.tolist())[0]]
    sources = dict(zip(maps.layers, generators * (len(maps.layers) if same_locations else 1), strict=True))
    n_channels = {layer: shape[0] for layer, shape in maps.shapes.items()}
    if same_locations:
        n_channels = dict.fromkeys(n_channels, sum(n_channels.values()))
    reservoirs = {}
    for layer, (_, height, width) in maps.shapes.items():
        limit = min(max_samples, max(1, _MOST_BYTES // (4 * n_channels[layer])))
        reservoirs[layer] = Reservoir(len(maps), height * width, limit, sources[layer][0])
    decisions, local = [], local_slice(len(maps))
    for batch in maps[local].batches():
        decisions.append(batch.decisions)
        for layer, values in batch.activations.items():
            reservoirs[layer].add(local.start + batch.start, as_rows(values))
    for reservoir in reservoirs.values():
        reservoir.merge()
    samples = {layer: Sample(*reservoirs[layer].sample(), generator) for layer, (_, generator) in sources.items()}
    return samples, np.concatenate(all_gather(np.concatenate(decisions)))
