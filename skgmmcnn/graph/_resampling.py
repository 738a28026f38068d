"""Resamples of the fitted images: the bootstrap, in counts that add up."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.stats import poisson

from .._hashing import mixed
from ._counting import chunks

_DENSE = 0.05  # from this share of numbers that are not zero, a dense product is faster than a sparse one
_STEPS = poisson.cdf(np.arange(25), 1)


def poisson_weights(seed: int, images: np.ndarray, n_bootstrap: int) -> np.ndarray:
    """Return how often each image occurs in each resample, int64 (n, n_bootstrap).

    Weights are Poisson variables of mean one that depend on the seed and the number of the image alone, so that
    resamples of parts add up to those of the whole (Chamandy, Muralidharan, Najmi and Naidu, 2012).
    """
    keys = mixed(mixed(images.astype(np.uint64)) ^ np.uint64(seed))
    keys = mixed(keys[:, None] + np.arange(n_bootstrap, dtype=np.uint64))
    return np.searchsorted(_STEPS, (keys >> np.uint64(11)) * 2.0**-53, side="right")


class Resampler:
    """Sums of the counts of images, weighted as in each resample: int64 (K_upper, K_lower, n_bootstrap)."""

    def __init__(self, n_upper: int, n_lower: int, n_bootstrap: int) -> None:
        self.counts = np.zeros((n_upper, n_lower, n_bootstrap), dtype=np.int64)
        self._flat = self.counts.reshape(n_upper * n_lower, n_bootstrap)

    def add(self, rows: sparse.csr_array, weights: np.ndarray) -> None:
        """Add images with counts (n, K_upper K_lower) and weights (n, n_bootstrap)."""
        (touched,) = np.nonzero(np.bincount(rows.indices, minlength=len(self._flat)))
        columns = rows[:, touched].astype(float).tocsc()
        dense = columns.nnz > _DENSE * len(weights) * len(touched)
        for part in chunks(len(touched), max(weights.shape)):
            counts = columns[:, part].toarray() if dense else columns[:, part]
            self._flat[touched[part]] += (counts.T @ weights.astype(float)).astype(np.int64)
