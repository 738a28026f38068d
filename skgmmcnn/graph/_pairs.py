"""Evidence and exact effects of pairs of words, for the words that graphs keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..dictionary import WordMaps
from ._evidence import Selection, Word
from ._hierarchy import DECISION, Pair
from ._inference_graph import ENOUGH, InferenceGraph
from ._influence import InfluenceEvidence
from ._targets import targets_of
from ._tracing import salience


class PairEffect(NamedTuple):
    """A pair of words that the graph of an image keeps, or of a word and the decision."""

    image: int
    upper_word: int
    lower_word: int
    drawn: bool
    evidence: float
    effect: float


def selections_of(estimator: InferenceGraph, words: WordMaps) -> list[Selection]:
    """Return the words that the graph of each image's decision keeps, with all pairs of them."""
    return estimator._evidence(words).select(targets_of(words))


def priorities(estimator: InferenceGraph, words: WordMaps, evidence: np.ndarray, n_locations: np.ndarray) -> np.ndarray:
    """Return the keys (n, K) by which graphs choose words, from their evidence: the salience of influence."""
    by_salience = estimator._kind_of(words) is InfluenceEvidence and estimator.n_nodes != ENOUGH
    return salience(evidence, n_locations) if by_salience else evidence


def pair_effects(
    estimator: InferenceGraph, words: WordMaps, selections: list[Selection] | None = None
) -> tuple[str, dict[Pair, list[PairEffect]]]:
    """Return the kind of evidence, and by pair of layers all pairs of words that graphs keep, edges or not.

    The evidence is that of the graph; the effect is the fall of the decision's log-odds, in nats, when the lower word
    is taken away from the upper one, and from nothing else.  Selections that are known are not made again.
    """
    evidence = estimator._evidence(words)
    selections = selections or selections_of(estimator, words)
    influence = InfluenceEvidence(estimator, words, evidence.structure, evidence.n_nodes)
    effects = _effects(influence, selections)
    found: dict[Pair, list[PairEffect]] = {pair: [] for pair in evidence.structure.fields}
    for image, selection in enumerate(selections):
        for (lower, upper), attributes in selection.pairs.items():
            drawn, value = (lower, upper) in selection.edges, attributes[evidence.strength.compared]
            effect = PairEffect(image, upper[1], lower[1], drawn, value, effects[image][lower, upper])
            found[upper[0], lower[0]].append(effect)
    return evidence.name, found


def _effects(influence: InfluenceEvidence, selections: list[Selection]) -> list[Mapping[tuple[Word, Word], float]]:
    """Return the effects of the pairs of each image, from the selection where it has them."""
    known = [{pair: row.get("effect") for pair, row in selection.pairs.items()} for selection in selections]
    if not any(None in row.values() for row in known):
        return known  # type: ignore[return-value]
    kept = {
        layer: [[word for name, word in selection.words if name == layer] for selection in selections]
        for layer in influence.words.layers
    }
    for row, trace, decision in zip(known, influence.effects(kept), influence.words.decisions.tolist(), strict=True):
        row |= {pair: flow.effect for pair, flow in trace.flows.items()}
        row |= {(word, (DECISION, decision)): effect.effect for word, effect in trace.effects.items()}
    return known  # type: ignore[return-value]
