"""Memorisation of training examples in the layers of a fully connected network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..chain import InferencePaths
from ._results import text_table


@dataclass(frozen=True, eq=False)
class Memorisation:
    """The result of :func:`memorisation`."""

    layers: tuple[str, ...]
    train_path: np.ndarray
    test_path: np.ndarray
    train_agreement: np.ndarray
    test_agreement: np.ndarray
    assigned_share: np.ndarray
    true_share: np.ndarray
    joins: np.ndarray

    @property
    def path_gap(self) -> np.ndarray:
        """Difference of `train_path` and `test_path`, shape (L,)."""
        return self.train_path - self.test_path

    @property
    def agreement_gap(self) -> np.ndarray:
        """Difference of `train_agreement` and `test_agreement`, shape (L,)."""
        return self.train_agreement - self.test_agreement

    @property
    def layer(self) -> str | None:
        """The layer in which most corrupted examples join their assigned label; None without such examples."""
        counts = np.bincount(self.joins, minlength=len(self.layers))[: len(self.layers)]
        return self.layers[counts.argmax()] if counts.any() else None

    def __str__(self) -> str:
        joining = np.bincount(self.joins, minlength=len(self.layers) + 1)
        rows = [["layer", "path gap", "agreement gap", "corrupted: assigned", "true", "joining"]]
        for i, layer in enumerate(self.layers):
            shares = self.agreement_gap[i], self.assigned_share[i], self.true_share[i]
            rows.append([layer, f"{self.path_gap[i]:.2f}", *(f"{share:.1%}" for share in shares), str(joining[i])])
        return text_table(rows, "<>>>>>")


def memorisation(
    train: InferencePaths,
    labels: Sequence[int] | np.ndarray,
    test: InferencePaths,
    test_labels: Sequence[int] | np.ndarray,
    true_labels: Sequence[int] | np.ndarray | None = None,
) -> Memorisation:
    """Compare the paths of training examples with those of other examples.

    A network that was trained with some wrong labels, and predicts these labels for the training examples, has
    memorised them in some layer: below it the corrupted examples show words of their true class, above it words of the
    assigned class [1]_.

    The label of a word is the most frequent label of the training examples that show it.  For a training example, the
    example itself is left out, since a word of a single example would always agree.

    Parameters
    ----------
    train : InferencePaths
        Paths of training examples.
    labels : int array of shape (n_train,)
        Labels that the network was trained with.
    test : InferencePaths
        Paths of other examples, through the same words.
    test_labels : int array of shape (n_test,)
        Labels of the others.  Corrupt an equal share of them, so that gaps of agreement are 0 without memorisation.
    true_labels : int array of shape (n_train,), default=None
        True labels of the training examples if some are corrupted.

    Returns
    -------
    result : Memorisation
        Arrays of shape (L,) over the `layers`, the lowest first: `train_path`, `test_path` : mean log-probability of a
        word given the word below it, in nats; `train_agreement`, `test_agreement` : share of the examples whose word
        has their label; `path_gap`, `agreement_gap` : differences of these; `assigned_share`, `true_share` : share of
        the corrupted training examples whose word has the assigned label or the true label, NaN without corrupted
        examples.  `joins` : int array of shape (n_corrupted,), index of the lowest layer from which all words up to the
        top have the assigned label, L if there is none.  `layer` : the most frequent of these layers, None without.

    References
    ----------
    .. [1] Konforti, Shpigler, Lerner and Bar-Hillel, "SIGN: Statistical Inference Graphs Based on Probabilistic
       Network Activity Interpretation", IEEE TPAMI, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from skgmmcnn import LayerHMM
    >>> from skgmmcnn.metrics import memorisation
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 2, 400)
    >>> assigned = np.where(rng.random(400) < 0.2, 1 - y, y)  # the upper layer has learnt wrong labels
    >>> layers = [rng.normal(9 * y[:, None], 1, (400, 3)), rng.normal(9 * assigned[:, None], 1, (400, 3))]
    >>> paths = LayerHMM(4, solver="em", random_state=0).fit(layers).paths(layers)
    >>> memorisation(paths[:200], assigned[:200], paths[200:], assigned[200:], y[:200]).layer
    'dense1'
    """
    labels = _checked(labels, train, "labels")
    test_labels = _checked(test_labels, test, "test_labels")
    if (train.layers, train.n_words) != (test.layers, test.n_words):
        raise ValueError("Training and test paths have different words; pass paths of one LayerHMM.")
    true_labels = labels if true_labels is None else _checked(true_labels, train, "true_labels")
    corrupted = labels != true_labels
    n_labels = int(max(labels.max(), test_labels.max(), true_labels.max())) + 1
    by_layer = [
        _labels_of_words(train.words[:, i], labels, test.words[:, i], n_words, n_labels)
        for i, n_words in enumerate(train.n_words)
    ]
    word_labels, test_word_labels = (np.stack(columns, axis=1) for columns in zip(*by_layer, strict=True))
    assigned = word_labels[corrupted] == labels[corrupted, None]
    true = word_labels[corrupted] == true_labels[corrupted, None]
    from_here_on = np.logical_and.accumulate(assigned[:, ::-1], axis=1).sum(1)
    nothing = np.full(len(train.layers), np.nan)
    return Memorisation(
        layers=train.layers,
        train_path=train.log_proba.mean(0),
        test_path=test.log_proba.mean(0),
        train_agreement=(word_labels == labels[:, None]).mean(0),
        test_agreement=(test_word_labels == test_labels[:, None]).mean(0),
        assigned_share=assigned.mean(0) if corrupted.any() else nothing,
        true_share=true.mean(0) if corrupted.any() else nothing,
        joins=len(train.layers) - from_here_on,
    )


def _checked(labels: Sequence[int] | np.ndarray, paths: InferencePaths, name: str) -> np.ndarray:
    array = np.asarray(labels)
    if array.shape != paths.shape or array.dtype.kind not in "iu" or (array < 0).any():
        raise ValueError(f"{name} must be {len(paths)} numbers of classes; got {array.dtype} of shape {array.shape}.")
    return array.astype(np.int64)


def _labels_of_words(
    words: np.ndarray, labels: np.ndarray, test_words: np.ndarray, n_words: int, n_labels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the label of the word of each training example, without the example itself, and of each test example."""
    counts = np.zeros((n_words, n_labels), dtype=np.int64)
    np.add.at(counts, (words, labels), 1)
    others = counts[words]
    others[np.arange(len(words)), labels] -= 1
    return _most_frequent(others), _most_frequent(counts)[test_words]


def _most_frequent(counts: np.ndarray) -> np.ndarray:
    """Return the column of the largest count in each row, -1 without counts."""
    return np.where(counts.any(1), counts.argmax(1), -1)
