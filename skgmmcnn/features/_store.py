"""Activations on disk, identified by hashes."""

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
# Bounds of differences by hardware, and by half precision, relative to the norm of a map.
_TOLERANCE, _HALF_TOLERANCE = 2e-3, 5e-2
_PRECISE = ("torch.float32", "torch.float64")
# Stores whose values this process has compared with the network, and the code of that.
_compared: dict[Path, Any] = {}
_compared_data_sets: WeakSet[StoredSource] = WeakSet()


class StoredSource:
    """Activations read from a store, into which missing ones are computed.

    A store belongs to one network and preprocessing, and to any images, identified by hashes of their content, so that
    folds of a cross-validation share it.  ``values.bin`` contains one record per image: its maps (H, W, C), outputs and
    decision; ``index.bin`` contains its hash, the checksum of its record and a flag.  The flag is set after the record
    has been written, so an interrupted store is resumed.  Writing needs a lock, reading does not.

    Stores lie in subfolders of `root`, which is created if missing.
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
        """Create the store, or check the existing one."""
        about = self._folder / "store.json"
        if not about.exists():
            with self._explain_errors():
                self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock():
                if not about.exists():  # otherwise another process has created it
                    self._make(about)
        self._check(about)
        self._entries()

    def _make(self, about: Path) -> None:
        """Create all files; the last one marks them as complete."""
        with self._explain_errors():
            for file in (self._values, self._index):
                replace(file, lambda opened: None)
            replace(about, lambda opened: opened.write(json.dumps(self._identity, indent=1).encode()))

    def _check(self, about: Path) -> None:
        for file in (about, self._values, self._index):
            if not file.is_file():
                raise self._damage(f"{file.name} is {'not a regular file' if file.exists() else 'missing'}")
        try:
            known = json.loads(about.read_text(encoding="utf-8"))
            different = [name for name, value in self._identity.items() if known.get(name) != value]
        except (ValueError, AttributeError) as error:
            raise self._damage(f"store.json cannot be read ({error})") from error
        if different:
            raise ValueError(
                f"The store {str(self._folder)!r} contains activations of other {', '.join(different)}; delete it, or "
                "use another folder."
            )

    def batches(self, rows: np.ndarray) -> Iterator[FeatureBatch]:
        """Yield the batches of the images `rows`, in that order."""
        places = self._places(self._images[rows].keys())
        present = self._entries()["present"][places] == 1
        self._compare(rows[present], places[present])
        _, first = np.unique(places[~present], return_index=True)  # repeated images are computed once
        missing = np.flatnonzero(~present)[np.sort(first)]
        with (
            open(self._values, "rb", buffering=0) as values,
            open(self._index, "rb", buffering=0) as index,  # unbuffered, to read concurrent writes
            closing(self._compute(rows[missing], places[missing])) as computed,
        ):
            for start in range(0, len(rows), self._batch_size):
                part = places[start : start + self._batch_size]
                while not (entries := self._read(index, _INDEX, part))["present"].all():
                    if next(computed, None) is None:
                        raise self._damage("it has lost images that were just written")
                yield self._batch(self._read(values, self._record, part), entries, start, rows)

    def _places(self, keys: list[bytes]) -> np.ndarray:
        """Return the positions of the images with these keys, allocating new ones."""
        known = _positions(self._entries())
        if not all(key in known for key in keys):
            with self._lock():
                entries = self._entries()
                known = _positions(entries)
                new = [key for key in dict.fromkeys(keys) if key not in known]
                self._grow(len(entries), new)
                known |= {key: len(entries) + i for i, key in enumerate(new)}
        return np.array([known[key] for key in keys], np.intp)

    def _entries(self) -> np.ndarray:
        """Return the index without an incomplete last entry; raise an error if values are missing."""
        with self._explain_errors():
            whole = self._index.read_bytes()
            size = self._values.stat().st_size
        entries = np.frombuffer(whole, _INDEX, len(whole) // _INDEX.itemsize)
        if size < len(entries) * self._record.itemsize:
            raise self._damage(f"values.bin has {size} bytes instead of {len(entries) * self._record.itemsize}")
        return entries

    def _grow(self, n_known: int, keys: list[bytes]) -> None:
        start, size = n_known * self._record.itemsize, len(keys) * self._record.itemsize
        with self._explain_errors(size), open(self._values, "r+b") as values, open(self._index, "r+b") as index:
            try:
                _allocate(values, start, size)
            except OSError:
                values.truncate(start)
                raise
            entries = np.zeros(len(keys), _INDEX)
            entries["key"] = np.frombuffer(b"".join(keys), "V16")
            index.seek(n_known * _INDEX.itemsize)
            index.write(entries.tobytes())

    def _compute(self, rows: np.ndarray, places: np.ndarray) -> Generator[int]:
        """Compute and store images, batch by batch."""
        if len(rows):
            for batch in self._source.batches(rows):
                n = len(batch.decisions)
                self._write(places[batch.start : batch.start + n], self._records(batch))
                yield n

    def _records(self, batch: FeatureBatch) -> np.ndarray:
        """Return the records of a batch."""
        records = np.zeros(len(batch.decisions), self._record)
        for place, (layer, maps) in enumerate(batch.activations.items()):
            values = maps.permute(0, 2, 3, 1).numpy(force=True)
            with np.errstate(over="ignore"):  # checked below
                records[f"layer{place}"] = values
            if np.isinf(records[f"layer{place}"]).any() and not np.isinf(values).any():
                raise ValueError(f"Layer {layer!r} contains values beyond the range of {self._dtype}; store float32.")
        scores = batch.outputs
        if not isinstance(scores, Tensor) or scores.shape != (len(records), self._spec.n_outputs):
            scores = torch.full((), torch.nan)  # not one score per output: not stored
        records["outputs"], records["decision"] = scores.float().numpy(force=True), batch.decisions
        return records

    def _write(self, places: np.ndarray, records: np.ndarray) -> None:
        """Write the records that no other process has written."""
        with (
            self._lock(),
            self._explain_errors(records.nbytes),
            open(self._values, "r+b", buffering=0) as values,
            open(self._index, "r+b", buffering=0) as index,
        ):
            entries = self._read(index, _INDEX, places)
            for place, record, entry in zip(places.tolist(), records, entries, strict=True):
                if entry["present"]:
                    continue
                _put(values, place, self._record, record)
                entry["sum"] = _checksum(entry["key"], record)
                _put(index, place, _INDEX, entry)
                entry["present"] = 1  # last, for concurrent readers
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

    def _read(self, file: IO[bytes], dtype: np.dtype, places: np.ndarray) -> np.ndarray:
        """Read entries from a file; reading a truncated memory map would crash the process."""
        entries = np.empty(len(places), dtype)
        parts = entries.view(np.uint8).reshape(len(places), dtype.itemsize)
        for part, place in zip(parts, places.tolist(), strict=True):
            file.seek(place * dtype.itemsize)
            if file.readinto(part.data) != dtype.itemsize:  # type: ignore[attr-defined]
                raise self._damage(f"{Path(file.name).name} has been truncated")
        return entries

    def _compare(self, rows: np.ndarray, places: np.ndarray) -> None:
        """Recompute some stored images, once per process or data set, and raise an error if they have changed.

        Hashes contain neither code nor files of a data set.
        """
        code = self._source.code()
        known = not self._images.of_data_set or self in _compared_data_sets
        if known and _compared.get(self._folder) == code:
            return
        some = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _N_COMPARED)).astype(int))
        if len(some):
            with open(self._values, "rb", buffering=0) as file:
                stored = self._read(file, self._record, places[some])
            for batch in self._source.batches(rows[some]):
                part = slice(batch.start, batch.start + len(batch.decisions))
                self._check_equal(stored[part], self._records(batch), rows[some][part])
        _compared[self._folder] = code
        _compared_data_sets.add(self)

    def _check_equal(self, stored: np.ndarray, computed: np.ndarray, rows: np.ndarray) -> None:
        names = {f"layer{place}": f"layer {layer!r}" for place, layer in enumerate(self._spec.layers)}
        rounding = _TOLERANCE if self._identity["precision"] in _PRECISE else _HALF_TOLERANCE
        for field, name in {**names, "outputs": "the outputs", "decision": "the decision"}.items():
            for before, now, row in zip(stored[field], computed[field], rows.tolist(), strict=True):
                if _distance(before, now) > (rounding if field != "decision" else 0):
                    raise ValueError(
                        f"The store {str(self._folder)!r} is stale: {name} of image {row} has changed. The code of "
                        "preprocess, of decision or of the network has changed, or a file of a data set. Delete the "
                        "store; it will be recomputed."
                    )

    def of(self, rows: np.ndarray) -> StoredSource:
        """Return the source of the images `rows`."""
        return StoredSource(self._source.of(rows), self._root, self._dtype.name)

    def _damage(self, what: str) -> ValueError:
        return ValueError(
            f"The store {str(self._folder)!r} is damaged: {what}. Delete the store; it will be recomputed."
        )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Lock the store for writing; the lock is released when the process ends."""
        from filelock import FileLock

        with self._explain_errors():
            lock = FileLock(self._folder / "lock", poll_interval=0.01)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def _explain_errors(self, size: int = 0) -> Iterator[None]:
        """Add the folder and the remedy to errors of the operating system, also for `size` more bytes."""
        try:
            yield
        except OSError as error:
            what = (
                f"No space for {size / 2**20:.0f} MiB of activations; store float16, model fewer layers, or use a "
                "folder on another disk"
                if error.errno in _FULL
                else f"The store cannot be used ({error.strerror}); make its folder writable, or use another one"
            )
            raise OSError(error.errno, what, str(self._folder)) from error


def _record(spec: NetworkSpec, dtype: np.dtype) -> np.dtype:
    """Return the record type of one image."""
    layers = [
        (f"layer{place}", dtype, (height, width, channels))
        for place, (channels, height, width) in enumerate(spec.shapes.values())
    ]
    return np.dtype([*layers, ("outputs", np.float32, (max(1, spec.n_outputs),)), ("decision", np.int64)], align=True)


def _positions(entries: np.ndarray) -> dict[bytes, int]:
    return {key.tobytes(): place for place, key in enumerate(entries["key"])}


def _checksum(key: Any, record: Any) -> int:
    return zlib.crc32(record.tobytes(), zlib.crc32(key.tobytes()))


def _put(file: IO[bytes], place: int, dtype: np.dtype, item: Any) -> None:
    file.seek(place * dtype.itemsize)
    rest = memoryview(item.tobytes())
    while rest:
        rest = rest[file.write(rest) :]


def _distance(before: np.ndarray, now: np.ndarray) -> float:
    """Return the distance of values relative to the larger norm."""
    first, second = (np.nan_to_num(np.asarray(values, np.float64)).ravel() for values in (before, now))
    scale = max(np.linalg.norm(first), np.linalg.norm(second))
    return float(np.linalg.norm(first - second) / scale) if scale else 0.0


def _allocate(file: IO[bytes], start: int, size: int) -> None:
    """Allocate disk space, so that a full disk is detected before computing."""
    if not size:
        return
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file.fileno(), start, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # not supported by the file system
                raise
        else:
            return
    # macOS and Windows do not support it; extending a file by truncate could make it sparse.
    zeros = bytes(2**20)
    file.seek(start)
    for done in range(0, size, len(zeros)):
        file.write(zeros[: size - done])
    file.flush()


def _digest(identity: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]


def check_folder(root: str | os.PathLike) -> None:
    """Raise an error for an empty path, which would be the current folder."""
    if not str(root):
        raise ValueError("The folder of a store is ''; give a path, '.' for the current folder.")
