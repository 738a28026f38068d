"""Parts of a fitted pipeline for measures: the feature maps of images, the words and the graph."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .._pipelines import open_pipeline, steps_of
from ..chain import LayerHMM
from ..dictionary import LayerDictionary, WordMaps, WordModel
from ..features import FeatureMaps, check_decided
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
    _, dictionary, maps = open_pipeline(estimator, X, LayerDictionary, LayerHMM)
    if not isinstance(maps, FeatureMaps):
        raise TypeError(
            f"X is a {type(X).__name__}, and no FeatureExtractor comes before the words; give FeatureMaps, or a "
            "pipeline that begins with one."
        )
    if not len(maps):
        raise ValueError("There are no images in these FeatureMaps.")
    graph = next((step for step in steps_of(estimator) if isinstance(step, InferenceGraph)), None)
    return Parts(maps, dictionary, graph)


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
