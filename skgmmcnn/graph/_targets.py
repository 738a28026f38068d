"""What a graph explains: a decision, a word, or the word at one location."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from ..dictionary import WordMaps
from ._hierarchy import DECISION
from ._walk import Above

Target = int | str | tuple[str, int] | tuple[str, int, int] | None


def start_at(words: WordMaps, target: Any, contrast: int | None) -> Above:
    """Return where the walk starts over the images of `words`.

    `target` is an output, ``(layer, word)`` or, for a single image, ``(layer, row, column)``.
    """
    if not isinstance(target, tuple):
        return Above(DECISION, np.array([target]), against=contrast)
    layer, *place = target
    if len(place) == 1:
        return Above(layer, np.array(place))
    where = np.zeros(words.words[layer].shape[1:], dtype=bool)
    where[tuple(place)] = True
    return Above(layer, words.words[layer][0][tuple(place)].astype(np.intp)[None], where)


def root_of(words: WordMaps, target: tuple) -> tuple[str, int, dict[str, int]]:
    """Return the layer and the word that a target names, and its row and column where that is one location."""
    layer, *place = target
    if len(place) == 1:
        return layer, place[0], {}
    row, column = place
    return layer, int(words.words[layer][0, row, column]), {"row": row, "column": column}


def check_target(words: WordMaps, target: Any) -> Any:
    """Return a target with the class as an output, or raise an error that tells what there is."""
    if not isinstance(target, tuple):
        if isinstance(target, str) and target not in (words.spec.class_names or ()):
            _refuse_names_of_words(words, target)
        return words.spec.class_index(target)
    if len(target) not in (2, 3) or not all(isinstance(number, Integral) for number in target[1:]):
        raise ValueError(
            f"target={target!r} is neither a class, nor a word (layer, number), nor a location (layer, row, column)."
        )
    layer, *place = target
    if layer not in words.layers:
        near = difflib.get_close_matches(str(layer), words.layers) or words.layers
        raise ValueError(f"target={target!r}: there is no layer {layer!r}; there is {', '.join(map(repr, near))}.")
    limits = (words.vocabulary.n_words[layer],) if len(place) == 1 else words.words[layer].shape[1:]
    for number, limit in zip(place, limits, strict=True):
        if not 0 <= number < limit:
            what = f"words 0 to {limits[0] - 1}" if len(place) == 1 else f"a map of {limits[0]} x {limits[1]} locations"
            raise ValueError(f"target={target!r}: layer {layer!r} has {what}.")
    return (layer, *map(int, place))


def _refuse_names_of_words(words: WordMaps, target: str) -> None:
    for layer, n_words in words.vocabulary.n_words.items():
        for word in range(n_words):
            if target == words.vocabulary.key(layer, word):
                raise ValueError(f"target={target!r} is a word; give it by layer and number: target={(layer, word)!r}.")


def check_contrasts(words: WordMaps, targets: Sequence[Any], contrast: Any) -> list[int | None]:
    """Return the output that each image's decision is contrasted with, from one for all images or one for each."""
    if contrast is None or isinstance(contrast, (str, Integral)):
        contrast = [contrast] * len(targets)
    if len(contrast) != len(targets):
        raise ValueError(f"contrast must be one class, or one for each of {len(targets)} images; got {len(contrast)}.")
    return [check_contrast(words, target, each) for target, each in zip(targets, contrast, strict=True)]


def check_contrast(words: WordMaps, target: Any, contrast: Any) -> int | None:
    """Return the output that a decision is contrasted with."""
    if contrast is None:
        return None
    if isinstance(target, tuple):
        raise ValueError(f"contrast={contrast!r} is for decisions; {target!r} is a word.")
    output = words.spec.class_index(contrast)
    if output == target:
        raise ValueError(
            f"contrast={contrast!r} is the very class that is explained; give another one, or only the images that the "
            f"network calls something else: words[words.decisions != {output}]."
        )
    return output
