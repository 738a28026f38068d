"""Mixtures to start with, and densities in loops."""

import numpy as np
import torch
from scipy.special import log_ndtr
from scipy.stats import norm

from skgmmcnn.mixture._em import Rows
from skgmmcnn.mixture._emissions import (
    DiagonalGaussian,
    RectifiedGaussian,
    SphericalGaussian,
    TiedDiagonalGaussian,
)
from skgmmcnn.mixture._solvers import Training, fit_em
from skgmmcnn.mixture._starts import moments, random_rows, start, variance_floor

FAMILIES = [DiagonalGaussian, SphericalGaussian, TiedDiagonalGaussian, RectifiedGaussian]


def supported(rows, family):
    """Rows that the family can describe."""
    return rows.clamp_min(0) if family is RectifiedGaussian else rows


def initial_mixture(rows, n_components=5, seed=0, share=1e-6, family=DiagonalGaussian):
    mean, variance = moments(rows)
    means = random_rows(rows, n_components, torch.Generator().manual_seed(seed))
    return start(means, family(variance_floor(variance, share)), mean, variance, rows)


def train(rows, mixture, max_iter=5, tol=0.0, weights=None, momentum=0.0):
    return fit_em(Rows(rows, weights), mixture, Training(max_iter, tol, momentum))


def e_step(rows, mixture, weights=None):
    return Rows(rows, weights).expect(mixture)


def naive_joint(rows, mixture):
    """log(weight_k p(x | k)) in a loop over components and channels, by scipy."""
    joint = np.empty((len(rows), len(mixture.weights_)))
    variances = np.broadcast_to(mixture.parameters.variance.numpy(), mixture.means_.shape)
    for k, (weight, mean, variance) in enumerate(zip(mixture.weights_, mixture.means_, variances, strict=True)):
        joint[:, k] = np.log(weight)
        for channel in range(rows.shape[1]):
            deviation = np.sqrt(variance[channel])
            density = norm.logpdf(rows[:, channel], mean[channel], deviation)
            if isinstance(mixture.emission, RectifiedGaussian):
                density = np.where(rows[:, channel] == 0, log_ndtr(-mean[channel] / deviation), density)
            joint[:, k] += density
    return joint
