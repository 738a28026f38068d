"""From counts to evidence: smoothed log-ratios, and the walk that keeps the words that best explain those above."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..dictionary import WordMaps
from ._counting import count_pairs

DECISION = "decision"
NO_EVIDENCE = 1e-9  # bits; smaller differences are rounding


def log_ratios(counts: np.ndarray, smoothing: float) -> np.ndarray:
    """Return log2 P(t | s) / P(t) in bits, shape (K_upper, K_lower), from counts shrunk towards no evidence.

    With C the counts and b the smoothing, in window positions,

        P(t) = C[., t] / C[., .],   P(t | s) = (C[s, t] + b P(t)) / (C[s, .] + b).

    A word t never counted, and a row s without counts, give 0 bits; a pair never seen is never positive evidence.
    """
    marginal = counts.sum(0) / max(counts.sum(), 1)
    known = marginal > 0
    lift = (counts / np.where(known, marginal, 1) + smoothing) / (counts.sum(1, keepdims=True) + smoothing)
    return np.log2(np.where(known, lift, 1))


class Step(NamedTuple):
    """One layer of a walk.

    `above` are the words to be explained, `counts` (len(above), K) how often each word of this layer lies in their
    fields, `scores` (K,) the evidence of each word in bits, and `selected` the words kept, best first.
    """

    layer: str
    above: np.ndarray
    counts: np.ndarray
    scores: np.ndarray
    selected: np.ndarray


def walk(words: WordMaps, target: int, ratios: Mapping[tuple[str, str], np.ndarray], n_nodes: int) -> list[Step]:
    """Walk from `target` down, layer by layer, over the images of `words`.

    score(t) = sum over the words s kept above of C[s, t] log2 P(t | s) / P(t), with C counted over these images.  The
    `n_nodes` best words with a positive score are kept: the exact maximiser of this additive log-likelihood ratio,
    given the words above.  The target counts as present in every image, whatever the network decided.
    """
    steps: list[Step] = []
    upper, above = DECISION, np.array([target])
    for layer in reversed(words.layers):
        counts = _count_below(words, upper, above, layer)
        scores = (counts * ratios[upper, layer][above]).sum(0)
        best = np.argsort(-(scores / NO_EVIDENCE).round(), kind="stable")[:n_nodes]  # ties: the lower number
        selected = best[scores[best] > NO_EVIDENCE]
        steps.append(Step(layer, above, counts, scores, selected))
        upper, above = layer, selected
    return steps


def _count_below(words: WordMaps, upper: str, above: np.ndarray, layer: str) -> np.ndarray:
    """Return how often each word of `layer` lies in the fields of the words `above`, shape (len(above), K)."""
    n_words = words.vocabulary.n_words[layer]
    lower = words.words[layer]
    if upper == DECISION:
        return np.bincount(lower.ravel(), minlength=n_words)[None]
    rest = len(above)  # one more row takes all words that are not asked for
    place = np.full(words.vocabulary.n_words[upper], rest)
    place[above] = np.arange(rest)
    field = words.spec.receptive_fields[upper, layer]
    return count_pairs(place[words.words[upper]], lower, field, rest + 1, n_words)[:rest]
