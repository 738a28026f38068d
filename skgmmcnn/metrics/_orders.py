"""Orders in which words are removed, by evidence of images or of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..graph import priorities
from ._parts import Parts, Table

# Colours for the colour-blind (Paul Tol's bright scheme), and lines that differ in grey.
STYLES: dict[str, dict[str, Any]] = {
    "graph": {"color": "#4477aa", "lw": 2.5},
    "per_location": {"color": "#66ccee", "ls": "--"},
    "reverse": {"color": "#aa3377", "ls": "-."},
    "frequency": {"color": "#228833", "ls": (0, (5, 1))},
    "random": {"color": "0.4", "ls": "-"},
}


def check_orders(orders: Sequence[str], choices: Sequence[str], n_random: int) -> None:
    """Raise ValueError for an unknown order, or without random runs."""
    for order in orders:
        if order not in choices:
            raise ValueError(f"orders must be among {', '.join(map(repr, choices))}; got {order!r}.")
    if n_random < 1:
        raise ValueError(f"n_random must be at least 1; got {n_random}.")


def describe(fill: str, by: str) -> str:
    """Return the filling of columns and the kind of graphs as text."""
    return fill if by == "image" else f"{fill}, by class"


def leaders_of(parts: Parts, by: str) -> np.ndarray:
    """Return the first image that shares the graph of each image, shape (n,)."""
    if by == "image":
        return np.arange(len(parts.maps))
    if by != "class":
        raise ValueError(f"by must be 'image' or 'class'; got {by!r}.")
    _, first, group = np.unique(parts.words.decisions, return_index=True, return_inverse=True)
    return first[group]


def sum_over_graphs(values: np.ndarray, leaders: np.ndarray) -> np.ndarray:
    """Return the sum of `values` (n, K) over the images that share the graph of each image."""
    sums = np.zeros_like(values)
    np.add.at(sums, leaders, values)
    return sums[leaders]


def priorities_by_evidence(parts: Parts, leaders: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Return the tables of the removal priority of words in the orders of the graph.

    The evidence of a class is the mean over the images with its decision.
    """
    size = np.bincount(leaders)[leaders, None]
    evidence = sum_over_graphs(parts.evidence, leaders) / size
    counts = sum_over_graphs(parts.words.histogram(), leaders)
    priority = priorities(parts.graph, parts.words, evidence, counts / size)
    per_location = evidence / np.maximum(counts, 1)
    by_order = {"graph": priority, "per_location": per_location, "reverse": -priority}
    return {order: parts.by_layer(values) for order, values in by_order.items()}


def ranks_by_order(
    priorities: Mapping[str, Table],
    counts: Table,
    leaders: np.ndarray,
    orders: Sequence[str],
    n_random: int,
    random: np.random.RandomState,
) -> dict[str, list[dict[str, np.ndarray]]]:
    """Return by order the ranks of words in each run: `n_random` runs of random order, one of every other.

    Random orders are equal for images that share a graph.
    """

    def priority(order: str, layer: str) -> np.ndarray:
        if order == "random":
            return random.random_sample(counts[layer].shape)[leaders]
        return priorities[order][layer]

    ranks = {}
    for order in orders:
        n_runs = n_random if order == "random" else 1
        ranks[order] = [
            {layer: ranks_of(priority(order, layer), counts[layer]) for layer in counts} for _ in range(n_runs)
        ]
    return ranks


def mean_curve(scores: np.ndarray, n_runs: int) -> np.ndarray:
    """Return the mean (n, n_steps) over runs of scores (n_runs * n_steps, n)."""
    return np.stack([*scores.reshape(n_runs, -1, scores.shape[1]).mean(0)], axis=1)


def shares_of_locations(tables: Sequence[Table], counts: Table) -> np.ndarray:
    """Return the shares of the locations of words, bool by layer, the means over layers, shape (n_tables, n)."""
    shares = [
        [(counts[layer] * mask).sum(1) / counts[layer].sum(1) for layer, mask in table.items()] for table in tables
    ]
    return np.mean(shares, axis=1)


def inverse(table: Table) -> dict[str, np.ndarray]:
    """Return the table of all words outside a table."""
    return {layer: ~mask for layer, mask in table.items()}


def ranks_of(priority: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the rank of each word (n, K) in its image, the highest priority first.

    Words without locations, by `counts` (n, K), come last; of words of equal priority, the lower number is first.
    """
    order = np.argsort(np.where(counts > 0, -priority, np.inf), axis=1, kind="stable")
    return np.argsort(order, axis=1)


def cumulative_counts(ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the number of locations of the first word, the first two, and so on: int (n, K + 1), from 0 for none."""
    sums = np.cumsum(np.take_along_axis(counts, np.argsort(ranks, axis=1), axis=1), axis=1)
    return np.concatenate([np.zeros((len(sums), 1), sums.dtype), sums], axis=1)


def first_of_equal_size(ranks: np.ndarray, counts: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Return the first words, bool (n, K), whose number of locations is nearest to that of `words`, bool (n, K)."""
    target = (counts * words).sum(1, keepdims=True)
    n_words = np.abs(cumulative_counts(ranks, counts) - target).argmin(1)
    return ranks < n_words[:, None]
