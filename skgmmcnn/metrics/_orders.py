"""Orders in which words are removed, by their evidence in the graphs of images or of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import priorities
from ._parts import Parts

# Colours that the colour-blind can distinguish (Paul Tol's bright scheme), and lines that print in grey.
STYLES: dict[str, dict[str, Any]] = {
    "graph": {"color": "#4477aa", "lw": 2.5},
    "per_location": {"color": "#66ccee", "ls": "--"},
    "reverse": {"color": "#aa3377", "ls": "-."},
    "frequency": {"color": "#228833", "ls": (0, (5, 1))},
    "random": {"color": "0.4", "ls": "-"},
}


def check_orders(orders: Sequence[str], known: Sequence[str], n_random: int) -> None:
    """Refuse unknown orders, and no random ones."""
    for order in orders:
        if order not in known:
            raise ValueError(f"orders may name {', '.join(map(repr, known))}; got {order!r}.")
    if n_random < 1:
        raise ValueError(f"n_random must be at least 1; got {n_random}.")


def describe(fill: str, by: str) -> str:
    """Return the filling of columns and the kind of graphs as text."""
    return fill if by == "image" else f"{fill}, by class"


def leaders_of(parts: Parts, by: str) -> np.ndarray:
    """Return for each image the number of the first one that shares its graph, shape (n,)."""
    if by == "image":
        return np.arange(len(parts.maps))
    if by != "class":
        raise ValueError(f"by must be 'image' or 'class'; got {by!r}.")
    _, first, group = np.unique(parts.words.decisions, return_index=True, return_inverse=True)
    return first[group]


def over_graphs(values: np.ndarray, leaders: np.ndarray) -> np.ndarray:
    """Return for each image the sum of `values` (n, K) over the images that share its graph."""
    sums = np.zeros_like(values)
    np.add.at(sums, leaders, values)
    return sums[leaders]


def ranked_by_evidence(parts: Parts, leaders: np.ndarray) -> dict[str, np.ndarray]:
    """Return by order of the graph the removal priority of each word in each image, shape (n, sum of K over layers).

    The evidence of a class is the mean over the images with its decision.
    """
    size = np.bincount(leaders)[leaders, None]
    evidence = over_graphs(parts.evidence, leaders) / size
    columns = over_graphs(parts.words.histogram(), leaders)
    priority = priorities(parts.graph, parts.words, evidence, columns / size)
    return {"graph": priority, "per_location": evidence / np.maximum(columns, 1), "reverse": -priority}


def ranks_of(priority: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the place of each word (n, K) among those of its image, the highest priority first.

    Words without columns, by `counts` (n, K), come last; of words of equal priority, the lower number is first.
    """
    order = np.argsort(np.where(counts > 0, -priority, np.inf), axis=1, kind="stable")
    return np.argsort(order, axis=1)


def columns_of_first(ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the numbers of columns of the first word, the first two, and so on: int (n, K + 1), from 0 for none."""
    sums = np.cumsum(np.take_along_axis(counts, np.argsort(ranks, axis=1), axis=1), axis=1)
    return np.concatenate([np.zeros((len(sums), 1), sums.dtype), sums], axis=1)


def first_with_as_many(ranks: np.ndarray, counts: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return the first words, bool (n, K), whose number of columns is nearest to that of the words `kept` (n, K)."""
    of_kept = (counts * kept).sum(1, keepdims=True)
    n_words = np.abs(columns_of_first(ranks, counts) - of_kept).argmin(1)
    return ranks < n_words[:, None]
