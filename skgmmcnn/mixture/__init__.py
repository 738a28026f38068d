"""Mixtures of densities on rows of numbers, fitted by expectation maximisation."""

from ._em import (
    Assignment,
    Expectation,
    Fitted,
    Mixture,
    OnlineState,
    Scorer,
    fit_em,
    online_step,
    start,
    variance_floor,
)
from ._emissions import DiagonalGaussian

__all__ = [
    "Assignment",
    "DiagonalGaussian",
    "Expectation",
    "Fitted",
    "Mixture",
    "OnlineState",
    "Scorer",
    "fit_em",
    "online_step",
    "start",
    "variance_floor",
]
