"""Mixtures of Gaussians on rows of numbers."""

from ._em import Assignment, Expectation, Mixture, Scorer, dead_and_heavy, responsibilities
from ._emissions import Statistics
from ._estimator import DiagonalGaussianMixture
from ._families import EMISSIONS
from ._rectified import RectifiedGaussian
from ._sampling import sampling
from ._solvers import (
    Descent,
    Fitted,
    OnlineState,
    Rows,
    Schedule,
    Training,
    fit_em,
    fit_online,
    in_blocks,
    online_pass,
    online_step,
    train,
)
from ._starts import STARTS, check_scale, moments, start, variance_floor

__all__ = ["DiagonalGaussianMixture", "Mixture"]
