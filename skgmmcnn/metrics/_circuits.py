"""Parts of a network, given by the words whose columns stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ._orders import columns_of_first, leaders_of, over_graphs, ranked_by_evidence, ranks_of
from ._parts import Parts, of_any_worth

ORDERS = ("graph", "per_location", "frequency", "random")


@dataclass(frozen=True, eq=False)
class Plan:
    """The words of some layers, side by side in tables (n, sum of K over these layers), and those that graphs keep.

    `columns_of_layers` are the columns of each layer.  `counts` are the locations of words in each image, `of_graph`
    those in all images with the same graph, and `leaders` the number of the first of these, shape (n,); `kept` is bool,
    and `priorities` are tables by order.
    """

    columns_of_layers: Mapping[str, slice]
    kept: np.ndarray
    priorities: Mapping[str, np.ndarray]
    counts: np.ndarray
    of_graph: np.ndarray
    leaders: np.ndarray

    @property
    def n_words(self) -> np.ndarray:
        """0, 1, 2, 4 and so on to the most words of a layer that images with one graph show."""
        most = max(int((self.of_graph[:, each] > 0).sum(1).max()) for each in self.columns_of_layers.values())
        return np.array([0, *(2**i for i in range((most - 1).bit_length())), most])

    def rank(self, order: str, random: np.random.RandomState) -> np.ndarray:
        """Return the place of each word in an order of the words of its layer; words not shown come last."""

        def priority(columns: slice) -> np.ndarray:
            if order == "random":
                return random.random_sample(self.kept[:, columns].shape)[self.leaders]
            return self.of_graph[:, columns] if order == "frequency" else self.priorities[order][:, columns]

        each = self.columns_of_layers.values()
        return np.hstack([ranks_of(priority(columns), self.of_graph[:, columns]) for columns in each])

    def first_as_graph(self, ranks: np.ndarray) -> np.ndarray:
        """Return the first words of each layer, such that they take nearest to as many columns as the graph's."""
        first = np.empty_like(self.kept)
        for columns in self.columns_of_layers.values():
            rank, counts = ranks[:, columns], self.of_graph[:, columns]
            of_kept = (counts * self.kept[:, columns]).sum(1, keepdims=True)
            n_words = np.abs(columns_of_first(rank, counts) - of_kept).argmin(1)
            first[:, columns] = rank < n_words[:, None]
        return first

    def nodes(self, layers: Sequence[str]) -> np.ndarray:
        """Return the number of each word that a graph keeps among those of `layers`, -1 for other words."""
        within = np.zeros_like(self.kept)
        for layer in layers:
            within[:, self.columns_of_layers[layer]] = self.kept[:, self.columns_of_layers[layer]]
        return np.where(within, np.cumsum(within, axis=1) - 1, -1)

    def share(self, kept: np.ndarray, layers: Sequence[str]) -> np.ndarray:
        """Return the share of the columns that show the words `kept`, the mean over `layers`, shape (n,)."""
        shares = []
        for layer in layers:
            counts = self.counts[:, self.columns_of_layers[layer]]
            shares.append((counts * kept[:, self.columns_of_layers[layer]]).sum(1) / counts.sum(1))
        return np.mean(shares, axis=0)


def plan_of(parts: Parts, by: str, layers: Sequence[str]) -> Plan:
    """Return what the graphs of images, or of all images with one decision, keep of `layers`."""
    leaders, columns = leaders_of(parts, by), parts.columns(layers)
    with of_any_worth():
        kept = parts.kept() if by == "image" else parts.graph.select(parts.words, by=by)
    ends = np.cumsum([kept[layer].shape[1] for layer in layers])
    counts = parts.words.histogram()[:, columns]
    return Plan(
        {layer: slice(end - kept[layer].shape[1], end) for layer, end in zip(layers, ends, strict=True)},
        np.hstack([kept[layer] for layer in layers]),
        {order: priority[:, columns] for order, priority in ranked_by_evidence(parts, leaders).items()},
        counts,
        over_graphs(counts, leaders),
        leaders,
    )
