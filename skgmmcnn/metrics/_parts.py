"""What measures need of a fitted pipeline: the feature maps of images, the words and the graph."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from torch import Tensor

from ..dictionary import WordMaps
from ..dictionary._base import WordModel
from ..features import FeatureExtractor, FeatureMaps
from ..graph import InferenceGraph

_ROUNDING = 1e-4
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


def log_proba(outputs: Any) -> Tensor:
    """Return the logarithms of the class probabilities (n, C) that the network's scores stand for, in nats.

    They are the softmax of C scores, unless these are probabilities already; a single one is the logit of the second of
    two classes.
    """
    if not isinstance(outputs, (Tensor, np.ndarray)) or outputs.ndim != 2:
        kind = f"an array of shape {outputs.shape}" if hasattr(outputs, "shape") else f"a {type(outputs).__name__}"
        raise ValueError(f"Probabilities need scores (n, C) of the classes; the network returns {kind}.")
    scores = torch.as_tensor(outputs).double()
    if scores.shape[1] == 1:
        scores = torch.cat([torch.zeros_like(scores), scores], 1)
    if scores.shape[1] > 1 and bool((scores >= 0).all() and ((scores.sum(1) - 1).abs() < _ROUNDING).all()):
        return scores.clamp_min(np.finfo(float).tiny).log()
    return scores.log_softmax(1)


def check_scores(parts: Parts) -> None:
    """Refuse networks whose decision is not the largest of the scores that they return."""
    if not parts.maps.spec.n_outputs:
        raise ValueError("These maps were made from arrays, so there is no network that could be run again.")
    batch = next(parts.maps[:_N_CHECKED].batches())
    log_p = log_proba(batch.outputs)
    if log_p.shape[1] == parts.maps.spec.n_outputs:
        best = log_p.max(1).values - log_p[torch.arange(len(log_p)), torch.from_numpy(batch.decisions)]
        if bool((best < _ROUNDING).all()):
            return
    raise ValueError(
        "This measure follows the probability of the decision, which must be the largest of the network's scores; with "
        f"this decision= it is not: {log_p.shape[1]} scores, {parts.maps.spec.n_outputs} classes. Measure a network "
        "that returns one score for each of the classes, as nn.Sequential(network, your_head)."
    )


def proba_of(outputs: Any, targets: np.ndarray) -> np.ndarray:
    """Return the probability of one class for each image, shape (n,)."""
    chosen = log_proba(outputs)[torch.arange(len(targets)), torch.from_numpy(np.asarray(targets, np.int64))]
    return chosen.exp().numpy(force=True)
