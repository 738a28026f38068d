"""Activations kept on disk, under hashes of all that they depend on."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any
from weakref import WeakSet

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from .._device import resolve_device
from .._files import replace
from ._images import Images
from ._maps import Change, FeatureBatch, Network, Rerun, Result, Source
from ._spec import NetworkSpec

_VERSION = 2
_DTYPES = ("float32", "float16")
_INDEX = np.dtype([("key", "V16"), ("sum", "<u4"), ("present", "u1"), ("rest", "V3")])
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_N_COMPARED = 8
# What other hardware and rounding to float16 make of a layer's map is below this, relative to its norm.
_TOLERANCE = {"float32": 2e-3, "bfloat16": 5e-2}
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
    source : Source
        Computes activations of given images.
    images : Images
        The images.
    root : Path
        Where stores lie, each in a folder of its own; made if it is not there.
    spec : NetworkSpec
        The layers and their shapes.
    identity : dict
        What the values depend on, by name, as hashes.
    code : callable
        Returns the code that hashes do not tell; where it is another than before, some images are computed again and
        compared.
    dtype : {"float32", "float16"}
        Precision on disk.
    batch_size : int
        Images to read at once.
    """

    def __init__(
        self,
        source: Source,
        images: Images,
        root: str | os.PathLike,
        spec: NetworkSpec,
        identity: dict[str, str],
        code: Callable[[], Any],
        dtype: str,
        batch_size: int,
    ) -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"Activations are stored as float32 or float16, not as {dtype!r}.")
        self.device = source.device
        self._source, self._images, self._spec, self._batch_size = source, images, spec, batch_size
        self._dtype, self._code = np.dtype(dtype), code
        self._identity = identity | {"dtype": dtype, "version": str(_VERSION)}
        self._folder = Path(root) / _digest(self._identity)
        self._record = _record(spec, self._dtype)
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
        code = self._code()
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
        for field, name in {**names, "outputs": "the outputs", "decision": "the decision"}.items():
            for before, now, row in zip(held[field], found[field], rows.tolist(), strict=True):
                tolerance = _TOLERANCE[self._identity["precision"]] if field != "decision" else 0
                if _distance(before, now) > tolerance:
                    raise ValueError(
                        f"The store {str(self._folder)!r} is stale: the network now gives {name} of image {row} "
                        "another value. The code of preprocess, of decision or of the network has changed, or a file "
                        "behind a data set. Delete the store; it will be made again."
                    )

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


def identify(
    network: str, preprocess: Callable | None, spec: NetworkSpec, decision: Any, precision: str
) -> dict[str, str]:
    """Return hashes of all that activations depend on, but for the images."""
    return {
        "weights": network,
        "preprocessing": _hash(preprocess, "preprocess"),
        "layers": json.dumps(list(spec.shapes.items())),
        "outputs": str(spec.n_outputs),
        "probabilities": str(spec.probabilities),
        "decision": _hash(decision, "decision"),
        "precision": precision,
    }


def _digest(identity: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:20]


def _hash(function: Any, name: str) -> str:
    try:
        return joblib.hash(function)
    except Exception as error:
        raise ValueError(
            f"{name}={function!r} cannot be hashed, so a store could not tell whether it has changed; use a function "
            "or class that is defined in a module."
        ) from error


def code_of(function: Any) -> Any:
    """Return the code of a function or network, which hashes name and do not see."""
    if isinstance(function, functools.partial):
        return code_of(function.func)
    if isinstance(function, nn.Module):
        return frozenset(type(module).forward for module in function.modules())
    return getattr(function, "__code__", vars(type(function)).get("__call__"))
