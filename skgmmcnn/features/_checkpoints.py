"""Loading of weights from files, also with a prefix or inside a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_MOST_SHOWN = 3
_logger = logging.getLogger(__name__)


class _Candidate(NamedTuple):
    """A state dict in a file, its position, and the number of tensors that fit the network."""

    where: str
    state: dict[str, Tensor]
    n_fitting: int


def load_weights(network: nn.Module, file: Path) -> None:
    """Load a state dict from `file`, also from under a prefix or in a checkpoint if all keys then fit."""
    if not file.is_file():
        raise FileNotFoundError(f"There is no weights file {str(file)!r}.")
    wanted = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    candidates = [
        _under(part, state, prefix, wanted) for part, state in _states(_read(file)) for prefix in _prefixes(state)
    ]
    if not candidates:
        raise ValueError(
            f"{str(file)!r} contains no weights. Save them by torch.save(network.state_dict(), file) or by safetensors."
        )
    fitting = [part for part in candidates if not _misfits(part.state, wanted)]
    best = max(fitting or candidates, key=lambda part: part.n_fitting)
    others = [part.where for part in fitting if not _equal(part.state, best.state)]
    if others:
        raise ValueError(
            f"{str(file)!r} contains weights of {type(network).__name__} more than once: {best.where}, "
            f"{', '.join(others)}. Save one of them to a file."
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
    """Return the content of a file; errors of all kinds become a ValueError with its name."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        if "GLOBAL" in str(error) or "TorchScript" in str(error):
            raise ValueError(
                f"{str(file)!r} contains other objects than tensors, and loading it could execute code. Save only the "
                "state dict: torch.save(network.state_dict(), file)."
            ) from error
        first_line = str(error).partition("\n")[0]
        raise ValueError(
            f"{str(file)!r} cannot be read as weights ({type(error).__name__}: {first_line}). Is it complete, and a "
            "file of torch.save or safetensors?"
        ) from error


def _states(content: Any, where: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield the dicts of tensors in the content of a file, with their positions."""
    if not isinstance(content, Mapping):
        return
    state = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if state:
        yield where, {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    for key, value in content.items():
        yield from _states(value, f"{where}[{key!r}]")


def _prefixes(state: Mapping[str, Tensor]) -> list[str]:
    """Return the prefixes of keys that end with a dot, and the empty prefix."""
    parts = [key.split(".") for key in state]
    return sorted({".".join([*names[:n], ""]) for names in parts for n in range(len(names))}, key=len)


def _under(part: str, state: Mapping[str, Tensor], prefix: str, wanted: Mapping[str, Tensor]) -> _Candidate:
    stripped = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    n_fitting = sum(key in stripped and stripped[key].shape == value.shape for key, value in wanted.items())
    where = " and ".join([*([f"in {part}"] if part else []), *([f"under the prefix {prefix!r}"] if prefix else [])])
    return _Candidate(where or _PLAIN, stripped, n_fitting)


def _misfits(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Return descriptions of the weights that are missing, have another shape or are unknown."""
    # Files of torch before 0.4.1 lack counters of batches, which torch does not need.
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
