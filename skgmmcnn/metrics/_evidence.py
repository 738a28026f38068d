"""Evidence of words for decisions, in the graph of each image, or of all images with its decision."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ..dictionary import WordMaps
from ..graph import InferenceGraph

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


def evidence_of(graph: InferenceGraph, words: WordMaps, by: str) -> dict[str, np.ndarray]:
    """Return by layer the evidence of each word for each image's decision, (n, K), in the order of which graphs choose.

    That of a class is the mean over the images with its decision.
    """
    leader = leaders(words, by)
    evidence = over_graphs(graph.transform(words), leader) / np.bincount(leader)[leader, None]
    ends = np.cumsum([words.vocabulary.n_words[layer] for layer in words.layers])
    return dict(zip(words.layers, np.split(evidence, ends[:-1], axis=1), strict=True))


def over_graphs(values: np.ndarray, leader: np.ndarray) -> np.ndarray:
    """Return for each image the sum of `values` (n, K) over the images that share its graph."""
    sums = np.zeros_like(values)
    np.add.at(sums, leader, values)
    return sums[leader]


@contextmanager
def of_any_worth() -> Iterator[None]:
    """Let graphs of counts be made of decisions with few fitted images: what they are worth is measured here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Counts know little of decisions")
        yield
