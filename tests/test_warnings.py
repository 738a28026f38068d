"""Warnings at the line of the user."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

from skgmmcnn import DiagonalGaussianMixture, InferenceGraph, LayerDictionary, LayerHMM


@pytest.mark.parametrize("explain", ["explain", "explain_class", "select"])
def test_few_fitted_images_warn_at_the_call(words, explain):
    graph = InferenceGraph(evidence="counts").fit(words[:20])
    target = {"explain": (), "explain_class": (int(words.decisions[0]),), "select": ()}[explain]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        getattr(graph, explain)(words[:20], *target)
    assert [each.filename for each in caught] == [__file__]


@pytest.mark.parametrize(
    "model", [DiagonalGaussianMixture(3, max_iter=1), LayerDictionary(3, max_iter=1), LayerHMM(3, max_iter=1)]
)
@pytest.mark.parametrize("wrap", [lambda model: model, make_pipeline])
def test_a_fit_that_does_not_converge_warns_at_the_call(model, wrap):
    X = np.random.default_rng(0).normal(size=(90, 2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wrap(model).fit(X)
    assert [(each.category, each.filename) for each in caught] == [(ConvergenceWarning, __file__)]
