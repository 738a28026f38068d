"""Refits of words and graphs, and comparisons of their graphs with those of the first fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
from sklearn.base import clone

from ..dictionary import Alignment, WordMaps, WordModel
from ..features import FeatureMaps
from ..graph import GraphComparison, InferenceGraph, compare_graphs
from ._parts import Parts, ignore_few_fitted, in_memory, take_apart

Compared = list[GraphComparison]


def take_apart_held(estimator: Any, X: Any) -> Parts:
    """Return the parts of a pipeline with a graph; maps of images that are not too many are held in memory."""
    parts = take_apart(estimator, X)
    return parts if isinstance(X, FeatureMaps) else replace(parts, maps=in_memory(parts.maps))


def seed_of(dictionary: WordModel, random: np.random.RandomState) -> int:
    """Return the seed of a dictionary, a new one where it has no number for one."""
    seed, drawn = dictionary.get_params()["random_state"], int(random.randint(2**31))
    return int(seed) if isinstance(seed, (int, np.integer)) else drawn


def refit(parts: Parts, maps: FeatureMaps, y: Any, seed: int) -> tuple[WordModel, InferenceGraph]:
    """Fit the words and the graph again with the same parameters, on `maps` and with this seed."""
    dictionary = clone(parts.dictionary).set_params(random_state=seed, keep_patches=False, keep_proba=False)
    return dictionary, clone(parts.graph).fit(dictionary.fit_transform(maps, y))


class Reference:
    """The graphs of a first fit: of all classes, and of `n_images` images, drawn at random from those of `seen`.

    `words` are those of `seen`; `names` and `graphs` are pairs, of classes and of images.
    """

    def __init__(self, parts: Parts, seen: FeatureMaps, n_images: int, random: np.random.RandomState) -> None:
        self._random = random
        self.words = words = parts.dictionary.transform(seen)
        self._classes = np.unique(words.decisions).tolist()
        self._images = np.sort(random.choice(len(words), min(n_images, len(words)), replace=False))
        self.names = (
            tuple(words.spec.class_name(output) for output in self._classes),
            tuple(f"image {row}" for row in self._images),
        )
        self.graphs = self._explain(parts.graph, words)

    def compare(self, graph: InferenceGraph, words: WordMaps, alignment: Alignment) -> list[list[Compared]]:
        """Compare the graphs of classes and of images with those of a refit, as aligned and with random partners."""
        again, alignments = self._explain(graph, words), (alignment, shuffled(alignment, self._random))
        return [
            [[compare_graphs(*pair, each) for pair in zip(*graphs, strict=True)] for each in alignments]
            for graphs in zip(self.graphs, again, strict=True)
        ]

    @ignore_few_fitted()
    def _explain(self, graph: InferenceGraph, words: WordMaps) -> tuple[list[nx.DiGraph], list[nx.DiGraph]]:
        """Return the graphs of all classes and of the images, for the decisions of the first fit."""
        decisions, by_row = self.words.decisions, dict[int, nx.DiGraph]()
        for output in np.unique(decisions[self._images]).tolist():
            rows = self._images[decisions[self._images] == output]
            by_row |= zip(rows.tolist(), graph.explain(words[rows], output), strict=True)
        classes = [graph.explain_together(words[decisions == output], output) for output in self._classes]
        return classes, [by_row[row] for row in self._images.tolist()]


def similarities(compared: Compared) -> np.ndarray:
    """Return the similarity of each two graphs, (n_graphs,)."""
    return np.array([comparison.similarity for comparison in compared])


def shuffled(alignment: Alignment, random: np.random.RandomState) -> Alignment:
    """Return the alignment with the partners in random order."""
    pairs = {
        layer: np.stack([rows[:, 0], random.permutation(rows[:, 1])], axis=1) for layer, rows in alignment.pairs.items()
    }
    return Alignment(pairs, alignment.similarity)
