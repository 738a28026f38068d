"""Estimator that explains decisions by words; the architecture page follows a call of `explain` through the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from numbers import Integral, Real
from operator import add
from typing import Any, ClassVar

import networkx as nx
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from .._compat import Interval, StrOptions, fit_context
from .._distributed import all_gather, local_slice
from ..dictionary import WordMaps, count_words
from ..features import ReceptiveField
from ._building import build_graphs
from ._count_tables import Counts, coverage, log_ratios
from ._evidence import ENOUGH, N_NODES
from ._hierarchy import DECISION, EFFECTIVE, FIELDS, WHOLE, Hierarchy, effective_fields
from ._kinds import AUTO, KINDS, evidence_for
from ._occlusion import check_graphs
from ._targets import Target, targets_of


class InferenceGraph(TransformerMixin, BaseEstimator):
    """Explain decisions by the visual words that led to them, layer by layer.

    :meth:`explain` measures in the network the contribution of each word to a decision, keeps the few words of each
    layer that contributed most, and measures the exact effects of ablating each of them, and the contribution of each
    to the words above (``evidence="influence"``).  Or it keeps the words that go together with the decision in the
    fitted images [1]_ (``evidence="counts"``); this needs no network.  :meth:`fit` counts words for the latter, and for
    :meth:`predict` and :meth:`score`; it never runs the network.

    Parameters
    ----------
    n_nodes : int, dict of str to int, or "enough", default=3
        Most words to keep, of every layer or by layer name.  "enough": for each image the smallest number of words of
        every layer, at most 20, by influence, that keep the decision without any other.
    evidence : {"auto", "influence", "counts"}, default="auto"
        Evidence of graphs: influence, of the words that the network used, in nats; or counts, of the words that go
        together in the fitted images, in bits.  "auto": influence of words that have a network, counts of others.
    n_against : int, default=0
        Most words of a layer to keep that spoke against the target; only under influence.
    n_steps : int, default=4
        Segments of the path along which influence is integrated.
    max_images : int, default=100
        Most images that a graph of many images asks the network about, drawn by `random_state`.
    smoothing : float, default=1.0
        Pseudo-count, in window positions, that shrinks every log-ratio towards zero; greater than 0.  The number of
        locations of an image tempers contrasts, since the locations of one image resemble each other.
    fields : {"effective", "whole"}, default="effective"
        Windows in which lower words count for an upper one: its effective fields, the origin of most of its activity,
        or its whole receptive fields, which are also taken if effective ones could not be measured; see `fields_`.
    verbose : int, default=0
        Whether :meth:`fit` prints the number of decisions for classes with at least ten fitted images, and the share of
        decisions that the words predict, with y also of right and wrong ones.
    random_state : int, RandomState instance or None, default=None
        Draws images for graphs of many, and resamples of them.

    Attributes
    ----------
    evidence_ : {"influence", "counts"}
        Evidence of graphs of words like the fitted ones.
    classes_ : int array of shape (n_outputs,)
        The network's outputs, in order.
    class_counts_ : int array of shape (n_outputs,)
        Number of fitted images that the network decided for each.
    layers_ : tuple of str
        The layers, in network order.
    explained_by_ : dict of str to tuple of str
        For ``"decision"`` and each layer, from the top down, the layers that explain it.
    fields_ : {"effective", "whole"}
        The fields of counts and graphs.
    transition_counts_ : dict of (upper, lower) to int array of shape (K_upper, K_lower)
        Number of locations of each lower word in the fields of each upper word, for all pairs of `explained_by_`; the
        uppermost ones are ``("decision", layer)``.
    log_ratios_ : dict of (upper, lower) to float array of shape (K_upper, K_lower)
        Evidence of a lower word for an upper one, log2 P(t | s) / P(t), in bits per location.

    See Also
    --------
    InferenceGraphDisplay : Draws the graphs.

    Notes
    -----
    The influence of a word is the sum over its locations of the integrated gradients of the log-odds [2]_.  Words are
    tried in the order of salience, the influence divided by the square root of the number of locations, and an edge is
    drawn if its exact effect (path patching) agrees with the flow in sign and is at least 2 % of the influence of the
    upper word.  Counts say more in effective fields than in receptive fields, which deep in a network are nearly the
    whole map [3]_.  A layer is explained by the layers that it depends on without another modelled layer between, the
    decision by the layers on which no other modelled layer depends.

    References
    ----------
    .. [1] Konforti, Shpigler, Lerner and Bar-Hillel, "Inference Graphs for CNN Interpretation", ECCV 2020, section 3.3.
    .. [2] Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks", ICML 2017.
    .. [3] Luo, Li, Urtasun and Zemel, "Understanding the effective receptive field in deep convolutional neural
       networks", NIPS 2016.

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
        "n_nodes": [Interval(Integral, 1, None, closed="left"), dict, StrOptions({ENOUGH})],
        "evidence": [StrOptions({AUTO, *KINDS})],
        "n_against": [Interval(Integral, 0, None, closed="left")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "max_images": [Interval(Integral, 2, None, closed="left")],
        "smoothing": [Interval(Real, 0, None, closed="neither")],
        "fields": [StrOptions(set(FIELDS))],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_nodes: int | Mapping[str, int] | str = N_NODES,
        *,
        evidence: str = AUTO,
        n_against: int = 0,
        n_steps: int = 4,
        max_images: int = 100,
        smoothing: float = 1.0,
        fields: str = EFFECTIVE,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_nodes = n_nodes
        self.evidence = evidence
        self.n_against = n_against
        self.n_steps = n_steps
        self.max_images = max_images
        self.smoothing = smoothing
        self.fields = fields
        self.verbose = verbose
        self.random_state = random_state

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: WordMaps, y: Any = None) -> InferenceGraph:
        """Count words in the fields of others, and with decisions.

        Parameters
        ----------
        X : WordMaps
            Words of the images to learn from.
        y : array-like of shape (n,), default=None
            Output numbers or class names.  Only checked: graphs explain the decisions of the network.

        Returns
        -------
        self : InferenceGraph
            The fitted estimator.
        """
        _check_container(X)
        labels = None if y is None else X.spec.encode(y, len(X))
        effective = effective_fields(X.spec) if self.fields == EFFECTIVE else None
        hierarchy = Hierarchy.of(X.spec, effective or {})
        evidence = evidence_for(self, X, hierarchy)
        counts = _count(X, hierarchy)
        self.layers_ = X.layers
        self.explained_by_ = dict(hierarchy.below)
        self.evidence_ = evidence.name
        self.fields_ = WHOLE if effective is None else EFFECTIVE
        self._effective = effective or {}  # empty if counts are over whole fields
        self.classes_ = np.arange(X.spec.n_outputs)
        self._seed = all_gather(int(check_random_state(self.random_state).randint(2**31)))[0]
        self._fingerprint, self._names = X.vocabulary.fingerprint, X.vocabulary.keys()
        self._shapes = {layer: X.words[layer].shape[1:] for layer in X.layers}
        self._set_counts(*counts)
        if self.verbose:
            print(f"InferenceGraph: {coverage(X, self.class_counts_, self.predict(X), labels)}")
        return self

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
        if not hasattr(self, "transition_counts_"):
            return self.fit(X, y)
        self._check_words(X)
        if (self.fields, self.fields_) == (WHOLE, EFFECTIVE):
            raise ValueError(
                "The images so far were counted in effective receptive fields, which cannot change in partial_fit; fit "
                "again."
            )
        if y is not None:
            X.spec.encode(y, len(X))
        self._set_counts(self._counts(), *_count(X, evidence_for(self, X).hierarchy))
        return self

    def merge(self, *others: InferenceGraph) -> InferenceGraph:
        """Add the counts of other fitted estimators.

        Parameters
        ----------
        *others : InferenceGraph
            Fitted on other images with words of the same dictionary.

        Returns
        -------
        self : InferenceGraph
            The estimator with the images of all counted.
        """
        check_is_fitted(self)
        for other in others:
            check_is_fitted(other)
            if other is self:
                raise ValueError("merge adds the counts of other images; this is the same estimator, counted already.")
            self._check_fingerprint(other._fingerprint)
            self._check_fields(other)
        self._set_counts(self._counts(), *(other._counts() for other in others))
        return self

    def _counts(self) -> Counts:
        return Counts(self.class_counts_, self.transition_counts_)

    def _set_counts(self, *parts: Counts) -> None:
        counted = reduce(add, parts)
        self.class_counts_ = counted.classes
        self.transition_counts_ = counted.transitions
        self.log_ratios_ = {pair: log_ratios(counts, self.smoothing) for pair, counts in counted.transitions.items()}

    def explain(
        self, X: WordMaps, target: Target = None, *, contrast: int | str | Sequence[int | str] | None = None
    ) -> list[nx.DiGraph]:
        """Return for each image the graph that explains the network's decision, or another target.

        Parameters
        ----------
        X : WordMaps
            Words of the images to explain.
        target : int, str or tuple, default=None
            The network's decision by default; another output, by number or name; a word, ``(layer, word)`` or by its
            key or name, as ``"layer3_w017"``; or the word at one location, ``(layer, row, column)``.
        contrast : int, str or array-like of shape (n,), default=None
            An output, by number or name, with which a decision is contrasted: the graph shows the words that made it
            the target rather than this.  Or one output for each image, as the true classes of wrong decisions.

        Returns
        -------
        graphs : list of networkx.DiGraph
            One per image.  Nodes are ``"decision_<output>"`` and words as ``"layer3_w017"``, with `layer`, `word`,
            `count` and `n_locations` (locations that show the word, of all) and `depth` (steps from the decision); the
            decision has `class_name`, named words `word_name`.  Edges lead from a word to the word or decision that it
            explains.  ``graph.graph`` has `evidence`, `root` (the key of the target), `target`, `class_name`,
            `contrast` and `contrast_name`.

            Under influence ``graph.graph`` has `margin` (m in nats), ``baseline_margin_<layer>``, `probability` of the
            target, `decision`, `decision_name`, `runner_up`, `runner_up_name`, `runner_up_probability`, `held` (whether
            the words kept, and nothing else in the modelled layers, keep the decision) and `enough` (the number of
            words of every layer, under ``n_nodes="enough"``).  Words have `influence` (nats), `share` (of m less its
            baseline), `effect` (nats, exact), `probability_without`, `decision_without`, `class_without`, and
            `background`, the share of their contribution that comes from no word below.  Edges have `flow` (nats, to
            first order), `share` (of the contribution of the upper word) and `effect` (nats, exact).

            Under counts words have `score` (bits), the decision `n_fitted` (fitted images with it); edges have
            `log_ratio` (bits per location), `count`, `frequency` (share of the upper word's fields) and `contribution`
            (bits).

        Raises
        ------
        ValueError
            If words have no network and `evidence` is "influence"; if the outputs are not scores or have no gradient;
            if the target is unknown, or contrasted with itself.
        """
        return self._explain(X, target, contrast)

    def explain_together(self, X: WordMaps, target: Target, *, contrast: int | str | None = None) -> nx.DiGraph:
        """Return one graph for all images together.

        Parameters
        ----------
        X : WordMaps
            Words of any images, as ``words[rows]``.
        target : int, str or tuple
            An output, by number or name, whatever the network decided; or a word, as in :meth:`explain`.
        contrast : int or str, default=None
            As in :meth:`explain`.

        Returns
        -------
        graph : networkx.DiGraph
            As from :meth:`explain`.  Under influence with means over at most `max_images` images (`n_explained`), the
            interval of the mean influence over resamples of these (`low`, `high`), the share of images in which a word
            is among the most salient ones (`selected`), and in which the decision changes without it (`changed`).
            Words of a class are chosen by their influence per location, times their frequency in the fitted images of
            the class.
        """
        return self._explain(X, target, contrast, together=True)[0]

    def _explain(self, words: WordMaps, target: Target, contrast: Any, *, together: bool = False) -> list[nx.DiGraph]:
        self._check_words(words)
        targets = targets_of(words, target, contrast, together=together)
        evidence = evidence_for(self, words)
        return build_graphs(evidence, targets, evidence.select(targets))

    def explain_class(self, X: WordMaps, target: int | str, *, contrast: int | str | None = None) -> nx.DiGraph:
        """Return one graph for all images with the same decision.

        Parameters
        ----------
        X : WordMaps
            Words of the images to choose from.
        target : int or str
            The output, by number or name.
        contrast : int or str, default=None
            As in :meth:`explain`.

        Returns
        -------
        graph : networkx.DiGraph
            As from :meth:`explain_together`.
        """
        self._check_words(X)
        output = X.spec.class_index(target)
        rows = np.flatnonzero(X.decisions == output)
        if not len(rows):
            raise ValueError(
                f"None of the {len(X)} images has the decision {X.spec.class_name(output)!r} ({output}); the decisions "
                f"are {sorted(map(X.spec.class_name, np.unique(X.decisions)))[:10]}."
            )
        return self.explain_together(X[rows], output, contrast=contrast)

    def check(self, X: WordMaps, graphs: Sequence[nx.DiGraph]) -> list[nx.DiGraph]:
        """Check graphs of images by hiding the places of the words kept in the images themselves.

        The places of the words of the uppermost layers that support the target are filled with the mean colour of the
        image; then, to compare, places of the same shape elsewhere.  The network used these places only if hiding them
        costs more of the probability.

        Parameters
        ----------
        X : WordMaps
            Words of n images that were made with a network.
        graphs : list of networkx.DiGraph
            The graph of each image, from :meth:`explain`, of an output.

        Returns
        -------
        graphs : list of networkx.DiGraph
            The same graphs, with `probability_hidden`, `probability_hidden_elsewhere` (the mean over eight other
            places) and `share_hidden`, the share of the pixels, in ``graph.graph``.
        """
        self._check_words(X)
        check_graphs(X, graphs, self._seed)
        return list(graphs)

    def select(self, X: WordMaps, *, by: str = "image") -> dict[str, np.ndarray]:
        """Return the words of the graphs of decisions, without the graphs.

        Parameters
        ----------
        X : WordMaps
            Words of n images.
        by : {"image", "class"}, default="image"
            Graphs of single images, as in :meth:`explain`, or of all images in X with the same decision, as in
            :meth:`explain_class`.

        Returns
        -------
        kept : dict of str to bool array of shape (n, K)
            By layer, whether the graph of each image keeps each word.
        """
        if by not in ("image", "class"):
            raise ValueError(f"by must be 'image' or 'class'; got {by!r}.")
        self._check_words(X)
        kept = {layer: np.zeros((len(X), X.vocabulary.n_words[layer]), dtype=bool) for layer in X.layers}
        if by == "image":
            images: list[Any] = list(range(len(X)))
            selections = evidence_for(self, X).select(targets_of(X))
        else:
            images = [np.flatnonzero(X.decisions == output) for output in np.unique(X.decisions)]
            of_class = [X[rows] for rows in images]
            selections = [evidence_for(self, part).select(targets_of(part, together=True))[0] for part in of_class]
        for rows, selection in zip(images, selections, strict=True):
            for layer, word in selection.words:
                kept[layer][rows, word] = True
        return kept

    def receptive_fields(self, X: WordMaps) -> dict[tuple[str, str], ReceptiveField]:
        """Return the windows in which lower words count for upper ones.

        Parameters
        ----------
        X : WordMaps
            Words of n images.

        Returns
        -------
        fields : dict of (upper, lower) to ReceptiveField
            For all pairs of `explained_by_`; the field of the decision is the whole map.
        """
        self._check_words(X)
        return dict(self._hierarchy(X).fields)

    def decision_function(self, X: WordMaps) -> np.ndarray:
        """Return the evidence of the words of the uppermost layers for each output.

        Parameters
        ----------
        X : WordMaps
            Words of n images.

        Returns
        -------
        evidence : float array of shape (n, n_outputs)
            Of each output c, log2 P(c) + sum of log-ratios over the locations of the layers that explain the decision,
            in bits; minus infinity where there are no fitted images.
        """
        self._check_words(X)
        with np.errstate(divide="ignore"):
            evidence = np.log2(self.class_counts_ / self.class_counts_.sum())
        for top in self.explained_by_[DECISION]:
            counts = count_words(X.words[top], X.vocabulary.n_words[top])
            evidence = evidence + counts @ self.log_ratios_[DECISION, top].T
        return evidence

    def predict(self, X: WordMaps) -> np.ndarray:
        """Return the output with most evidence in the words of the uppermost layers.

        Parameters
        ----------
        X : WordMaps
            Words of n images.

        Returns
        -------
        outputs : int array of shape (n,)
            The argmax of :meth:`decision_function`; an output without fitted images is never predicted.
        """
        return self.classes_[self.decision_function(X).argmax(1)]

    def transform(self, X: WordMaps) -> np.ndarray:
        """Return the evidence of every word for each image's decision.

        Parameters
        ----------
        X : WordMaps
            Words of n images.

        Returns
        -------
        evidence : float array of shape (n, sum of K over the layers)
            Under influence each word's influence on each image's decision, in nats; under counts the score of each
            word in the walk from the decision, in bits.  Columns as in :meth:`get_feature_names_out` and in
            ``X.histogram()``; the quotient of both is the mean per location, which ranks words if each location that is
            inspected, or ablated, costs the same.
        """
        self._check_words(X)
        return evidence_for(self, X).totals()

    def score(self, X: WordMaps, y: Any = None) -> float:
        """Return the share of images for which :meth:`predict` agrees with `y`, or with the network without y.

        Words predict by counts, whatever the evidence of graphs: decisions for classes with few fitted images, as most
        wrong ones are, are seldom predicted.

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

    def _hierarchy(self, words: WordMaps) -> Hierarchy:
        """Return the hierarchy of the layers with the fields of the fitted counts."""
        return Hierarchy.of(words.spec, self._effective)

    def _check_words(self, words: WordMaps) -> None:
        check_is_fitted(self)
        _check_container(words)
        self._check_fingerprint(words.vocabulary.fingerprint)
        shapes = {layer: words.words[layer].shape[1:] for layer in words.layers}
        if self._effective and shapes != self._shapes:
            raise ValueError(
                f"The graph was counted in effective receptive fields, measured in maps of sizes {self._shapes}; these "
                f"have {shapes}. Give images of the size that was fitted, or fit an InferenceGraph(fields='whole')."
            )

    def _check_fingerprint(self, fingerprint: str) -> None:
        if fingerprint != self._fingerprint:
            raise ValueError(
                "These words come from another dictionary than the one that this InferenceGraph was fitted with; use "
                "the words of that dictionary, or fit again."
            )

    def _check_fields(self, other: InferenceGraph) -> None:
        ours, others = (
            {pair: [ends.tolist() for ends in (*field.rows, *field.columns)] for pair, field in fit._effective.items()}
            for fit in (self, other)
        )
        if (self.fields_, ours) != (other.fields_, others):
            raise ValueError(
                f"Counts in different receptive fields do not add up: here {self.fields_} ones, there {other.fields_} "
                "ones, or others. Take all words from one fitted FeatureExtractor, which measures them once."
            )

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        return tags


def _count(words: WordMaps, hierarchy: Hierarchy) -> list[Counts]:
    """Return the counts of the slice of the images of each process."""
    return all_gather(Counts.of(words[local_slice(len(words))], hierarchy))


def _check_container(words: Any) -> None:
    if not isinstance(words, WordMaps):
        raise TypeError(
            f"InferenceGraph reads WordMaps, as LayerDictionary.transform returns them for FeatureMaps; got a "
            f"{type(words).__name__}. In a pipeline: pipe[:-1].transform(images)."
        )
    if not len(words):
        raise ValueError("There are no images in these WordMaps.")
