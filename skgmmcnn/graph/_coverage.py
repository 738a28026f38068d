"""Coverage of decisions by the fitted images, and agreement of words with them."""

from __future__ import annotations

import numpy as np

from ..dictionary import WordMaps

FEW_FITTED = 10  # images of a class; counts of fewer say next to nothing


def coverage(words: WordMaps, class_counts: np.ndarray, predicted: np.ndarray, labels: np.ndarray | None) -> str:
    """Return as text how many decisions have enough fitted images, and how many of them the words predict."""
    covered = class_counts[words.decisions] >= FEW_FITTED
    agree = predicted == words.decisions
    text = (
        f"{covered.sum()} of {len(words)} decisions are for classes with at least {FEW_FITTED} fitted images; counts "
        f"of words predict {agree.mean():.0%} of the decisions"
    )
    if labels is None:
        return text
    right = labels == words.decisions
    groups = [("right", right), ("wrong", ~right)]
    parts = [f"{agree[rows].mean():.0%} of the {name} ones" for name, rows in groups if rows.any()]
    return f"{text}, {' and '.join(parts)}"
