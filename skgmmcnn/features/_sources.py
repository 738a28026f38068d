"""Sources of activations: memory and networks."""

from __future__ import annotations

import copy
import functools
import json
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, TypeVar

import joblib
import numpy as np
import torch
from torch import Tensor, nn

from .._device import resolve_device
from .._progress import progress
from ._batch import FeatureBatch, Rerun
from ._captured import CapturedNetwork
from ._decisions import Judge
from ._images import Images
from ._network import fingerprint
from ._rerun import Edits
from ._running import images_at_once, in_parts, precisely
from ._spec import NetworkSpec

Change = Callable[[nn.Module, Tensor], None]
Result = TypeVar("Result")


class Source(Protocol):
    """Activations of numbered images."""

    device: str | torch.device

    def batches(self, rows: np.ndarray) -> Iterator[FeatureBatch]:
        """Yield the batches of the images `rows`, in that order."""

    def of(self, rows: np.ndarray) -> Source:
        """Return the source of the images `rows`."""


class HeldSource:
    """Activations in memory: arrays (n, H, W, C) by layer, outputs and decisions, in batches of `size` images."""

    def __init__(
        self,
        arrays: dict[str, np.ndarray],
        outputs: np.ndarray | None,
        decisions: np.ndarray,
        size: int,
        device: str | torch.device = "auto",
    ) -> None:
        self._arrays, self._outputs, self._decisions, self._size = arrays, outputs, decisions, size
        self.device = device

    def batches(self, rows: np.ndarray) -> Iterator[FeatureBatch]:
        """Yield the batches of the images `rows`, in that order."""
        device = resolve_device(self.device)
        for start in range(0, len(rows), self._size):
            part = rows[start : start + self._size]
            maps = {
                name: torch.from_numpy(array[part]).to(device).permute(0, 3, 1, 2)
                for name, array in self._arrays.items()
            }
            outputs = None if self._outputs is None else self._outputs[part]
            yield FeatureBatch(start, maps, outputs, self._decisions[part])

    def of(self, rows: np.ndarray) -> HeldSource:
        """Return the source of the images `rows`."""
        arrays = {layer: values[rows] for layer, values in self._arrays.items()}
        outputs = None if self._outputs is None else self._outputs[rows]
        return HeldSource(arrays, outputs, self._decisions[rows], self._size, self.device)


class Running(NamedTuple):
    """Parameters of the extractor for running a network."""

    decision: Callable | None
    batch_size: int
    n_jobs: int | None
    verbose: int
    device: str | torch.device


class NetworkSource:
    """Activations computed by the network, which can also be rerun, changed and stored."""

    def __init__(
        self,
        network: CapturedNetwork,
        spec: NetworkSpec,
        fingerprint: str,
        images: Images,
        run: Running,
    ) -> None:
        self._network, self.spec, self.images, self._run = network, spec, images, run
        self._fingerprint, self.device = fingerprint, run.device

    def batches(self, rows: np.ndarray) -> Iterator[FeatureBatch]:
        """Yield the batches of the images `rows`, in that order."""
        return self._passes(rows, self._pass, "network", self.size)

    def rerun(self, rows: np.ndarray, work: Callable[[Rerun], Result], what: str) -> Iterator[Result]:
        """Yield the results of `work` for batches of the images `rows`; `what` is the name of the progress bar."""
        return self._passes(rows, lambda batch, start, _: work(self._rerun(batch, start)), what, self._run.batch_size)

    def of(self, rows: np.ndarray) -> NetworkSource:
        """Return the source of the images `rows`."""
        return NetworkSource(self._network, self.spec, self._fingerprint, self.images[rows], self._run)

    def _passes(
        self, rows: np.ndarray, work: Callable[[Tensor, int, int], Result], what: str, size: int
    ) -> Iterator[Result]:
        """Yield the results of `work` for batches of `size` images, or smaller ones once memory is exhausted."""
        images, start, most = self.images[rows], 0, size
        self._network.to(resolve_device(self.device))
        with progress(total=len(images), desc=what, unit="image", shown=self._run.verbose) as bar:
            for whole in images.batches(size, self.spec.input_shape, self._run.n_jobs):
                rest = whole
                while len(rest):
                    batch = rest[:size]
                    try:
                        result = work(batch, start, size)
                    except torch.OutOfMemoryError:
                        if len(batch) == 1:
                            raise
                        if size == most:
                            self._warn_of_memory()
                        size = -(-len(batch) // 2)
                        continue
                    yield result
                    bar.update(len(batch))
                    start, rest = start + len(batch), rest[len(batch) :]

    @property
    def size(self) -> int:
        """The batch size; on a CPU a multiple of the number of images in one pass."""
        if resolve_device(self.device).type != "cpu":
            return self._run.batch_size
        at_once = images_at_once(self.spec.input_shape)
        return -(-self._run.batch_size // at_once) * at_once

    def _pass(self, batch: Tensor, start: int, size: int) -> FeatureBatch:
        device = resolve_device(self.device)

        def run(part: Tensor) -> tuple[Any, dict[str, Tensor]]:
            with precisely(device):
                return self._network.run(part)

        at_once = min(size, images_at_once(self.spec.input_shape))
        outputs, maps = in_parts(run, batch, at_once) if device.type == "cpu" else run(batch)
        activations = {name: values.float() for name, values in maps.items()}
        return FeatureBatch(start, activations, *self._judge.read(outputs, start, activations))

    @property
    def _judge(self) -> Judge:
        return Judge(self._run.decision, self.spec.n_outputs, self.spec.probabilities)

    def _rerun(self, batch: Tensor, start: int) -> Rerun:
        device = resolve_device(self.device)
        with precisely(device):
            passed = self._network.start(batch)

        def again(edits: Edits, until: str | None) -> tuple[Any, dict[str, Tensor]]:
            with precisely(device):
                return passed.again(edits, until)

        def whole(images: Tensor) -> tuple[Any, np.ndarray]:
            done = self._pass(images, start, len(images))
            return done.outputs, done.decisions

        maps = {name: values.float() for name, values in passed.maps.items()}
        original = FeatureBatch(start, maps, *self._judge.read(passed.outputs, start, maps))
        return Rerun(original, again, lambda outputs: self._judge.read(outputs, start, maps), batch, whole)

    def changed(self, rows: np.ndarray, change: Change) -> NetworkSource:
        """Return the source of the images `rows` with a copy of the network changed by `change`."""
        images, network = self.images[rows], copy.deepcopy(self._network.network)
        captured = self._network.on(network).to(resolve_device(self.device))
        with torch.no_grad():
            change(network, captured.prepare(images.batch(0, self._run.batch_size, self.spec.input_shape)))
        network.eval().requires_grad_(False)
        return NetworkSource(captured, self.spec, fingerprint(network), images, self._run)

    def _warn_of_memory(self) -> None:
        warnings.warn(
            f"The device ran out of memory with batch_size={self._run.batch_size}; continuing with smaller batches.",
            stacklevel=4,
        )

    def identity(self) -> dict[str, str]:
        """Return hashes of everything that the values depend on except the images."""
        weights = [weight.dtype for weight in self._network.network.parameters() if weight.is_floating_point()]
        return {
            "weights": self._fingerprint,
            "preprocessing": hash_of(self.images.preprocess, "preprocess"),
            "layers": json.dumps(list(self.spec.shapes.items())),
            "outputs": str(self.spec.n_outputs),
            "probabilities": str(self.spec.probabilities),
            "decision": hash_of(self._run.decision, "decision"),
            "precision": str(weights[0] if weights else torch.float32),
        }

    def code(self) -> tuple[Any, ...]:
        """Return the code run for each image."""
        return tuple(map(code_of, (self._network.network, self.images.preprocess, self._run.decision)))


def hash_of(function: Any, name: str) -> str:
    """Return the hash of a parameter of the extractor; raise an error that names it if there is none."""
    try:
        return joblib.hash(function)
    except Exception as error:
        raise ValueError(
            f"{name}={function!r} cannot be hashed, so a store cannot detect changes; use a function or class defined "
            "in a module."
        ) from error


def code_of(function: Any) -> Any:
    """Return the code of a function or network, of which hashes contain only the name."""
    if isinstance(function, functools.partial):
        return code_of(function.func)
    if isinstance(function, nn.Module):
        return frozenset(type(module).forward for module in function.modules())
    return getattr(function, "__code__", vars(type(function)).get("__call__"))
