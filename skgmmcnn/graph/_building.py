"""From a walk to a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from ..dictionary import WordMaps
from ._attributes import decision_attributes, word_attributes
from ._evidence import NO_EVIDENCE, Evidence, Pair
from ._hierarchy import DECISION, Hierarchy
from ._surprise import surprise_of_words
from ._walk import Above, Link, Step

INTERVAL = (2.5, 97.5)  # percentiles


@dataclass(frozen=True, eq=False)
class Learnt:
    """What the fitted images tell: evidence, images of each class, and p- and q-values of pairs where asked for."""

    evidence: Evidence
    class_counts: np.ndarray
    p_values: Mapping[Pair, np.ndarray]
    q_values: Mapping[Pair, np.ndarray]


def build_graph(words: WordMaps, structure: Hierarchy, start: Above, steps: list[Step], learnt: Learnt) -> nx.DiGraph:
    """Return the words that a walk selected and the evidence between them.

    Edges lead from a lower word to the word that it explains.  An edge is left out where its log-ratio is not
    positive, or where the lower word is nowhere in the upper word's fields over these images; scores are full sums all
    the same.  All attributes are plain.
    """
    graph: nx.DiGraph = nx.DiGraph(n_images=len(words), evidence="counts")
    depths = structure.depths()
    _add_root(graph, words, start, steps, learnt)
    graph.nodes[graph.graph["root"]]["depth"] = depths[start.layer]
    for step in steps:
        surprises = surprise_of_words(words, structure, step.layer, step.selected, learnt.evidence)
        for word, surprise in zip(step.selected.tolist(), surprises.tolist(), strict=True):
            attributes = {**word_attributes(words, step.layer, word), **_scores(step, word)}
            if not np.isnan(surprise):
                attributes["surprise"] = surprise
            graph.add_node(words.vocabulary.key(step.layer, word), **attributes, depth=depths[step.layer])
        for link in step.links:
            _add_edges(graph, words, step, link, learnt)
    return graph


def _add_root(graph: nx.DiGraph, words: WordMaps, start: Above, steps: list[Step], learnt: Learnt) -> None:
    scores = sum((step.scores.sum(1) for step in steps if any(link.above is start for link in step.links)), np.zeros(1))
    attributes: dict[str, Any] = {"score": float(scores[0]), **_interval(scores)}
    word = int(start.words[0])
    if start.layer != DECISION:
        key = words.vocabulary.key(start.layer, word)
        if start.where is not None:
            attributes["row"], attributes["column"] = (int(place[0]) for place in np.nonzero(start.where))
        graph.add_node(key, **word_attributes(words, start.layer, word), **attributes)
    else:
        key = f"{DECISION}_{word}"
        graph.graph |= {"target": word, "class_name": words.spec.class_name(word)}
        if start.against is not None:
            against = {"contrast": start.against, "contrast_name": words.spec.class_name(start.against)}
            graph.graph |= against
            attributes |= against
        graph.add_node(key, **decision_attributes(words, word), **attributes, n_fitted=int(learnt.class_counts[word]))
    graph.graph["root"] = key


def _scores(step: Step, word: int) -> dict[str, Any]:
    attributes = {"score": float(step.scores[0, word])}
    if len(step.scores) > 1:
        attributes |= _interval(step.scores_of_selection()[:, word])
        attributes["selected"] = float(step.kept[1:, word].mean())
    return attributes


def _interval(values: np.ndarray) -> dict[str, float]:
    """Return the interval of the resamples, which follow the first value; nothing without any."""
    if len(values) == 1:
        return {}
    low, high = np.percentile(values[1:], INTERVAL)
    return {"low": float(low), "high": float(high)}


def _add_edges(graph: nx.DiGraph, words: WordMaps, step: Step, link: Link, learnt: Learnt) -> None:
    above = link.above
    for row in np.flatnonzero(above.kept[0]).tolist():
        s, total = int(above.words[row]), int(link.counts[row].sum())
        head = f"{DECISION}_{s}" if above.layer == DECISION else words.vocabulary.key(above.layer, s)
        for t in step.selected.tolist():
            ratios, count = link.ratios[:, row, t], int(link.counts[row, t])
            if ratios[0] > NO_EVIDENCE and count > 0:
                graph.add_edge(
                    words.vocabulary.key(step.layer, t),
                    head,
                    log_ratio=float(ratios[0]),
                    count=count,
                    frequency=count / total,
                    contribution=float(ratios[0]) * count,
                    **_certainty(ratios, above.kept[:, row] & step.kept[:, t]),
                    **({} if above.against is not None else _chance(learnt, (above.layer, step.layer), s, t)),
                )


def _certainty(ratios: np.ndarray, kept: np.ndarray) -> dict[str, float]:
    if len(ratios) == 1:
        return {}
    return {**_interval(ratios), "selected": float((kept & (ratios > NO_EVIDENCE))[1:].mean())}


def _chance(learnt: Learnt, pair: Pair, s: int, t: int) -> dict[str, float]:
    if pair not in learnt.p_values or np.isnan(learnt.p_values[pair][s, t]):
        return {}
    return {"p_value": float(learnt.p_values[pair][s, t]), "q_value": float(learnt.q_values[pair][s, t])}
