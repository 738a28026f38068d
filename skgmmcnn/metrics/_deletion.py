"""What becomes of a decision as words are taken away from the network, or given back to it, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import trapezoid
from sklearn.utils import check_random_state

from .._progress import progress
from ..dictionary import WordMaps, count_words
from ..features import Rerun, proba_of
from ..graph import InferenceGraph
from ._ablation import Fillings, at_locations, outputs_without
from ._completeness import check_layers
from ._evidence import check_kind, evidence_of, leaders, over_graphs
from ._intervals import Interval, interval_of_ratio
from ._measured import BASELINE, Figure, Measured, axes_for
from ._orders import STYLES, by_evidence, check_orders, columns_of_first, ranks_of
from ._parts import Parts, check_scores, graph_of, take_apart

ORDERS = ("graph", "per_location", "reverse", "frequency", "random")
_VERBS = {"deletion": "taken away", "insertion": "given back"}


@dataclass(frozen=True, eq=False)
class AblationCurves(Measured):
    """The probability of the decision against the share of a layer's columns that were replaced, or are left.

    Made by :func:`deletion` and :func:`insertion`.

    Parameters
    ----------
    layer : str
        The layer whose words are taken.
    fill : str
        What stands in the place of columns.
    kind : {"deletion", "insertion"}
        Whether words are taken away or given back.
    by : {"image", "class"}
        Whose graph told the order.
    shares : dict of str to array of shape (n, n_steps + 1)
        By order, the share of columns that are replaced (deletion) or there (insertion), from 0 to 1.
    proba : dict of str to array of shape (n, n_steps + 1)
        By order, the network's probability of each image's original decision.
    random_state : int
        Draws the resamples of the intervals.
    """

    layer: str
    fill: str
    kind: str
    by: str
    shares: Mapping[str, np.ndarray]
    proba: Mapping[str, np.ndarray]
    random_state: int

    @property
    def areas(self) -> dict[str, np.ndarray]:
        """By order, the area under each image's curve, shape (n,): the mean probability on the way."""
        return {order: trapezoid(self.proba[order], self.shares[order], axis=1) for order in self.proba}

    def ratio(self, order: str = "graph", to: str = "random") -> tuple[float, Interval]:
        """Return the mean area in one order by that in another.

        Parameters
        ----------
        order, to : str
            The orders.

        Returns
        -------
        ratio : float
            For deletion, the smaller the better; for insertion, the larger the better.
        interval : tuple (low, high)
            95 % interval over resamples of the images.
        """
        areas = self.areas
        above, below = areas[order], areas[to]
        between = interval_of_ratio(above, below, check_random_state(self.random_state))
        return float(above.mean() / below.mean()), between

    def figures(self) -> list[Figure]:
        if "random" not in self.proba:
            unknown = np.nan, np.nan
            return [self._figure(order, order, float(area.mean()), unknown) for order, area in self.areas.items()]
        return [self._figure(o, f"{o} : random", *self.ratio(o)) for o in self.proba if o != "random"]

    def _figure(self, order: str, what: str, value: float, between: Interval) -> Figure:
        good = "low" if self.kind == "deletion" else "high"
        good = good if order in ("graph", "per_location") else BASELINE
        return Figure(f"{self.kind} ({self._how()}), {what}", self.layer, value, *between, good)

    def _how(self) -> str:
        return self.fill if self.by == "image" else f"{self.fill}, by class"

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the mean curves.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        ax : matplotlib.axes.Axes
            What was drawn into.
        """
        ax = axes_for(ax)
        for order, values in self.proba.items():
            ax.plot(self.shares[order].mean(0), values.mean(0), label=order, **STYLES[order])
        ax.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="probability of the decision")
        ax.set_xlabel(f"share of {self.layer} {_VERBS[self.kind]}", parse_math=False)
        ax.set_title(f"{self.kind.capitalize()}, {self.layer} ({self._how()})", parse_math=False)
        ax.legend(fontsize="small")
        return ax

    def __str__(self) -> str:
        what = f"Words of {self.layer} {_VERBS[self.kind]} (fill: {self._how()})"
        text = f"{what}: the mean probability of the decision on the way is "
        if not {"graph", "random"} <= set(self.proba):
            return text + ", ".join(f"{values.mean():.2f} by {order}" for order, values in self.areas.items()) + "."
        ratio, (low, high) = self.ratio()
        others = [f"{self.ratio(order)[0]:.2f} by {order}" for order in self.proba if order not in ("graph", "random")]
        beside = f"; to compare, {', '.join(others)}" if others else ""
        return f"{text}{ratio:.2f} ({low:.2f} to {high:.2f}) times that of random order in the graph's order{beside}."


def deletion(
    pipe: Any,
    X: Any,
    layer: str,
    *,
    orders: Sequence[str] = ORDERS,
    by: str = "image",
    fill: str = "mean",
    n_steps: int = 10,
    n_random: int = 3,
    verbose: int = 0,
    random_state: int | np.random.RandomState | None = None,
) -> AblationCurves:
    """Take the words of a layer away from the network, the most important ones first.

    At each step the columns of further words, exactly those and all of those, are replaced in the layer's map, and the
    network goes on from there.  The sooner the probability of its original decision falls, the better the order tells
    what the network uses [1]_.  Results depend on what stands in the place of columns.

    Parameters
    ----------
    pipe : Pipeline
        Fitted, ending with an :class:`~skgmmcnn.InferenceGraph`.
    X : images or FeatureMaps
        What the pipeline takes, or feature maps of a network.
    layer : str
        The layer whose words are taken away.
    orders : sequence of str, default=all
        "graph": in the order in which the graph chooses words, by their evidence for the image's decision as
        :meth:`InferenceGraph.transform` gives it, influence or bits; "per_location": by this evidence divided by the
        number of the word's locations, as columns are what a step costs; "reverse": the graph's order from its end;
        "frequency": by the number of locations; "random": the mean curve of `n_random` orders.
    by : {"image", "class"}, default="image"
        Whether evidence is that of each image, or its mean over all images in X with the same decision.
    fill : {"mean", "zero", "resample"}, default="mean"
        What stands in the place of columns: the layer's mean, zeros, or columns of other images.
    n_steps : int, default=10
        Number of steps to the map without any word; words are never taken in part, so shares vary around k / n_steps.
    n_random : int, default=3
        Number of random orders.
    verbose : int, default=0
        Whether to show progress.
    random_state : int, RandomState instance or None, default=None
        Draws orders, columns and resamples.

    Returns
    -------
    curves : AblationCurves
        Probabilities by order.

    References
    ----------
    .. [1] Petsiuk, Das and Saenko, "RISE: Randomized input sampling for explanation of black-box models", BMVC 2018.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.metrics import deletion
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv2", "conv3"])
    >>> pipe = make_pipeline(extractor, LayerDictionary(30, random_state=0), InferenceGraph()).fit(digits.images)
    >>> curves = deletion(pipe, digits.test_images[:50], "conv3", orders=["graph", "random"], random_state=0)
    >>> curves.ratio()[0] < 1
    True
    """
    asked = _Question("deletion", layer, tuple(orders), by, fill, n_steps, n_random, verbose)
    return _curves(pipe, X, asked, random_state)


def insertion(
    pipe: Any,
    X: Any,
    layer: str,
    *,
    orders: Sequence[str] = ORDERS,
    by: str = "image",
    fill: str = "mean",
    n_steps: int = 10,
    n_random: int = 3,
    verbose: int = 0,
    random_state: int | np.random.RandomState | None = None,
) -> AblationCurves:
    """Give the words of a layer back to a network that had none, the most important ones first.

    The reverse of :func:`deletion`: the sooner the probability of the original decision rises, the better the order.

    Parameters
    ----------
    pipe : Pipeline
        Fitted, ending with an :class:`~skgmmcnn.InferenceGraph`.
    X : images or FeatureMaps
        What the pipeline takes, or feature maps of a network.
    layer : str
        The layer whose words are given back.
    orders : sequence of str, default=all
        As in :func:`deletion`.
    by : {"image", "class"}, default="image"
        As in :func:`deletion`.
    fill : {"mean", "zero", "resample"}, default="mean"
        What stands in the place of the columns that are not yet given back.
    n_steps : int, default=10
        Number of steps to the full map.
    n_random : int, default=3
        Number of random orders.
    verbose : int, default=0
        Whether to show progress.
    random_state : int, RandomState instance or None, default=None
        Draws orders, columns and resamples.

    Returns
    -------
    curves : AblationCurves
        Probabilities by order.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
    >>> from skgmmcnn.datasets import load_digits_network
    >>> from skgmmcnn.metrics import insertion
    >>> digits = load_digits_network()
    >>> extractor = FeatureExtractor(digits.network, layers=["conv2", "conv3"])
    >>> pipe = make_pipeline(extractor, LayerDictionary(30, random_state=0), InferenceGraph()).fit(digits.images)
    >>> curves = insertion(pipe, digits.test_images[:50], "conv3", orders=["graph", "random"], random_state=0)
    >>> curves.ratio()[0] > 1
    True
    """
    asked = _Question("insertion", layer, tuple(orders), by, fill, n_steps, n_random, verbose)
    return _curves(pipe, X, asked, random_state)


@dataclass(frozen=True)
class _Question:
    """What is asked; see :func:`deletion`."""

    kind: str
    layer: str
    orders: tuple[str, ...]
    by: str
    fill: str
    n_steps: int
    n_random: int
    verbose: int

    def check(self, parts: Parts) -> None:
        check_layers(parts, [self.layer])
        if not self.orders:
            raise ValueError(f"orders names no order; there is {', '.join(map(repr, ORDERS))}.")
        check_orders(self.orders, ORDERS, self.n_random)
        check_kind(self.by)
        if self.n_steps < 1:
            raise ValueError(f"n_steps must be at least 1; got {self.n_steps}.")


def _curves(pipe: Any, X: Any, asked: _Question, random_state: Any) -> AblationCurves:
    random = check_random_state(random_state)
    parts = take_apart(pipe, X)
    asked.check(parts)
    check_scores(parts)
    fillings = Fillings(asked.fill, parts, [asked.layer], random)
    words = parts.words()
    importance = _importance(asked, graph_of(parts), words, random)
    n_curves = sum(map(len, importance.values()))

    def work(part: Rerun) -> dict[str, np.ndarray]:
        original, layer = part.original, asked.layer
        filling = fillings({layer: original.activations[layer]}, original.start)
        shown = words.words[layer][part.rows].astype(np.int64)
        counts = count_words(shown, words.vocabulary.n_words[layer])

        def curve(importance: np.ndarray) -> np.ndarray:
            """Return shares and probabilities at all steps, shape (2, n, n_steps + 1)."""
            ranks, ends, shares = whole_words(importance, counts, asked.n_steps)
            taken = [at_locations(ranks, shown) < end[:, None, None] for end in ends.T]
            gone = taken if asked.kind == "deletion" else [~each for each in taken]
            outputs = [outputs_without(part, {layer: each}, filling) for each in gone]
            return np.stack([shares, np.stack([proba_of(each, original.decisions) for each in outputs], axis=1)])

        return {order: np.mean([curve(each[part.rows]) for each in runs], axis=0) for order, runs in importance.items()}

    found, what = [], f"{asked.kind} {asked.layer}"
    with progress(total=n_curves * len(words), desc=what, unit="curve", shown=asked.verbose) as bar:
        for curves in parts.maps.rerun(work):
            found.append(curves)
            bar.update(n_curves * curves[asked.orders[0]].shape[1])
    joined = {order: np.concatenate([curves[order] for curves in found], axis=1) for order in asked.orders}
    return AblationCurves(
        layer=asked.layer,
        fill=asked.fill,
        kind=asked.kind,
        by=asked.by,
        shares={order: curves[0] for order, curves in joined.items()},
        proba={order: curves[1] for order, curves in joined.items()},
        random_state=int(random.randint(2**31)),
    )


def _importance(
    asked: _Question, graph: InferenceGraph, words: WordMaps, random: np.random.RandomState
) -> dict[str, list[np.ndarray]]:
    """Return by order how much earlier than others each word of an image is taken, (n, K), of each of its runs."""
    counts = count_words(words.words[asked.layer], words.vocabulary.n_words[asked.layer])
    evidence = counts
    if not set(asked.orders) <= {"frequency", "random"}:
        evidence = evidence_of(graph, words, asked.by)[asked.layer]
    silent = ~((evidence != 0) & (counts > 0)).any(1)  # where no word says anything, none comes first
    evidence = np.where(silent[:, None], random.random_sample(counts.shape), evidence)
    columns = over_graphs(counts, leaders(words, asked.by))

    def runs(order: str) -> list[np.ndarray]:
        if order == "random":
            return [random.random_sample(counts.shape) for _ in range(asked.n_random)]
        return [counts if order == "frequency" else by_evidence(order, evidence, columns)]

    return {order: runs(order) for order in asked.orders}


def whole_words(importance: np.ndarray, counts: np.ndarray, n_steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Divide the words of images into steps of nearly equal numbers of columns, without dividing a word.

    Parameters
    ----------
    importance : array of shape (n, K)
        The larger, the earlier.
    counts : int array of shape (n, K)
        Columns of each word.
    n_steps : int
        Number of steps.

    Returns
    -------
    ranks : int array of shape (n, K)
        Place of each word in the order of its image; words that it does not show come last.
    ends : int array of shape (n, n_steps + 1)
        How many words are taken at each step: those whose columns are nearest to step / n_steps of all.
    shares : array of shape (n, n_steps + 1)
        Their share of the columns.
    """
    ranks = ranks_of(importance, counts)
    sums = columns_of_first(ranks, counts)
    steps = np.linspace(0, 1, n_steps + 1) * sums[:, -1:]
    ends = np.abs(sums[:, None] - steps[:, :, None]).argmin(2)
    return ranks, ends, np.take_along_axis(sums, ends, axis=1) / sums[:, -1:]
