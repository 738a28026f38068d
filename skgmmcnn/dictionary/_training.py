"""Training samples of the locations of layers, independent of the batch size, and the progress of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import check_random_state
from torch import Tensor

from .._distributed import all_gather, local_slice, n_processes
from .._progress import progress
from ..features import FeatureMaps
from ._labelling import as_rows

_MOST_BYTES = 2**28


class Sample(NamedTuple):
    """Training rows (n, C) of a layer, the indices of their images (n,), and a source of randomness."""

    rows: Tensor
    images: np.ndarray
    generator: torch.Generator


class Reservoir:
    """The `max_samples` locations of `n_images` images with the smallest hashes of seed, image and location."""

    def __init__(self, n_images: int, n_locations: int, max_samples: int, seed: int) -> None:
        self._n_locations = n_locations
        self._seed = np.uint64(seed)
        self._max_samples = max_samples
        total = n_images * n_locations
        # A fraction of the hashes lies below the threshold.  A margin of six standard deviations makes too few rows
        # all but impossible; the surplus is dropped at the end.
        fraction = min(1.0, (max_samples + 6 * max_samples**0.5 + 40) / total)
        self._threshold = np.uint64(min(fraction * 2.0**64, 2.0**64 - 2.0**12))
        self._everything = total <= max_samples
        self._parts: list[tuple[np.ndarray, np.ndarray, Tensor]] = []  # hashes, images and rows

    def add(self, start: int, rows: Tensor) -> None:
        """Add the rows (n, C) of all locations of consecutive images, the first of index `start`."""
        numbers = np.arange(len(rows), dtype=np.uint64) + np.uint64(start * self._n_locations)
        hashes = _hash(_hash(numbers) ^ self._seed)
        images = (numbers // np.uint64(self._n_locations)).astype(np.int64)
        if not self._everything:
            indices = np.flatnonzero(hashes <= self._threshold)
            hashes = hashes[indices]
            images = images[indices]
            rows = rows[torch.from_numpy(indices).to(rows.device)]
        self._parts.append((hashes, images, rows))

    def sample(self) -> tuple[Tensor, np.ndarray]:
        """Return the rows (n, C) in the random order of their hashes, and the indices of their images (n,).

        The rows of all processes are merged; every process must call this.
        """
        hashes, images, rows = map(list, zip(*self._parts, strict=True))
        device = rows[0].device
        if n_processes() > 1:
            local = np.concatenate(hashes), np.concatenate(images), torch.cat(rows).cpu()
            hashes, images, rows = map(list, zip(*all_gather(local), strict=True))
        order = np.argsort(np.concatenate(hashes), kind="stable")[: self._max_samples]
        sample = torch.cat(rows).to(device)[torch.from_numpy(order).to(device)]
        return sample, np.concatenate(images)[order]


def draw(
    maps: FeatureMaps, max_samples: int, random_state: Any, groups: Mapping[str, Sequence[str]] | None = None
) -> tuple[dict[str, Sample], np.ndarray]:
    """Return a sample of rows of each group of layers, and the decisions (n,), after one pass through the network.

    The rows of a group are those of its layers, with maps of equal size, side by side; None makes each layer a group.
    At most `max_samples` rows and 256 MiB are drawn from each group.
    """
    if groups is None:
        groups = {layer: [layer] for layer in maps.layers}
    seeds = all_gather(check_random_state(random_state).randint(2**31, size=len(groups)).tolist())[0]
    reservoirs = {}
    for (name, layers), seed in zip(groups.items(), seeds, strict=True):
        n_channels = sum(maps.shapes[layer][0] for layer in layers)
        limit = min(max_samples, max(1, _MOST_BYTES // (4 * n_channels)))
        reservoirs[name] = Reservoir(len(maps), prod(maps.shapes[layers[0]][1:]), limit, seed)
    local = local_slice(len(maps))
    decisions = []
    for batch in maps[local].batches():
        decisions.append(batch.decisions)
        for name, layers in groups.items():
            rows = [as_rows(batch.activations[layer]) for layer in layers]
            reservoirs[name].add(local.start + batch.start, rows[0] if len(rows) == 1 else torch.cat(rows, 1))
    samples = {}
    for (name, reservoir), seed in zip(reservoirs.items(), seeds, strict=True):
        samples[name] = Sample(*reservoir.sample(), torch.Generator().manual_seed(seed))
    return samples, np.concatenate(all_gather(np.concatenate(decisions)))


def _hash(numbers: np.ndarray) -> np.ndarray:
    """Return 64-bit hashes of uint64 numbers: the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


@contextmanager
def passes(n: int, what: str, *, shown: Any) -> Iterator[Callable[[int, float], None]]:
    """Show a progress bar of at most `n` training passes; yield the callback that takes pass number and bound."""
    with progress(total=n, desc=what, unit="pass", shown=shown) as bar:

        def report(n_iter: int, bound: float) -> None:
            bar.update(1)
            bar.set_postfix_str(f"{bound:.4g} nats")

        yield report
