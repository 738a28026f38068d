"""Whether words tell anything of decisions that the same words would not tell of shuffled ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ..dictionary import WordMaps, count_words
from ..graph import InferenceGraph
from ..graph._evidence import log_ratios
from ..graph._hierarchy import DECISION
from ._intervals import Interval, interval
from ._measured import Figure, Measured
from ._parts import graph_of, take_apart


@dataclass(frozen=True, eq=False)
class PermutationTest(Measured):
    """What words tell of the decisions, and of the same decisions shuffled among the images.

    Made by :func:`permutation_test`.

    Parameters
    ----------
    evidence : float
        Mean over the images of the evidence that the words of the uppermost layers give for the decision, in bits.
    interval : tuple (low, high)
        95 % interval of the evidence, over resamples of the images.
    null : array of shape (n_permutations,)
        The same for shuffled decisions.
    n_locations : int
        Locations of the uppermost layers in an image.
    n_images : int
        Number of images.
    """

    evidence: float
    interval: Interval
    null: np.ndarray
    n_locations: int
    n_images: int

    @property
    def bits(self) -> float:
        """The evidence of one location, in bits."""
        return self.evidence / self.n_locations

    @property
    def null_bits(self) -> np.ndarray:
        """The same for shuffled decisions, shape (n_permutations,)."""
        return self.null / self.n_locations

    @property
    def p_value(self) -> float:
        """Share of the shuffles, the true order among them, with at least the evidence for the true decisions."""
        return float((1 + (self.null >= self.evidence - 1e-9).sum()) / (1 + len(self.null)))

    def figures(self) -> list[Figure]:
        return [
            Figure("evidence for the decision (bits)", "decision", self.evidence, *self.interval, "high"),
            Figure("evidence for shuffled decisions (bits)", "decision", float(self.null.mean()), good="at most 0"),
            Figure("p of the evidence", "decision", self.p_value, good="near 0"),
        ]

    def __str__(self) -> str:
        verdict = "More than chance" if self.p_value <= 0.05 else "No more than chance"
        low, high = self.interval
        return (
            f"Over {self.n_images} images the words tell {self.evidence:.1f} bits of an image's decision ({low:.1f} to "
            f"{high:.1f}; {self.bits:.2f} per location); of shuffled decisions {self.null.mean():.1f} bits, at most "
            f"{self.null.max():.1f} in {len(self.null)} shuffles.  {verdict}: p = {self.p_value:.3g}."
        )


def permutation_test(
    pipe: Any,
    X: Any,
    y: Any = None,
    *,
    n_permutations: int = 200,
    n_splits: int = 5,
    random_state: int | np.random.RandomState | None = None,
) -> PermutationTest:
    """Shuffle the decisions among the images; what the same words then tell of them is chance.

    The words stay.  The images are divided into parts; the evidence for each image's decision comes from the counts of
    the other parts, so that it vanishes, or is negative, where words and decisions have nothing in common.  With true
    decisions it must be larger than with nearly all shuffled ones [1]_.

    Parameters
    ----------
    pipe : Pipeline
        Fitted: extractor, words and :class:`InferenceGraph`, or the latter two.  Of the graph, only the smoothing is
        used.
    X : images or FeatureMaps
        Images to count over; not those that discriminative words were fitted on, which have seen the decisions.
    y : array-like of shape (n,), default=None
        Output numbers or class names that are shuffled instead of the network's decisions.
    n_permutations : int, default=200
        Number of shuffles; no p-value is smaller than 1 / (1 + `n_permutations`).
    n_splits : int, default=5
        Number of parts.
    random_state : int, RandomState instance or None, default=None
        Draws parts and shuffles.

    Returns
    -------
    found : PermutationTest
        Evidence, that for shuffled decisions, and the p-value.

    References
    ----------
    .. [1] Ojala and Garriga, "Permutation tests for studying classifier performance", Journal of Machine Learning
       Research 11, 2010.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.metrics import permutation_test
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv3"])
    >>> pipe = make_pipeline(extractor, LayerDictionary(20, random_state=0), InferenceGraph()).fit(digits.images[:300])
    >>> found = permutation_test(pipe, digits.test_images, n_permutations=99, random_state=0)
    >>> found.p_value, bool(found.bits > 0.5), bool(found.null_bits.max() < 0.1)
    (0.01, True, True)
    """
    parts = take_apart(pipe, X)
    graph, words, random = graph_of(parts), parts.words(), check_random_state(random_state)
    decisions = words.decisions if y is None else words.spec.encode(y, len(words))
    _check(decisions, n_permutations, n_splits)
    _, classes = np.unique(decisions, return_inverse=True)
    tops = _counts(graph, words)
    folds = random.permutation(len(words)) % n_splits
    null = [_evidence(tops, random.permutation(classes), folds, graph.smoothing) for _ in range(n_permutations)]
    evidence = _evidence(tops, classes, folds, graph.smoothing)
    return PermutationTest(
        evidence=float(evidence.mean()),
        interval=interval(evidence, random),
        null=np.array([values.mean() for values in null]),
        n_locations=int(sum(counts[0].sum() for counts in tops)),
        n_images=len(words),
    )


def _check(decisions: np.ndarray, n_permutations: int, n_splits: int) -> None:
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1; got {n_permutations}.")
    if not 2 <= n_splits <= len(decisions):
        raise ValueError(f"n_splits must be between 2 and the number of images, {len(decisions)}; got {n_splits}.")
    if (decisions == decisions[0]).all():
        raise ValueError(
            f"All {len(decisions)} images have the class {decisions[0]}, so there is nothing to shuffle; give images "
            "of several classes."
        )


def _counts(graph: InferenceGraph, words: WordMaps) -> list[np.ndarray]:
    """Return how often each image shows each word of each uppermost layer, (n, K) by layer."""
    return [count_words(words.words[top], words.vocabulary.n_words[top]) for top in graph.explained_by_[DECISION]]


def _evidence(tops: list[np.ndarray], classes: np.ndarray, folds: np.ndarray, smoothing: float) -> np.ndarray:
    """Return the evidence of each image's words for its class, as counted over the other parts of the images, (n,)."""
    members, evidence = np.eye(classes.max() + 1)[classes], np.zeros(len(classes))
    for fold in range(folds.max() + 1):
        out = folds == fold
        for counts in tops:
            ratios = log_ratios(members[~out].T @ counts[~out], smoothing)
            evidence[out] += (counts[out] * ratios[classes[out]]).sum(1)
    return evidence
