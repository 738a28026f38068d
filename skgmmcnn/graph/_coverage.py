"""How far counts can speak: how many of the decisions have enough fitted images, and how often words agree."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import networkx as nx
import numpy as np

from ..dictionary import WordMaps

FEW_FITTED = 10  # images of a class; counts of fewer tell next to nothing


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
    parts = [
        f"{agree[rows].mean():.0%} of the {name} ones"
        for name, rows in (("right", right), ("wrong", ~right))
        if rows.any()
    ]
    return f"{text}, {' and '.join(parts)}"


def warn_of_few(words: WordMaps, outputs: Iterable[int], class_counts: np.ndarray) -> None:
    """Warn of decisions that counts know little of."""
    few = sorted({output for output in outputs if class_counts[output] < FEW_FITTED})
    if few:
        shown = ", ".join(f"{words.spec.class_name(output)!r} ({class_counts[output]})" for output in few[:3])
        warnings.warn(
            f"Counts know little of decisions with fewer than {FEW_FITTED} fitted images: {shown}"
            f"{' and others' if len(few) > 3 else ''}. Fit more images of them, or use evidence='influence'.",
            stacklevel=5,
        )


def warn_of_contradiction(graphs: Iterable[nx.DiGraph]) -> None:
    """Warn of contrasts that the counts of all words together deny."""
    roots = [graph.nodes[graph.graph["root"]] for graph in graphs if "contrast" in graph.graph]
    n_denied = sum(root["score"] < 0 for root in roots)
    if n_denied:
        warnings.warn(
            f"The counts of all words together speak against {n_denied} of {len(roots)} contrasts, which the network "
            "made all the same: the words shown cannot be why. Use evidence='influence'.",
            stacklevel=4,
        )
