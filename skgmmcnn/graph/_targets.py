"""Targets of explanations: decisions, words, or the word at one location."""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np

from ..dictionary import WordMaps
from ._hierarchy import DECISION

Target = int | str | tuple[str, int] | tuple[str, int, int] | None


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets of the graphs of n images."""

    layer: str  # the layer of the words that are explained, or ``"decision"``
    words: np.ndarray  # the word of each image; of the decision, the output, (n,)
    contrast: np.ndarray | None = None  # the outputs with which decisions are contrasted, (n,)
    place: tuple[int, int] | None = None  # the only location that is explained
    together: bool = False  # whether one graph explains the same target in all images

    def __getitem__(self, rows: np.ndarray) -> Targets:
        contrast = None if self.contrast is None else self.contrast[rows]
        return replace(self, words=self.words[rows], contrast=contrast)

    def where(self, words: WordMaps, rows: slice = slice(None)) -> np.ndarray:
        """Return the locations of the word that is explained in each image, bool (n, H, W)."""
        mask = words.words[self.layer][rows] == self.words[rows, None, None]
        if self.place is not None:
            here = np.zeros(mask.shape[1:], dtype=bool)
            here[self.place] = True
            mask &= here
        return mask


def targets_of(words: WordMaps, target: Any = None, contrast: Any = None, *, together: bool = False) -> Targets:
    """Return the targets of images, by default the decisions."""
    if isinstance(target, str):
        target = _word_named(words, target)
    if isinstance(target, tuple):
        if contrast is not None:
            raise ValueError(f"contrast={contrast!r} is for decisions; {target!r} is a word.")
        return _targets_of_word(words, target, together)
    outputs = words.decisions.astype(np.int64)
    if target is not None:
        outputs = np.full_like(outputs, words.spec.class_index(target))
    if contrast is None:
        return Targets(DECISION, outputs, together=together)
    each = [contrast] * len(words) if together or isinstance(contrast, (str, Integral)) else list(contrast)
    if len(each) != len(words):
        raise ValueError(f"contrast must be one class, or one for each of {len(words)} images; got {len(each)}.")
    against = np.array([words.spec.class_index(one) for one in each], np.int64)
    if (outputs == against).any():
        raise ValueError(
            f"contrast={contrast!r} is the class that is explained; pass another class, or only the images with "
            f"another decision: words[words.decisions != {against[outputs == against][0]}]."
        )
    return Targets(DECISION, outputs, against, together=together)


def _word_named(words: WordMaps, target: str) -> tuple[str, int] | str:
    """Return the word with this key, as ``"layer3_w017"``, or name; other targets, the names of classes, unchanged."""
    if target in (words.spec.class_names or ()):
        return target
    vocabulary = words.vocabulary
    every = [(layer, word) for layer, n_words in vocabulary.n_words.items() for word in range(n_words)]
    matches = [word for word in every if target in (vocabulary.key(*word), vocabulary.names.get(word))]
    if len(matches) > 1:
        raise ValueError(f"target={target!r} is the name of several words; pass one of {matches} instead.")
    return matches[0] if matches else target


def _targets_of_word(words: WordMaps, target: tuple, together: bool) -> Targets:
    layer, *place = target if len(target) in (2, 3) else (None,)
    if not place or not all(isinstance(number, Integral) for number in place):
        raise ValueError(
            f"target={target!r} is neither a class, nor a word (layer, number), nor a location (layer, row, column)."
        )
    if layer not in words.layers:
        choice = ", ".join(map(repr, words.layers))
        raise ValueError(f"target={target!r}: there is no layer {layer!r}; there is {choice}.")
    limits = (words.vocabulary.n_words[layer],) if len(place) == 1 else words.words[layer].shape[1:]
    if not all(0 <= number < limit for number, limit in zip(place, limits, strict=True)):
        choice = f"words 0 to {limits[0] - 1}" if len(place) == 1 else f"a map of {limits[0]} x {limits[1]} locations"
        raise ValueError(f"target={target!r}: layer {layer!r} has {choice}.")
    if len(place) == 2:
        if together:
            raise ValueError(f"A location, as {target!r}, belongs to one image; use explain, or give a word.")
        row, column = map(int, place)
        return Targets(layer, words.words[layer][:, row, column].astype(np.int64), place=(row, column))
    targets = Targets(layer, np.full(len(words), int(place[0])), together=together)
    if together and not targets.where(words).any():
        key = words.vocabulary.key(layer, int(place[0]))
        raise ValueError(f"None of these {len(words)} images shows the word {key}.")
    return targets
