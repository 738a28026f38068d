"""Inference paths: one word per layer, from the lowest layer to the decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..dictionary import select


class PathTable(NamedTuple):
    """Paths (n_paths, L), the most frequent first, with counts, fractions of the examples, and log-probabilities."""

    paths: np.ndarray
    counts: np.ndarray
    shares: np.ndarray
    log_proba: np.ndarray


@dataclass(frozen=True, eq=False)
class InferencePaths:
    """The most likely paths of n examples through the words of L layers.

    Returned by :meth:`LayerHMM.paths`.  Supports indexing by example (``paths[rows]``).

    Parameters
    ----------
    layers : tuple of str
        The layers, the lowest first.
    n_words : tuple of int
        Number of words of each layer.
    words : int array of shape (n, L)
        The paths.
    log_proba : float array of shape (n, L)
        Log-probability of each word given the word below it, in nats; of the first word, the initial log-probability.
    posteriors : float array of shape (n, L)
        Posterior of each single word given the activations.
    path_proba : float array of shape (n,)
        Posterior of the whole path given the activations.
    decisions : int array of shape (n,) or None
        Index of the decision of the network, or of the chain if there is no network; None for chains without
        decisions.
    class_tables : tuple of array of shape (K, n_outputs), or None
        Probability of each decision given the word, by layer.
    """

    layers: tuple[str, ...]
    n_words: tuple[int, ...]
    words: np.ndarray
    log_proba: np.ndarray
    posteriors: np.ndarray
    path_proba: np.ndarray
    decisions: np.ndarray | None
    class_tables: tuple[np.ndarray, ...] | None

    @property
    def shape(self) -> tuple[int]:
        """The number of examples, as a tuple."""
        return (len(self.words),)

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"InferencePaths(n={len(self)}, layers={list(self.layers)})"

    def __getitem__(self, key: Any) -> InferencePaths:
        return select(self, ("words", "log_proba", "posteriors", "path_proba", "decisions"), key)

    def path_table(self, label: int | None = None, *, n_paths: int | None = None) -> PathTable:
        """Count the paths of the examples, the most frequent first.

        Parameters
        ----------
        label : int, default=None
            Only examples with this decision.
        n_paths : int, default=None
            Maximum number of paths; all by default.

        Returns
        -------
        table : named tuple
            `paths`, int array (n_paths, L) of one word per layer; `counts` (n_paths,) of the examples on each path;
            `shares`, the same as fractions of the selected examples; `log_proba`, the log-probability of each path
            under the chain, in nats.  Ties are broken by `log_proba`.
        """
        examples = self if label is None else self[np.flatnonzero(self._check_decisions() == label)]
        if not len(examples):
            raise ValueError(f"None of {len(self)} examples has the decision {label}.")
        paths, first, counts = np.unique(examples.words, axis=0, return_index=True, return_counts=True)
        log_proba = examples.log_proba[first].sum(1)
        order = np.lexsort((-log_proba, -counts))[:n_paths]
        return PathTable(paths[order], counts[order], counts[order] / len(examples), log_proba[order])

    def departures(self, labels: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the layer in which each path departs from a class for good.

        Parameters
        ----------
        labels : int array of shape (n,)
            Index of a class per example, such as the true class.

        Returns
        -------
        layers : int array of shape (n,)
            Index of the first layer from which on no word of the path has this class as the most probable decision; L
            if the last word has it.
        """
        self._check_decisions()
        assert self.class_tables is not None
        labels = np.broadcast_to(np.asarray(labels), self.shape)
        classes = [table.argmax(1)[words] for table, words in zip(self.class_tables, self.words.T, strict=True)]
        differs = np.stack(classes, axis=1) != labels[:, None]
        n_last_layers = np.logical_and.accumulate(differs[:, ::-1], axis=1).sum(1)
        return len(self.layers) - n_last_layers

    def _check_decisions(self) -> np.ndarray:
        """Return the decisions; raise ValueError if there are none."""
        if self.decisions is None or self.class_tables is None:
            raise ValueError("These paths lead to no decision: the chain was fitted on plain arrays without y.")
        return self.decisions
