"""What graphs keep of images: each image's own graph, or the graph of all images with its decision."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..dictionary import WordMaps
from ..graph import InferenceGraph
from ..graph._targets import start_at
from ..graph._walk import Step

KINDS = ("image", "class")


def check_kind(by: str) -> None:
    """Raise an error that tells whose graphs there are."""
    if by not in KINDS:
        raise ValueError(f"by must be 'image' or 'class'; got {by!r}.")


def leaders(words: WordMaps, by: str) -> np.ndarray:
    """Return for each image the number of the first one that shares its graph, shape (n,)."""
    check_kind(by)
    if by == "image":
        return np.arange(len(words))
    _, first, group = np.unique(words.decisions, return_index=True, return_inverse=True)
    return first[group]


def walks(graph: InferenceGraph, words: WordMaps, by: str) -> Iterator[tuple[np.ndarray, list[Step]]]:
    """Yield the images of each graph, and the walk down from their decision."""
    first = leaders(words, by)
    graph._check_words(words)
    evidence = graph._evidence()
    for leader in np.unique(first):
        rows = np.flatnonzero(first == leader)
        start = start_at(words[rows], int(words.decisions[leader]), None)
        yield rows, graph._walk(words[rows], start, evidence)
