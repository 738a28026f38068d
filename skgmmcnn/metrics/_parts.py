"""Parts of a fitted pipeline for measures: feature maps, words and graph."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.utils import gen_batches

from .._pipelines import open_pipeline, steps_of
from .._progress import progress
from ..chain import LayerHMM
from ..dictionary import LayerDictionary, WordMaps, WordModel
from ..features import FeatureMaps, check_decided
from ..graph import InferenceGraph, Selection, kind_for, selections_of

Table = Mapping[str, np.ndarray]  # by layer, a value for each word in each image, (n, K)
_N_CHECKED = 8  # images
_AT_ONCE = 16  # images, at least
_MOST_BYTES = 2**31  # of activations that are held


@dataclass(frozen=True, eq=False)
class Parts:
    """Feature maps, the estimator of their words, and the graph, None for measures of words.

    Words, evidence and graphs of the images are computed once for all measures of a report.
    """

    maps: FeatureMaps
    dictionary: WordModel
    graph: InferenceGraph
    verbose: int = 0

    @cached_property
    def words(self) -> WordMaps:
        """Words of all images."""
        return self.dictionary.transform(self.maps)

    @cached_property
    def evidence(self) -> np.ndarray:
        """Evidence of each word for each image's decision, shape (n, sum of K over the layers)."""
        return self.graph.transform(self.words)

    @cached_property
    def selections(self) -> list[Selection]:
        """Words and pairs of words in the graph of each image."""
        batches = list(gen_batches(len(self.words), max(_AT_ONCE, len(self.words) // 20)))
        selections = []
        with ignore_few_fitted():
            for rows in progress(batches, desc="graphs", unit="batch", shown=self.verbose, leave=False):
                selections += selections_of(self.graph, self.words[rows])
        return selections

    def kept(self, least: float = -np.inf) -> dict[str, np.ndarray]:
        """Return the words in the graph of each image with more evidence than `least`, bool (n, K) by layer."""
        kept = {layer: np.zeros((len(self.maps), k), bool) for layer, k in self.words.vocabulary.n_words.items()}
        strength = kind_for(self.graph, self.words).strength
        for row, selection in enumerate(self.selections):
            for (layer, word), node in selection.words.items():
                kept[layer][row, word] = strength.of_node(node) > least
        return kept

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """Number of locations of each word in each image, by layer (n, K)."""
        return self.by_layer(self.words.histogram())

    def by_layer(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Split values of all words (n, sum of K over the layers) by layer (n, K)."""
        n_words = self.words.vocabulary.n_words
        ends = np.cumsum(list(n_words.values()))[:-1]
        return dict(zip(n_words, np.split(values, ends, axis=1), strict=True))

    def check_scores(self) -> None:
        """Raise ValueError unless the decision is the class of the largest score of the network."""
        if not self.maps.spec.n_outputs:
            raise ValueError(
                "These maps were made from arrays, without a network; pass feature maps of a FeatureExtractor."
            )
        batch = next(self.maps[:_N_CHECKED].batches())
        check_decided(batch.outputs, batch.decisions, self.maps.spec.n_outputs)


def take_apart(estimator: Any, X: Any, verbose: int = 0, *, with_graph: bool = True) -> Parts:
    """Return the parts of a fitted pipeline for images or feature maps X; parts are returned unchanged."""
    if isinstance(estimator, Parts):
        return estimator
    _, dictionary, maps = open_pipeline(estimator, X, LayerDictionary, LayerHMM)
    if not isinstance(maps, FeatureMaps):
        raise TypeError(
            f"X is a {type(X).__name__}, and no FeatureExtractor comes before the words; pass FeatureMaps, or a "
            "pipeline that begins with a FeatureExtractor."
        )
    if not len(maps):
        raise ValueError("There are no images in these FeatureMaps.")
    graph = next((step for step in steps_of(estimator) if isinstance(step, InferenceGraph)), None)
    if with_graph and graph is None:
        raise TypeError("This measure needs a pipeline that ends with an InferenceGraph.")
    return Parts(maps, dictionary, graph, verbose)  # type: ignore[arg-type]


def in_memory(maps: FeatureMaps) -> FeatureMaps:
    """Return maps with activations in memory if they fit, so that the network runs once."""
    needed = 4 * len(maps) * sum(math.prod(shape) for shape in maps.shapes.values())
    return maps.compute() if needed <= _MOST_BYTES else maps


@contextmanager
def ignore_few_fitted() -> Iterator[None]:
    """Suppress the warning about decisions with few fitted images, whose graphs are measured here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Counts know little of decisions")
        yield
