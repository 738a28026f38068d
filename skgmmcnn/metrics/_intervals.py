"""Confidence intervals of means over images, and of ratios of two."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import binomtest, bootstrap

Interval = tuple[float, float]
N_RESAMPLES = 1000


def interval(values: np.ndarray, random: np.random.RandomState) -> Interval:
    """Return the 2.5 and 97.5 percentiles of the mean of `values` (n,) over resamples of the images; NaN are left out.

    Both are NaN with fewer than two images.
    """
    values = values[~np.isnan(values)]
    return _percentiles((values,), lambda sample, axis: sample.mean(axis), random)


def interval_of_share(yes: np.ndarray) -> Interval:
    """Return the 95 % interval of a share of images, from what is true of each (n,), by Wilson's method [1]_.

    .. [1] Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    found = binomtest(int(yes.sum()), len(yes)).proportion_ci(method="wilson")
    return float(found.low), float(found.high)


def interval_of_ratio(above: np.ndarray, below: np.ndarray, random: np.random.RandomState) -> Interval:
    """Return the same for the mean of `above` (n,) by the mean of `below` (n,), resampled together."""
    return _percentiles((above, below), lambda a, b, axis: a.mean(axis) / b.mean(axis), random)


def _percentiles(samples: tuple[np.ndarray, ...], statistic: Callable, random: np.random.RandomState) -> Interval:
    if len(samples[0]) < 2:
        return np.nan, np.nan
    found = bootstrap(
        samples,
        statistic,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=N_RESAMPLES,
        random_state=random,
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)
