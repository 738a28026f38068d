"""Activations kept on disk, under a fingerprint of all that they depend on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import joblib
import numpy as np
import torch
from torch import Tensor

from .._device import resolve_device
from ._maps import Change, FeatureBatch, Network, Rerun, Result, Source
from ._spec import NetworkSpec

_VERSION = 1


class StoredSource:
    """Activations read from a store; what is not yet there is computed, and kept on the way.

    Each layer is one file of C-ordered values (n, H, W, C); beside them lie decisions, a checksum per image, and which
    images are present.  An image is marked present after its values have been written, so a process that is killed
    leaves a store that the next one completes.  One process writes at a time; others compute what they miss.

    Parameters
    ----------
    source : Source
        Computes activations of given images.
    folder : Path
        The store of these images under this network; made if it is not there.
    spec : NetworkSpec
        The layers and their shapes.
    identity : dict
        What the values depend on, by name, as hashes.
    n_images : int
        Number of images.
    dtype : numpy dtype
        float32, or float16 for half the space.
    batch_size : int
        Images to read at once.
    """

    def __init__(
        self,
        source: Source,
        folder: Path,
        spec: NetworkSpec,
        identity: dict[str, str],
        n_images: int,
        dtype: np.dtype,
        batch_size: int,
    ) -> None:
        self.device = source.device
        self._source, self._folder, self._spec, self._batch_size = source, folder, spec, batch_size
        self._n_images, self._dtype = n_images, dtype
        self._identity = identity | {"dtype": str(dtype), "n_images": str(n_images), "version": str(_VERSION)}
        self._open()

    def _open(self) -> None:
        """Make the store, or check that the one that is there holds these values."""
        about = self._folder / "store.json"
        if not about.is_file():
            from filelock import FileLock

            self._folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self._folder / "making"):
                if not about.is_file():  # else another process has made it meanwhile
                    self._make(about)
        self._check(json.loads(about.read_text(encoding="utf-8")))

    def _make(self, about: Path) -> None:
        """Make all files; the last tells that they are complete, and so is put in its place whole."""
        for name, size in self._sizes().items():
            _allocate(self._folder / name, size)
        draft = about.with_suffix(".draft")
        draft.write_text(json.dumps(self._identity, indent=1), encoding="utf-8")
        draft.replace(about)

    def _check(self, found: dict[str, str]) -> None:
        different = [name for name, value in self._identity.items() if found.get(name) != value]
        if different:
            raise ValueError(
                f"The store {str(self._folder)!r} holds activations of other {', '.join(different)}; delete it, or "
                "name another folder."
            )
        for name, expected in self._sizes().items():
            file = self._folder / name
            size = file.stat().st_size if file.is_file() else 0
            if size != expected:
                raise ValueError(
                    f"The store {str(self._folder)!r} is damaged: {name} has {size} bytes instead of {expected}. "
                    "Delete the store; it will be made again."
                )

    def _files(self) -> dict[str, tuple[Any, tuple[int, ...]]]:
        """Type and shape of every file."""
        n = self._n_images
        layers = {
            f"layer{place}.bin": (self._dtype, (n, height, width, channels))
            for place, (channels, height, width) in enumerate(self._spec.shapes.values())
        }
        shape = (n, max(1, self._spec.n_outputs))
        rest = {"decisions.bin": (np.int64, (n,)), "outputs.bin": (np.float32, shape), "sums.bin": (np.uint32, (n,))}
        return layers | rest | {"present.bin": (np.uint8, (n,))}

    def _sizes(self) -> dict[str, int]:
        """Bytes of every file."""
        return {name: np.dtype(dtype).itemsize * math.prod(shape) for name, (dtype, shape) in self._files().items()}

    def _maps(self, mode: Any) -> dict[str, np.ndarray]:
        return {
            name: np.memmap(self._folder / name, dtype, mode, shape=shape)
            for name, (dtype, shape) in self._files().items()
        }

    def batches(self, rows: np.ndarray) -> Iterator[FeatureBatch]:
        """Yield the batches of the images `rows`, in that order."""
        held = self._maps("r")
        start = 0
        while start < len(rows):
            part = rows[start : start + self._batch_size]
            present = held["present.bin"][part] == 1
            if present[0]:
                n = len(part) if present.all() else int(present.argmin())
                yield self._read(held, part[:n], start)
                start += n
                continue
            missing = held["present.bin"][rows[start:]] == 1
            n = int(missing.argmax()) if missing.any() else len(rows) - start
            yield from self._computed(rows[start : start + n], start)
            start += n

    def _read(self, held: dict[str, np.ndarray], part: np.ndarray, start: int) -> FeatureBatch:
        arrays = [held[f"layer{place}.bin"][part] for place in range(len(self._spec.layers))]
        for place, row in enumerate(part.tolist()):
            if _checksum([array[place] for array in arrays]) != held["sums.bin"][row]:
                raise ValueError(
                    f"The store {str(self._folder)!r} is damaged: the values of image {row} are not those that were "
                    "written. Delete the store; it will be made again."
                )
        device = resolve_device(self.device)
        maps = {
            layer: torch.from_numpy(array).to(device).float().permute(0, 3, 1, 2)
            for layer, array in zip(self._spec.layers, arrays, strict=True)
        }
        scores = held["outputs.bin"][part]
        outputs = None if np.isnan(scores).all() else torch.from_numpy(scores)
        return FeatureBatch(start, maps, outputs, np.array(held["decisions.bin"][part]))

    def _computed(self, rows: np.ndarray, start: int) -> Iterator[FeatureBatch]:
        with _lock(self._folder) as mine:
            held = self._maps("r+") if mine else {}
            for batch in self._source.batches(rows):
                part = rows[batch.start : batch.start + len(batch.decisions)]
                kept = self._keep(held, part, batch) if mine else batch
                yield kept._replace(start=start + batch.start)

    def stored(self, root: str | os.PathLike, rows: np.ndarray, dtype: str) -> Source:
        """Return a source of the images `rows` alone, that keeps what it yields under the folder `root`."""
        return self._source.stored(root, rows, dtype)

    def rerun(self, rows: np.ndarray, work: Callable[[Rerun], Result], what: str) -> Iterator[Result]:
        """Yield what `work` makes of the images `rows`, batch by batch; `what` names it for the progress."""
        return self._source.rerun(rows, work, what)

    def network(self, rows: np.ndarray) -> Network | None:
        """Return what runs the network for the images `rows`."""
        return self._source.network(rows)

    def changed(self, rows: np.ndarray, change: Change) -> Source:
        """Return a source of the images `rows` alone, whose network is a copy that `change` has changed."""
        return self._source.changed(rows, change)

    def _keep(self, held: dict[str, np.ndarray], rows: np.ndarray, batch: FeatureBatch) -> FeatureBatch:
        """Write a batch, and return it as it will be read."""
        values = [part.permute(0, 2, 3, 1).numpy(force=True) for part in batch.activations.values()]
        with np.errstate(over="ignore"):  # looked for below
            arrays = [part.astype(self._dtype) for part in values]
        for place, array in enumerate(arrays):
            if np.isinf(array).any() and not np.isinf(values[place]).any():
                raise ValueError(
                    f"Layer {self._spec.layers[place]!r} holds values beyond the range of {self._dtype}; store float32."
                )
            held[f"layer{place}.bin"][rows] = array
        scores = batch.outputs
        if not isinstance(scores, Tensor) or scores.shape != (len(rows), self._spec.n_outputs):
            scores = torch.full((), torch.nan)  # not one score per output: nothing to keep
        held["outputs.bin"][rows] = scores.float().numpy(force=True)
        held["decisions.bin"][rows] = batch.decisions
        held["sums.bin"][rows] = [_checksum([array[i] for array in arrays]) for i in range(len(rows))]
        held["present.bin"][rows] = 1
        if self._dtype == np.float32:
            return batch
        maps = {
            layer: torch.from_numpy(array).to(values.device).float().permute(0, 3, 1, 2)
            for (layer, values), array in zip(batch.activations.items(), arrays, strict=True)
        }
        return batch._replace(activations=maps)


def _checksum(arrays: list[np.ndarray]) -> int:
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data, total)
    return total


def _allocate(file: Path, size: int) -> None:
    """Make a file of zeros whose space is taken now, so that a full disk is found before any work."""
    try:
        with open(file, "wb") as opened:
            _take(opened, size)
    except OSError as error:
        file.unlink(missing_ok=True)
        raise OSError(
            error.errno,
            f"No room for {size / 2**20:.0f} MiB of activations; store float16, model fewer layers, or name a folder "
            "on another disk",
            str(file),
        ) from error


def _take(file: BinaryIO, size: int) -> None:
    if size and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    # macOS and Windows cannot be asked; a file that were only truncated to its size could be sparse.
    zeros = bytes(2**20)
    for start in range(0, size, len(zeros)):
        file.write(zeros[: size - start])


@contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Tell whether this process may write to the store; a lock dies with the process that holds it."""
    from filelock import FileLock, Timeout

    # Not of one thread: a generator that was left half-way can be closed in another.
    lock = FileLock(folder / "lock", thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def place_of(root: Path, identity: dict[str, str]) -> Path:
    """Return the folder under `root` for values of this identity."""
    return root / hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]


def identify(
    network: str, preprocess: Callable | None, images: Any, spec: NetworkSpec, decision: Any
) -> dict[str, str]:
    """Return hashes of all that activations depend on; image files count by size and time of change."""
    return {
        "weights": network,
        "preprocessing": _hash(preprocess, "preprocess"),
        "images": joblib.hash(images),
        "layers": json.dumps(list(spec.shapes.items())),
        "decision": _hash(decision, "decision"),
    }


def _hash(function: Any, name: str) -> str:
    try:
        return joblib.hash(function)
    except Exception as error:
        raise ValueError(
            f"{name}={function!r} cannot be hashed, so a store could not tell whether it has changed; use a function "
            "or class that is defined in a module."
        ) from error
