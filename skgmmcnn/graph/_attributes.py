"""Attributes that nodes have under either evidence."""

from __future__ import annotations

from typing import Any

from ..dictionary import WordMaps
from ._hierarchy import DECISION


def decision_attributes(words: WordMaps, target: int) -> dict[str, Any]:
    """Return what a node of an output has."""
    return {
        "layer": DECISION,
        "word": target,
        "count": int((words.decisions == target).sum()),
        "n_locations": len(words),
        "class_name": words.spec.class_name(target),
    }


def word_attributes(words: WordMaps, layer: str, word: int) -> dict[str, Any]:
    """Return what a node of a word has."""
    shown = words.words[layer]
    attributes = {
        "layer": layer,
        "word": word,
        "count": int((shown == word).sum()),
        "n_locations": int(shown.size),
    }
    if (layer, word) in words.vocabulary.names:
        attributes["word_name"] = words.vocabulary.names[layer, word]
    return attributes
