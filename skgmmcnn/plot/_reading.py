"""What pictures and pages need of a fitted pipeline and of its words."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline

from ..dictionary import WordMaps
from ..features import FeatureExtractor
from ..graph import InferenceGraph


def take_apart(estimator: InferenceGraph | Pipeline, X: Any) -> tuple[list[Any], InferenceGraph, Any]:
    """Return the steps that X has still to go through, the graph estimator, and X as what can be indexed.

    The feature maps of images can be indexed also where the images cannot, as in a folder.
    """
    *before, graph = list(estimator) if isinstance(estimator, Pipeline) else [estimator]
    if before and isinstance(before[0], FeatureExtractor):
        X = before.pop(0).transform(X)
    return before, graph, X


def run(steps: Iterable[Any], X: Any) -> Any:
    """Return X transformed by one step after the other."""
    for step in steps:
        X = step.transform(X)
    return X


def check_image(image: int, n_images: int) -> int:
    """Return the number of an image, counted from the front."""
    if not isinstance(image, Integral):
        raise TypeError(f"image must be the number of an image in X, 0 to {n_images - 1}; got {image!r}.")
    if not -n_images <= image < n_images:
        raise IndexError(f"There is no image {image} in X, which has {n_images}.")
    return int(image) % n_images


def pictures(words: WordMaps, rows: Iterable[int] | np.ndarray) -> list[np.ndarray]:
    """Return some images as uint8 (height, width, 3); none, where the words come from vectors."""
    return [] if words.pictures is None else [words.pictures[int(row)] for row in rows]
