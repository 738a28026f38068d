"""Similarity and locality of words, against plain loops and planted cases."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test
from sklearn.metrics import cohen_kappa_score
from sklearn.metrics.pairwise import cosine_similarity

from skgmmcnn.dictionary import WordStatistics
from skgmmcnn.plot._word_measures import class_cohesion, class_profiles, class_similarity, locality, word_classes
from tests.graph.random_words import N_WORDS, random_words


def similarity_of_layers(words, first, second):
    return class_similarity(class_profiles(words, first), class_profiles(words, second))


def naive_profiles(words, layer):
    """For each word, how large a share of each class's locations shows it."""
    table = []
    for word in range(N_WORDS[layer]):
        row = []
        for label in range(3):
            maps = words.words[layer][words.decisions == label]
            row.append((maps == word).mean() if maps.size else 0)
        table.append(row)
    return np.array(table)


def test_class_similarity_equals_a_naive_version(seed):
    words = random_words(seed, 10)
    for first, second in [("top", "top"), ("low", "middle")]:
        result = similarity_of_layers(words, first, second)
        expected = cosine_similarity(naive_profiles(words, first), naive_profiles(words, second))
        np.testing.assert_allclose(result, expected, atol=1e-12)


def test_every_class_counts_alike(seed):
    words = random_words(seed, 12)
    often = words[np.concatenate([np.arange(12), np.tile(np.flatnonzero(words.decisions == 1), 5)])]
    np.testing.assert_allclose(similarity_of_layers(often, "top", "top"), similarity_of_layers(words, "top", "top"))


def test_words_that_are_not_shown_are_like_nothing():
    words = random_words(0)
    moved = {layer: np.where(array == 2, 0, array) for layer, array in words.words.items()}
    result = similarity_of_layers(replace(words, words=moved), "low", "top")
    assert np.isnan(result[2]).all()
    assert np.isnan(result[:, 2]).all()
    assert np.isfinite(np.delete(np.delete(result, 2, 0), 2, 1)).all()


def test_class_of_a_word():
    statistics = WordStatistics(np.array([[5, 50], [5, 40], [0, 0], [1, 910]]))
    np.testing.assert_array_equal(word_classes(statistics), [0, 0, -1, 1])


def naive_means(similarity, classes):
    pairs = [(i, j) for i in range(len(classes)) for j in range(i) if min(classes[i], classes[j]) >= 0]
    same = [similarity[i, j] for i, j in pairs if classes[i] == classes[j]]
    other = [similarity[i, j] for i, j in pairs if classes[i] != classes[j]]
    return np.mean(same), np.mean(other)


def test_cohesion_equals_a_naive_version(rng):
    classes = rng.integers(-1, 4, 25)
    similarity = rng.random((25, 25))
    similarity += similarity.T + (classes[:, None] == classes) * 0.1
    result = class_cohesion(similarity, classes, n_permutations=2000, random_state=0)
    assert (result.within, result.between) == pytest.approx(naive_means(similarity, classes))
    kept = np.flatnonzero(classes >= 0)

    def within(order):
        return naive_means(similarity[np.ix_(kept, kept)], classes[kept][order.astype(int)])[0]

    reference = permutation_test(
        (np.arange(len(kept)),),
        within,
        permutation_type="pairings",
        n_resamples=300,
        alternative="greater",
        random_state=1,
    )
    assert result.p_value == pytest.approx(reference.pvalue, abs=0.1)
    assert result.null.mean() == pytest.approx(reference.null_distribution.mean(), abs=0.02)


def test_cohesion_by_chance_and_planted():
    """Under random classes p is uniform; under planted ones it is small."""
    rng = np.random.default_rng(0)
    values = []
    for seed in range(60):
        similarity = rng.random((20, 20))
        result = class_cohesion(similarity + similarity.T, rng.integers(0, 3, 20), n_permutations=99, random_state=seed)
        values.append(result.p_value)
    assert 0.35 < np.mean(values) < 0.65
    assert np.mean(np.array(values) <= 0.1) < 0.25
    classes = np.repeat(np.arange(4), 5)
    planted = class_cohesion(rng.random((20, 20)) + (classes[:, None] == classes), classes, random_state=0)
    assert planted.p_value == pytest.approx(1 / 1001)


def test_cohesion_without_pairs():
    result = class_cohesion(np.eye(3), np.arange(3))
    assert np.isnan(result.within)
    assert np.isnan(class_cohesion(np.eye(3), np.zeros(3, int)).between)
    unseen = np.array([[1, np.nan, 0.5], [np.nan, np.nan, np.nan], [0.5, np.nan, 1]])
    assert np.isnan(class_cohesion(unseen, np.array([0, 0, 1])).within)


def naive_joins(image):
    height, width = image.shape
    joins = []
    for i in range(height):
        for j in range(width):
            joins += [image[i, j] == image[i + 1, j]] if i + 1 < height else []
            joins += [image[i, j] == image[i, j + 1]] if j + 1 < width else []
    return np.mean(joins)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_locality_equals_a_naive_version(seed):
    words = random_words(seed, 6)
    for layer, maps in words.words.items():
        result = locality(maps, N_WORDS[layer])
        size = maps[0].size
        excess = most = 0
        for image in maps:
            flat = image.ravel()
            chance = np.mean([flat[a] == flat[b] for a in range(size) for b in range(size) if a != b])
            excess, most = excess + naive_joins(image) - chance, most + 1 - chance
        assert result.autocorrelation == pytest.approx(excess / most)
        assert result.n_distinct == pytest.approx(np.mean([len(set(image.ravel())) for image in maps]))
        assert result.largest_share == pytest.approx(np.mean([np.bincount(i.ravel()).max() / size for i in maps]))
        assert result.n_locations == size


def test_autocorrelation_of_known_patterns(rng):
    halves = np.zeros((40, 5, 6), int)
    halves[:, :, 3:] = 1
    board = np.broadcast_to(np.indices((5, 6)).sum(0) % 2, (40, 5, 6))
    shuffled = rng.permuted(halves.reshape(40, -1), axis=1).reshape(40, 5, 6)
    result = [locality(maps, 2).autocorrelation for maps in (halves, board, shuffled, np.zeros_like(halves))]
    assert result[0] > 0.7
    assert result[1] < -0.9
    assert abs(result[2]) < 0.1
    assert np.isnan(result[3])  # one word everywhere: nothing to compare with
    long = np.repeat(rng.integers(0, 3, (1, 1, 4000)), 1, axis=0)  # in a long row, it is Cohen's kappa of neighbours
    assert locality(long, 3).autocorrelation == pytest.approx(
        cohen_kappa_score(long[0, 0, 1:], long[0, 0, :-1]), abs=2e-3
    )


def test_expected_number_of_words(rng):
    words = random_words(0, 3000).words["low"]
    result = locality(words, N_WORDS["low"])
    assert result.n_distinct == pytest.approx(result.expected_distinct, rel=0.01)
    one = locality(words[:, :1, :1], N_WORDS["low"])
    assert np.isnan(one.autocorrelation)
    assert one.n_distinct == one.largest_share == 1
