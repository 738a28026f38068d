"""Similarity and spread of words, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from .._pipelines import open_pipeline
from ..dictionary import LayerDictionary, similarity_of_means
from ._drawing import INK, Panels, wrap_name
from ._reading import run, statistics_of
from ._word_measures import Cohesion, Locality, class_cohesion, class_profiles, class_similarity, locality, word_classes

_SAME, _OTHER = INK, (0.85, 0.45, 0.1)
_NAME = 11  # letters of a layer's name in one line


@dataclass(eq=False, repr=False)
class WordSimilarityDisplay(Panels):
    """Similarity of the words of one class, and spread of words over images, layer by layer.

    Four panels: the similarity of all words by the classes of the images that they occur in; its mean over words of the
    same class and over words of different classes, for each layer; the same for the distance of the words' means; and
    the spread of words over images.  Grey bands are 95 % intervals of the mean within classes under random permutations
    of the classes of words.

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
            Images to measure on, other than the fitted ones, of which the classes of words are known.
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
        profiles = {layer: class_profiles(words, layer) for layer in words.layers}
        classes = {layer: word_classes(statistics[layer]) for layer in words.layers}
        similarities = {layer: class_similarity(profile, profile) for layer, profile in profiles.items()}
        by_class, by_mean = (
            {k: class_cohesion(table[k], classes[k], n_permutations, random_state) for k in words.layers}
            for table in (similarities, similarity_of_means(dictionary, dictionary, "distance"))
        )
        blocks = [[class_similarity(one, other) for other in profiles.values()] for one in profiles.values()]
        return cls(
            similarity=np.block(blocks),
            classes=classes,
            by_class=by_class,
            by_mean=by_mean,
            spread={k: locality(words.words[k], words.vocabulary.n_words[k]) for k in words.layers},
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
        names = [wrap_name(layer, _NAME) for layer in self.classes]
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
    """Write the title, a text about each layer below the axis, and a legend above the lines."""
    names = [f"{wrap_name(layer, _NAME)}\n{text}" for layer, text in zip(layers, about, strict=True)]
    ax.set_title(title)
    ax.set_xticks(range(len(names)), names, fontsize=8.5, parse_math=False)
    ax.margins(x=0.12)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.38 * (high - low))
    ax.legend(fontsize=8, loc="upper center", framealpha=0)
