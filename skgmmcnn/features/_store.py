"""Activations on disk, identified by hashes."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from .._files import open_draft, remove_drafts
from ._sources import FeatureBatch, NetworkSource
from ._spec import NetworkSpec

_VERSION = 3
_DTYPES = ("float32", "float16")
_OUTPUTS, _DECISION = "the outputs", "the decision"  # fields of a record, as in errors
_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_N_COMPARED = 8
# Bounds of differences by hardware, and by half precision, relative to the norm of a map.
_TOLERANCE, _HALF_TOLERANCE = 2e-3, 5e-2
_PRECISE = ("torch.float32", "torch.float64")
# Stores whose values this process has compared with the network, and the code of that.
_compared: dict[Path, Any] = {}


class DiskSource:
    """Activations read from a store, into which missing ones are computed.

    A store, a subfolder of `root`, belongs to one network and preprocessing, and to any images.  It contains one file
    per image, named by the hash of the image: a record of its maps (H, W, C), outputs and decision, and a checksum.  A
    file appears once it is complete, so an interrupted store is resumed, and processes share one without locks.
    """

    def __init__(self, network: NetworkSource, root: str | os.PathLike, dtype: str) -> None:
        check_folder(root)
        if dtype not in _DTYPES:
            raise ValueError(f"Activations are stored as float32 or float16, not as {dtype!r}.")
        self.network, self.spec = network, network.spec
        self._root, self._dtype = root, dtype
        self._identity = _identity(network, dtype)
        self._folder = Path(root) / hashlib.sha256(json.dumps(self._identity).encode()).hexdigest()[:20]
        self._record = _record(network.spec, dtype)
        # Hashes of a data set do not depend on its files, so it is compared again each time.
        self._compared = {} if network.images.of_data_set else _compared

    def __reduce__(self) -> tuple:
        return DiskSource, (self.network, self._root, self._dtype)

    def __len__(self) -> int:
        return len(self.network)

    def __getitem__(self, rows: Any) -> DiskSource:
        part = DiskSource(self.network[rows], self._root, self._dtype)
        part._compared = self._compared
        return part

    def batches(self) -> Iterator[FeatureBatch]:
        """Yield batches of all images, in order."""
        files = [self._folder / f"{key}.bin" for key in self.network.images.hashes()]
        present = np.array([file.exists() for file in files], bool)
        self._compare(files, np.flatnonzero(present))
        missing = {files[row]: row for row in np.flatnonzero(~present)[::-1]}  # repeated images are computed once
        with closing(self._compute(files, sorted(missing.values()))) as computation:
            for start in range(0, len(files), self.network.size):
                part = files[start : start + self.network.size]
                while not all(file.exists() for file in part):
                    if next(computation, None) is None:
                        raise self._damage("it has lost images that were just written")
                yield self._batch(part, start)

    def _compute(self, files: Sequence[Path], rows: Sequence[int]) -> Generator[int]:
        """Compute and store images, batch by batch; a full disk is detected before."""
        if not rows:
            return
        size = len(rows) * self._record.itemsize
        with self._explain_errors(size):
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_drafts(self._folder)
            if shutil.disk_usage(self._folder).free < size:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for batch in self.network[rows].batches():
            for row, record in zip(rows[batch.start :], self._records(batch), strict=False):
                with self._explain_errors(size), open_draft(files[row]) as file:
                    file.write(record.tobytes() + _checksum(files[row], record.tobytes()))
            yield len(batch.decisions)

    def _records(self, batch: FeatureBatch) -> np.ndarray:
        """Return the records of a batch."""
        records = np.zeros(len(batch.decisions), self._record)
        for layer, maps in batch.activations.items():
            values = maps.permute(0, 2, 3, 1).numpy(force=True)
            with np.errstate(over="ignore"):  # checked below
                stored = values.astype(self._dtype)
            if np.isinf(stored).any() and not np.isinf(values).any():
                raise ValueError(f"Layer {layer!r} contains values beyond the range of {self._dtype}; store float32.")
            records[_field(layer)] = stored
        scores = batch.outputs
        if not isinstance(scores, Tensor) or scores.shape != (len(records), self.spec.n_outputs):
            scores = torch.full((), torch.nan)  # not one score per output: not stored
        records[_OUTPUTS], records[_DECISION] = scores.float().numpy(force=True), batch.decisions
        return records

    def _batch(self, files: Sequence[Path], start: int) -> FeatureBatch:
        records = self._read(files, range(start, start + len(files)))
        maps = {}
        for layer in self.spec.layers:
            values = torch.from_numpy(np.ascontiguousarray(records[_field(layer)]))
            maps[layer] = values.to(self.network.device).float().permute(0, 3, 1, 2)
        scores = np.ascontiguousarray(records[_OUTPUTS])
        outputs = None if np.isnan(scores).all() else torch.from_numpy(scores)
        return FeatureBatch(start, maps, outputs, np.array(records[_DECISION]))

    def _read(self, files: Sequence[Path], rows: Iterable[int]) -> np.ndarray:
        """Return the records of the images `rows`, and raise an error if one is damaged."""
        records = bytearray()
        for file, row in zip(files, rows, strict=True):
            with self._explain_errors():
                content = file.read_bytes()
            record = content[: self._record.itemsize]
            if content[self._record.itemsize :] != _checksum(file, record):
                raise self._damage(f"the values of image {row} are not those that were written")
            records += record
        return np.frombuffer(records, self._record)

    def _compare(self, files: Sequence[Path], rows: np.ndarray) -> None:
        """Recompute some stored images, once per process or data set, and raise an error if they have changed.

        Hashes contain neither code nor files of a data set.
        """
        code = _code(self.network)
        if self._compared.get(self._folder) == code:
            return
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), _N_COMPARED)).astype(int))]
        stored = self._read([files[row] for row in rows], rows)
        for batch in self.network[rows].batches() if len(rows) else ():
            part = slice(batch.start, batch.start + len(batch.decisions))
            self._check_equal(stored[part], self._records(batch), rows[part])
        self._compared[self._folder] = code

    def _check_equal(self, stored: np.ndarray, computed: np.ndarray, rows: np.ndarray) -> None:
        rounding = _TOLERANCE if self._identity["precision"] in _PRECISE else _HALF_TOLERANCE
        for field in [*map(_field, self.spec.layers), _OUTPUTS, _DECISION]:
            for old, new, row in zip(stored[field], computed[field], rows, strict=True):
                if _distance(old, new) > (rounding if field != _DECISION else 0):
                    raise ValueError(
                        f"The store {str(self._folder)!r} is stale: {field} of image {row} has changed. The code of "
                        "preprocess, of decision or of the network has changed, or a file of a data set. Delete the "
                        "store; it will be recomputed."
                    )

    def _damage(self, what: str) -> ValueError:
        return ValueError(
            f"The store {str(self._folder)!r} is damaged: {what}. Delete the store; it will be recomputed."
        )

    @contextmanager
    def _explain_errors(self, size: int = 0) -> Iterator[None]:
        """Add the folder and the remedy to errors of the operating system, also for `size` more bytes."""
        try:
            yield
        except OSError as error:
            message = (
                f"No space for {size / 2**20:.0f} MiB of activations; store float16, model fewer layers, or use a "
                "folder on another disk"
                if error.errno in _FULL
                else f"The store cannot be used ({error.strerror}); make its folder writable, or use another one"
            )
            raise OSError(error.errno, message, str(self._folder)) from error


def _identity(network: NetworkSource, dtype: str) -> dict[str, str]:
    """Return hashes of everything that stored values depend on except the images."""
    weights = [weight.dtype for weight in network.captured.network.parameters() if weight.is_floating_point()]
    return {
        "weights": str(network.fingerprint),
        "preprocessing": _hash_of(network.images.preprocess, "preprocess"),
        "layers": json.dumps(list(network.spec.shapes.items())),
        "outputs": str(network.spec.n_outputs),
        "probabilities": str(network.spec.probabilities),
        "decision": _hash_of(network.running.decision, "decision"),
        "precision": str(weights[0] if weights else torch.float32),
        "dtype": dtype,
        "version": str(_VERSION),
    }


def _code(network: NetworkSource) -> tuple[Any, ...]:
    """Return the code run for each image; hashes contain only its name."""
    return tuple(map(_code_of, (network.captured.network, network.images.preprocess, network.running.decision)))


def _hash_of(function: Any, name: str) -> str:
    """Return the hash of a parameter of the extractor; raise an error that names it if there is none."""
    try:
        return joblib.hash(function)
    except Exception as error:
        raise ValueError(
            f"{name}={function!r} cannot be hashed, so a store cannot detect changes; use a function or class defined "
            "in a module."
        ) from error


def _code_of(function: Any) -> Any:
    if isinstance(function, functools.partial):
        return _code_of(function.func)
    if isinstance(function, nn.Module):
        return frozenset(type(module).forward for module in function.modules())
    return getattr(function, "__code__", vars(type(function)).get("__call__"))


def _field(layer: str) -> str:
    """Return the name of the field of a layer in a record, as in errors."""
    return f"layer {layer!r}"


def _record(spec: NetworkSpec, dtype: str) -> np.dtype:
    """Return the record type of one image."""
    layers = [
        (_field(layer), dtype, (height, width, channels)) for layer, (channels, height, width) in spec.shapes.items()
    ]
    outputs = (_OUTPUTS, np.float32, (max(1, spec.n_outputs),))
    return np.dtype([*layers, outputs, (_DECISION, np.int64)], align=True)


def _checksum(file: Path, record: bytes) -> bytes:
    """Return the checksum of a record and of the hashes of its image and store, which are their names."""
    return zlib.crc32(record, zlib.crc32(f"{file.parent.name}/{file.name}".encode())).to_bytes(4)


def _distance(old: np.ndarray, new: np.ndarray) -> float:
    """Return the distance of values relative to the larger norm."""
    first, second = (np.nan_to_num(np.asarray(values, np.float64)).ravel() for values in (old, new))
    scale = max(np.linalg.norm(first), np.linalg.norm(second))
    return float(np.linalg.norm(first - second) / scale) if scale else 0.0


def check_folder(root: str | os.PathLike) -> None:
    """Raise an error for an empty path, which would be the current folder."""
    if not str(root):
        raise ValueError("The folder of a store is ''; give a path, '.' for the current folder.")
