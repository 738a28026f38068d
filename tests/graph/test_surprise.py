"""Surprise against plain loops, and typicality of images that were changed."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import NotFittedError

from skgmmcnn import InferenceGraph, LayerDictionary
from skgmmcnn.graph import surprise, typicality
from tests.graph.naive import naive_surprise
from tests.graph.random_words import random_case


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([0.5, 3.0]))
def test_surprise_equals_loops(seed, smoothing):
    depends, fitted, words = random_case(seed)
    estimator = InferenceGraph(3, smoothing=smoothing).fit(fitted)
    actual, expected = surprise(estimator, words), naive_surprise(fitted, words, depends, smoothing)
    images = np.zeros(len(words))
    for layer, maps in expected.items():
        np.testing.assert_allclose(actual.maps[layer], maps, rtol=1e-5)
        for image in range(len(words)):
            finite = maps[image][np.isfinite(maps[image])]
            mean = finite.mean() if len(finite) else np.nan
            assert actual.layers[layer][image] == pytest.approx(mean, nan_ok=True, rel=1e-5)
            images[image] += mean if len(finite) else 0
    np.testing.assert_allclose(actual.images, images, rtol=1e-5)


@pytest.mark.parametrize("measure", [surprise, lambda graph, words: typicality(graph, words, words)])
def test_words_are_those_of_the_fitted_dictionary(graph, words, maps, measure):
    with pytest.raises(ValueError, match="come from another dictionary"):
        measure(graph, LayerDictionary(5, random_state=0, keep_patches=False).fit_transform(maps))
    with pytest.raises(NotFittedError):
        measure(InferenceGraph(), words)


def test_outliers_depart_where_they_were_changed(words, graph):
    reference, some = words[:200], words[200:]
    usual = typicality(graph, some, reference, level=0.2)
    assert 0.3 < np.nanmean(usual.p_values) < 0.7
    rng = np.random.default_rng(0)
    shuffled = {**some.words, "conv1": rng.integers(0, 8, some.words["conv1"].shape)}
    changed = typicality(graph, replace(some, words=shuffled), reference, level=0.2)
    assert np.nanmean(changed.p_values) < 0.1
    assert changed.departs.count("conv1") > 0.8 * len(some)
    assert usual.departs.count("conv1") < 0.3 * len(some)
    for output in set(some.decisions.tolist()):
        of_class = -surprise(graph, reference[reference.decisions == output]).images
        (rows,) = np.nonzero(some.decisions == output)
        scores = -surprise(graph, some[rows]).images
        expected = [(1 + (of_class <= score).sum()) / (1 + len(of_class)) for score in scores]
        np.testing.assert_allclose(usual.p_values[rows], expected)
    (alone,) = typicality(graph, some[:1], reference[reference.decisions != some.decisions[0]]).p_values
    assert np.isnan(alone)
