"""Loading of weights from files, also with a prefix or inside a checkpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

_ERROR_WIDTH = 300  # characters
_PLAIN = "under their own names"
_logger = logging.getLogger(__name__)


def load_weights(network: nn.Module, file: Path) -> None:
    """Load a state dict from `file`, also from under a prefix or in a checkpoint if all keys then fit."""
    if not file.is_file():
        raise FileNotFoundError(f"There is no weights file {str(file)!r}.")
    kind = type(network).__name__
    expected = {name: value for name, value in network.state_dict().items() if isinstance(value, Tensor)}
    states = list(_states(_read(file)))
    if not states:
        raise ValueError(
            f"{str(file)!r} contains no weights. Save them by torch.save(network.state_dict(), file) or by safetensors."
        )
    fitting = [(place, state) for place, state in states if _fits(state, expected)]
    place, best = max(fitting or states, key=lambda item: _n_equal_shapes(item[1], expected))
    others = [other for other, state in fitting if not _equal(state, best)]
    if others:
        raise ValueError(
            f"{str(file)!r} contains weights of {kind} more than once: {', '.join([place, *others])}. Save one of them "
            "to a file."
        )
    try:
        network.load_state_dict(best)
    except RuntimeError as error:
        raise ValueError(
            f"The weights in {str(file)!r} do not fit {kind}: {_n_equal_shapes(best, expected)} of its {len(expected)} "
            f"tensors are there, {place}. {shorten(str(error), _ERROR_WIDTH)}"
        ) from error
    if place != _PLAIN:
        _logger.info("weights of %s are %s of %s", kind, place, file)


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
    """Yield the dicts of tensors in the content of a file, also without a prefix of keys, and their positions."""
    if not isinstance(content, Mapping):
        return
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    state = {key.replace("_orig_mod.", ""): value for key, value in tensors.items()}
    for prefix in sorted({key[:end] for key in state for end in _ends_of_prefixes(key)}, key=len):
        places = [f"in {where}" if where else "", f"under the prefix {prefix!r}" if prefix else ""]
        part = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        yield " and ".join(filter(None, places)) or _PLAIN, part
    for key, value in content.items():
        yield from _states(value, f"{where}[{key!r}]")


def _ends_of_prefixes(key: str) -> list[int]:
    return [0, *(place + 1 for place, letter in enumerate(key) if letter == ".")]


def _n_equal_shapes(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> int:
    return sum(key in state and state[key].shape == value.shape for key, value in expected.items())


def _fits(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> bool:
    """Return whether all weights are there, of the right shape, and no others."""
    # Files of torch before 0.4.1 lack counters of batches, which torch does not need.
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    equal_shapes = all(key in expected and value.shape == expected[key].shape for key, value in state.items())
    return not missing and equal_shapes


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
