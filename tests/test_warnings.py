"""Warnings at the line of the user."""

import warnings

import pytest

from skgmmcnn import InferenceGraph


@pytest.mark.parametrize("explain", ["explain", "explain_class", "select"])
def test_few_fitted_images_warn_at_the_call(words, explain):
    graph = InferenceGraph(evidence="counts").fit(words[:20])
    target = {"explain": (), "explain_class": (int(words.decisions[0]),), "select": ()}[explain]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(graph, explain)(words[:20], *target)
    assert [each.filename for each in caught] == [__file__]
