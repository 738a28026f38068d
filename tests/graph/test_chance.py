"""The null that pairs the upper map of one image with the lower map of another."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from skgmmcnn import InferenceGraph
from skgmmcnn.features import ReceptiveField
from skgmmcnn.graph import _chance
from tests.graph.naive import random_axis, random_case


def counts_of_pairings(upper, lower, field, n_upper, n_lower):
    """Return c[n, m, s, t]: the counts of the upper map n over the lower map m."""
    c = np.zeros((len(upper), len(lower), n_upper, n_lower))
    for n, above in enumerate(upper):
        for i, j in np.ndindex(above.shape):
            seen = lower[:, *field.window(i, j)].reshape(len(lower), -1)
            for t in range(n_lower):
                c[n, :, above[i, j], t] += (seen == t).sum(1)
    return c


def exact_moments(c):
    centred = c - c.mean(0) - c.mean(1)[:, None] + c.mean((0, 1))
    return c.sum((0, 1)) / len(c), (centred**2).sum((0, 1)) / (len(c) - 1)


def dependent_words(rng, n, upper_size, lower_size):
    """Words that go with the kind of image, and keep to their places."""
    kind = rng.integers(0, 2, n)[:, None, None]
    upper = (rng.random((n, *upper_size)) < 0.3 + 0.3 * kind) + 2 * (np.arange(upper_size[1]) > 1)
    lower = rng.integers(0, 2 + 2 * kind, (n, *lower_size))
    return upper.astype(int), lower


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_moments_are_exact(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, (2, 2)).tolist()
    field = ReceptiveField(*(random_axis(rng, u, v) for u, v in zip(*sizes, strict=True)), tuple(sizes[1]))
    upper, lower = dependent_words(rng, 9, *sizes)
    sums = _chance.sum_up(upper, lower, field, np.zeros((4, 4), int), 4)
    expected = exact_moments(counts_of_pairings(upper, lower, field, 4, 4))
    for found, moment in zip(_chance.null_moments(sums), expected, strict=True):
        np.testing.assert_allclose(found, moment, atol=1e-9)


def test_a_sample_of_locations_stands_for_all(monkeypatch):
    rng = np.random.default_rng(0)
    axis = np.clip(np.arange(12) - 2, 0, 12), np.clip(np.arange(12) + 3, 0, 12)
    field = ReceptiveField(axis, axis, (12, 12))
    upper, lower = dependent_words(rng, 40, (12, 12), (12, 12))
    exact = exact_moments(counts_of_pairings(upper, lower, field, 4, 4))
    monkeypatch.setattr(_chance, "N_PLACES", 48)
    sums = _chance.sum_up(upper, lower, field, np.zeros((4, 4), int), 4)
    assert sums.upper_products.shape == (4, 48, 48)
    mean, variance = _chance.null_moments(sums)
    np.testing.assert_allclose(mean, exact[0])
    np.testing.assert_allclose(variance, exact[1], rtol=0.25)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (14, 14), (14, 15), (28, 28), (1, 500), (501, 2)])
def test_sampled_locations_stand_for_all_pairs(size):
    at, numbers = _chance.places(size)
    assert len(set(at.tolist())) == len(at) <= max(_chance.N_PLACES, 1)
    assert np.trace(numbers) == pytest.approx(np.prod(size))
    assert numbers.sum() == pytest.approx(np.prod(size) ** 2)


def test_p_values_agree_with_long_permutations():
    rng = np.random.default_rng(1)
    axis = np.array([0, 1, 3]), np.array([2, 4, 5])
    field = ReceptiveField(axis, axis, (5, 5))
    upper, lower = dependent_words(rng, 40, (3, 3), (5, 5))
    lower[:, 2, 2] = np.where(rng.random(40) < 0.2, 4, lower[:, 2, 2])  # a rare word
    c = counts_of_pairings(upper, lower, field, 4, 5)
    found = _chance.p_values(np.einsum("nnst->st", c), _chance.sum_up(upper, lower, field, np.zeros((4, 5), int), 5))
    permuted = np.array([c[np.arange(40), rng.permutation(40)].sum(0) for _ in range(20_000)])
    observed = np.einsum("nnst->st", c)
    expected = (permuted >= observed).mean(0)
    assert ((expected > 0.001) & (expected < 0.999)).sum() >= 12
    at = expected > 0.001
    np.testing.assert_allclose(np.log10(found[at]), np.log10(expected[at]), atol=0.35)
    for quantile in (0.9, 0.99, 0.999):  # and everywhere in the tail, on the safe side of frequent words
        limits = np.quantile(permuted, quantile, axis=0)
        sums = _chance.sum_up(upper, lower, field, np.zeros((4, 5), int), 5)
        excess = np.log10(_chance.p_values(limits, sums)) - np.log10((permuted >= limits).mean(0))
        assert -0.35 < excess.min() <= excess.max() < 0.6


def test_only_what_goes_together_is_marked():
    """Of independent words hardly any edge is significant; of a planted pair it is."""
    _, fitted, _ = random_case(3, 200, 1)
    estimator = InferenceGraph(p_values=True).fit(fitted)
    tested = np.concatenate([q[np.isfinite(q)] for q in estimator.q_values_.values()])
    assert len(tested) > 10
    assert (tested <= 0.05).sum() <= 1
    layer = estimator.explained_by_["decision"][0]
    shown = fitted.words[layer].reshape(len(fitted), -1)
    shown[fitted.decisions == 1, 0] = 0
    again = InferenceGraph(p_values=True).fit(fitted)
    assert again.q_values_["decision", layer][1, 0] < 1e-4
    for pair, q in again.q_values_.items():
        asked = np.isfinite(q)
        ratios, support = again.log_ratios_[pair], again._chance_sums[pair].support
        np.testing.assert_array_equal(asked, (ratios > 1e-9) & (support >= 5))
        np.testing.assert_allclose(q[asked], false_discovery_control(again.p_values_[pair][asked]))


def test_support_is_the_number_of_images():
    depends, fitted, _ = random_case(5, 12, 1)
    assert any(depends.values())
    estimator = InferenceGraph(p_values=True, min_count=1).fit(fitted)
    alone = [InferenceGraph().fit(fitted[image]).transition_counts_ for image in range(len(fitted))]
    for pair, sums in estimator._chance_sums.items():
        np.testing.assert_array_equal(sums.support, sum(counts[pair] > 0 for counts in alone))


def test_constant_words_prove_nothing():
    upper, lower = np.zeros((6, 2, 2), int), np.zeros((6, 2, 2), int)
    axis = np.array([0, 0]), np.array([2, 2])
    sums = _chance.sum_up(upper, lower, ReceptiveField(axis, axis, (2, 2)), np.full((1, 1), 6), 1)
    assert _chance.p_values(np.array([[96]]), sums) == pytest.approx(1)


def test_sums_over_no_images_add_nothing():
    """As where more processes than images count."""
    axis = np.array([0, 0]), np.array([2, 2])
    field, words = ReceptiveField(axis, axis, (2, 2)), np.zeros((3, 2, 2), int)
    sums, nothing = (_chance.sum_up(part, part, field, np.zeros((2, 2), int), 2) for part in (words, words[:0]))
    for total, part in zip(sums.plus(nothing), sums, strict=True):
        np.testing.assert_array_equal(total, part)
