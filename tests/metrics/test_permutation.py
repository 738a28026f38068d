"""Decisions shuffled among the images: what the words tell of them is chance."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from skgmmcnn import InferenceGraph, LayerDictionary
from skgmmcnn.metrics import permutation_test
from skgmmcnn.metrics._permutation import _evidence


@pytest.fixture(scope="module")
def held(maps):
    return maps[:120].compute()


@pytest.fixture(scope="module")
def pipe(held):
    return make_pipeline(LayerDictionary(12, random_state=0), InferenceGraph(smoothing=2)).fit(held)


def test_words_tell_of_decisions_and_not_of_shuffled_ones(pipe, held):
    found = permutation_test(pipe, held, n_permutations=99, random_state=0)
    assert found.p_value == 0.01
    assert found.bits > 0.3
    assert found.null_bits.mean() < 0
    assert found.null_bits.max() < 0.05
    assert found.evidence == pytest.approx(16 * found.bits)
    assert found.interval[0] < found.evidence < found.interval[1]
    assert [figure.value for figure in found.figures()] == [found.evidence, found.null.mean(), 0.01]
    assert "More than chance: p = 0.01" in str(found)


def test_evidence_equals_that_of_graphs_of_the_other_parts(pipe, held, rng):
    words = pipe[0].transform(held)
    folds = rng.integers(0, 3, 120)
    counts = np.stack([np.bincount(image.ravel(), minlength=12) for image in words.words["conv3"]])
    _, classes = np.unique(words.decisions, return_inverse=True)
    expected = []
    for i in range(120):
        graph = InferenceGraph(smoothing=2).fit(words[folds != folds[i]])
        ratios = graph.log_ratios_["decision", "conv3"][words.decisions[i]]
        expected.append(sum(ratios[t] for t in words.words["conv3"][i].ravel()))
    np.testing.assert_allclose(_evidence([counts], classes, folds, 2), expected)


def test_p_values_of_labels_without_relation_are_even(pipe, held):
    """Of labels drawn at random any p-value is as likely as another."""
    rng = np.random.default_rng(0)
    p_values = [
        permutation_test(pipe, held, rng.integers(0, 3, 120), n_permutations=19, random_state=seed).p_value
        for seed in range(60)
    ]
    assert 0.35 < np.mean(p_values) < 0.68
    assert min(p_values) >= 0.05


def test_labels_by_name_and_number(pipe, held, digits):
    labels = digits.labels[:120]
    named, numbered = (
        permutation_test(pipe, held, y, n_permutations=9, random_state=0)
        for y in ([digits.class_names[label] for label in labels], labels)
    )
    np.testing.assert_array_equal(named.null, numbered.null)
    assert named.p_value == 0.1


def test_bad_input(pipe, held):
    with pytest.raises(ValueError, match="nothing to shuffle"):
        permutation_test(pipe, held, np.zeros(120, int))
    with pytest.raises(ValueError, match="n_permutations must be at least 1; got 0"):
        permutation_test(pipe, held, n_permutations=0)
    with pytest.raises(ValueError, match="between 2 and the number of images, 120; got 121"):
        permutation_test(pipe, held, n_splits=121)
    assert replace(permutation_test(pipe, held, random_state=0), evidence=-100.0).p_value == 1
