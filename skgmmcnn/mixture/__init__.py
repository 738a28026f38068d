"""Mixtures of Gaussians on rows of numbers."""

from ._em import Mixture
from ._estimator import MiniBatchGaussianMixture

__all__ = ["MiniBatchGaussianMixture", "Mixture"]
