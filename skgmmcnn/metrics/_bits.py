"""How many bits the word above tells of the words in its receptive field, over images that need not be fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ..dictionary import WordMaps
from ..features import ReceptiveField
from ..graph import InferenceGraph
from ..graph._counting import n_pairs_of, pair_chunks, spread
from ..graph._evidence import Pair
from ..graph._hierarchy import DECISION, maps_of
from ._intervals import Interval, interval
from ._measured import Figure, Measured
from ._parts import graph_of, take_apart

_CHUNK = 2**20  # pairs of locations looked up at a time


@dataclass(frozen=True, eq=False)
class PredictiveBits(Measured):
    """How much less surprising words are for who knows a word above them.

    Made by :func:`predictive_bits`.

    Parameters
    ----------
    by_image : dict of (upper, lower) to float array of shape (n,)
        For each pair of layers, ``("decision", top layer)`` among them, the mean of log2 P(lower | upper) -
        log2 P(lower) over all pairs of an upper location and a lower one in its field, in bits.
    without : dict of (upper, lower) to float
        The mean of -log2 P(lower) over the same pairs and all images: what there is to be told.
    intervals : dict of (upper, lower) to (float, float)
        The 2.5 and 97.5 percentiles of the mean over resamples of the images.
    """

    by_image: Mapping[Pair, np.ndarray]
    without: Mapping[Pair, float]
    intervals: Mapping[Pair, Interval]

    @property
    def bits(self) -> dict[Pair, float]:
        """The means over the images."""
        return {pair: float(values.mean()) for pair, values in self.by_image.items()}

    @property
    def mean(self) -> float:
        """The mean over the pairs of layers."""
        return float(np.mean(list(self.bits.values())))

    def figures(self) -> list[Figure]:
        return [
            Figure("predictive bits", f"{upper} > {lower}", bits, *interval, "high")
            for ((upper, lower), bits), interval in zip(self.bits.items(), self.intervals.values(), strict=True)
        ]

    def __str__(self) -> str:
        n_images = len(next(iter(self.by_image.values())))
        lines = [f"Over {n_images} images, each time that a location lies in a field of the word above,"]
        for (upper, lower), bits in self.bits.items():
            low, high = self.intervals[upper, lower]
            known = "the decision" if upper == DECISION else f"the word of {upper}"
            lines.append(
                f"{known} tells {bits:.2f} bits ({low:.2f} to {high:.2f}) of the {self.without[upper, lower]:.2f} "
                f"that the word of {lower} has."
            )
        return "\n".join(lines)


def predictive_bits(pipe: Any, X: Any, *, random_state: int | np.random.RandomState | None = None) -> PredictiveBits:
    """Tell how many bits the word above saves who guesses the words in its receptive field.

    Images that the pipeline was not fitted on tell whether what it counted holds elsewhere: then the mean of
    log2 P(lower | upper) - log2 P(lower) estimates the information that the layers' words share, less what the counted
    table is wrong by (the relative entropy of the true and the counted one) [1]_.  Over fitted images it is too high,
    and over images whose words are distributed otherwise, as those of one class, too: there the relative entropy of
    the true and the counted P(lower) is added.

    Parameters
    ----------
    pipe : Pipeline
        Fitted: extractor, words and :class:`InferenceGraph`, or the latter two.
    X : images or FeatureMaps
        Images that were not fitted; FeatureMaps, where the pipeline has no extractor.
    random_state : int, RandomState instance or None, default=None
        Draws the resamples of the intervals.

    Returns
    -------
    found : PredictiveBits
        Bits by pair of layers and image.

    Notes
    -----
    What is averaged are pairs (p, q) of an upper location p and a lower one q in its field, as the counts of the graph
    are: a lower location counts once for every field that it lies in.  The decision sees all locations of the top
    layers, so that ``("decision", top)`` tells the bits that the decision shares with the word of one location.

    Probabilities are those of the fitted graph, smoothed as :class:`InferenceGraph` says.  A lower word that was never
    counted, and an upper word without counts, tell 0 bits; a pair of counted words never seen together tells a
    negative number.  To `without`, a lower word never counted adds what one seen at one window position would.

    More words share more bits, until their tables are too thin for the images counted; bits of different layers and
    numbers of words compare as shares of `without` at best.

    References
    ----------
    .. [1] Cover and Thomas, "Elements of Information Theory", 2nd edition, 2006, theorem 5.4.3.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.metrics import predictive_bits
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv2", "conv3"])
    >>> pipe = make_pipeline(extractor, LayerDictionary(20, random_state=0), InferenceGraph()).fit(digits.images[:300])
    >>> found = predictive_bits(pipe, digits.test_images, random_state=0)
    >>> list(found.bits)
    [('decision', 'conv3'), ('conv3', 'conv2')]
    >>> found.bits["decision", "conv3"] > found.bits["conv3", "conv2"] > 0.3
    True
    """
    parts = take_apart(pipe, X)
    graph, words, random = graph_of(parts), parts.words(), check_random_state(random_state)
    by_image = bits_by_image(graph, words)
    return PredictiveBits(
        by_image, _without(graph, words), {pair: interval(values, random) for pair, values in by_image.items()}
    )


def bits_score(estimator: Any, X: Any, y: Any = None) -> float:
    """Score a fitted pipeline by the bits that words tell of those below them: a scorer, as scikit-learn takes it.

    The higher, the better; the mean over the pairs of layers, ``("decision", top layer)`` among them.

    Parameters
    ----------
    estimator : Pipeline
        As in :func:`predictive_bits`.
    X : images or FeatureMaps
        Images that were not fitted.
    y : object
        Ignored.

    Returns
    -------
    score : float
        In bits.

    Examples
    --------
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.pipeline import Pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.metrics import bits_score
    >>> digits = load_digits_network()
    >>> maps = FeatureExtractor(digits.network, layers=["conv2", "conv3"]).fit_transform(digits.images[:300]).compute()
    >>> pipe = Pipeline([("words", LayerDictionary(random_state=0)), ("graph", InferenceGraph())])
    >>> search = GridSearchCV(pipe, {"words__n_components": [2, 20]}, scoring=bits_score, cv=2).fit(maps)
    >>> search.best_params_
    {'words__n_components': 20}
    """
    parts = take_apart(estimator, X)
    return float(np.mean([values.mean() for values in bits_by_image(graph_of(parts), parts.words()).values()]))


def bits_by_image(graph: InferenceGraph, words: WordMaps) -> dict[Pair, np.ndarray]:
    """Return for each pair of layers the mean log-ratio over the pairs of locations of each image, (n,)."""
    found = {}
    for (upper, lower), field in graph._structure(words).fields.items():
        table = graph.log_ratios_[upper, lower]
        found[upper, lower] = _mean_by_image(maps_of(words, upper), words.words[lower], field, table)
    return found


def _without(graph: InferenceGraph, words: WordMaps) -> dict[Pair, float]:
    """Return for each pair of layers the mean of -log2 P(lower) over the pairs of locations of all images."""
    found = {}
    for (upper, lower), field in graph._structure(words).fields.items():
        counts = np.maximum(graph.transition_counts_[upper, lower].sum(0), 1)
        costs = -np.log2(counts / counts.sum())
        covers = spread(np.ones(maps_of(words, upper).shape[1:]), field)
        found[upper, lower] = float((costs[words.words[lower]] * covers).sum() / (len(words) * covers.sum()))
    return found


def _mean_by_image(upper: np.ndarray, lower: np.ndarray, field: ReceptiveField, table: np.ndarray) -> np.ndarray:
    """Return the mean of table[h_p, h_q] over the pairs (p, q in R(p)) of each image."""
    total = np.zeros(len(upper))
    for first, _, cells in pair_chunks(upper, lower, field, table.shape[1], _CHUNK):
        total[first : first + len(cells)] += table.ravel()[cells].sum((1, 2))
    return total / n_pairs_of(field)
