"""What measures need of a fitted pipeline: the feature maps of images, the words and the graph."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from sklearn.pipeline import Pipeline

from ..dictionary import WordMaps, WordModel
from ..features import FeatureExtractor, FeatureMaps, check_decided
from ..graph import InferenceGraph

_N_CHECKED = 8  # images
_MOST_BYTES = 2**31  # of activations that are held


class Parts(NamedTuple):
    """Feature maps, the words that describe them, and the graph that connects these, None without one."""

    maps: FeatureMaps
    dictionary: WordModel
    graph: InferenceGraph | None

    def words(self) -> WordMaps:
        """Return the words of all images."""
        return self.dictionary.transform(self.maps)


def take_apart(estimator: Any, X: Any) -> Parts:
    """Return the parts of a fitted pipeline that reads the images X, or their feature maps."""
    steps = list(estimator) if isinstance(estimator, Pipeline) else [estimator]
    dictionary = next((step for step in steps if isinstance(step, WordModel)), None)
    if dictionary is None:
        raise TypeError(
            "The measures take a fitted Pipeline with a LayerDictionary or LayerHMM; got a "
            f"{type(estimator).__name__} of {[type(step).__name__ for step in steps]}."
        )
    graph = next((step for step in steps if isinstance(step, InferenceGraph)), None)
    if isinstance(X, FeatureMaps):
        if not len(X):
            raise ValueError("There are no images in these FeatureMaps.")
        return Parts(X, dictionary, graph)
    if not isinstance(steps[0], FeatureExtractor):
        raise TypeError(
            f"X is a {type(X).__name__}, and no FeatureExtractor comes before the words; give FeatureMaps, or a "
            "pipeline that begins with one."
        )
    return Parts(steps[0].transform(X), dictionary, graph)


def in_memory(maps: FeatureMaps) -> FeatureMaps:
    """Return maps that hold their activations where these are not too many, so that the network runs once."""
    needed = 4 * len(maps) * sum(math.prod(shape) for shape in maps.shapes.values())
    return maps.compute() if needed <= _MOST_BYTES else maps


def graph_of(parts: Parts) -> InferenceGraph:
    """Return the graph, or raise an error that explains itself."""
    if parts.graph is None:
        raise TypeError("This measure needs a pipeline that ends with an InferenceGraph.")
    return parts.graph


def check_scores(parts: Parts) -> None:
    """Refuse networks whose decision is not the largest of the scores that they return."""
    if not parts.maps.spec.n_outputs:
        raise ValueError("These maps were made from arrays, so there is no network that could be run again.")
    batch = next(parts.maps[:_N_CHECKED].batches())
    check_decided(batch.outputs, batch.decisions, parts.maps.spec.n_outputs)
