"""Parts of a network, given by the words whose columns stay, and the decisions in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..dictionary import WordMaps, count_words
from ..features import Rerun, margins
from ._ablation import Fillings, at_locations, outputs_without
from ._evidence import leaders, over_graphs, ranked_by_evidence
from ._orders import columns_of_first, ranks_of
from ._parts import Parts, graph_of, of_any_worth

ORDERS = ("graph", "per_location", "frequency", "random")
Kept = Mapping[str, np.ndarray]  # by layer, which words of each image stay: bool (n, K)


class Plan(NamedTuple):
    """Words that graphs keep, removal priorities by layer and order, and numbers of columns, each of shape (n, K).

    `counts` are the columns of each image, `of_graph` those of all images with the same graph, and `leaders` the number
    of the first of these, shape (n,).
    """

    kept: Kept
    by_graph: Mapping[str, Mapping[str, np.ndarray]]
    counts: Mapping[str, np.ndarray]
    of_graph: Mapping[str, np.ndarray]
    leaders: np.ndarray

    @property
    def n_words(self) -> np.ndarray:
        """0, 1, 2, 4 and so on to the most words of a layer that images with one graph show."""
        most = max(int((values > 0).sum(1).max()) for values in self.of_graph.values())
        return np.array([0, *(2**i for i in range((most - 1).bit_length())), most])

    def rank(self, order: str, n_times: int, random: np.random.RandomState) -> list[Mapping[str, np.ndarray]]:
        """Return `n_times` by layer the place of each word (n, K) in an order; words not shown come last."""
        return [
            {layer: ranks_of(self._importance(order, layer, random), self.of_graph[layer]) for layer in self.kept}
            for _ in range(n_times)
        ]

    def _importance(self, order: str, layer: str, random: np.random.RandomState) -> np.ndarray:
        if order == "random":
            return random.random_sample(self.kept[layer].shape)[self.leaders]
        if order == "frequency":
            return self.of_graph[layer]
        return self.by_graph[layer][order]

    def nothing(self) -> Kept:
        """Return no word at all."""
        return {layer: np.zeros_like(kept) for layer, kept in self.kept.items()}

    def complement(self) -> Kept:
        """Return all words that graphs do not keep."""
        return {layer: ~kept for layer, kept in self.kept.items()}

    def numbers(self, layers: Sequence[str]) -> dict[str, np.ndarray]:
        """Return the number of each word that a graph keeps of `layers` among these, shape (n, K)."""
        numbers, before = {}, np.zeros((len(self.leaders), 1), dtype=np.int64)
        for layer in layers:
            numbers[layer] = before + np.cumsum(self.kept[layer], axis=1) - 1
            before = before + self.kept[layer].sum(1, keepdims=True)
        return numbers

    def without(self, layers: Sequence[str]) -> dict[Any, Kept]:
        """Return the words that graphs keep without their first one, without their second one, and so on."""
        numbers = self.numbers(layers)
        most = int(sum(self.kept[layer].sum(1) for layer in layers).max())
        return {
            ("without", node): {layer: self.kept[layer] & (numbers[layer] != node) for layer in layers}
            for node in range(most)
        }

    def alike(self, ranks: Mapping[str, np.ndarray]) -> Kept:
        """Return the first words of each layer, such that they take nearest to as many columns as the graph's."""
        return {layer: rank < self._n_alike(layer, rank)[:, None] for layer, rank in ranks.items()}

    def _n_alike(self, layer: str, rank: np.ndarray) -> np.ndarray:
        counts = self.of_graph[layer]
        sums = columns_of_first(rank, counts)
        return np.abs(sums - (counts * self.kept[layer]).sum(1, keepdims=True)).argmin(1)

    def share(self, kept: Kept, layers: Sequence[str]) -> np.ndarray:
        """Return the share of the columns that show the words `kept`, the mean over `layers`, shape (n,)."""
        shares = [(self.counts[layer] * kept[layer]).sum(1) / self.counts[layer].sum(1) for layer in layers]
        return np.mean(shares, axis=0)


def first(ranks: Mapping[str, np.ndarray], n_words: int) -> Kept:
    """Return the first `n_words` words of each layer."""
    return {layer: rank < n_words for layer, rank in ranks.items()}


def plan_of(parts: Parts, by: str, layers: Sequence[str]) -> Plan:
    """Return what the graphs of images, or of all images with one decision, keep of `layers`."""
    words, n_words = parts.words, parts.words.vocabulary.n_words
    leader = leaders(words, by)
    with of_any_worth():
        kept = parts.kept() if by == "image" else graph_of(parts).select(words, by=by)
    counts = {layer: count_words(words.words[layer], n_words[layer]) for layer in layers}
    of_graph = {layer: over_graphs(values, leader) for layer, values in counts.items()}
    return Plan(
        {layer: kept[layer] for layer in layers}, ranked_by_evidence(parts, layers, by), counts, of_graph, leader
    )


def run_with(
    parts: Parts, words: WordMaps, fillings: Fillings, bar: Any, layers: Sequence[str], selections: Mapping[Any, Kept]
) -> dict[Any, np.ndarray]:
    """Return for each selection the log-odds of decisions with only these words left in `layers`, shape (n,).

    ``"full"`` is that of the untouched network.
    """

    def work(part: Rerun) -> dict[Any, np.ndarray]:
        original = part.original
        filling = fillings({layer: original.activations[layer] for layer in layers}, original.start)
        shown = {layer: words.words[layer][part.rows].astype(np.int64) for layer in layers}
        outputs = {"full": original.outputs}
        for key, kept in selections.items():
            gone = {layer: at_locations(~kept[layer][part.rows], shown[layer]) for layer in layers}
            outputs[key] = outputs_without(part, gone, filling)
        return {key: margins(each, original.decisions).numpy(force=True) for key, each in outputs.items()}

    batches = []
    for part in parts.maps.rerun(work):
        batches.append(part)
        bar.update(len(part["full"]))
    return {key: np.concatenate([part[key] for part in batches]) for key in ("full", *selections)}
