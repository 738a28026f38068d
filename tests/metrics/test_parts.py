"""What all measures check of a pipeline, and how they leave its network."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.features import maps_of_arrays
from skgmmcnn.metrics import (
    completeness,
    deletion,
    edge_effects,
    faithfulness,
    fidelity,
    randomisation_test,
    removal,
    stability,
    trust_report,
)


def deletion_of_conv3(estimator, X, layers=("conv3",), **options):
    return deletion(estimator, X, layers[0], **options)


OF_LAYERS = [completeness, deletion_of_conv3, faithfulness, removal, trust_report]
OF_DECISIONS = [*OF_LAYERS, edge_effects, fidelity]
OF_GRAPHS = [*OF_DECISIONS[1:], randomisation_test, stability]


@pytest.mark.parametrize("measure", OF_GRAPHS)
def test_a_graph_is_needed(pipe, test_images, measure):
    with pytest.raises(TypeError, match="needs a pipeline that ends with an InferenceGraph"):
        measure(pipe[:-1], test_images)


@pytest.mark.parametrize("measure", [deletion_of_conv3, faithfulness, removal, edge_effects])
def test_the_graph_is_fitted_to_the_words(pipe, test_images, measure):
    other = LayerDictionary(7, random_state=0).fit(pipe[0].transform(test_images))
    with pytest.raises(ValueError, match="come from another dictionary"):
        measure(make_pipeline(pipe[0], other, pipe[-1]), test_images[:5])
    with pytest.raises(NotFittedError):
        measure(make_pipeline(*pipe[:2], InferenceGraph()), test_images[:5])


@pytest.mark.parametrize("measure", OF_LAYERS)
def test_unknown_layers_are_refused(pipe, test_images, measure):
    with pytest.raises(ValueError, match="no layer 'conv9'; there is 'conv"):
        measure(pipe, test_images, layers=["conv9"])


@pytest.mark.parametrize("measure", [completeness, fidelity])
def test_words_and_maps_are_needed(pipe, test_images, measure):
    with pytest.raises(TypeError, match="needs a fitted LayerDictionary or LayerHMM"):
        measure(pipe[-1], test_images)
    with pytest.raises(TypeError, match="no FeatureExtractor comes before"):
        measure(pipe[1:], test_images)


def test_a_network_is_needed():
    rows = np.random.default_rng(0).normal(size=(30, 3)).astype("float32")
    with pytest.raises(ValueError, match="made from arrays"):
        completeness(make_pipeline(LayerDictionary(2, random_state=0).fit(rows)), maps_of_arrays({"dense": rows}))


@pytest.fixture(scope="module", params=["lowest", "coarse"])
def other_decision(request, digits):
    """A pipeline whose decision is not the class of the largest score."""
    decision, n_classes = {
        "lowest": (lambda scores: scores.argmin(1), 10),
        "coarse": (lambda scores: (scores.argmax(1) > 4).long(), 2),
    }[request.param]
    names = [str(i) for i in range(n_classes)]
    extractor = FeatureExtractor(digits.network, ["conv3"], decision=decision, class_names=names, device="cpu")
    return make_pipeline(extractor, LayerDictionary(4, random_state=0), InferenceGraph()).fit(digits.images[:80])


@pytest.mark.parametrize("measure", OF_DECISIONS)
def test_a_decision_that_is_not_the_largest_score_is_refused(other_decision, test_images, measure):
    with pytest.raises(ValueError, match="must be the class of the largest score; with this decision="):
        measure(other_decision, test_images)


def interrupt(*args):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("measure", "target"),
    [
        (deletion_of_conv3, "skgmmcnn.metrics._deletion.proba_of"),
        (faithfulness, "skgmmcnn.metrics._ablation.replace"),
        (removal, "skgmmcnn.metrics._ablation.replace"),
        (completeness, "skgmmcnn.metrics._completeness.rebuild"),
        (edge_effects, "skgmmcnn.graph._influence_traces.Tracer._connect"),
    ],
)
def test_nothing_is_left_on_the_network_after_an_interrupt(pipe, test_images, monkeypatch, measure, target):
    before = {name: values.clone() for name, values in pipe[0].network_.state_dict().items()}
    monkeypatch.setattr(target, interrupt)
    with pytest.raises(KeyboardInterrupt):
        measure(pipe, test_images[:5])
    assert not any(module._forward_hooks for module in pipe[0].network_.modules())
    for name, values in pipe[0].network_.state_dict().items():
        torch.testing.assert_close(values, before[name])
