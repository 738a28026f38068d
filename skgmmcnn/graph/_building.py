"""From a walk to a graph."""

from __future__ import annotations

import networkx as nx
import numpy as np

from ..dictionary import WordMaps
from ._attributes import add_decision, add_word
from ._evidence import NO_EVIDENCE
from ._hierarchy import DECISION, Hierarchy
from ._walk import Above, Link, Step


def build_graph(
    words: WordMaps, structure: Hierarchy, start: Above, steps: list[Step], class_counts: np.ndarray
) -> nx.DiGraph:
    """Return the words that a walk selected and the evidence between them.

    Edges lead from a lower word to the word that it explains.  An edge is left out where its log-ratio is not
    positive, or where the lower word is nowhere in the upper word's fields over these images; scores are full sums all
    the same.  All attributes are plain.
    """
    graph: nx.DiGraph = nx.DiGraph(n_images=len(words), evidence="counts")
    depths = structure.depths()
    _add_root(graph, words, start, steps, class_counts, depths[start.layer])
    for step in steps:
        for word in step.selected.tolist():
            add_word(graph, words, step.layer, word, score=float(step.scores[word]), depth=depths[step.layer])
        for link in step.links:
            _add_edges(graph, words, step, link)
    return graph


def _add_root(
    graph: nx.DiGraph, words: WordMaps, start: Above, steps: list[Step], class_counts: np.ndarray, depth: int
) -> None:
    score = float(sum(step.scores.sum() for step in steps if any(link.above is start for link in step.links)))
    word = int(start.words[0])
    if start.layer == DECISION:
        add_decision(graph, words, word, start.against, score=score, n_fitted=int(class_counts[word]))
        return
    place = {}
    if start.where is not None:
        place = {name: int(at[0]) for name, at in zip(("row", "column"), np.nonzero(start.where), strict=True)}
    graph.graph["root"] = add_word(graph, words, start.layer, word, score=score, **place, depth=depth)


def _add_edges(graph: nx.DiGraph, words: WordMaps, step: Step, link: Link) -> None:
    above = link.above
    for row, s in enumerate(above.words.tolist()):
        total = int(link.counts[row].sum())
        head = f"{DECISION}_{s}" if above.layer == DECISION else words.vocabulary.key(above.layer, s)
        for t in step.selected.tolist():
            ratio, count = float(link.ratios[row, t]), int(link.counts[row, t])
            if ratio > NO_EVIDENCE and count > 0:
                graph.add_edge(
                    words.vocabulary.key(step.layer, t),
                    head,
                    log_ratio=ratio,
                    count=count,
                    frequency=count / total,
                    contribution=ratio * count,
                )
