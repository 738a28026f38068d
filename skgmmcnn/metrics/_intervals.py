"""Means over images, ratios of two, and rank correlations, with 95 % confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, bootstrap

Interval = tuple[float, float]
N_RESAMPLES = 1000


class Estimate(NamedTuple):
    """A value and its 95 % interval, NaN where there is none; ``f"{estimate:.2f}"`` shows both."""

    value: float
    interval: Interval = (np.nan, np.nan)

    def __format__(self, spec: str) -> str:
        low, high = self.interval
        return f"{self.value:{spec}} ({low:{spec}} to {high:{spec}})"


def interval(values: np.ndarray, random: np.random.RandomState) -> Interval:
    """Return the 2.5 and 97.5 percentiles of the mean of `values` (n,) over resamples of the images; NaN are left out.

    Both are NaN with fewer than two images.
    """
    values = values[~np.isnan(values)]
    return _percentiles((values,), lambda sample, axis: sample.mean(axis), random)


def interval_of_share(yes: np.ndarray) -> Interval:
    """Return the 95 % interval of the share of images, bool (n,), by Wilson's method (JASA 22, 1927)."""
    limits = binomtest(int(yes.sum()), len(yes)).proportion_ci(method="wilson")
    return float(limits.low), float(limits.high)


def ratio_of_means(above: np.ndarray, below: np.ndarray, seed: int) -> Estimate:
    """Return the mean of `above` (n,) by the mean of `below` (n,), resampled together."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may consist of images where both are 0
        between = _percentiles((above, below), lambda a, b, axis: a.mean(axis) / b.mean(axis), seed)
    return Estimate(float(above.mean() / below.mean()), between)


def _percentiles(samples: tuple[np.ndarray, ...], statistic: Callable, random: int | np.random.RandomState) -> Interval:
    if len(samples[0]) < 2:
        return np.nan, np.nan
    result = bootstrap(
        samples,
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=N_RESAMPLES,
        random_state=random,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def rank_correlation(x: np.ndarray, y: np.ndarray, images: np.ndarray, seed: int) -> Estimate:
    """Return Spearman's correlation of x (m,) and y (m,) over resamples of images, NaN where there is none.

    `images` (m,) are the numbers of the images that they belong to, which stay together.
    """
    _, image = np.unique(images, return_inverse=True)
    n = int(image.max(initial=-1)) + 1
    if not n:
        return Estimate(np.nan)
    resamples = np.random.RandomState(seed).multinomial(n, np.full(n, 1 / n), N_RESAMPLES)
    rho, *others = weighted_spearman(x, y, np.stack([np.ones(n), *resamples])[:, image])
    known = np.array(others)[~np.isnan(others)]
    if n < 2 or not len(known):
        return Estimate(float(rho))
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(float(rho), (float(low), float(high)))


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
