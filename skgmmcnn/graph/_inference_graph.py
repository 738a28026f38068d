"""InferenceGraph: words in, graphs out."""

from __future__ import annotations

import itertools
from numbers import Integral, Real
from typing import Any, ClassVar

import networkx as nx
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from .._compat import Interval, fit_context
from .._distributed import gathered, my_share
from ..dictionary import WordMaps, count_words
from ._building import build_graph
from ._counting import count_pairs
from ._evidence import DECISION, Step, log_ratios, walk


class InferenceGraph(TransformerMixin, BaseEstimator):
    """Explain decisions by the visual words that speak for them, layer by layer.

    :meth:`fit` counts which words of a layer lie in the receptive fields of each word of the layer above, and which
    words of the top layer go with each decision of the network.  :meth:`explain` starts at a decision and walks down:
    it keeps the few words that best explain those kept above [1]_.

    Parameters
    ----------
    n_nodes : int, default=3
        Most words to keep per layer.
    smoothing : float, default=1.0
        Strength of the belief that a pair of words is no evidence, in window positions; greater than 0.

    Attributes
    ----------
    classes_ : int array of shape (n_outputs,)
        The network's outputs, in order.
    class_counts_ : int array of shape (n_outputs,)
        Number of fitted images that the network decided for each.
    layers_ : tuple of str
        The layers, in network order.
    transition_counts_ : dict of (upper, lower) to int array of shape (K_upper, K_lower)
        How often each lower word was seen in a field of each upper word.  The uppermost pair is
        ``("decision", layers_[-1])``.
    log_ratios_ : dict of (upper, lower) to float array of shape (K_upper, K_lower)
        Evidence of a lower word for an upper one, log2 P(t | s) / P(t), in bits per location.

    See Also
    --------
    InferenceGraphDisplay : Draws the graphs.

    Notes
    -----
    With C the counts and b the smoothing, P(t) = C[., t] / C[., .] and P(t | s) = (C[s, t] + b P(t)) / (C[s, .] + b).
    Counts add up: :meth:`partial_fit` on parts of the images equals :meth:`fit` on all.

    References
    ----------
    .. [1] Konforti, Shpigler, Lerner and Bar-Hillel, "Inference Graphs for CNN Interpretation", ECCV 2020, section 3.3.

    Examples
    --------
    >>> from sklearn.pipeline import Pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> digits = load_digits_network()
    >>> pipe = Pipeline([
    ...     ("features", FeatureExtractor(digits.network, layers=["conv2", "conv3"])),
    ...     ("words", LayerDictionary(30, random_state=0)),
    ...     ("graph", InferenceGraph(n_nodes=2)),
    ... ]).fit(digits.images)
    >>> words = pipe[:-1].transform(digits.test_images[:1])
    >>> graph, = pipe["graph"].explain(words)
    >>> graph.number_of_nodes()
    5
    """

    _parameter_constraints: ClassVar[dict] = {
        "n_nodes": [Interval(Integral, 1, None, closed="left")],
        "smoothing": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(self, n_nodes: int = 3, *, smoothing: float = 1.0) -> None:
        self.n_nodes = n_nodes
        self.smoothing = smoothing

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: WordMaps, y: Any = None) -> InferenceGraph:
        """Count words in receptive fields, and words with decisions.

        Parameters
        ----------
        X : WordMaps
            Words of the images to learn from.
        y : array-like of shape (n,), default=None
            Output numbers or class names.  Only checked: the graph explains what the network decides.

        Returns
        -------
        self : InferenceGraph
            The fitted estimator.
        """
        return self._add(X, y, first=True)

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: WordMaps, y: Any = None) -> InferenceGraph:
        """Add the counts of more images; the order and the parts do not matter.

        Parameters
        ----------
        X : WordMaps
            Words of further images, of the same dictionary.
        y : array-like of shape (n,), default=None
            Output numbers or class names; only checked.

        Returns
        -------
        self : InferenceGraph
            The estimator with these images counted.
        """
        return self._add(X, y, first=not hasattr(self, "transition_counts_"))

    def _add(self, words: WordMaps, y: Any, *, first: bool) -> InferenceGraph:
        _check_container(words)
        if y is not None:
            words.spec.encode(y, len(words))
        _check_order(words)
        if first:
            self._start(words)
        self._check_words(words)
        transitions = _count_together(words)
        self.class_counts_ += np.bincount(words.decisions, minlength=len(self.classes_))
        for pair, counts in transitions.items():
            self.transition_counts_[pair] = self.transition_counts_[pair] + counts
        self.log_ratios_ = {
            pair: log_ratios(counts, self.smoothing) for pair, counts in self.transition_counts_.items()
        }
        return self

    def _start(self, words: WordMaps) -> None:
        self.layers_ = words.layers
        self.classes_ = np.arange(words.spec.n_outputs)
        self.class_counts_: np.ndarray = np.zeros(words.spec.n_outputs, dtype=np.int64)
        self.transition_counts_: dict[tuple[str, str], Any] = dict.fromkeys(_pairs(words.layers), np.int64(0))
        self._fingerprint = words.vocabulary.fingerprint
        self._names = words.vocabulary.keys()

    def explain(self, X: WordMaps) -> list[nx.DiGraph]:
        """Return for each image the graph that explains the network's decision.

        Parameters
        ----------
        X : WordMaps
            Words of the images to explain.

        Returns
        -------
        graphs : list of networkx.DiGraph
            One per image.  Nodes are ``"decision_<output>"`` and words as ``"layer3_w017"``, with `layer`, `word`,
            `score` (bits), `count` and `n_locations` (locations that show the word, of all); the decision has
            `class_name` and `n_fitted` (fitted images with it), words that a person named `word_name`.  Edges lead from
            a word to what it explains, with `log_ratio` (bits per location), `count`, `frequency` (share of the upper
            word's fields) and `contribution` (bits).
        """
        self._check_words(X)
        return [self._explain(X[i], int(decision)) for i, decision in enumerate(X.decisions)]

    def explain_class(self, X: WordMaps, label: int | str) -> nx.DiGraph:
        """Return one graph for all images that the network decides to be of one class.

        Parameters
        ----------
        X : WordMaps
            Words of the images to choose from.
        label : int or str
            The output, by number or name.

        Returns
        -------
        graph : networkx.DiGraph
            As from :meth:`explain`, with counts over all chosen images.
        """
        self._check_words(X)
        target = X.spec.class_index(label)
        rows = np.flatnonzero(X.decisions == target)
        if not len(rows):
            raise ValueError(
                f"The network decides for class {X.spec.class_name(target)!r} ({target}) in none of {len(X)} images; "
                f"it does for {sorted(map(X.spec.class_name, np.unique(X.decisions)))[:10]}."
            )
        return self._explain(X[rows], target)

    def predict(self, X: WordMaps) -> np.ndarray:
        """Return the decision that the words of the top layer speak for.

        Parameters
        ----------
        X : WordMaps
            Words of n images.

        Returns
        -------
        outputs : int array of shape (n,)
            The output c with the largest log2 P(c) + sum of log-ratios over the top layer's locations; an output
            without fitted images is never predicted.
        """
        self._check_words(X)
        top = self.layers_[-1]
        counts = count_words(X.words[top], X.vocabulary.n_words[top])
        with np.errstate(divide="ignore"):
            prior = np.log2(self.class_counts_ / self.class_counts_.sum())
        return self.classes_[(counts @ self.log_ratios_[DECISION, top].T + prior).argmax(1)]

    def transform(self, X: WordMaps) -> np.ndarray:
        """Return the evidence of every word for each image's decision.

        Parameters
        ----------
        X : WordMaps
            Words of n images.

        Returns
        -------
        evidence : float array of shape (n, sum of K over the layers)
            The score of each word in the walk from the decision, in bits; columns as in :meth:`get_feature_names_out`.
        """
        self._check_words(X)
        evidence = np.empty((len(X), len(self._names)))
        for i, decision in enumerate(X.decisions):
            steps = self._walk(X[i], int(decision))
            evidence[i] = np.concatenate([step.scores for step in reversed(steps)])
        return evidence

    def score(self, X: WordMaps, y: Any = None) -> float:
        """Return the share of images for which :meth:`predict` agrees with `y`, or with the network without y.

        Parameters
        ----------
        X : WordMaps
            Words of n images.
        y : array-like of shape (n,), default=None
            Output numbers or class names.

        Returns
        -------
        agreement : float
            Between 0 and 1.
        """
        predicted = self.predict(X)
        expected = X.decisions if y is None else X.spec.encode(y, len(X))
        return float((predicted == expected).mean())

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Return the identifiers of all words, the columns of :meth:`transform`.

        Parameters
        ----------
        input_features : object
            Ignored.

        Returns
        -------
        names : array of str
            Layer and word, as ``"layer3_w017"``.
        """
        check_is_fitted(self)
        return np.asarray(self._names, dtype=object)

    def _walk(self, words: WordMaps, target: int) -> list[Step]:
        return walk(words, target, self.log_ratios_, self.n_nodes)

    def _explain(self, words: WordMaps, target: int) -> nx.DiGraph:
        return build_graph(words, target, self._walk(words, target), self.log_ratios_, int(self.class_counts_[target]))

    def _check_words(self, words: WordMaps) -> None:
        check_is_fitted(self)
        _check_container(words)
        if words.vocabulary.fingerprint != self._fingerprint:
            raise ValueError(
                "These words come from another dictionary than the one that this InferenceGraph was fitted with; use "
                "the words of that dictionary, or fit again."
            )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


def _pairs(layers: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the pairs (upper, lower) of adjacent layers, the uppermost being the decision."""
    descending = [DECISION, *reversed(layers)]
    return list(itertools.pairwise(descending))


def _count_transitions(words: WordMaps) -> dict[tuple[str, str], np.ndarray]:
    n_words = words.vocabulary.n_words
    (_, top), *pairs = _pairs(words.layers)
    decided = np.zeros((words.spec.n_outputs, n_words[top]), dtype=np.int64)
    np.add.at(decided, words.decisions, count_words(words.words[top], n_words[top]))
    counts = {(DECISION, top): decided}
    for upper, lower in pairs:
        field = words.spec.receptive_fields[upper, lower]
        counts[upper, lower] = count_pairs(
            words.words[upper], words.words[lower], field, n_words[upper], n_words[lower]
        )
    return counts


def _count_together(words: WordMaps) -> dict[tuple[str, str], np.ndarray]:
    """Count, divided among the processes of ``torch.distributed``."""
    parts = gathered(_count_transitions(words[my_share(len(words))]))
    return {pair: sum(part[pair] for part in parts) for pair in parts[0]}


def _check_container(words: Any) -> None:
    if not isinstance(words, WordMaps):
        raise TypeError(
            f"InferenceGraph reads WordMaps, as LayerDictionary.transform returns them for FeatureMaps; got a "
            f"{type(words).__name__}. In a pipeline: pipe[:-1].transform(images)."
        )
    if not len(words):
        raise ValueError("There are no images in these WordMaps.")


def _check_order(words: WordMaps) -> None:
    for upper, lower in _pairs(words.layers)[1:]:
        if (upper, lower) not in words.spec.receptive_fields:
            raise ValueError(
                f"Layer {upper!r} does not depend on layer {lower!r} (they are in parallel branches); choose layers of "
                "which each depends on the one below it."
            )
