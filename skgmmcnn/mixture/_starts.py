"""Initialisation of mixtures: floors, means and variances of the rows."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import kmeans_plusplus
from threadpoolctl import threadpool_limits
from torch import Tensor

from ._em import Mixture
from ._emissions import DiagonalGaussian

# Number of rows for k-means++, and the minimum per component.
_SAMPLE_ROWS, _SAMPLE_ROWS_EACH = 2000, 5
_BLOCK_ROWS = 4096
_GREATEST_VARIANCE = 1e32


def moments(rows: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel of `rows` (n, d), in float64, without a copy of the rows."""
    shift = rows[0].double()  # keeps the digits of channels far from zero
    total, first, second = (torch.zeros_like(shift) for _ in range(3))
    parts = (torch.ones(len(rows), dtype=torch.float64) if weights is None else weights).split(_BLOCK_ROWS)
    for block, part in zip(rows.split(_BLOCK_ROWS), parts, strict=True):
        weight = part.to(shift)
        values = block.double() - shift
        total += weight.sum()
        first += weight @ values
        second += weight @ values.square()
    mean = first / total
    return mean + shift, (second / total - mean.square()).clamp_min(0)


def check_scale(what: str, variance: Tensor) -> None:
    """Raise ValueError if squares of rows with channel variances (d,), or the inverses, exceed float32's range."""
    largest = variance.max().item()
    if not largest < _GREATEST_VARIANCE or 0 < largest < 1 / _GREATEST_VARIANCE:
        raise ValueError(
            f"{what} varies by about {largest**0.5:.0e}, the square of which is out of float32's range; divide the "
            "values by this number, in a network by scaling the weights."
        )


def variance_floor(variance: Tensor, fraction: float) -> Tensor:
    """Return the minimum variance of each channel: a fraction of the `variance` (d,) over all rows.

    The density of a constant channel would be infinite, so variances are at least a millionth of their mean, and one
    if all are zero.
    """
    average = variance.mean().item()
    return fraction * (variance.clamp_min(1e-6 * average) if average > 0 else torch.ones_like(variance))


def start(
    means: Tensor,
    emission: DiagonalGaussian,
    mean: Tensor,
    variance: Tensor,
    like: Tensor,
    weights: Tensor | None = None,
) -> Mixture:
    """Return a mixture with the given `means` (K, d), and `weights` (K,), equal if None.

    `mean` (d,) and `variance` (d,) are those of all rows.  On activations, this variance of all components led to a
    higher likelihood than smaller ones.  `like` has the dtype and device of the rows.
    """
    shift = mean.to(like) if emission.centred else torch.zeros_like(mean).to(like)
    if weights is None:
        weights = torch.full((len(means),), 1 / len(means), dtype=torch.float64)
    means = means.to(like.device, torch.float64) - shift.double()
    parameters = emission.bounded(means, variance.to(means).expand_as(means))
    return Mixture(weights.to(means), parameters, shift, emission)


def random_rows(rows: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return n random rows; rows repeat only if there are fewer than n distinct ones."""
    order = torch.randperm(len(rows), generator=generator).to(rows.device)
    for size in (4 * n, len(rows)):  # sorting all rows is slow and rarely needed
        candidates = rows[order[:size]]
        _, first = np.unique(candidates.numpy(force=True), axis=0, return_index=True)
        if len(first) >= n:
            break
    return candidates[torch.from_numpy(np.resize(np.sort(first), n)).to(rows.device)]


def spread_rows(rows: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return n distant rows: k-means++ [Arthur and Vassilvitskii, SODA 2007] on a sample of standardised rows."""
    size = max(_SAMPLE_ROWS, _SAMPLE_ROWS_EACH * n)
    sample = rows[torch.randperm(len(rows), generator=generator)[:size].to(rows.device)].numpy(force=True)
    scale = sample.std(0, dtype=np.float64)
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    with threadpool_limits(1, "blas"):  # more threads round differently and are slower on busy machines
        _, indices = kmeans_plusplus(sample / np.where(scale > 0, scale, 1), n, random_state=seed)
    return torch.from_numpy(sample[indices]).to(rows)


STARTS = {"k-means++": spread_rows, "random_from_data": random_rows}
