"""Interpretation of outputs as scores, as probabilities of classes, or by a decision function."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.features._scores import margins, proba_of


class Network(nn.Module):
    """Whose scores of the images below are near zero, and then what `last` makes of them."""

    def __init__(self, images, outputs, last):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc, self.last = nn.Conv2d(1, 6, 3), nn.Linear(6, outputs), last
        scores = nn.Sequential(self.conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.fc)
        with torch.no_grad():
            values = scores(torch.from_numpy(images)[:, None])
            self.fc.weight /= values.std(0, keepdim=True).T
            self.fc.bias.copy_(self.fc.bias - scores(torch.from_numpy(images)[:, None]).median(0).values + 0.01)
        self.scores = scores

    def forward(self, x):
        return self.last(self.scores(x))


@pytest.fixture
def images(rng):
    return rng.random((12, 8, 8), dtype=np.float32)


def maps_of(network, images, **settings):
    return FeatureExtractor(network, ["conv"], preprocess=None, **settings).fit_transform(images)


def run(network, images):
    with torch.no_grad():
        return network.scores(torch.from_numpy(images)[:, None])


def decisions(maps):
    return np.concatenate([batch.decisions for batch in maps.batches()])


class Logistic(nn.Module):
    def forward(self, x):
        return 1 / (1 + (-x).exp()).expand(-1, 1)


@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.Sequential(nn.Sigmoid(), nn.Flatten()), Logistic()])
def test_one_probability_decides_at_one_half(images, last):
    network = Network(images, 1, last)
    logits = run(network, images)[:, 0]
    maps = maps_of(network, images)
    np.testing.assert_array_equal(decisions(maps), logits > 0)
    assert set(decisions(maps)) == {0, 1}
    np.testing.assert_allclose(maps.outputs, torch.stack([logits.neg(), logits], 1).sigmoid(), atol=1e-5)
    (edited,) = maps.rerun(lambda part: part.run({"conv": lambda values: values}))
    np.testing.assert_array_equal(edited.decisions, logits > 0)
    np.testing.assert_allclose(margins(edited.outputs, np.ones(12, int)), logits, atol=1e-4)


def test_logits_that_lie_in_0_to_1_are_logits(images):
    network = Network(images, 1, nn.Identity())
    with torch.no_grad():
        network.fc.weight *= 0.01
        network.fc.bias.fill_(0.3 - float((run(network, images) - network.fc.bias).mean()))
    assert 0 < run(network, images).min() < run(network, images).max() < 0.5
    np.testing.assert_array_equal(decisions(maps_of(network, images)), np.ones(12))


@pytest.mark.parametrize("last", [nn.Hardsigmoid(), nn.Hardtanh(0, 1)])
def test_other_functions_than_a_sigmoid_decide_at_one_half(images, last):
    network = Network(images, 1, last)
    with torch.no_grad():
        chosen = network(torch.from_numpy(images)[:, None])[:, 0] > 0.5
    np.testing.assert_array_equal(decisions(maps_of(network, images)), chosen)


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.Sequential(nn.Softmax(1), nn.Identity()), nn.LogSoftmax(1)])
def test_a_softmax_is_not_applied_twice(images, last):
    network = Network(images, 3, last)
    log_p = run(network, images).log_softmax(1)
    maps = maps_of(network, images)
    classes = decisions(maps)
    np.testing.assert_array_equal(classes, log_p.argmax(1))
    np.testing.assert_allclose(proba_of(maps.outputs, classes), log_p.exp().amax(1), atol=1e-5)


def test_a_softmax_in_half_precision_is_one(images):
    half = nn.Sequential(nn.Softmax(1))
    half.forward = lambda scores: scores.softmax(1).half()
    network = Network(images, 3, half)
    maps = maps_of(network, images)
    expected = run(network, images).softmax(1).amax(1)
    np.testing.assert_allclose(proba_of(maps.outputs, decisions(maps)), expected, atol=2e-3)


def test_several_sigmoids_are_refused_or_decided_by_the_user(images):
    network = Network(images, 3, nn.Sigmoid())
    with pytest.raises(ValueError, match=r"3 sigmoids \(multi-label\)\. Explain one output at a time"):
        maps_of(network, images)
    with pytest.warns(UserWarning, match="treated as scores of one softmax"):
        maps = maps_of(network, images, decision=lambda outputs: outputs[:, :2].argmax(1))
    np.testing.assert_array_equal(decisions(maps), run(network, images)[:, :2].argmax(1))


def test_labels_that_mark_several_classes_show_several_decisions(images):
    extractor = FeatureExtractor(Network(images, 3, nn.Identity()), ["conv"], preprocess=None)
    marked = np.eye(3, dtype=int)[np.arange(12) % 3]
    with pytest.raises(ValueError, match=r"one-hot encoded; give y\.argmax\(1\)"):
        extractor.fit(images, marked)
    assert extractor.fit(images, marked.argmax(1)).score(images, marked.argmax(1)) >= 0
    marked[4] = 1
    for y in (marked, marked.astype(bool), torch.from_numpy(marked)):
        with pytest.raises(ValueError, match=r"any number of the 3 classes.*\(multi-label\)\..*decision=callable"):
            extractor.fit(images, y)


class Above(nn.Module):
    """Does something else with scores of which one is above a limit."""

    def __init__(self, otherwise, usual):
        super().__init__()
        self.register_buffer("limit", torch.tensor(torch.inf))
        self.otherwise, self.usual = otherwise, usual

    def forward(self, scores):
        return torch.where(scores.amax(1, keepdim=True) > self.limit, self.otherwise(scores), self.usual(scores))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_outputs_that_are_no_numbers_name_the_image(images, bad):
    network = Network(images, 2, Above(lambda scores: scores + bad, nn.Identity()))
    scores = run(network, images).amax(1).sort().values
    network.last.limit.copy_(scores[-2:].mean())
    worst = int(run(network, images).amax(1).argmax())
    images[[worst, 5]] = images[[5, worst]]
    maps = maps_of(network, images)
    with pytest.raises(ValueError, match="returns NaN or infinity for image 5"):
        list(maps.batches())


@pytest.mark.parametrize("last", [lambda x: x > 0, lambda x: x + 1j, lambda x: x[:, :0], lambda x: x.round().int()])
def test_outputs_that_are_no_scores_are_refused(images, last):
    network = Network(images, 3, nn.Identity())
    network.last.forward = last
    with pytest.raises(ValueError, match=r"returns \w+ numbers of shape \(1, \d\) for one image, not scores \(1, C\)"):
        maps_of(network, images)


def test_a_decision_that_fails_says_on_what(images):
    with pytest.raises(ValueError, match=r"decision failed on images from 0 on: \w+Error: .* float32"):
        maps_of(Network(images, 3, nn.Identity()), images, decision=lambda outputs: outputs["logits"])


def test_probabilities_stay_in_their_range(images):
    network = Network(images, 1, Above(nn.Identity(), nn.Sigmoid()))
    extractor = FeatureExtractor(network, ["conv"], preprocess=None).fit(images)
    extractor.network_.last.limit.fill_(-torch.inf)
    with pytest.raises(ValueError, match=r"from 0 to 1, and for image \d+ it returns .*Fit again with that image"):
        list(extractor.transform(images).batches())


def test_a_graph_of_one_probability_is_that_of_its_logit(images):
    graphs = []
    for last in (nn.Sigmoid(), nn.Identity()):
        network = Network(images, 1, last)
        pipe = make_pipeline(
            FeatureExtractor(network, ["conv"], preprocess=None), LayerDictionary(3, random_state=0), InferenceGraph()
        ).fit(images)
        graphs.append(pipe[-1].explain(pipe[:-1].transform(images[:3])))
    for one, other in zip(*graphs, strict=True):
        assert set(one) == set(other)
        assert one.graph["probability"] == pytest.approx(other.graph["probability"], abs=1e-5)


def test_a_logit_of_one_is_no_probability():
    np.testing.assert_allclose(proba_of(np.ones((1, 1)), np.array([1])), 1 / (1 + np.exp(-1)))
