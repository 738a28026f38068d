"""From counts to evidence: smoothed log-ratios."""

from __future__ import annotations

import numpy as np

NO_EVIDENCE = 1e-9  # bits; smaller differences are rounding
Pair = tuple[str, str]  # upper and lower layer


def log_ratios(counts: np.ndarray, smoothing: float) -> np.ndarray:
    """Return log2 P(t | s) / P(t) in bits, shape (..., K_upper, K_lower), from counts shrunk towards no evidence.

    With C the counts and b the smoothing, in window positions,

        P(t) = C[., t] / C[., .],   P(t | s) = (C[s, t] + b P(t)) / (C[s, .] + b).

    A word t never counted, and a row s without counts, give 0 bits; a pair never seen is never positive evidence.
    """
    columns = counts.sum(-2, keepdims=True)
    marginal = columns / np.maximum(columns.sum(-1, keepdims=True), 1)
    known = marginal > 0
    lift = (counts / np.where(known, marginal, 1) + smoothing) / (counts.sum(-1, keepdims=True) + smoothing)
    return np.log2(np.where(known, lift, 1))
