"""Similarity and spread of words, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.distance import squareform
from sklearn.pipeline import Pipeline
from sklearn.utils import check_random_state, gen_batches

from .._pipelines import open_pipeline
from ..dictionary import LayerDictionary, WordMaps, WordStatistics, count_classes, count_words, similarity_of_means
from ._drawing import INK, Panels, in_lines
from ._reading import run, statistics_of

_SAME, _OTHER = INK, (0.85, 0.45, 0.1)
_NAME = 11  # letters of a layer's name in one line
_IMAGES_AT_ONCE = 256


class Cohesion(NamedTuple):
    """Mean similarity of words of one class, `null` after random permutations of the classes, and of different ones."""

    within: float
    between: float
    null: np.ndarray

    @property
    def p_value(self) -> float:
        """Fraction of the permutations, the observed one included, with at least the similarity within classes."""
        return float((1 + (self.null >= self.within - 1e-12).sum()) / (1 + len(self.null)))


class Locality(NamedTuple):
    """Spread of the words of a layer over images, each of `n_locations`."""

    n_distinct: float  # mean number of different words in an image
    expected_distinct: float  # its expectation if each location drew its word from the frequencies of the layer
    largest_share: float  # mean fraction of an image's locations that its most frequent word takes
    autocorrelation: float  # of neighbouring locations, see `locality`
    n_locations: int


@dataclass(eq=False, repr=False)
class WordSimilarityDisplay(Panels):
    """Similarity of the words of one class, and spread of words over images, layer by layer.

    Four panels: the similarity of all words by the classes of the images that they occur in; its mean over words that
    represent the same class and over words of different classes, for each layer; the same for the distance of the
    words' means; and how words lie in images.  Grey bands hold 95 % of the mean within classes under random
    permutations of the classes of words.

    Parameters
    ----------
    similarity : float array of shape (sum of K, sum of K)
        Cosine of the class histograms of all words, layer by layer.
    classes : dict of str to int array of shape (K,)
        The class that each word represents, -1 for none.
    by_class, by_mean : dict of str to Cohesion
        By layer, for the class histograms and for the means: `within` and `between`, the mean similarity of words of
        the same class and of different ones; `null`, the former after random permutations of the classes; `p_value`.
    spread : dict of str to Locality
        By layer: `n_distinct` and `expected_distinct`, the mean number of different words in an image and its
        expectation by chance; `largest_share`, the fraction of its most frequent word; `autocorrelation` of neighbours;
        `n_locations` of a map.

    Attributes
    ----------
    axes_ : array of matplotlib.axes.Axes, shape (4,)
        The panels.
    figure_ : matplotlib.figure.Figure
        Their figure.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> from torch import nn
    >>> from skgmmcnn import FeatureExtractor, LayerDictionary, WordSimilarityDisplay
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3))
    >>> images = np.random.default_rng(0).random((60, 8, 8)).astype("float32")
    >>> pipe = make_pipeline(FeatureExtractor(network, ["1", "2"]), LayerDictionary(6, random_state=0)).fit(images)
    >>> display = WordSimilarityDisplay.from_estimator(pipe, images, random_state=0)
    >>> display.save("words.png")  # doctest: +SKIP
    """

    _: KW_ONLY
    similarity: np.ndarray
    classes: Mapping[str, np.ndarray]
    by_class: Mapping[str, Cohesion]
    by_mean: Mapping[str, Cohesion]
    spread: Mapping[str, Locality]

    @classmethod
    def from_estimator(
        cls,
        estimator: LayerDictionary | Pipeline,
        X: Any,
        *,
        n_permutations: int = 1000,
        random_state: int | np.random.RandomState | None = None,
        ax: Any = None,
    ) -> WordSimilarityDisplay:
        """Measure the words over images, and draw.

        Parameters
        ----------
        estimator : LayerDictionary or Pipeline
            Fitted; a pipeline has a :class:`~skgmmcnn.LayerDictionary` as one of its steps.
        X : FeatureMaps or WordMaps, or what the pipeline takes
            Images to measure on.  The class of a word is learnt from the fitted images, so other images are best.
        n_permutations : int, default=1000
            Number of random permutations of the classes.
        random_state : int, RandomState instance or None, default=None
            Source of the permutations.
        ax : array-like of four matplotlib.axes.Axes, default=None
            Axes to draw into; None makes a figure.

        Returns
        -------
        display : WordSimilarityDisplay
            The drawn display.
        """
        before, dictionary, X = open_pipeline(estimator, X, LayerDictionary)
        statistics = statistics_of(dictionary.vocabulary_)
        words = run([*before, dictionary], X)
        layers, of_means = words.layers, similarity_of_means(dictionary, dictionary, "distance")
        classes = {layer: word_classes(statistics[layer]) for layer in layers}
        options: dict[str, Any] = {"n_permutations": n_permutations, "random_state": random_state}
        return cls(
            similarity=np.block([[class_similarity(words, a, b) for b in layers] for a in layers]),
            classes=classes,
            by_class={k: class_cohesion(class_similarity(words, k, k), classes[k], **options) for k in layers},
            by_mean={k: class_cohesion(of_means[k], classes[k], **options) for k in layers},
            spread={k: locality(words.words[k], words.vocabulary.n_words[k]) for k in layers},
        ).plot(ax=ax)

    def _grid(self) -> tuple[int, int, float, float]:
        return 4, 2, max(10, 2 + 1.9 * len(self.spread)), 4  # wide enough for the layers' names

    def _draw(self) -> None:
        self._draw_table(self.axes_[0])
        _draw_cohesion(self.axes_[1], self.by_class, "Words by their classes", "cosine of class histograms")
        _draw_cohesion(self.axes_[2], self.by_mean, "Words by their means", "1 - distance / mean distance")
        self._draw_spread(self.axes_[3])

    def _draw_table(self, ax: Any) -> None:
        starts = np.cumsum([0, *map(len, self.classes.values())])
        occurring = [
            start + np.argsort(classes, kind="stable")[np.sum(classes < 0) :]
            for start, classes in zip(starts, self.classes.values(), strict=False)
        ]
        order, ends = np.concatenate(occurring), np.cumsum([0, *map(len, occurring)])
        table = self.similarity[np.ix_(order, order)]
        image = ax.imshow(table, vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        for end in ends[1:-1]:
            ax.axhline(end - 0.5, color="white", lw=1)
            ax.axvline(end - 0.5, color="white", lw=1)
        names = [in_lines(layer, _NAME) for layer in self.classes]
        ax.set_xticks([])
        ax.set_yticks((ends[1:] + ends[:-1] - 1) / 2, names, fontsize=8.5, parse_math=False)
        ax.tick_params(length=0)
        ax.set_facecolor("0.7")  # words that these images do not show
        ax.set_title("All words, by class in each layer")
        self.figure_.colorbar(image, ax=ax, label="cosine of class histograms", shrink=0.8)

    def _draw_spread(self, ax: Any) -> None:
        layers = list(self.spread.values())
        distinct = [each.n_distinct / each.expected_distinct for each in layers]
        ax.plot([each.autocorrelation for each in layers], "o-", color=_SAME, label="autocorrelation of neighbours")
        ax.plot([each.largest_share for each in layers], "s-", color=_OTHER, label="share of the most frequent word")
        ax.plot(distinct, "^-", color="0.4", label="different words, of those expected")
        ax.set_ylim(0, max(1.05, *distinct))
        ax.set_yticks(np.linspace(0, 1, 6))
        about = [f"{each.n_distinct:.1f} words\nat {each.n_locations}" for each in layers]
        _finish(ax, "Words in one image", self.spread, about)


def _draw_cohesion(ax: Any, cohesion: Mapping[str, Cohesion], title: str, label: str) -> None:
    layers = list(cohesion.values())
    low, high = np.array([np.quantile(each.null, [0.025, 0.975]) for each in layers]).T
    ax.fill_between(range(len(layers)), low, high, color="0.85", lw=0, label="classes at random, 95 %")
    if len(layers) == 1:
        ax.plot([0, 0], [*low, *high], color="0.85", lw=8)
    ax.plot([each.within for each in layers], "o-", color=_SAME, label="same class")
    ax.plot([each.between for each in layers], "s--", color=_OTHER, label="different classes")
    ax.set_ylabel(label)
    _finish(ax, title, cohesion, [f"p = {each.p_value:.2g}" for each in layers])


def _finish(ax: Any, title: str, layers: Iterable[str], about: Iterable[str]) -> None:
    """Write the title, and a text about each layer below the axis; add a legend above all that is drawn."""
    names = [f"{in_lines(layer, _NAME)}\n{text}" for layer, text in zip(layers, about, strict=True)]
    ax.set_title(title)
    ax.set_xticks(range(len(names)), names, fontsize=8.5, parse_math=False)
    ax.margins(x=0.12)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.38 * (high - low))
    ax.legend(fontsize=8, loc="upper center", framealpha=0)


def class_similarity(words: WordMaps, first: str, second: str) -> np.ndarray:
    """Return the cosines of the class histograms of the words of two layers, (K_first, K_second).

    Classes are the network's decisions, and each has the same weight.  NaN for words that these images do not show.
    """
    profiles = []
    for layer in (first, second):
        n_words, n_outputs = words.vocabulary.n_words[layer], max(1, words.spec.n_outputs)
        fractions = _by_class(count_classes(words.words[layer], words.decisions, n_words, n_outputs))
        length = np.linalg.norm(fractions, axis=1, keepdims=True)
        profiles.append(fractions / np.where(length > 0, length, np.nan))
    return np.clip(profiles[0] @ profiles[1].T, 0, 1)


def word_classes(statistics: WordStatistics) -> np.ndarray:
    """Return the class with the largest fraction of locations that show each word, (K,); -1 for absent words."""
    fractions = _by_class(statistics)
    return np.where(fractions.any(1), fractions.argmax(1), -1)


def _by_class(statistics: WordStatistics) -> np.ndarray:
    """Return the fraction of each class's locations that show each word, (K, n_outputs)."""
    return statistics.counts / np.maximum(1, statistics.counts.sum(0))


def class_cohesion(
    similarity: np.ndarray,
    classes: np.ndarray,
    *,
    n_permutations: int = 1000,
    random_state: int | np.random.RandomState | None = None,
) -> Cohesion:
    """Compare similarities (K, K) of words that represent one class with those of words of different classes (K,).

    Words of class -1, and those whose similarities are NaN, are left out.  NaN where no two words have the same class,
    or all have.
    """
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1; got {n_permutations}.")
    kept = (classes >= 0) & ~np.isnan(np.diag(similarity).astype(float))
    similarity, classes = similarity[np.ix_(kept, kept)].astype(float), classes[kept]
    first, second = np.nonzero(np.triu(classes[:, None] == classes, 1))
    pairs = squareform(similarity, checks=False)
    n_between = len(pairs) - len(first)
    if not len(first) or not n_between:
        return Cohesion(np.nan, np.nan, np.full(n_permutations, np.nan))
    random = check_random_state(random_state)

    def within(order: np.ndarray) -> float:
        return float(similarity[order[first], order[second]].mean())

    observed = within(np.arange(len(classes)))
    between = (pairs.sum() - observed * len(first)) / n_between
    null = np.array([within(random.permutation(len(classes))) for _ in range(n_permutations)])
    return Cohesion(observed, float(between), null)


def locality(words: np.ndarray, n_words: int) -> Locality:
    """Return the spread of the words (n, H, W) of a layer.

    With J the fraction of the joins between horizontal and vertical neighbours that link equal words (the join count of
    Moran, "The interpretation of statistical maps", JRSS B 10(2), 1948), and E = sum_k n_k (n_k - 1) / (N (N - 1)) its
    expectation when the N words of the image are shuffled (Cliff and Ord, "Spatial Processes", Pion, 1981, chapter 1,
    nonfree sampling), the autocorrelation is sum (J - E) / sum (1 - E) over the images: 1 where neighbours are always
    equal, 0 as if words were shuffled, NaN where a map has one location.
    """
    n_images, size = len(words), words[0].size
    distinct = largest = excess = most = 0.0
    total = np.zeros(n_words, dtype=np.int64)
    for part in gen_batches(n_images, _IMAGES_AT_ONCE):
        counts = count_words(words[part], n_words)
        total += counts.sum(0)
        distinct += (counts > 0).sum()
        largest += counts.max(1).sum() / size
        if size > 1:
            expected = (counts * (counts - 1)).sum(1) / (size * (size - 1))
            excess += (_equal_joins(words[part]) - expected).sum()
            most += (1 - expected).sum()
    return Locality(
        n_distinct=float(distinct / n_images),
        expected_distinct=float((1 - (1 - total / total.sum()) ** size).sum()),
        largest_share=float(largest / n_images),
        autocorrelation=float(excess / most) if most > 0 else np.nan,
        n_locations=size,
    )


def _equal_joins(words: np.ndarray) -> np.ndarray:
    """Return for each image the fraction of pairs of neighbours that show the same word, shape (n,)."""
    down, right = words[:, 1:] == words[:, :-1], words[:, :, 1:] == words[:, :, :-1]
    return (down.sum((1, 2)) + right.sum((1, 2))) / (down[0].size + right[0].size)
