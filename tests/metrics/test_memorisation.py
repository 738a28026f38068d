import numpy as np
import pytest

from skgmmcnn.chain import InferencePaths
from skgmmcnn.metrics import memorisation


def paths_of(words, n_words, log_proba=None):
    shape = words.shape
    return InferencePaths(
        layers=tuple(f"fc{i}" for i in range(shape[1])),
        n_words=(n_words,) * shape[1],
        words=words,
        log_proba=np.zeros(shape) if log_proba is None else log_proba,
        posteriors=np.ones(shape),
        path_proba=np.ones(len(words)),
        decisions=None,
        class_tables=None,
    )


def naive_label(words, labels, word, left_out=None):
    """The most frequent label of those that show the word; the lowest of equally frequent ones."""
    others = [labels[i] for i in range(len(words)) if words[i] == word and i != left_out]
    return min(set(others), key=lambda label: (-others.count(label), label)) if others else -1


def test_results_equal_a_loop(rng):
    words, test_words = rng.integers(0, 6, (80, 3)), rng.integers(0, 7, (30, 3))
    true, test_labels = rng.integers(0, 4, 80), rng.integers(0, 4, 30)
    labels = np.where(rng.random(80) < 0.4, (true + 1) % 4, true)
    log_proba, test_log_proba = rng.normal(size=(80, 3)), rng.normal(size=(30, 3))
    result = memorisation(
        paths_of(words, 7, log_proba), labels, paths_of(test_words, 7, test_log_proba), test_labels, true_labels=true
    )
    np.testing.assert_allclose(result.path_gap, log_proba.mean(0) - test_log_proba.mean(0))
    labels_shown = np.array([[naive_label(words[:, j], labels, words[i, j], i) for j in range(3)] for i in range(80)])
    test_labels_shown = np.array(
        [[naive_label(words[:, j], labels, test_words[i, j]) for j in range(3)] for i in range(30)]
    )
    np.testing.assert_allclose(result.train_agreement, (labels_shown == labels[:, None]).mean(0))
    np.testing.assert_allclose(result.test_agreement, (test_labels_shown == test_labels[:, None]).mean(0))
    np.testing.assert_allclose(result.agreement_gap, result.train_agreement - result.test_agreement)
    wrong = np.flatnonzero(labels != true)
    np.testing.assert_allclose(result.assigned_share, (labels_shown[wrong] == labels[wrong, None]).mean(0))
    np.testing.assert_allclose(result.true_share, (labels_shown[wrong] == true[wrong, None]).mean(0))
    expected = []
    for i in wrong:
        layer = 3
        while layer and labels_shown[i, layer - 1] == labels[i]:
            layer -= 1
        expected.append(layer)
    np.testing.assert_array_equal(result.joins, expected)
    assert len(str(result).splitlines()) == 4


def test_the_layer_that_memorises_is_found(rng):
    """Words are the true classes in two layers, and the assigned ones in two."""
    true = rng.integers(0, 4, 400)
    labels = np.where(rng.random(400) < 0.3, (true + 1) % 4, true)
    result = memorisation(
        paths_of(np.stack([true, true, labels, labels], 1), 4),
        labels,
        paths_of(np.stack([true] * 4, 1), 4),
        true,
        true_labels=true,
    )
    assert result.layer == "fc2"
    assert (result.joins == 2).all()
    np.testing.assert_array_equal(result.true_share, [1, 1, 0, 0])
    np.testing.assert_array_equal(result.assigned_share, [0, 0, 1, 1])
    clean = memorisation(paths_of(true[:, None], 4), true, paths_of(true[:, None], 4), true)
    assert clean.layer is None
    assert np.isnan(clean.true_share).all()
    np.testing.assert_allclose(clean.agreement_gap, 0)


def test_bad_input():
    words = paths_of(np.zeros((5, 2), int), 3)
    with pytest.raises(ValueError, match=r"labels must be 5 numbers of classes; got int64 of shape \(4,\)"):
        memorisation(words, np.zeros(4, int), words, np.zeros(5, int))
    with pytest.raises(ValueError, match="test_labels must be 5 numbers of classes; got <U1"):
        memorisation(words, np.zeros(5, int), words, list("aaaaa"))
    with pytest.raises(ValueError, match="different words"):
        memorisation(words, np.zeros(5, int), paths_of(np.zeros((5, 2), int), 4), np.zeros(5, int))
