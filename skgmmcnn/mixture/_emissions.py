"""Emission families: what one component says about the values of a row.

An emission is a small object of pure functions on tensors.  Its log-density is linear in statistics ``phi`` of the
row, ``log p(x | k) = phi(x) . theta_k - a_k``, so one matrix product per entry of ``phi`` scores all components, and
one more gathers the weighted sums that the M-step needs.  Expectation maximisation knows nothing else of a family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

# A component that holds less than this share of one row has nothing to learn from.
_LEAST_TOTAL = 1e-8


class Parameters(NamedTuple):
    """Mean and variance of every component, each (K, d) in float64."""

    mean: Tensor
    variance: Tensor


class Statistics(NamedTuple):
    """Sums over rows weighted by responsibility: `total` (K,) and one (K, d) tensor per entry of phi."""

    total: Tensor
    sums: tuple[Tensor, ...]

    def blend(self, other: Statistics, share: float) -> Statistics:
        """Return ``(1 - share) * self + share * other``."""
        sums = (torch.lerp(mine, its, share) for mine, its in zip(self.sums, other.sums, strict=True))
        return Statistics(torch.lerp(self.total, other.total, share), tuple(sums))

    def per_row(self) -> Statistics:
        """Return the sums divided by the number of rows that they are made of."""
        n_rows = self.total.sum()
        return Statistics(self.total / n_rows, tuple(part / n_rows for part in self.sums))


@dataclass(frozen=True)
class DiagonalGaussian:
    """Independent Gaussian channels, phi(x) = (x, x^2).

    Parameters
    ----------
    floor : Tensor of shape (d,), float64
        The smallest variance of each channel, in squared units of the channel.
    """

    floor: Tensor

    def features(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return phi of `rows`, each entry of shape (n, d)."""
        return rows, rows.square()

    def natural(self, parameters: Parameters) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return theta, one (K, d) tensor per entry of phi, and the log-normaliser a (K,)."""
        mean, variance = parameters
        normaliser = 0.5 * (mean.square() / variance + variance.log() + math.log(2 * math.pi)).sum(1)
        return (mean / variance, -0.5 / variance), normaliser

    def maximize(self, statistics: Statistics, parameters: Parameters) -> Parameters:
        """Return the most likely parameters; a component without rows keeps those it has."""
        total = statistics.total[:, None]
        seen = total > _LEAST_TOTAL
        mean, square = (part / total.clamp_min(_LEAST_TOTAL) for part in statistics.sums)
        variance = (square - mean.square()).maximum(self.floor)
        return Parameters(mean.where(seen, parameters.mean), variance.where(seen, parameters.variance))
