"""Evidence of words for decisions, in the graph of each image, or of all images with its decision."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..dictionary import WordMaps, count_words
from ..graph import priorities
from ._parts import Parts, graph_of

KINDS = ("image", "class")


def check_kind(by: str) -> None:
    """Refuse anything but the graphs of images and of classes."""
    if by not in KINDS:
        raise ValueError(f"by must be 'image' or 'class'; got {by!r}.")


def leaders(words: WordMaps, by: str) -> np.ndarray:
    """Return for each image the number of the first one that shares its graph, shape (n,)."""
    check_kind(by)
    if by == "image":
        return np.arange(len(words))
    _, first, group = np.unique(words.decisions, return_index=True, return_inverse=True)
    return first[group]


def ranked_by_evidence(parts: Parts, layers: Sequence[str], by: str) -> dict[str, dict[str, np.ndarray]]:
    """Return by layer, and by order of the graph, the removal priority of each word in each image, shape (n, K).

    The evidence of a class is the mean over the images with its decision.
    """
    words, n_words = parts.words, parts.words.vocabulary.n_words
    leader = leaders(words, by)
    size = np.bincount(leader)[leader, None]
    evidence = over_graphs(parts.evidence, leader) / size
    ends = np.cumsum([n_words[layer] for layer in words.layers])
    priorities_of = {}
    for layer, values in zip(words.layers, np.split(evidence, ends[:-1], axis=1), strict=True):
        if layer in layers:
            columns = over_graphs(count_words(words.words[layer], n_words[layer]), leader)
            priority = priorities(graph_of(parts), words, values, columns / size)
            per_location = values / np.maximum(columns, 1)
            priorities_of[layer] = {"graph": priority, "per_location": per_location, "reverse": -priority}
    return priorities_of


def over_graphs(values: np.ndarray, leader: np.ndarray) -> np.ndarray:
    """Return for each image the sum of `values` (n, K) over the images that share its graph."""
    sums = np.zeros_like(values)
    np.add.at(sums, leader, values)
    return sums[leader]
