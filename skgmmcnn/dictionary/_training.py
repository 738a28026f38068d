"""Training samples, progress of training, and the choice of the emission family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._progress import progress
from ..mixture import EMISSIONS

# A layer counts as rectified if at least this fraction of its values is exactly zero and none is negative.
_LEAST_ZEROS = 0.1


class Sample(NamedTuple):
    """Training rows (n, C) of a layer, the indices of their images (n,), and a source of randomness."""

    rows: Tensor
    images: np.ndarray
    generator: torch.Generator


def emission_of(layer: str, rows: Tensor, emission: str, covariance_type: str) -> str:
    """Return "gaussian" or "rectified"; "auto" is resolved by the fraction of zeros in the rows."""
    possible = ("rectified", covariance_type) in EMISSIONS
    if emission == "gaussian" or (emission == "auto" and not possible):
        return "gaussian"
    negative = bool((rows < 0).any())
    if emission == "rectified":
        if not possible:
            raise ValueError(f"emission='rectified' needs covariance_type='diag'; got {covariance_type!r}.")
        if negative:
            raise ValueError(
                f"Layer {layer!r} has negative values, but emission='rectified' models the output of a ReLU; "
                "use emission='auto' or 'gaussian'."
            )
        return emission
    zeros = (rows == 0).double().mean().item()
    return "rectified" if zeros >= _LEAST_ZEROS and not negative else "gaussian"


@contextmanager
def passes(n: int, what: str, *, shown: Any) -> Iterator[Callable[[int, float], None]]:
    """Show a progress bar of at most `n` training passes; yield the callback that takes pass number and bound."""
    with progress(total=n, desc=what, unit="pass", shown=shown) as bar:

        def report(n_iter: int, bound: float) -> None:
            bar.update(1)
            bar.set_postfix_str(f"{bound:.4g} nats")

        yield report
