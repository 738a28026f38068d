"""Emissions: the densities of the components, plain and rectified Gaussians.

A family of densities is a class of pure functions on tensors.  The log-density is linear in statistics ``phi`` of the
row, ``log p(x | k) = phi(x) . theta_k - a_k``: one matrix product per entry of ``phi`` scores all components, and one
more gives the weighted sums of the M-step.  EM depends on nothing else of a family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ._records import Record, Sums

# Components that hold less than this fraction of a row keep their parameters.
_LEAST_TOTAL = 1e-8
# The likelihood of a unit that is always zero in a word has no finite maximum.  With a mean four standard deviations
# below zero, the probability of zero is 0.99997.
_LEAST_RATIO = -4.0
# A fraction of positive rows below this is rounding error.
_LEAST_SHARE = 1e-12


class Parameters(NamedTuple):
    """Mean (K, d) and variance of each component, float64.

    The variance is (K, 1) if it is common to all channels and (1, d) if it is common to all components.
    """

    mean: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Statistics(Sums):
    """Sums over rows weighted by responsibility: `total` (K,) and one tensor per entry of phi.

    Entries of phi with parameters common to all components are summed over these: (1, d) in place of (K, d).
    """

    total: Tensor
    sums: tuple[Tensor, ...]

    @property
    def n_rows(self) -> float:
        """Total weight of the rows; 1 for averages."""
        return self.total.sum().item()

    def per_row(self) -> Statistics:
        """Return the averages over the rows."""
        n_rows = self.total.sum()
        return Statistics(self.total / n_rows, tuple(part / n_rows for part in self.sums))

    def per_component(self) -> tuple[Tensor, ...]:
        """Return a mask (K, 1) of the components with rows, and the average of each entry of phi over their rows."""
        total = self.total[:, None]
        return total > _LEAST_TOTAL, *(part / total.clamp_min(_LEAST_TOTAL) for part in self.sums)


@dataclass(frozen=True)
class DiagonalGaussian(Record):
    """Independent Gaussian channels, phi(x) = (x, x^2): the base of all families of densities.

    `floor` (d,), float64, is the smallest variance of each channel.
    """

    floor: Tensor
    # Whether rows may be shifted by their mean before they are squared.
    centred: ClassVar[bool] = True
    # Axis of variances (K, d) along which they are equal, and of length 1 in `Parameters`.
    tied_axis: ClassVar[int | None] = None

    def features(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return phi of `rows`, one tensor of n rows per entry."""
        return rows, rows.square()

    def natural(self, parameters: Parameters) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return theta, one tensor per entry of phi, and the log-normaliser a (K,)."""
        mean, variance = parameters
        normaliser = 0.5 * (mean.square() / variance + variance.log() + math.log(2 * math.pi)).sum(1)
        return (mean / variance, -0.5 / variance), normaliser

    def maximize(self, statistics: Statistics, parameters: Parameters) -> Parameters:
        """Return the most likely parameters; a component without rows keeps those in `parameters`."""
        has_rows, mean, square = statistics.per_component()
        mean = mean.where(has_rows, parameters.mean)
        return self.bounded(mean, self._spread(mean, square).where(has_rows, parameters.variance))

    def _spread(self, mean: Tensor, square: Tensor) -> Tensor:
        """Return the variances of components with average phi = (mean, square)."""
        return square - mean.square()

    def bounded(self, mean: Tensor, variance: Tensor) -> Parameters:
        """Return the nearest parameters that this family allows; common variances are averaged."""
        return Parameters(mean, variance.maximum(self.floor).expand_as(mean))

    def emit(self, hidden: Tensor) -> Tensor:
        """Return the rows that result from hidden Gaussian values."""
        return hidden

    def expect(self, parameters: Parameters) -> Tensor:
        """Return the mean row of every component, (K, d), less the shift."""
        return parameters.mean


class SphericalGaussian(DiagonalGaussian):
    """Gaussian channels with one variance per component, phi(x) = (x, sum of x^2); the floor is averaged."""

    tied_axis: ClassVar[int | None] = 1

    def features(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows, rows.square().sum(1, keepdim=True)

    def _spread(self, mean: Tensor, square: Tensor) -> Tensor:
        return (square - mean.square().sum(1, keepdim=True)) / mean.shape[1]

    def bounded(self, mean: Tensor, variance: Tensor) -> Parameters:
        return Parameters(mean, variance.mean(1, keepdim=True).expand(len(mean), 1).clamp_min(self.floor.mean()))


class TiedDiagonalGaussian(DiagonalGaussian):
    """Independent Gaussian channels with variances common to all components, phi(x) = (x, x^2)."""

    tied_axis: ClassVar[int | None] = 0

    def maximize(self, statistics: Statistics, parameters: Parameters) -> Parameters:
        has_rows, mean, _ = statistics.per_component()
        mean = mean.where(has_rows, parameters.mean)
        between = (statistics.total[:, None] * mean.square()).sum(0, keepdim=True)
        return self.bounded(mean, (statistics.sums[1] - between) / statistics.total.sum())

    def bounded(self, mean: Tensor, variance: Tensor) -> Parameters:
        return Parameters(mean, variance.mean(0, keepdim=True).maximum(self.floor))


class RectifiedGaussian(DiagonalGaussian):
    """Independent channels x = max(0, y) with Gaussian y, phi(x) = (x, x^2, 1[x = 0]).

    For x > 0 the log-density is that of y, for x = 0 it is log Phi(-mean / sd) [Konforti et al., "SIGN", IEEE TPAMI
    2023].  Means are at most four standard deviations below zero.
    """

    centred: ClassVar[bool] = False

    def features(self, rows: Tensor) -> tuple[Tensor, ...]:
        return rows, rows.square(), (rows == 0).to(rows.dtype)

    def natural(self, parameters: Parameters) -> tuple[tuple[Tensor, ...], Tensor]:
        mean, variance = parameters
        normaliser = 0.5 * (mean.square() / variance + variance.log() + math.log(2 * math.pi))
        zero = torch.special.log_ndtr(-mean / variance.sqrt()) + normaliser
        return (mean / variance, -0.5 / variance, zero), normaliser.sum(1)

    def maximize(self, statistics: Statistics, parameters: Parameters) -> Parameters:
        """Return the most likely parameters, without imputation of hidden values.

        The log-likelihood is concave in the ratio mean / sd and in 1 / sd (Olsen 1978, Econometrica 46(5)).  Given the
        ratio, the best 1 / sd has a closed form; the ratio is the root of a decreasing function, by bracketed Newton
        steps.
        """
        has_rows, x, square, zeros = statistics.per_component()
        slope = _Slope(x, square, zeros.clamp(0, 1), self.floor.rsqrt().expand_as(x))
        mean, variance = parameters
        ratio = slope.root(mean / variance.sqrt())
        precision = slope.precision(ratio)
        # Zeros do not determine the scale: keep the previous one.
        deviation = (1 / precision).where(slope.positive > _LEAST_SHARE, variance.maximum(self.floor).sqrt())
        return Parameters((ratio * deviation).where(has_rows, mean), deviation.square().where(has_rows, variance))

    def bounded(self, mean: Tensor, variance: Tensor) -> Parameters:
        variance = variance.maximum(self.floor).expand_as(mean)
        return Parameters(mean.maximum(_LEAST_RATIO * variance.sqrt()), variance)

    def emit(self, hidden: Tensor) -> Tensor:
        return hidden.clamp_min(0)

    def expect(self, parameters: Parameters) -> Tensor:
        """Return E[max(0, y)] = mean Phi(ratio) + sd phi(ratio), for every component and channel."""
        mean, deviation = parameters.mean, parameters.variance.sqrt()
        ratio = mean / deviation
        density = (-ratio.square() / 2).exp() / math.sqrt(2 * math.pi)
        return (mean * torch.special.ndtr(ratio) + deviation * density).clamp_min(0)


class _Slope:
    """Derivative of the log-likelihood per row in the ratio mean / sd, at the best sd for each ratio.

    `x`, `square` and `zeros` are averages of x, x^2 and 1[x = 0] over the rows; `most` is the maximum of 1 / sd.
    """

    def __init__(self, x: Tensor, square: Tensor, zeros: Tensor, most: Tensor) -> None:
        self.positive = 1 - zeros
        self._x, self._square, self._zeros, self._most = x, square, zeros, most

    def __getitem__(self, mask: Tensor) -> _Slope:
        return _Slope(self._x[mask], self._square[mask], self._zeros[mask], self._most[mask])

    def precision(self, ratio: Tensor) -> Tensor:
        """Return the best 1 / sd, the positive root of ``square p^2 - x ratio p - positive = 0``, within the floor."""
        half = self._x * ratio / 2
        root = (half.square() + self._square * self.positive).sqrt()
        # Each form of the root loses digits for one sign of the ratio.
        precision = torch.where(half > 0, (half + root) / self._square, self.positive / (root - half))
        return precision.nan_to_num(nan=math.inf).minimum(self._most)

    def root(self, ratio: Tensor) -> Tensor:
        """Return the root of the slope from the initial `ratio`, or the least ratio if the slope is negative."""
        low = torch.full_like(ratio, _LEAST_RATIO)
        highest = self._without_zeros().clamp_min(_LEAST_RATIO)
        # Rounding may put the root outside of the bracket.
        high = (highest + 1e-9 * (1 + highest.abs())).where(self(low)[0] > 0, low)
        root = ratio.clamp(low, high)
        pending = torch.ones_like(root, dtype=torch.bool)
        rest, ratio, low, high = self[pending], root[pending], low[pending], high[pending]
        for _ in range(100):
            slope, derivative = rest(ratio)
            low, high = ratio.where(slope > 0, low), high.where(slope > 0, ratio)
            newton = ratio - slope / derivative
            new_ratio = newton.where((newton >= low) & (newton <= high), (low + high) / 2)
            root[pending] = new_ratio
            far = (new_ratio - ratio).abs() > 1e-13 * (1 + ratio.abs())
            if not far.any():
                break
            # Most roots converge in a few steps; continue with the rest.
            pending[pending.clone()] = far
            rest, ratio, low, high = rest[far], new_ratio[far], low[far], high[far]
        return root

    def _without_zeros(self) -> Tensor:
        """Return the best ratio for the positive rows; zeros can only decrease it."""
        positive = self.positive.clamp_min(_LEAST_SHARE)
        mean = self._x / positive
        return mean / (self._square / positive - mean.square()).maximum(self._most.pow(-2)).sqrt()

    def __call__(self, ratio: Tensor) -> tuple[Tensor, Tensor]:
        precision = self.precision(ratio)
        hazard = math.sqrt(2 / math.pi) / torch.special.erfcx(ratio / math.sqrt(2))
        slope = self._x * precision - self.positive * ratio - self._zeros * hazard
        bend = self._x.square() / (self.positive / precision.square() + self._square)
        bend = bend.where(precision < self._most, 0).nan_to_num(nan=0)
        return slope, bend - self.positive - self._zeros * hazard * (hazard - ratio)


EMISSIONS: dict[tuple[str, str], type[DiagonalGaussian]] = {
    ("gaussian", "diag"): DiagonalGaussian,
    ("gaussian", "spherical"): SphericalGaussian,
    ("gaussian", "tied_diag"): TiedDiagonalGaussian,
    ("rectified", "diag"): RectifiedGaussian,
}


def family_of(emission: str, covariance_type: str) -> type[DiagonalGaussian]:
    """Return the class of a family of emissions; raise ValueError if there is none."""
    if (emission, covariance_type) not in EMISSIONS:
        raise ValueError(f"emission={emission!r} needs covariance_type='diag'; got {covariance_type!r}.")
    return EMISSIONS[emission, covariance_type]
