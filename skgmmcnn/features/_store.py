"""Activations kept on disk, under hashes of all that they depend on."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from .._device import resolve_device
from .._files import replace
from ._batch import FeatureBatch
from ._sources import NetworkSource
from ._spec import NetworkSpec

_VERSION = 2
_DTYPES = ("float32", "float16")
_INDEX = np.dtype([("key", "V16"), ("sum", "<u4"), ("present", "u1"), ("rest", "V3")])
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_N_COMPARED = 8
# What other hardware and rounding to float16 make of a layer's map is below this, relative to its norm.
_TOLERANCE, _HALF_TOLERANCE = 2e-3, 5e-2
_PRECISE = ("torch.float32", "torch.float64")
# Stores that this process has compared with what the network gives, and the code that gave it.
_compared: dict[Path, Any] = {}
_compared_data_sets: WeakSet[StoredSource] = WeakSet()


class StoredSource:
    """Activations read from a store; what is not yet there is computed, and kept on the way.

    A store is of one network, one preprocessing and so on, and of any images: they are found by hashes of their
    content, so that folds of a cross-validation share them.  ``values.bin`` holds one record per image, of its maps
    (H, W, C), outputs and decision; ``index.bin`` its hash, the checksum of its record, and whether that is there.  An
    image is marked present after its record has been written, so a process that is killed leaves a store that the next
    one completes.  Whoever makes or writes holds a lock meanwhile, and reading needs none.

    Parameters
    ----------
    source : NetworkSource
        Computes activations, and says what they depend on.
    root : path
        Where stores lie, each in a folder of its own; made if it is not there.
    dtype : {"float32", "float16"}
        Precision on disk.
    """

    def __init__(self, source: NetworkSource, root: str | os.PathLike, dtype: str) -> None:
        check_folder(root)
        if dtype not in _DTYPES:
            raise ValueError(f"Activations are stored as float32 or float16, not as {dtype!r}.")
        self.device, self._root, self._dtype = source.device, root, np.dtype(dtype)
        self._source, self._images, self._spec, self._batch_size = source, source.images, source.spec, source.size
        self._identity = source.identity() | {"dtype": dtype, "version": str(_VERSION)}
        self._folder = Path(root) / _digest(self._identity)
        self._record = _record(self._spec, self._dtype)
        self._values, self._index = self._folder / "values.bin", self._folder / "index.bin"
        self._open()

    def _open(self) -> None:
        """Make the store, or check that the one that is there holds these values."""
        about = self._folder / "store.json"
        if not about.exists():
            with self._explained():
                self._folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                if not about.exists():  # else another process has made it meanwhile
                    self._make(about)
        self._check(about)
        self._entries()

    def _make(self, about: Path) -> None:
        """Make all files; the last tells that they are complete."""
        with self._explained():
            for file in (self._values, self._index):
                replace(file, lambda opened: None)
            replace(about, lambda opened: opened.write(json.dumps(self._identity, indent=1).encode()))

    def _check(self, about: Path) -> None:
        for file in (about, self._values, self._index):
            if not file.is_file():
                raise self._damage(f"{file.name} is {'no regular file' if file.exists() else 'not there'}")
        try:
            found = json.loads(about.read_text(encoding="utf-8"))
            different = [name for name, value in self._identity.items() if found.get(name) != value]
        except (ValueError, AttributeError) as error:
            raise self._damage(f"store.json cannot be read ({error})") from error
        if different:
            raise ValueError(
                f"The store {str(self._folder)!r} holds activations of other {', '.join(different)}; delete it, or "
                "name another folder."
            )

    def batches(self, rows: np.ndarray) -> Iterator[FeatureBatch]:
        """Yield the batches of the images `rows`, in that order."""
        places = self._places(self._images[rows].keys())
        present = self._entries()["present"][places] == 1
        self._compare(rows[present], places[present])
        _, first = np.unique(places[~present], return_index=True)  # an image that comes twice is computed once
        missing = np.flatnonzero(~present)[np.sort(first)]
        with (
            open(self._values, "rb", buffering=0) as values,
            open(self._index, "rb", buffering=0) as index,  # where a buffer would hide what is written meanwhile
            closing(self._computed(rows[missing], places[missing])) as computed,
        ):
            for start in range(0, len(rows), self._batch_size):
                part = places[start : start + self._batch_size]
                while not (entries := self._taken(index, _INDEX, part))["present"].all():
                    if next(computed, None) is None:
                        raise self._damage("it has lost images that were just written")
                yield self._batch(self._taken(values, self._record, part), entries, start, rows)

    def _places(self, keys: list[bytes]) -> np.ndarray:
        """Return where the images with these keys are kept, having made room for new ones."""
        known = _numbered(self._entries())
        if not all(key in known for key in keys):
            with self._locked():
                entries = self._entries()
                known = _numbered(entries)
                new = [key for key in dict.fromkeys(keys) if key not in known]
                self._grow(len(entries), new)
                known |= {key: len(entries) + i for i, key in enumerate(new)}
        return np.array([known[key] for key in keys], np.intp)

    def _entries(self) -> np.ndarray:
        """Return the index, having checked that the values are as many; a torn last entry is none."""
        with self._explained():
            whole = self._index.read_bytes()
            size = self._values.stat().st_size
        entries = np.frombuffer(whole, _INDEX, len(whole) // _INDEX.itemsize)
        if size < len(entries) * self._record.itemsize:
            raise self._damage(f"values.bin has {size} bytes instead of {len(entries) * self._record.itemsize}")
        return entries

    def _grow(self, n_known: int, keys: list[bytes]) -> None:
        start, size = n_known * self._record.itemsize, len(keys) * self._record.itemsize
        with self._explained(size), open(self._values, "r+b") as values, open(self._index, "r+b") as index:
            try:
                _take(values, start, size)
            except OSError:
                values.truncate(start)
                raise
            entries = np.zeros(len(keys), _INDEX)
            entries["key"] = np.frombuffer(b"".join(keys), "V16")
            index.seek(n_known * _INDEX.itemsize)
            index.write(entries.tobytes())

    def _computed(self, rows: np.ndarray, places: np.ndarray) -> Generator[int]:
        """Compute and keep images, batch by batch."""
        if len(rows):
            for batch in self._source.batches(rows):
                n = len(batch.decisions)
                self._keep(places[batch.start : batch.start + n], self._records(batch))
                yield n

    def _records(self, batch: FeatureBatch) -> np.ndarray:
        """Return a batch as it is kept."""
        records = np.zeros(len(batch.decisions), self._record)
        for place, (layer, maps) in enumerate(batch.activations.items()):
            values = maps.permute(0, 2, 3, 1).numpy(force=True)
            with np.errstate(over="ignore"):  # looked for below
                records[f"layer{place}"] = values
            if np.isinf(records[f"layer{place}"]).any() and not np.isinf(values).any():
                raise ValueError(f"Layer {layer!r} holds values beyond the range of {self._dtype}; store float32.")
        scores = batch.outputs
        if not isinstance(scores, Tensor) or scores.shape != (len(records), self._spec.n_outputs):
            scores = torch.full((), torch.nan)  # not one score per output: nothing to keep
        records["outputs"], records["decision"] = scores.float().numpy(force=True), batch.decisions
        return records

    def _keep(self, places: np.ndarray, records: np.ndarray) -> None:
        """Write what no other process has written meanwhile."""
        with (
            self._locked(),
            self._explained(records.nbytes),
            open(self._values, "r+b", buffering=0) as values,
            open(self._index, "r+b", buffering=0) as index,
        ):
            entries = self._taken(index, _INDEX, places)
            for place, record, entry in zip(places.tolist(), records, entries, strict=True):
                if entry["present"]:
                    continue
                _put(values, place, self._record, record)
                entry["sum"] = _checksum(entry["key"], record)
                _put(index, place, _INDEX, entry)
                entry["present"] = 1  # after all else, for whoever reads meanwhile
                _put(index, place, _INDEX, entry)

    def _batch(self, records: np.ndarray, entries: np.ndarray, start: int, rows: np.ndarray) -> FeatureBatch:
        for i, (record, entry) in enumerate(zip(records, entries, strict=True)):
            if _checksum(entry["key"], record) != entry["sum"]:
                raise self._damage(f"the values of image {rows[start + i]} are not those that were written")
        device = resolve_device(self.device)
        maps = {
            layer: torch.from_numpy(np.ascontiguousarray(records[f"layer{place}"])).to(device).float()
            for place, layer in enumerate(self._spec.layers)
        }
        scores = np.ascontiguousarray(records["outputs"])
        outputs = None if np.isnan(scores).all() else torch.from_numpy(scores)
        maps = {layer: values.permute(0, 3, 1, 2) for layer, values in maps.items()}
        return FeatureBatch(start, maps, outputs, np.array(records["decision"]))

    def _taken(self, file: IO[bytes], dtype: np.dtype, places: np.ndarray) -> np.ndarray:
        """Read entries: by a file, since a memory map of one that is cut short would end the process."""
        held = np.empty(len(places), dtype)
        parts = held.view(np.uint8).reshape(len(places), dtype.itemsize)
        for part, place in zip(parts, places.tolist(), strict=True):
            file.seek(place * dtype.itemsize)
            if file.readinto(part.data) != dtype.itemsize:  # type: ignore[attr-defined]
                raise self._damage(f"{Path(file.name).name} has been cut short")
        return held

    def _compare(self, rows: np.ndarray, places: np.ndarray) -> None:
        """Compute some stored images again, once in this process or for these of a data set, and refuse a stale store.

        Hashes see neither code that has changed nor files behind a data set.
        """
        code = self._source.code()
        known = not self._images.of_data_set or self in _compared_data_sets
        if known and _compared.get(self._folder) == code:
            return
        some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _N_COMPARED)).astype(int))
        if len(some):
            with open(self._values, "rb", buffering=0) as file:
                held = self._taken(file, self._record, places[some])
            for batch in self._source.batches(rows[some]):
                part = slice(batch.start, batch.start + len(batch.decisions))
                self._refuse_changed(held[part], self._records(batch), rows[some][part])
        _compared[self._folder] = code
        _compared_data_sets.add(self)

    def _refuse_changed(self, held: np.ndarray, found: np.ndarray, rows: np.ndarray) -> None:
        names = {f"layer{place}": f"layer {layer!r}" for place, layer in enumerate(self._spec.layers)}
        rounding = _TOLERANCE if self._identity["precision"] in _PRECISE else _HALF_TOLERANCE
        for field, name in {**names, "outputs": "the outputs", "decision": "the decision"}.items():
            for before, now, row in zip(held[field], found[field], rows.tolist(), strict=True):
                if _distance(before, now) > (rounding if field != "decision" else 0):
                    raise ValueError(
                        f"The store {str(self._folder)!r} is stale: the network now gives {name} of image {row} "
                        "another value. The code of preprocess, of decision or of the network has changed, or a file "
                        "behind a data set. Delete the store; it will be made again."
                    )

    def of(self, rows: np.ndarray) -> StoredSource:
        """Return the source of the images `rows`."""
        return StoredSource(self._source.of(rows), self._root, self._dtype.name)

    def _damage(self, what: str) -> ValueError:
        return ValueError(
            f"The store {str(self._folder)!r} is damaged: {what}. Delete the store; it will be made again."
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let no other thread or process write; a lock dies with the process that holds it."""
        from filelock import FileLock

        with self._explained():
            lock = FileLock(self._folder / "lock", poll_interval=0.01)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _explained(self, size: int = 0) -> Iterator[None]:
        """Name the folder and the remedy where the system refuses a file, or `size` bytes more."""
        try:
            yield
        except OSError as error:
            what = (
                f"No room for {size / 2**20:.0f} MiB of activations; store float16, model fewer layers, or name a "
                "folder on another disk"
                if error.errno in _FULL
                else f"The store cannot be used ({error.strerror}); let its folder be written, or name another"
            )
            raise OSError(error.errno, what, str(self._folder)) from error


def _record(spec: NetworkSpec, dtype: np.dtype) -> np.dtype:
    """Return the type of what is kept of one image."""
    layers = [
        (f"layer{place}", dtype, (height, width, channels))
        for place, (channels, height, width) in enumerate(spec.shapes.values())
    ]
    return np.dtype([*layers, ("outputs", np.float32, (max(1, spec.n_outputs),)), ("decision", np.int64)], align=True)


def _numbered(entries: np.ndarray) -> dict[bytes, int]:
    return {key.tobytes(): place for place, key in enumerate(entries["key"])}


def _checksum(key: Any, record: Any) -> int:
    return zlib.crc32(record.tobytes(), zlib.crc32(key.tobytes()))


def _put(file: IO[bytes], place: int, dtype: np.dtype, item: Any) -> None:
    file.seek(place * dtype.itemsize)
    rest = memoryview(item.tobytes())
    while rest:
        rest = rest[file.write(rest) :]


def _distance(before: np.ndarray, now: np.ndarray) -> float:
    """Return how far values are from others, relative to the larger."""
    first, second = (np.nan_to_num(np.asarray(values, np.float64)).ravel() for values in (before, now))
    scale = max(np.linalg.norm(first), np.linalg.norm(second))
    return float(np.linalg.norm(first - second) / scale) if scale else 0.0


def _take(file: IO[bytes], start: int, size: int) -> None:
    """Take the space of a file now, so that a full disk is found before any work."""
    if not size:
        return
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), start, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that cannot be asked
                raise
        else:
            return
    # macOS and Windows cannot be asked; a file that were only truncated to its size could be sparse.
    zeros = bytes(2**20)
    file.seek(start)
    for done in range(0, size, len(zeros)):
        file.write(zeros[: size - done])
    file.flush()


def _digest(identity: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]


def check_folder(root: str | os.PathLike) -> None:
    """Refuse an empty path, which would be the current folder."""
    if not str(root):
        raise ValueError("The folder of a store is ''; give a path, '.' for the current folder.")
