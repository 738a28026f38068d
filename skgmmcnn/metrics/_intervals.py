"""Means over images, ratios of two, and rank correlations, with 95 % confidence intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest, bootstrap, spearmanr

N_RESAMPLES = 1000


class Estimate(NamedTuple):
    """A value and its 95 % interval, NaN where there is none."""

    value: float
    low: float = np.nan
    high: float = np.nan

    def __format__(self, spec: str) -> str:
        return f"{self.value:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def interval_of_mean(values: np.ndarray, random: np.random.RandomState) -> tuple[float, float]:
    """Return the interval of the mean of `values` (n,) over images or graphs, by the bootstrap."""
    return _bootstrap((values,), lambda sample, axis: sample.mean(axis), random)


def share_of(mask: np.ndarray) -> Estimate:
    """Return the mean of a mask (n,) with Wilson's interval (JASA 22, 1927); NaN without images."""
    if not len(mask):
        return Estimate(np.nan)
    limits = binomtest(int(mask.sum()), len(mask)).proportion_ci(method="wilson")
    return Estimate(float(mask.mean()), float(limits.low), float(limits.high))


def ratio_of_means(numerator: np.ndarray, denominator: np.ndarray, seed: int) -> Estimate:
    """Return the ratio of the means of two arrays (n,) over images, which are resampled together."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may consist of images where both are 0
        interval = _bootstrap((numerator, denominator), lambda a, b, axis: a.mean(axis) / b.mean(axis), seed)
    return Estimate(float(numerator.mean() / denominator.mean()), *interval)


def _bootstrap(
    samples: tuple[np.ndarray, ...], statistic: Callable, random: int | np.random.RandomState
) -> tuple[float, float]:
    """Return the 2.5 and 97.5 percentiles of a statistic over resamples of images; NaN for fewer than two images."""
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
    """Return Spearman's correlation of x (m,) and y (m,), NaN where one is constant, over resamples of images.

    `images` (m,) are the images of the pairs; pairs of one image are resampled together.
    """
    _, image = np.unique(images, return_inverse=True)
    n = int(image.max(initial=-1)) + 1
    value = _spearman(x, y)
    if n < 2:
        return Estimate(value)
    resamples = np.random.RandomState(seed).multinomial(n, np.full(n, 1 / n), N_RESAMPLES)
    rows = (np.repeat(np.arange(len(x)), times[image]) for times in resamples)
    others = np.array([_spearman(x[each], y[each]) for each in rows])
    if np.isnan(others).all():
        return Estimate(value)
    low, high = np.nanpercentile(others, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    if not len(x) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(spearmanr(x, y).statistic)
