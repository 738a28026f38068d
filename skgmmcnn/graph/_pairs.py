"""Evidence and exact effects of the pairs of words in graphs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..dictionary import WordMaps
from ._evidence import Selection
from ._hierarchy import Pair
from ._inference_graph import InferenceGraph
from ._influence_evidence import InfluenceEvidence
from ._kinds import evidence_for, kind_for
from ._targets import targets_of


class PairEffect(NamedTuple):
    """A pair of words in the graph of an image, or of a word and the decision."""

    image: int
    upper_word: int
    lower_word: int
    drawn: bool
    evidence: float
    effect: float


def selections_of(estimator: InferenceGraph, words: WordMaps) -> list[Selection]:
    """Return the selections of the graphs of decisions, one for each image."""
    estimator._check_words(words)
    return evidence_for(estimator, words).select(targets_of(words))


def priorities(estimator: InferenceGraph, words: WordMaps, evidence: np.ndarray, n_locations: np.ndarray) -> np.ndarray:
    """Return the keys (n, K) by which graphs choose words, from their evidence and numbers of locations."""
    return kind_for(estimator, words).priority(estimator.n_nodes, evidence, n_locations)


def pair_effects(
    estimator: InferenceGraph, words: WordMaps, selections: list[Selection] | None = None
) -> tuple[str, dict[Pair, list[PairEffect]]]:
    """Return the kind of evidence, and by pair of layers all pairs of words in graphs, edges or not.

    The evidence is the one in the graph; the effect is the fall of the decision's log-odds, in nats, by ablating the
    lower word from only the upper one.  `selections` are computed if None.
    """
    estimator._check_words(words)
    evidence = evidence_for(estimator, words)
    selections = selections or selections_of(estimator, words)
    if evidence.uses_network:
        effects = [{pair: row["effect"] for pair, row in selection.pairs.items()} for selection in selections]
    else:
        influence = InfluenceEvidence(estimator, words, evidence.hierarchy)
        effects = influence.effects(
            {
                layer: [[word for name, word in selection.words if name == layer] for selection in selections]
                for layer in words.layers
            }
        )
    by_layers: dict[Pair, list[PairEffect]] = {pair: [] for pair in evidence.hierarchy.fields}
    for image, selection in enumerate(selections):
        for (lower, upper), row in selection.pairs.items():
            drawn, value = (lower, upper) in selection.edges, row[evidence.strength.evidence]
            effect = PairEffect(image, upper[1], lower[1], drawn, value, effects[image][lower, upper])
            by_layers[upper[0], lower[0]].append(effect)
    return evidence.name, by_layers
