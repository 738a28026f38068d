"""Orders in which words are taken: names, styles and ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Colours that the colour-blind can tell apart (Paul Tol's bright scheme), and lines that print in grey.
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


def ranks_of(importance: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the place of each word (n, K) among those of its image, the most important first.

    Words without columns, by `counts` (n, K), come last; of words that are as important, the lower number is first.
    """
    order = np.argsort(np.where(counts > 0, -importance, np.inf), axis=1, kind="stable")
    return np.argsort(order, axis=1)


def columns_of_first(ranks: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return how many columns the first word, the first two, and so on have: int (n, K + 1), from 0 for none."""
    sums = np.cumsum(np.take_along_axis(counts, np.argsort(ranks, axis=1), axis=1), axis=1)
    return np.concatenate([np.zeros((len(sums), 1), sums.dtype), sums], axis=1)
