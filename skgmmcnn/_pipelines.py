"""Access to the steps of fitted pipelines, for displays and measures."""

from __future__ import annotations

from typing import Any

from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .dictionary import WordMaps
from .features import FeatureExtractor, FeatureMaps


def steps_of(estimator: Any) -> list[Any]:
    """Return the steps of a pipeline, or the estimator itself as the only one."""
    return [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]


def find_step(estimator: Any, *kinds: type) -> tuple[list[Any], Any]:
    """Return the steps before the first fitted estimator of these kinds, and that estimator."""
    steps = steps_of(estimator)
    for place, step in enumerate(steps):
        if isinstance(step, kinds):
            check_is_fitted(step)
            return steps[:place], step
    names = " or ".join(kind.__name__ for kind in kinds)
    of = f" of {[type(step).__name__ for step in steps]}" if isinstance(estimator, Pipeline) else ""
    raise TypeError(f"This needs a fitted {names}, or a pipeline with one; got a {type(estimator).__name__}{of}.")


def open_pipeline(estimator: Any, X: Any, *kinds: type) -> tuple[list[Any], Any, Any]:
    """Return the steps that X has still to go through, the fitted estimator of these kinds, and X in a form to index.

    Images become feature maps, which can be indexed also where the images cannot, as in a folder.
    """
    before, found = find_step(estimator, *kinds)
    if isinstance(X, WordMaps):
        return [], found, X
    if isinstance(X, FeatureMaps):
        before = [step for step in before if not isinstance(step, FeatureExtractor)]
    elif before and isinstance(before[0], FeatureExtractor):
        X = before.pop(0).transform(X)
    return before, found, X
