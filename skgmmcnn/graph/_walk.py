"""The walk from what is explained down: it keeps the words that best explain those kept above."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import NamedTuple

import numpy as np

from ..dictionary import WordMaps
from ..features import ReceptiveField
from ._counting import chunks, spread
from ._evidence import NO_EVIDENCE, Pair
from ._hierarchy import DECISION, Hierarchy, maps_of


class Above(NamedTuple):
    """Words of one layer that are to be explained.

    `words` (A,) may be outputs of the decision; each of them counts as present in every image, whatever the network
    decided.  `where` (H, W) tells which locations count, all where it is None.  `against` is the output that a decision
    is contrasted with.
    """

    layer: str
    words: np.ndarray
    where: np.ndarray | None = None
    against: int | None = None

    def present(self, maps: np.ndarray) -> np.ndarray:
        """Return where the words are in `maps` (n, H, W), as (n, A, H, W)."""
        if self.layer == DECISION:
            return np.ones((len(maps), len(self.words), 1, 1), dtype=bool)
        shown = maps[:, None] == self.words[:, None, None]
        return shown if self.where is None else shown & self.where


class Link(NamedTuple):
    """What one layer tells of one above it.

    `counts` (A, K) is how often each word lies in the fields of those above, `ratios` (A, K) the evidence that one
    location gives.
    """

    above: Above
    counts: np.ndarray
    ratios: np.ndarray

    def scores(self) -> np.ndarray:
        """Return the evidence of each word for the upper words, (K,)."""
        return (self.counts * self.ratios).sum(0)


class Step(NamedTuple):
    """One layer of a walk: its links to what it explains, the evidence of its words (K,), and those kept, in order."""

    layer: str
    links: list[Link]
    scores: np.ndarray
    selected: np.ndarray


def walk(
    words: WordMaps, structure: Hierarchy, start: Above, ratios: Mapping[Pair, np.ndarray], n_nodes: Mapping[str, int]
) -> list[Step]:
    """Walk from `start` down, layer by layer, over the images of `words`.

    score(t) = sum over the words s kept above of C[s, t] log2 P(t | s) / P(t), with C counted over these images.  The
    `n_nodes[layer]` best words with a positive score are kept: the exact maximiser of this additive log-likelihood
    ratio, given the words above.
    """
    reached, steps = {start.layer: start}, []
    for layer in reversed(words.layers):
        links = [
            _link(words, reached[upper], layer, structure.fields[upper, layer], ratios[upper, layer])
            for upper in structure.above(layer)
            if upper in reached
        ]
        if not links:
            continue
        scores = reduce(np.add, (link.scores() for link in links))
        best = np.argsort(-(scores / NO_EVIDENCE).round(), kind="stable")[: n_nodes[layer]]  # ties: lower
        steps.append(Step(layer, links, scores, best[scores[best] > NO_EVIDENCE]))
        reached[layer] = Above(layer, steps[-1].selected)
    return steps


def _link(words: WordMaps, above: Above, layer: str, field: ReceptiveField, ratios: np.ndarray) -> Link:
    chosen = ratios[above.words]
    if above.against is not None:
        chosen = chosen - ratios[above.against]
    return Link(above, count_below(words, above, layer, field), chosen)


def count_below(words: WordMaps, above: Above, layer: str, field: ReceptiveField) -> np.ndarray:
    """Return how often each word of `layer` lies in the fields of the words `above`, int64 (A, K)."""
    n_words, n_above = words.vocabulary.n_words[layer], len(above.words)
    upper, lower = maps_of(words, above.layer), words.words[layer]
    counts = np.zeros(n_above * n_words)
    for part in chunks(len(words), n_above * max(upper[0].size, lower[0].size)):
        # How many of the fields each location lies in: exact, being no more than the locations of a map.
        seen = spread(above.present(upper[part]).astype(np.float32), field)
        cells = lower[part, None] + n_words * np.arange(n_above)[:, None, None]
        counts += np.bincount(cells.ravel(), seen.ravel(), minlength=len(counts))
    return counts.reshape(n_above, n_words).astype(np.int64)
