"""From counts to evidence: smoothed log-ratios, of all fitted images and of resamples of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

NO_EVIDENCE = 1e-9  # bits; smaller differences are rounding
Pair = tuple[str, str]


def log_ratios(counts: np.ndarray, smoothing: float, columns: np.ndarray | None = None) -> np.ndarray:
    """Return log2 P(t | s) / P(t) in bits, shape (..., K_upper, K_lower), from counts shrunk towards no evidence.

    With C the counts and b the smoothing, in window positions,

        P(t) = C[., t] / C[., .],   P(t | s) = (C[s, t] + b P(t)) / (C[s, .] + b).

    A word t never counted, and a row s without counts, give 0 bits; a pair never seen is never positive evidence.
    Where `counts` holds some rows only, `columns` are the sums C[., t] over all rows, shape (..., K_lower).
    """
    if columns is None:
        columns = counts.sum(-2)
    marginal = (columns / np.maximum(columns.sum(-1, keepdims=True), 1))[..., None, :]
    known = marginal > 0
    lift = (counts / np.where(known, marginal, 1) + smoothing) / (counts.sum(-1, keepdims=True) + smoothing)
    return np.log2(np.where(known, lift, 1))


@dataclass(frozen=True, eq=False)
class Evidence:
    """What the fitted images tell: log-ratios in T versions, the first from all of them, the others from resamples.

    Parameters
    ----------
    ratios : dict of (upper, lower) to float array of shape (K_upper, K_lower)
        From all images.
    counts : dict of (upper, lower) to int array of shape (K_upper, K_lower)
        What they come from.
    resampled : dict of (upper, lower) to int array of shape (K_upper, K_lower, n_bootstrap)
        Counts of resamples; empty without any.
    columns : dict of (upper, lower) to int array of shape (K_lower, n_bootstrap)
        Their sums over the upper words.
    smoothing : float
        As in :func:`log_ratios`.
    """

    ratios: Mapping[Pair, np.ndarray]
    counts: Mapping[Pair, np.ndarray]
    resampled: Mapping[Pair, np.ndarray]
    columns: Mapping[Pair, np.ndarray]
    smoothing: float

    @property
    def n_versions(self) -> int:
        """The number T of versions."""
        return 1 + next((counts.shape[-1] for counts in self.resampled.values()), 0)

    def rows(self, pair: Pair, words: np.ndarray) -> np.ndarray:
        """Return the log-ratios of some upper words, shape (T, len(words), K_lower)."""
        ratios = self.ratios[pair][words][None]
        if not self.resampled:
            return ratios
        counts, columns = np.moveaxis(self.resampled[pair][words], -1, 0), self.columns[pair].T
        return np.concatenate([ratios, log_ratios(counts, self.smoothing, columns)])

    def costs(self, pair: Pair, words: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return -log2 P(t | s) in bits for some lower words, all unless told, shape (K_upper, len(words)).

        A lower word that was never counted is taken as seen at one window position.
        """
        columns = np.maximum(self.counts[pair].sum(0), 1)
        return -np.log2(columns[words] / columns.sum()) - self.ratios[pair][:, words]
