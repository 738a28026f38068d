"""Layers that explain each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.graph._hierarchy import Hierarchy
from tests.features.test_receptive_field import Fork
from tests.graph.naive import naive_above
from tests.graph.random_words import random_spec


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["effective", "whole"]))
def test_hierarchy_is_the_transitive_reduction(seed, fields):
    spec, depends = random_spec(np.random.default_rng(seed))
    actual = Hierarchy.of(spec, spec.effective_fields if fields == "effective" else {})
    assert set(actual.fields) == {(upper, layer) for layer in spec.layers for upper in naive_above(layer, depends)}
    for upper, lowers in actual.below.items():
        assert all((upper, lower) in actual.fields for lower in lowers)
        assert all(actual.depths[lower] > actual.depths[upper] for lower in lowers)


def test_branches_of_a_real_network():
    """Both branches explain the decision; neither explains the other."""
    maps = FeatureExtractor(Fork(), ["left", "right"]).fit_transform(torch.rand(9, 1, 7, 7))
    words = LayerDictionary(3, random_state=0).fit_transform(maps)
    estimator = InferenceGraph().fit(words)
    assert estimator.explained_by_ == {"decision": ("right", "left"), "right": (), "left": ()}
    assert set(estimator.transition_counts_) == {("decision", "right"), ("decision", "left")}


def test_layers_that_the_network_does_not_order_so_are_refused(words):
    spec = replace(words.spec, layers=words.layers[::-1])
    with pytest.raises(ValueError, match=r"order of the network, the lowest first: 'conv2' depends on 'conv1'"):
        InferenceGraph().fit(replace(words, spec=spec))
    spec = replace(words.spec, layers=("decision", "conv2", "conv3"))
    with pytest.raises(ValueError, match="A layer is called 'decision'"):
        InferenceGraph().fit(replace(words, spec=spec))
