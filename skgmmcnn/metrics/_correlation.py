"""Spearman's rank correlation over resamples of images, all at once."""

from __future__ import annotations

import numpy as np

from ._intervals import N_RESAMPLES, Interval


def rank_correlation(
    x: np.ndarray, y: np.ndarray, images: np.ndarray, random: np.random.RandomState
) -> tuple[float, Interval]:
    """Return Spearman's correlation of x (m,) and y (m,), and its 2.5 and 97.5 percentiles over resamples of images.

    `images` (m,) are the numbers of the images that they belong to, which stay together.  NaN where there is none.
    """
    _, image = np.unique(images, return_inverse=True)
    n = int(image.max(initial=-1)) + 1
    if not n:
        return np.nan, (np.nan, np.nan)
    times = np.stack([np.ones(n), *random.multinomial(n, np.full(n, 1 / n), N_RESAMPLES)])
    found, *resamples = weighted_spearman(x, y, times[:, image])
    known = np.array(resamples)[~np.isnan(resamples)]
    if n < 2 or not len(known):
        return float(found), (np.nan, np.nan)
    low, high = np.percentile(known, [2.5, 97.5])
    return float(found), (float(low), float(high))


def weighted_spearman(x: np.ndarray, y: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return Spearman's correlations (R,) of x (m,) and y (m,), each pair taken `times` (R, m); NaN if constant."""
    total = times.sum(1, keepdims=True)
    a, b = (rank - (times * rank).sum(1, keepdims=True) / total for rank in (_ranks(x, times), _ranks(y, times)))
    spread = (times * a**2).sum(1) * (times * b**2).sum(1)
    some = spread > 1e-9 * total[:, 0]
    return np.where(some, (times * a * b).sum(1) / np.sqrt(np.where(some, spread, 1)), np.nan)


def _ranks(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the ranks (R, m) of values (m,) taken `times` (R, m), ties sharing their mean, up to a constant."""
    order = np.argsort(values, kind="stable")
    first = np.flatnonzero(np.diff(values[order], prepend=-np.inf) > 0)
    together = np.add.reduceat(times[:, order], first, axis=1)
    place = np.empty(len(values), dtype=np.intp)
    place[order] = np.repeat(np.arange(len(first)), np.diff([*first, len(values)]))
    return (np.cumsum(together, axis=1) - together / 2)[:, place]
