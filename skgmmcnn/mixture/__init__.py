"""Mixtures of Gaussians on rows of numbers."""

from ._em import Mixture
from ._estimator import DiagonalGaussianMixture

__all__ = ["DiagonalGaussianMixture", "Mixture"]
