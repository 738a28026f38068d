"""How the mixture of one layer begins, and by which family of densities."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._progress import progress
from .._threads import one_thread
from ..mixture import EMISSIONS, STARTS, Mixture, check_scale, moments, start, variance_floor

# A layer counts as rectified if at least this share of its values is exactly zero, and none is negative.
_LEAST_ZEROS = 0.1


class Sample(NamedTuple):
    """Training rows (n, C) of a layer, the numbers of their images (n,), and a source of randomness."""

    rows: Tensor
    images: np.ndarray
    generator: torch.Generator


def _emission_of(layer: str, rows: Tensor, emission: str, covariance_type: str) -> str:
    """Return "gaussian" or "rectified", the latter for rows from behind a ReLU where `emission` is "auto"."""
    possible = ("rectified", covariance_type) in EMISSIONS
    if emission == "gaussian" or (emission == "auto" and not possible):
        return "gaussian"
    negative = bool((rows < 0).any())
    if emission == "rectified":
        if not possible:
            raise ValueError(f"emission='rectified' needs covariance_type='diag'; got {covariance_type!r}.")
        if negative:
            raise ValueError(
                f"Layer {layer!r} has negative values, but emission='rectified' describes what stands behind a ReLU; "
                "use emission='auto' or 'gaussian'."
            )
        return emission
    zeros = (rows == 0).double().mean().item()
    return "rectified" if zeros >= _LEAST_ZEROS and not negative else "gaussian"


@contextmanager
def passes(n: int, what: str, *, shown: Any) -> Iterator[Callable[[int, float], None]]:
    """Show the progress of at most `n` passes of training, which report their number and bound to what is yielded."""
    with progress(total=n, desc=what, unit="pass", shown=shown) as bar:

        def report(n_iter: int, bound: float) -> None:
            bar.update(1)
            bar.set_postfix_str(f"{bound:.4g} nats")

        yield report


@one_thread()
def begin(
    layer: str,
    sample: Sample,
    n_words: int,
    emission: str,
    *,
    covariance_type: str,
    reg_covar: float,
    init_params: str = "random_from_data",
) -> Mixture:
    """Return the mixture from which training starts: means at some rows, all with the variance of all rows."""
    mean, variance = moments(sample.rows)
    check_scale(f"Layer {layer!r}", variance)
    family = EMISSIONS[_emission_of(layer, sample.rows, emission, covariance_type), covariance_type]
    means = STARTS[init_params](sample.rows, n_words, sample.generator)
    return start(means, family(variance_floor(variance, reg_covar)), mean, variance, sample.rows)
