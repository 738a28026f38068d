"""How the mixture of one layer begins, and by which family of densities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._threads import one_thread
from ..mixture import Mixture
from ..mixture._emissions import DiagonalGaussian
from ..mixture._rectified import RectifiedGaussian
from ..mixture._starts import moments, random_rows, start, variance_floor

# A layer counts as rectified if at least this share of its values is exactly zero, and none is negative.
_LEAST_ZEROS = 0.1


class Sample(NamedTuple):
    """Training rows (n, C) of a layer, the numbers of their images (n,), and a source of randomness."""

    rows: Tensor
    images: np.ndarray
    generator: torch.Generator


def choose_emission(layer: str, rows: Tensor, emission: str) -> str:
    """Return "gaussian" or "rectified", the latter for rows from behind a ReLU where `emission` is "auto"."""
    if emission == "gaussian":
        return emission
    negative = bool((rows < 0).any())
    if emission == "rectified":
        if negative:
            raise ValueError(
                f"Layer {layer!r} has negative values, but emission='rectified' describes what stands behind a ReLU; "
                "use emission='auto' or 'gaussian'."
            )
        return emission
    zeros = (rows == 0).double().mean().item()
    return "rectified" if zeros >= _LEAST_ZEROS and not negative else "gaussian"


@one_thread()
def begin(sample: Sample, n_words: int, emission: str, reg_covar: float) -> Mixture:
    """Return the mixture from which training starts: means at random rows, all with the variance of all rows.

    On activations this ended at a higher likelihood than starts by k-means++.
    """
    mean, variance = moments(sample.rows)
    family = {"gaussian": DiagonalGaussian, "rectified": RectifiedGaussian}[emission]
    means = random_rows(sample.rows, n_words, sample.generator)
    return start(means, family(variance_floor(variance, reg_covar)), mean, variance, sample.rows)
