"""Gaussian mixtures with diagonal covariances."""

from ._em import Assignment, Expectation, Mixture, Rows, Scorer, dead_and_heavy, in_blocks, responsibilities, sampling
from ._emissions import EMISSIONS, Statistics, family_of
from ._estimator import DiagonalGaussianMixture
from ._records import Record, Sums
from ._solvers import SOLVERS, Descent, Fitted, OnlineState, Trained, Training, online_pass, online_step
from ._starts import STARTS, check_scale, moments, start, variance_floor

__all__ = ["DiagonalGaussianMixture"]
