"""What pictures and pages need of a fitted pipeline and of its words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from ..dictionary import Vocabulary, WordMaps, WordModel, WordStatistics
from ..features import FeatureExtractor, FeatureMaps


def take_apart(estimator: Any, X: Any, *kinds: type) -> tuple[list[Any], Any, Any]:
    """Return the steps that X has still to go through, the fitted estimator of these kinds, and X as can be indexed.

    The feature maps of images can be indexed also where the images cannot, as in a folder.
    """
    before, found = find_step(estimator, *kinds)
    if isinstance(X, WordMaps):
        return [], found, X
    if isinstance(X, FeatureMaps):
        before = [step for step in before if not isinstance(step, FeatureExtractor)]
    elif before and isinstance(before[0], FeatureExtractor):
        X = before.pop(0).transform(X)
    return before, found, X


def find_step(estimator: Any, *kinds: type) -> tuple[list[Any], Any]:
    """Return the first fitted estimator of these kinds that a pipeline holds, or is, and the steps before it."""
    steps = [step for _, step in estimator.steps] if isinstance(estimator, Pipeline) else [estimator]
    for place, step in enumerate(steps):
        if isinstance(step, kinds):
            check_is_fitted(step)
            return steps[:place], step
    names = " or ".join(kind.__name__ for kind in kinds)
    raise TypeError(f"The display needs a fitted {names}, or a pipeline with one; got a {type(estimator).__name__}.")


def named_vocabulary(model: WordModel) -> Vocabulary:
    """Return the words of a dictionary or chain with the names that they have now."""
    return replace(model.vocabulary_, names=model._names())


def statistics_of(vocabulary: Vocabulary) -> Mapping[str, WordStatistics]:
    """Return how often words occur, having checked that this is known."""
    if not vocabulary.statistics:
        raise ValueError("The dictionary has no statistics of its words; call its collect_representatives(X) first.")
    return vocabulary.statistics


def words_by_name(vocabulary: Vocabulary, words: Sequence[tuple[str, int] | str]) -> list[tuple[str, int]]:
    """Return words, given by layer and number or as ``"layer3_w017"``, by layer and number."""
    if isinstance(words, str):
        words = [words]
    if not isinstance(words, Iterable):
        raise TypeError(f"words must list words, as [('layer', 17), 'layer_w017']; got {words!r}.")
    words = list(words)
    if not len(words):
        raise ValueError("There are no words to show.")
    keys = {vocabulary.key(layer, word): (layer, word) for layer, n in vocabulary.n_words.items() for word in range(n)}
    known = set(keys.values())
    return [_word_by_name(vocabulary, word, keys, known) for word in words]


def _word_by_name(vocabulary: Vocabulary, word: Any, keys: Mapping[str, Any], known: set[Any]) -> tuple[str, int]:
    found: Any = keys.get(word) if isinstance(word, str) else tuple(word) if isinstance(word, Iterable) else None
    if found not in known:
        near = difflib.get_close_matches(str(word), keys, 3, 0.3) if isinstance(word, str) else ()
        sizes = ", ".join(f"{layer!r} has words 0 to {n - 1}" for layer, n in vocabulary.n_words.items())
        raise ValueError(
            f"There is no word {word!r}; words are given as (layer, number) or by names such as {next(iter(keys))!r}, "
            f"and {sizes}." + (f" Near names: {', '.join(near)}." if near else "")
        )
    return found[0], int(found[1])


def run(steps: Iterable[Any], X: Any) -> Any:
    """Return X transformed by one step after the other."""
    for step in steps:
        X = step.transform(X)
    return X


def check_image(image: int, n_images: int) -> int:
    """Return the number of an image, counted from the front."""
    if not isinstance(image, Integral) or isinstance(image, bool):
        raise TypeError(f"image must be the number of an image in X, 0 to {n_images - 1}; got {image!r}.")
    if not -n_images <= image < n_images:
        raise IndexError(f"There is no image {image} in X, which has {n_images}.")
    return int(image) % n_images


def check_layers(layers: Sequence[str], maps: WordMaps) -> list[str]:
    """Return layers, having checked that there are such."""
    for layer in layers:
        if layer not in maps.layers:
            near = difflib.get_close_matches(str(layer), maps.layers) or maps.layers
            raise ValueError(f"There is no layer {layer!r}; there is {', '.join(map(repr, near))}.")
    return list(layers)


def pictures(words: WordMaps, rows: Iterable[int] | np.ndarray) -> list[np.ndarray]:
    """Return some images as uint8 (height, width, 3); none, where the words come from vectors."""
    return [] if words.pictures is None else [words.pictures[int(row)] for row in rows]
