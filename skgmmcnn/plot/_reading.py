"""Checks and look-ups of words, images and layers for displays and pages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from ..dictionary import Vocabulary, WordMaps, WordModel, WordStatistics
from ..features import FeatureMaps
from ..graph import DECISION, percent

_RARE = 0.03  # share of a word's locations below which a class is not named


def named_vocabulary(model: WordModel) -> Vocabulary:
    """Return the vocabulary of a dictionary or chain with the current names of its words."""
    return replace(model.vocabulary_, names=model._names(model.vocabulary_.n_words))


def statistics_of(vocabulary: Vocabulary) -> Mapping[str, WordStatistics]:
    """Return the statistics of words; raise an error where there are none."""
    if not vocabulary.statistics:
        raise ValueError("The dictionary has no statistics of its words; call its collect_representatives(X) first.")
    return vocabulary.statistics


def words_by_name(vocabulary: Vocabulary, words: Sequence[tuple[str, int] | str]) -> list[tuple[str, int]]:
    """Return words, given by layer and number or as ``"layer3_w017"``, by layer and number."""
    keys = {vocabulary.key(layer, word): (layer, word) for layer, n in vocabulary.n_words.items() for word in range(n)}
    pairs: list[tuple[str, int]] = []
    for word in [words] if isinstance(words, str) or not isinstance(words, Iterable) else words:
        pair: Any = keys.get(word) if isinstance(word, str) else tuple(word) if isinstance(word, Iterable) else None
        if pair not in set(keys.values()):
            near = difflib.get_close_matches(str(word), keys, 3, 0.3)
            sizes = ", ".join(f"{layer!r} has words 0 to {n - 1}" for layer, n in vocabulary.n_words.items())
            raise ValueError(
                f"There is no word {word!r}; words are given as (layer, number) or by names such as "
                f"{next(iter(keys))!r}, and {sizes}." + (f" Near names: {', '.join(near)}." if near else "")
            )
        pairs.append((pair[0], int(pair[1])))
    if not pairs:
        raise ValueError("There are no words to show.")
    return pairs


def classes_of(statistics: WordStatistics, words: Sequence[int]) -> list[tuple[int, float]]:
    """Return the classes of the fitted images that show some words, and their shares of the locations, largest first.

    Empty where there are no classes, as in a network with one output or without one, and for words that occur nowhere.
    """
    counts = statistics.counts[list(words)].sum(0)
    if len(counts) == 1:
        return []
    order = np.argsort(-counts, kind="stable").tolist()
    return [(label, float(counts[label] / counts.sum())) for label in order if counts[label]]


def commonest_classes(words: WordMaps, node: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the two commonest classes of the fitted images that show a word of a graph, with their shares as text."""
    statistics = words.vocabulary.statistics.get(node["layer"])
    if statistics is None:
        return []
    classes = classes_of(statistics, node.get("words", [node["word"]]))[:2]
    return [(words.spec.class_name(label), percent(share)) for label, share in classes if share > _RARE]


def n_fitted_of(words: WordMaps, root: Mapping[str, Any]) -> int | None:
    """Return the number of fitted images with the decision that is explained; None if it is unknown or a word."""
    if root["layer"] != DECISION or "n_fitted" in root:
        return root.get("n_fitted")
    for layer, statistics in words.vocabulary.statistics.items():
        return int(statistics.counts[:, root["word"]].sum()) // words.words[layer][0].size
    return None


def correctness(words: WordMaps, row: int, labels: np.ndarray) -> str:
    """Return whether the decision for an image is right, and its label, as text."""
    right = labels[row] == words.decisions[row]
    return f"{'right' if right else 'wrong'}: labelled {words.spec.class_name(int(labels[row]))}"


def run(steps: Iterable[Any], X: Any) -> Any:
    """Return X transformed by one step after the other; words stay as they are."""
    for step in steps:
        X = X if isinstance(X, WordMaps) else step.transform(X)
    return X


def find_images(images: Any, X: Any, n_images: int | None = None) -> np.ndarray:
    """Return the rows in X of one or several images, given by their numbers or the names of their files."""
    n_images = len(X) if n_images is None else n_images
    several = isinstance(images, Iterable) and not isinstance(images, str | PathLike)
    rows = []
    for image in images if several else [images]:
        if isinstance(image, str | PathLike):
            rows.append(_row_of_file(Path(image).name, X))
        elif not isinstance(image, int | np.integer) or isinstance(image, bool):
            raise TypeError(f"An image is a number, 0 to {n_images - 1}, or the name of its file in X; got {image!r}.")
        elif not -n_images <= image < n_images:
            raise IndexError(f"There is no image {image} in X, which has {n_images}.")
        else:
            rows.append(int(image) % n_images)
    return np.array(rows, dtype=int)


def _row_of_file(name: str, X: Any) -> int:
    shown = X.pictures if isinstance(X, WordMaps) else X.pictures() if isinstance(X, FeatureMaps) else None
    names = [shown.file_name(row) for row in range(len(shown))] if shown is not None else []
    if names.count(name) > 1:
        raise ValueError(
            f"{names.count(name)} images of X have the file name {name!r}; give the number of one of them."
        )
    if name not in names:
        near = ", ".join(map(repr, difflib.get_close_matches(name, names))) or "none of a similar name"
        raise ValueError(f"There is no file {name!r} among the images of X; there is {near}.")
    return names.index(name)


def pictures(words: WordMaps) -> list[np.ndarray]:
    """Return images as uint8 (height, width, 3); an empty list where the words come from vectors."""
    return [] if words.pictures is None else [words.pictures[row] for row in range(len(words))]


def locations_of(words: WordMaps, node: Mapping[str, Any]) -> np.ndarray:
    """Return the locations of a node of a graph, bool (n, H, W); an output has one location in every image."""
    if node["layer"] == DECISION:
        return np.ones((len(words), 1, 1), dtype=bool)
    shown = np.isin(words.words[node["layer"]], node.get("words", [node["word"]]))
    if "row" in node:
        here = np.zeros_like(shown)
        here[:, node["row"], node["column"]] = True
        shown &= here
    return shown
