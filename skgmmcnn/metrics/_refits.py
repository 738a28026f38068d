"""Refits of words and graphs, and comparisons of their graphs with those of the first fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from sklearn.base import clone

from ..dictionary import Alignment, WordMaps, WordModel
from ..features import FeatureMaps
from ..graph import GraphComparison, InferenceGraph, compare_graphs
from ._parts import Parts, ignore_few_fitted, in_memory, take_apart


class Comparisons(NamedTuple):
    """Comparisons of graphs with those of a refit, with aligned words and with random partners."""

    aligned: list[GraphComparison]
    chance: list[GraphComparison]


def open_for_refits(estimator: Any, X: Any, explained: Any) -> tuple[Parts, FeatureMaps]:
    """Return the parts of a pipeline, and the maps to explain, by default those of X; maps of images are in memory."""
    parts = _held(estimator, X)
    return parts, parts.maps if explained is None else _held(estimator, explained).maps


def _held(estimator: Any, X: Any) -> Parts:
    parts = take_apart(estimator, X)
    return parts if isinstance(X, FeatureMaps) else replace(parts, maps=in_memory(parts.maps))


def seed_of(dictionary: WordModel, random: np.random.RandomState) -> int:
    """Return the seed of a dictionary if it is a number, a random one otherwise."""
    seed = dictionary.get_params()["random_state"]
    other = int(random.randint(2**31))
    return int(seed) if isinstance(seed, (int, np.integer)) else other


def refit(parts: Parts, maps: FeatureMaps, y: Any, seed: int) -> tuple[WordModel, InferenceGraph]:
    """Fit words and graph again, with the same parameters, to `maps` and with this seed."""
    dictionary = clone(parts.dictionary).set_params(random_state=seed, keep_patches=False, keep_proba=False)
    return dictionary, clone(parts.graph).fit(dictionary.fit_transform(maps, y))


class Reference:
    """Graphs of a first fit: of all classes, and of `n_images` random images of `maps`.

    `words` are those of `maps`; `class_names` and `image_names` are the names of the graphs.
    """

    def __init__(self, parts: Parts, maps: FeatureMaps, n_images: int, random: np.random.RandomState) -> None:
        self._random = random
        self.words = parts.dictionary.transform(maps)
        self._classes = np.unique(self.words.decisions).tolist()
        self._images = np.sort(random.choice(len(maps), min(n_images, len(maps)), replace=False))
        self.class_names = tuple(map(self.words.spec.class_name, self._classes))
        self.image_names = tuple(f"image {row}" for row in self._images)
        self.class_graphs, self.image_graphs = self._explain(parts.graph, self.words)

    def compare(self, graph: InferenceGraph, words: WordMaps, alignment: Alignment) -> tuple[Comparisons, Comparisons]:
        """Compare the graphs of classes and of images with those of a refit."""
        random_alignment = shuffled(alignment, self._random)
        class_graphs, image_graphs = self._explain(graph, words)

        def compare(first: list[nx.DiGraph], second: list[nx.DiGraph]) -> Comparisons:
            pairs = list(zip(first, second, strict=True))
            aligned = [compare_graphs(*pair, alignment) for pair in pairs]
            return Comparisons(aligned, [compare_graphs(*pair, random_alignment) for pair in pairs])

        return compare(self.class_graphs, class_graphs), compare(self.image_graphs, image_graphs)

    @ignore_few_fitted()
    def _explain(self, graph: InferenceGraph, words: WordMaps) -> tuple[list[nx.DiGraph], list[nx.DiGraph]]:
        """Return the graphs of all classes and of the images, for the decisions of the first fit."""
        decisions = self.words.decisions
        classes = [graph.explain_together(words[decisions == output], output) for output in self._classes]
        images = replace(words[self._images], decisions=decisions[self._images])
        return classes, graph.explain(images)


def similarities(comparisons: list[GraphComparison]) -> np.ndarray:
    """Return the similarity of each two graphs, (n_graphs,)."""
    return np.array([comparison.similarity for comparison in comparisons])


def shuffled(alignment: Alignment, random: np.random.RandomState) -> Alignment:
    """Return the alignment with partners in random order."""
    pairs = {
        layer: np.stack([rows[:, 0], random.permutation(rows[:, 1])], axis=1) for layer, rows in alignment.pairs.items()
    }
    return Alignment(pairs, alignment.similarity)
