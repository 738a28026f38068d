"""Targets of explanations: decisions, words, or the word at one location."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from ..dictionary import WordMaps
from ._hierarchy import DECISION

Target = int | str | tuple[str, int] | tuple[str, int, int] | None


@dataclass(frozen=True, eq=False)
class Targets:
    """What the graphs of n images explain."""

    layer: str  # the layer of the words that are explained, or ``"decision"``
    words: np.ndarray  # the word of each image; of the decision, the output, (n,)
    contrast: np.ndarray | None = None  # the outputs with which decisions are contrasted, (n,)
    place: tuple[int, int] | None = None  # the only location that is explained

    def where(self, words: WordMaps, rows: slice = slice(None)) -> np.ndarray:
        """Return the locations that show a word that is explained, bool (n, H, W)."""
        shown = words.words[self.layer][rows] == self.words[rows, None, None]
        if self.place is not None:
            here = np.zeros(shown.shape[1:], dtype=bool)
            here[self.place] = True
            shown &= here
        return shown


def targets_of(words: WordMaps, target: Any = None, contrast: Any = None) -> Targets:
    """Return what is explained of each image, by default the decision; raise an error that names what there is."""
    if isinstance(target, str):
        target = _word_named(words, target)
    if isinstance(target, tuple):
        if contrast is not None:
            raise ValueError(f"contrast={contrast!r} is for decisions; {target!r} is a word.")
        return _words_of(words, target)
    decisions = words.decisions.astype(np.int64)
    outputs = decisions if target is None else np.full_like(decisions, words.spec.class_index(target))
    if contrast is None:
        return Targets(DECISION, outputs)
    against = _outputs_against(words, contrast)
    if (outputs == against).any():
        raise ValueError(
            f"contrast={contrast!r} is the very class that is explained; give another one, or only the images that the "
            f"network calls something else: words[words.decisions != {against[outputs == against][0]}]."
        )
    return Targets(DECISION, outputs, against)


def target_together(words: WordMaps, target: Any, contrast: Any = None) -> Targets:
    """Return one target of all images, an output or a word."""
    targets = targets_of(words, target, None if contrast is None else words.spec.class_index(contrast))
    if targets.place is not None:
        raise ValueError(f"A location, as {target!r}, belongs to one image; use explain, or give a word.")
    if targets.layer != DECISION and not targets.where(words).any():
        key = words.vocabulary.key(targets.layer, int(targets.words[0]))
        raise ValueError(f"None of these {len(words)} images shows the word {key}.")
    return targets


def _word_named(words: WordMaps, target: str) -> tuple[str, int] | str:
    """Return the word that has this key, as ``"layer3_w017"``, or was given this name; else the target as it is."""
    if target in (words.spec.class_names or ()):
        return target
    vocabulary = words.vocabulary
    every = [(layer, word) for layer, n_words in vocabulary.n_words.items() for word in range(n_words)]
    found = [word for word in every if target in (vocabulary.key(*word), vocabulary.names.get(word))]
    if len(found) > 1:
        raise ValueError(f"target={target!r} is the name of several words; give one of {found} instead.")
    return found[0] if found else target


def _outputs_against(words: WordMaps, contrast: Any) -> np.ndarray:
    """Return outputs (n,) from one for all images, or one for each."""
    each = [contrast] * len(words) if isinstance(contrast, (str, Integral)) else list(contrast)
    if len(each) != len(words):
        raise ValueError(f"contrast must be one class, or one for each of {len(words)} images; got {len(each)}.")
    return np.array([words.spec.class_index(one) for one in each], np.int64)


def _words_of(words: WordMaps, target: tuple) -> Targets:
    layer, *place = target if len(target) in (2, 3) else (None,)
    if not place or not all(isinstance(number, Integral) for number in place):
        raise ValueError(
            f"target={target!r} is neither a class, nor a word (layer, number), nor a location (layer, row, column)."
        )
    if layer not in words.layers:
        near = difflib.get_close_matches(str(layer), words.layers) or words.layers
        raise ValueError(f"target={target!r}: there is no layer {layer!r}; there is {', '.join(map(repr, near))}.")
    limits = (words.vocabulary.n_words[layer],) if len(place) == 1 else words.words[layer].shape[1:]
    if not all(0 <= number < limit for number, limit in zip(place, limits, strict=True)):
        what = f"words 0 to {limits[0] - 1}" if len(place) == 1 else f"a map of {limits[0]} x {limits[1]} locations"
        raise ValueError(f"target={target!r}: layer {layer!r} has {what}.")
    if len(place) == 1:
        return Targets(layer, np.full(len(words), int(place[0])))
    row, column = map(int, place)
    return Targets(layer, words.words[layer][:, row, column].astype(np.int64), place=(row, column))
