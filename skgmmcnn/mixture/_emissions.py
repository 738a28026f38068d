"""Gaussian emissions: the densities of the components.

An emission consists of pure functions on tensors.  The log-density is linear in statistics ``phi`` of the row,
``log p(x | k) = phi(x) . theta_k - a_k``: one matrix product per entry of ``phi`` scores all components, and one more
gives the weighted sums of the M-step.  EM depends on nothing else of a family.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

# Components that hold less than this fraction of a row keep their parameters.
LEAST_TOTAL = 1e-8


class Parameters(NamedTuple):
    """Mean (K, d) and variance of each component, float64.

    The variance is (K, 1) if it is common to all channels and (1, d) if it is common to all components.
    """

    mean: Tensor
    variance: Tensor


class Statistics(NamedTuple):
    """Sums over rows weighted by responsibility: `total` (K,) and one tensor per entry of phi.

    Entries of phi with parameters common to all components are summed over these: (1, d) in place of (K, d).
    """

    total: Tensor
    sums: tuple[Tensor, ...]

    def blend(self, other: Statistics, share: float) -> Statistics:
        """Return ``(1 - share) * self + share * other``."""
        sums = (torch.lerp(first, second, share) for first, second in zip(self.sums, other.sums, strict=True))
        return Statistics(torch.lerp(self.total, other.total, share), tuple(sums))

    def of_rows(self, features: tuple[Tensor, ...], shares: Tensor, weights: Tensor) -> Statistics:
        """Return the statistics of rows with `features` phi, `weights` (n,) and weighted posteriors (n, K).

        The posteriors may be sparse.
        """
        # Entries with a single row are common to all components.
        by = (shares.T if len(entry) == len(self.total) else weights[None] for entry in self.sums)
        total = shares.T @ torch.ones_like(weights)
        return Statistics(total, tuple(part @ feature for part, feature in zip(by, features, strict=True)))

    def add_(self, other: Statistics) -> Statistics:
        """Add the sums of other rows in place."""
        for entry, more in zip((self.total, *self.sums), (other.total, *other.sums), strict=True):
            entry.add_(more)
        return self

    def to(self, device: torch.device | str) -> Statistics:
        """Return the sums on another device."""
        return Statistics(self.total.to(device), tuple(part.to(device) for part in self.sums))

    def per_row(self) -> Statistics:
        """Return the averages over the rows."""
        n_rows = self.total.sum()
        return Statistics(self.total / n_rows, tuple(part / n_rows for part in self.sums))


@dataclass(frozen=True)
class Emission(ABC):
    """A family of densities; `floor` (d,), float64, is the smallest variance of each channel."""

    floor: Tensor
    # Whether rows may be shifted by their mean before they are squared.
    centred: ClassVar[bool] = True

    @abstractmethod
    def features(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return phi of `rows`, one tensor of n rows per entry."""

    @abstractmethod
    def natural(self, parameters: Parameters) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return theta, one tensor per entry of phi, and the log-normaliser a (K,)."""

    @abstractmethod
    def maximize(self, statistics: Statistics, parameters: Parameters) -> Parameters:
        """Return the most likely parameters; a component without rows keeps those in `parameters`."""

    @abstractmethod
    def bounded(self, mean: Tensor, variance: Tensor) -> Parameters:
        """Return the nearest parameters that this family allows; common variances are averaged."""

    def emit(self, hidden: Tensor) -> Tensor:
        """Return the rows that result from hidden Gaussian values."""
        return hidden

    def expect(self, parameters: Parameters) -> Tensor:
        """Return the mean row of every component, (K, d), less the shift."""
        return parameters.mean


class DiagonalGaussian(Emission):
    """Independent Gaussian channels, phi(x) = (x, x^2)."""

    def features(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows, rows.square()

    def natural(self, parameters: Parameters) -> tuple[tuple[Tensor, ...], Tensor]:
        mean, variance = parameters
        normaliser = 0.5 * (mean.square() / variance + variance.log() + math.log(2 * math.pi)).sum(1)
        return (mean / variance, -0.5 / variance), normaliser

    def maximize(self, statistics: Statistics, parameters: Parameters) -> Parameters:
        mean, has_rows = _means(statistics, parameters)
        square = statistics.sums[1] / statistics.total.clamp_min(LEAST_TOTAL)[:, None]
        return self.bounded(mean, (square - mean.square()).where(has_rows, parameters.variance))

    def bounded(self, mean: Tensor, variance: Tensor) -> Parameters:
        return Parameters(mean, variance.maximum(self.floor).expand_as(mean))


class SphericalGaussian(DiagonalGaussian):
    """Gaussian channels with one variance per component, phi(x) = (x, sum of x^2); the floor is averaged."""

    def features(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows, rows.square().sum(1, keepdim=True)

    def maximize(self, statistics: Statistics, parameters: Parameters) -> Parameters:
        mean, has_rows = _means(statistics, parameters)
        square = statistics.sums[1] / statistics.total.clamp_min(LEAST_TOTAL)[:, None]
        variance = (square - mean.square().sum(1, keepdim=True)) / mean.shape[1]
        return self.bounded(mean, variance.where(has_rows, parameters.variance))

    def bounded(self, mean: Tensor, variance: Tensor) -> Parameters:
        return Parameters(mean, variance.mean(1, keepdim=True).expand(len(mean), 1).clamp_min(self.floor.mean()))


class TiedDiagonalGaussian(DiagonalGaussian):
    """Independent Gaussian channels with variances common to all components, phi(x) = (x, x^2)."""

    def maximize(self, statistics: Statistics, parameters: Parameters) -> Parameters:
        mean, _ = _means(statistics, parameters)
        between = (statistics.total[:, None] * mean.square()).sum(0, keepdim=True)
        return self.bounded(mean, (statistics.sums[1] - between) / statistics.total.sum())

    def bounded(self, mean: Tensor, variance: Tensor) -> Parameters:
        return Parameters(mean, variance.mean(0, keepdim=True).maximum(self.floor))


def _means(statistics: Statistics, parameters: Parameters) -> tuple[Tensor, Tensor]:
    """Return the mean of each component, and a mask (K, 1) of components with rows; the others keep their mean."""
    total = statistics.total[:, None]
    has_rows = total > LEAST_TOTAL
    return (statistics.sums[0] / total.clamp_min(LEAST_TOTAL)).where(has_rows, parameters.mean), has_rows
