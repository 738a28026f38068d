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
from ._parts import Parts, in_memory, of_any_worth, take_apart

Comparisons = list[list[GraphComparison]]  # of the graphs of classes, and of images


class Case(NamedTuple):
    """A decision, and the images over which a graph explains it."""

    name: str
    target: int
    rows: np.ndarray


def _classes_of(words: WordMaps) -> list[Case]:
    """Return for each class that the network decides for the images that it does so for."""
    outputs = np.unique(words.decisions).tolist()
    return [Case(words.spec.class_name(c), c, np.flatnonzero(words.decisions == c)) for c in outputs]


def _some_images(words: WordMaps, n_images: int, random: np.random.RandomState) -> list[Case]:
    """Return some single images, drawn at random, with what the network decides for them."""
    rows = np.sort(random.choice(len(words), min(n_images, len(words)), replace=False))
    return [Case(f"image {row}", int(words.decisions[row]), np.array([row])) for row in rows.tolist()]


def refit(parts: Parts, maps: FeatureMaps, y: Any, seed: int) -> tuple[WordModel, InferenceGraph]:
    """Fit the words and the graph again with the same parameters, on `maps` and with this seed."""
    dictionary = clone(parts.dictionary).set_params(random_state=seed, keep_patches=False, keep_proba=False)
    return dictionary, clone(parts.graph).fit(dictionary.fit_transform(maps, y))


def seed_of(dictionary: WordModel, random: np.random.RandomState) -> int:
    """Return the seed of a dictionary, a new one where it has no number for one."""
    seed, drawn = dictionary.get_params()["random_state"], int(random.randint(2**31))
    return int(seed) if isinstance(seed, (int, np.integer)) else drawn


def take_apart_held(estimator: Any, X: Any) -> Parts:
    """Return the parts of a pipeline with a graph; maps of images that are not too many are held in memory."""
    parts = take_apart(estimator, X)
    held = parts.graph and isinstance(X, FeatureMaps)
    return parts if held else replace(parts, maps=in_memory(parts.maps))


class Explained:
    """The graphs of a first fit: of all classes, and of `n_images` images, drawn at random from `seen`.

    `cases` and `graphs` are pairs of lists, of classes and of images; `words` are those of `seen`.
    """

    def __init__(self, parts: Parts, seen: FeatureMaps, n_images: int, random: np.random.RandomState) -> None:
        self._random = random
        self.words = parts.dictionary.transform(seen)
        self.cases = _classes_of(self.words), _some_images(self.words, n_images, random)
        self.graphs = self._explain(parts.graph, self.words)

    def compare(self, graph: InferenceGraph, words: WordMaps, alignment: Alignment) -> tuple[Comparisons, Comparisons]:
        """Compare these graphs with those of another fit for the same decisions; also with partners at random."""
        again, by_chance = self._explain(graph, words), _at_random(alignment, self._random)
        return self._compare(again, alignment), self._compare(again, by_chance)

    @of_any_worth()
    def _explain(self, graph: InferenceGraph, words: WordMaps) -> list[list[nx.DiGraph]]:
        classes, images = self.cases
        of_classes = [graph.explain_together(words[case.rows], case.target) for case in classes]
        return [of_classes, _explain_images(graph, words, images)]

    def _compare(self, again: list[list[nx.DiGraph]], alignment: Alignment) -> Comparisons:
        return [
            [compare_graphs(*graphs, alignment) for graphs in zip(first, second, strict=True)]
            for first, second in zip(self.graphs, again, strict=True)
        ]


def _explain_images(graph: InferenceGraph, words: WordMaps, cases: list[Case]) -> list[nx.DiGraph]:
    """Return the graph of each case, which is about one image; those of one target are explained at the same time."""
    rows, targets = np.concatenate([case.rows for case in cases]), np.array([case.target for case in cases])
    by_row: dict[int, nx.DiGraph] = {}
    for target in np.unique(targets).tolist():
        chosen = rows[targets == target]
        by_row |= zip(chosen.tolist(), graph.explain(words[chosen], target), strict=True)
    return [by_row[row] for row in rows.tolist()]


def similarities(comparisons: list[GraphComparison]) -> np.ndarray:
    """Return the similarity of each two graphs."""
    return np.array([comparison.similarity for comparison in comparisons])


def _at_random(alignment: Alignment, random: np.random.RandomState) -> Alignment:
    """Return the alignment with the partners dealt out at random."""
    pairs = {
        layer: np.stack([rows[:, 0], random.permutation(rows[:, 1])], axis=1) for layer, rows in alignment.pairs.items()
    }
    return Alignment(pairs, alignment.similarity)
