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
    """What the graphs of n images explain.

    Parameters
    ----------
    layer : str
        The layer of the words that are explained, or ``"decision"``.
    words : int64 array of shape (n,)
        The word of each image; of the decision, the output.
    contrast : int or None
        The output with which decisions are contrasted.
    place : tuple (row, column) or None
        The only location that is explained.
    """

    layer: str
    words: np.ndarray
    contrast: int | None = None
    place: tuple[int, int] | None = None

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
    if isinstance(target, tuple):
        if contrast is not None:
            raise ValueError(f"contrast={contrast!r} is for decisions; {target!r} is a word.")
        return _words_of(words, target)
    outputs = words.decisions.astype(np.int64) if target is None else np.full(len(words), _output_of(words, target))
    if contrast is None:
        return Targets(DECISION, outputs)
    against = words.spec.class_index(contrast)
    if (outputs == against).any():
        raise ValueError(
            f"contrast={contrast!r} is the very class that is explained; give another one, or only the images that the "
            f"network calls something else: words[words.decisions != {against}]."
        )
    return Targets(DECISION, outputs, against)


def target_together(words: WordMaps, target: Any, contrast: Any = None) -> Targets:
    """Return one target of all images, an output or a word."""
    targets = targets_of(words, target, contrast)
    if targets.place is not None:
        raise ValueError(f"A location, as {target!r}, belongs to one image; use explain, or give a word.")
    if targets.layer != DECISION and not targets.where(words).any():
        raise ValueError(f"None of these {len(words)} images shows the word {words.vocabulary.key(*target)}.")
    return targets


def _output_of(words: WordMaps, target: Any) -> int:
    if isinstance(target, str) and target not in (words.spec.class_names or ()):
        for layer, n_words in words.vocabulary.n_words.items():
            for word in range(n_words):
                if target == words.vocabulary.key(layer, word):
                    raise ValueError(
                        f"target={target!r} is a word; give it by layer and number: target={(layer, word)!r}."
                    )
    return words.spec.class_index(target)


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
