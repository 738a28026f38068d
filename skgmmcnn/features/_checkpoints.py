"""Weights from a file, also where they lie under a prefix or inside a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_MOST_SHOWN = 3
_logger = logging.getLogger(__name__)


class _Found(NamedTuple):
    """Weights in a file: where they were, by the names that a network may know, and how many of its own they fit."""

    where: str
    state: dict[str, Tensor]
    n_fitting: int


def load_weights(network: nn.Module, file: Path) -> None:
    """Load a state dict from `file`; a prefix is stripped and a checkpoint unpacked where that makes all keys fit."""
    if not file.is_file():
        raise FileNotFoundError(f"There is no weights file {str(file)!r}.")
    wanted = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    found = [_under(part, state, prefix, wanted) for part, state in _states(_read(file)) for prefix in _prefixes(state)]
    if not found:
        raise ValueError(
            f"{str(file)!r} holds no weights. Save them by torch.save(network.state_dict(), file) or by safetensors."
        )
    fitting = [part for part in found if not _misfits(part.state, wanted)]
    best = max(fitting or found, key=lambda part: part.n_fitting)
    others = [part.where for part in fitting if not _equal(part.state, best.state)]
    if others:
        raise ValueError(
            f"{str(file)!r} holds weights of {type(network).__name__} more than once: {best.where}, "
            f"{', '.join(others)}. Save those that you mean alone."
        )
    try:
        network.load_state_dict(best.state)
    except RuntimeError as error:
        raise ValueError(
            f"The weights in {str(file)!r} do not fit {type(network).__name__}: {best.n_fitting} of its {len(wanted)} "
            f"tensors are there, {best.where}; {'; '.join(_misfits(best.state, wanted)) or error}."
        ) from error
    if best.where != _PLAIN:
        _logger.info("weights of %s are %s of %s", type(network).__name__, best.where, file)


_PLAIN = "under their own names"


def _read(file: Path) -> Any:
    """Return what a file holds; whatever goes wrong is one kind of error, with the file's name."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if "GLOBAL" in str(error) or "TorchScript" in str(error):
            raise ValueError(
                f"{str(file)!r} holds more than tensors, and loading it could run foreign code. Save the state dict "
                "alone: torch.save(network.state_dict(), file)."
            ) from error
        told = str(error).partition("\n")[0]
        raise ValueError(
            f"{str(file)!r} cannot be read as weights ({type(error).__name__}: {told}). Is it complete, and a file of "
            "torch.save or safetensors?"
        ) from error


def _states(content: Any, where: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the dicts of tensors in what a file holds, with how they are nested."""
    if not isinstance(content, Mapping):
        return
    state = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if state:
        yield where, {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    for key, value in content.items():
        yield from _states(value, f"{where}[{key!r}]")


def _prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """Return what keys begin with: nothing, and each beginning that ends with a point."""
    parts = [key.split(".") for key in state]
    return sorted({".".join([*names[:n], ""]) for names in parts for n in range(len(names))}, key=len)


def _under(part: str, state: Mapping[str, Tensor], prefix: str, wanted: Mapping[str, Tensor]) -> _Found:
    stripped = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    n_fitting = sum(key in stripped and stripped[key].shape == value.shape for key, value in wanted.items())
    where = " and ".join([*([f"in {part}"] if part else []), *([f"under the prefix {prefix!r}"] if prefix else [])])
    return _Found(where or _PLAIN, stripped, n_fitting)


def _misfits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Say which of the wanted weights are missing or have another shape, and which are not wanted."""
    # Counters of batches came with torch 0.4.1; older files have none, and torch does without.
    missing = [key for key in wanted if key not in state and not key.endswith("num_batches_tracked")]
    other = [
        f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    kinds = {"missing": missing, "of another shape": other, "unknown": [key for key in state if key not in wanted]}
    return [f"{kind}: {_some(keys)}" for kind, keys in kinds.items() if keys]


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _MOST_SHOWN} more" if len(keys) > _MOST_SHOWN else ""
    return f"{', '.join(keys[:_MOST_SHOWN])}{more}"


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
