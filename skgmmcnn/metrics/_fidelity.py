"""Agreement of the decisions of words and network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from ..features import log_proba
from ..graph import FEW_FITTED
from ._intervals import Estimate, share_of
from ._parts import take_apart
from ._results import Measurement, Result, Thresholds, Verdict

_AGREES = Thresholds(0.9, 0.7)
_COVERED = Thresholds(0.9, 0.5)


@dataclass(frozen=True, eq=False)
class Fidelity(Result):
    """The result of :func:`fidelity`."""

    agrees: np.ndarray
    divergence: np.ndarray
    temperature: float
    tempered_divergence: np.ndarray
    n_fitted: np.ndarray
    right: np.ndarray | None

    @property
    def agreement(self) -> Estimate:
        """Share of the images with the same decision of words and network."""
        return share_of(self.agrees)

    @property
    def coverage(self) -> Estimate:
        """Share of the images whose decision at least ten fitted images have."""
        return share_of(self.n_fitted >= FEW_FITTED)

    @property
    def accuracy(self) -> Estimate:
        """Share of right decisions of the network; NaN without y."""
        return Estimate(np.nan) if self.right is None else share_of(self.right)

    def agreement_of(self, right: bool) -> Estimate:
        """Return the agreement over right or wrong decisions of the network; NaN without such decisions."""
        return Estimate(np.nan) if self.right is None else share_of(self.agrees[self.right == right])

    def measurements(self) -> list[Measurement]:
        divergence = float(self.tempered_divergence.mean())
        measurements = [
            Measurement("agreement", "decision", *self.agreement, "near 1"),
            Measurement("divergence, tempered (bits)", "decision", divergence, good="near 0"),
            Measurement("coverage", "decision", *self.coverage, "near 1"),
        ]
        if self.right is not None:
            measurements += [
                Measurement("network right", "decision", *self.accuracy, "as known of the network"),
                Measurement("agreement, right decisions", "decision", *self.agreement_of(True), "near 1"),
                Measurement("agreement, wrong decisions", "decision", *self.agreement_of(False), "near 1"),
            ]
        return measurements

    def verdicts(self) -> list[Verdict]:
        agreement = self.agreement.value
        coverage = self.coverage.value
        few = "; counts are unreliable for the others: set evidence='influence'"
        return [
            _AGREES.verdict(
                "Do the words decide as the network?",
                agreement,
                f"for {agreement:.0%} of the images",
                partly="; show graphs only of images for which words and network agree",
                no="; do not rely on these graphs: fit more images of each class, or more words",
            ),
            _COVERED.verdict(
                "Were images of these decisions fitted?",
                coverage,
                f"for {coverage:.0%} of the images at least {FEW_FITTED} fitted images have the same decision",
                partly=few,
                no=few,
            ),
        ]


def fidelity(estimator: Any, X: Any, y: Any = None) -> Fidelity:
    """Compare the decisions of words and network.

    Words decide by naive Bayes over the locations of the uppermost layers.  Agreement is the share of images for which
    their class probabilities q and the probabilities p of the network have the same largest class; the divergence is
    sum_c p(c) log2 p(c) / q(c).  Locations depend on each other, which makes q overconfident; the tempered divergence
    uses q(c)^(1 / T), renormalised, with the T that minimises its mean.  Classes without fitted images are left out of
    both distributions, and count as disagreement.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, ending with an :class:`~skgmmcnn.InferenceGraph`, as in the example of :func:`trust_report`.
    X : images or FeatureMaps
        Images that the pipeline takes, or feature maps of a network.
    y : array-like of shape (n,), default=None
        True classes, as output numbers or class names, to compare right decisions with wrong ones.

    Returns
    -------
    fidelity : Fidelity
        `agrees` : bool array of shape (n,), whether both decisions are the same; `agreement` : its mean.
        `divergence`, `tempered_divergence` : arrays of shape (n,), in bits; `temperature` is T.  `n_fitted` : int array
        of shape (n,), number of fitted images with the decision of each image; `coverage` : share of images with at
        least ten.  With y also `right` and `accuracy` of the network, and ``agreement_of(right)``, the agreement over
        its right or wrong decisions.  Shares have 95 % intervals by Wilson's method.  If the accuracy is lower than
        known of the network, check the preprocessing.

    Notes
    -----
    Words decide by counts: see :meth:`InferenceGraph.predict`.  Graphs of counts depend on this agreement, graphs of
    influence do not.
    """
    parts = take_apart(estimator, X)
    parts.check_scores()
    graph = parts.graph
    words = parts.words
    evidence = graph.decision_function(words)
    network = np.concatenate([log_proba(batch.outputs).numpy(force=True) for batch in parts.maps.batches()])
    has_images = graph.class_counts_ > 0
    log_p = log_softmax(network[:, has_images], axis=1)
    scores = evidence[:, has_images] * np.log(2)
    optimum = minimize_scalar(
        lambda log_t: _divergence(log_p, scores / np.exp(log_t)).mean(), bounds=(-5, 12), method="bounded"
    )
    right = None if y is None else parts.maps.spec.encode(y, len(words)) == words.decisions
    agrees = graph.classes_[evidence.argmax(1)] == words.decisions
    return Fidelity(
        agrees=agrees,
        divergence=_divergence(log_p, scores),
        temperature=float(np.exp(optimum.x)),
        tempered_divergence=_divergence(log_p, scores / np.exp(optimum.x)),
        n_fitted=graph.class_counts_[words.decisions],
        right=right,
    )


def fidelity_score(estimator: Any, X: Any, y: Any = None) -> float:
    """Return the share of images with the same decision of words and network, a scorer for grid searches.

    Parameters
    ----------
    estimator : Pipeline
        Fitted, ending with an :class:`~skgmmcnn.InferenceGraph`.
    X : images or FeatureMaps
        Images that the pipeline takes, or feature maps of a network.
    y : object
        Ignored: words are compared with the network.

    Returns
    -------
    agreement : float
        Between 0 and 1.
    """
    parts = take_apart(estimator, X)
    return parts.graph.score(parts.words)


def _divergence(log_p: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return the divergence in bits of the distributions softmax(scores) from exp(log_p), by row."""
    p = np.exp(log_p)
    gap = log_p - log_softmax(scores, axis=1)
    return np.where(p > 0, p * gap, 0).sum(1) / np.log(2)
