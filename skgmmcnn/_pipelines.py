"""Access to the steps of fitted pipelines."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .dictionary import WordMaps
from .features import FeatureExtractor, FeatureMaps


def steps_of(estimator: Any) -> list[Any]:
    """Return the steps of a pipeline, or a list of the estimator itself."""
    return [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]


def find_step(estimator: Any, *kinds: type) -> tuple[list[Any], Any]:
    """Return the first fitted estimator of the given classes, preceded by the steps before it."""
    steps = steps_of(estimator)
    for place, step in enumerate(steps):
        if isinstance(step, kinds):
            check_is_fitted(step)
            return steps[:place], step
    names = " or ".join(kind.__name__ for kind in kinds)
    of = f" of {[type(step).__name__ for step in steps]}" if isinstance(estimator, Pipeline) else ""
    raise TypeError(f"This needs a fitted {names}, or a pipeline with one; got a {type(estimator).__name__}{of}.")


def open_pipeline(estimator: Any, X: Any, *kinds: type) -> tuple[list[Any], Any, Any]:
    """Return the steps still to be applied to X, the fitted estimator of the given classes, and an indexable X.

    Images become feature maps, which can be indexed even if X is a folder.
    """
    before, step = find_step(estimator, *kinds)
    if isinstance(X, WordMaps):
        return [], step, X
    if isinstance(X, FeatureMaps):
        before = [other for other in before if not isinstance(other, FeatureExtractor)]
    elif before and isinstance(before[0], FeatureExtractor):
        X = before.pop(0).transform(X)
    return before, step, X
