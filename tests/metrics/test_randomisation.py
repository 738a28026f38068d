"""Networks that forget what they have learnt, from the top down."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.dictionary import align_words
from skgmmcnn.features import maps_of_arrays, maps_of_changed_network
from skgmmcnn.graph import compare_graphs
from skgmmcnn.metrics import randomisation_test
from skgmmcnn.metrics._randomisation import _Cascade, _run_order, _steps

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little")  # few images


def fitted(network, images, layers, n_words=8, evidence="counts"):
    extractor = FeatureExtractor(network, layers, preprocess=None, device="cpu")
    graph = InferenceGraph(2, evidence=evidence, fields="whole")
    return make_pipeline(extractor, LayerDictionary(n_words, random_state=0), graph).fit(images)


@pytest.fixture(scope="module")
def pipe(digits):
    return fitted(digits.network, digits.images[:150], ["conv2", "conv3"], 12)


@pytest.fixture(scope="module")
def result(pipe, digits):
    return randomisation_test(pipe, digits.images[:150], n_steps=2, n_images=5, random_state=0)


def weights_of(network):
    return {name: values.clone() for name, values in network.state_dict().items()}


def assert_same(network, weights):
    assert all(torch.equal(values, weights[name]) for name, values in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert not any(module.training for module in network.modules())


def test_graphs_of_a_trained_network_degrade(result):
    assert result.modules == (("head", "conv3.0"), ("conv2.0", "conv1.0"))
    np.testing.assert_allclose(result.classes[0], 1)
    np.testing.assert_allclose(result.images[0], 1)
    assert result.agreement[0] == 1
    assert result.other_seed[0] > result.classes[-1].mean() + 0.1
    assert max(result.survival) < 0.5
    assert result.agreement[-1] < 0.5
    assert result.chance.shape == (3, 2)
    assert result.words["conv2"][1] == result.words["conv3"][0] == pytest.approx(1)  # not yet reached
    assert max(values[-1] for values in result.words.values()) < 0.6
    assert [line.split()[0] for line in str(result).splitlines()[:4]] == ["down", "(none)", "conv3.0", "conv1.0"]
    low, high = result.image_intervals[-1]
    assert low <= result.images[-1].mean() <= high
    survival = [row.value for row in result.measurements() if row.measure.startswith("survival")]
    assert survival == list(result.survival)


def test_influence_of_a_trained_network_degrades(digits):
    pipe = fitted(digits.network, digits.images[:150], ["conv3"], 12, "influence")
    result = randomisation_test(pipe, digits.images[:150], n_steps=1, n_images=8, random_state=0)
    np.testing.assert_allclose(result.classes[0], 1)
    np.testing.assert_allclose(result.images[0], 1)
    assert result.classes[1].mean() < 0.4 < result.other_seed[0]  # 0.01 and 0.87 seen


class Same(nn.Module):
    """All weights of a tensor are equal, so that permuting them changes nothing."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        for weights in self.parameters():
            nn.init.constant_(weights, 0.1)

    def forward(self, x):
        x = self.high(self.low(x).relu()).relu()
        return torch.stack([x[:, 0, :, :4].mean((1, 2)), x[:, 0, :, 4:].mean((1, 2))], 1)


def test_graphs_that_owe_nothing_to_the_weights_survive(rng):
    images = rng.random((80, 8, 8)).astype("float32") * rng.random((80, 1, 1)).astype("float32")
    pipe = fitted(Same().eval(), images, ["low", "high"])
    result = randomisation_test(pipe, images, n_steps=None, n_images=5, random_state=0)
    assert result.modules == (("high",), ("low",))
    np.testing.assert_allclose(result.classes, 1)
    np.testing.assert_allclose(result.images, 1)
    np.testing.assert_array_equal(result.agreement, 1)
    assert min(result.survival) >= 1


def test_a_step_equals_a_model_of_the_changed_network(pipe, digits, result):
    """The weights of the last step, put into a network by hand and fitted as a model of its own."""
    images, cascade = digits.images[:150], _Cascade(np.random.RandomState(0))
    maps = pipe[0].transform(images)
    for names in result.modules:
        changed = maps_of_changed_network(maps, cascade.randomise(names))
    weights = cascade._weights
    assert {name for name, values in weights_of(digits.network).items() if not torch.equal(values, weights[name])} == {
        f"{name}.{part}" for name in ("head", "conv1.0", "conv2.0", "conv3.0") for part in ("weight", "bias")
    }
    network = type(digits.network)()
    network.load_state_dict(weights)
    again = fitted(network.eval(), images, ["conv2", "conv3"], 12)
    for batch, fresh in zip(changed.batches(), again[0].transform(images).batches(), strict=True):
        torch.testing.assert_close(batch.outputs, fresh.outputs)
    words, words_again = pipe[:-1].transform(images), again[:-1].transform(images)
    alignment, expected = align_words(words, words_again), []
    for c in np.unique(words.decisions):
        first = pipe[-1].explain_class(words, int(c))
        second = again[-1].explain_together(words_again[words.decisions == c], int(c))
        expected.append(compare_graphs(first, second, alignment).similarity)
    for layer, similarity in alignment.similarity.items():
        assert result.words[layer][-1] == pytest.approx(similarity.sum() / 12)
    np.testing.assert_allclose(result.classes[-1], expected)


class Late(nn.Module):
    """Runs in another order than it is defined in; one module has weights of its own, and one only lends them."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 3)
        self.lender = nn.Linear(4, 4)
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.scale = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x):
        x = self.body(x) * self.scale
        return self.head(nn.functional.linear(x.mean((2, 3)), self.lender.weight, self.lender.bias))


def test_modules_are_in_the_order_in_which_they_run():
    maps = FeatureExtractor(Late().eval(), ["body"], preprocess=None).fit_transform(torch.rand(4, 1, 8, 8))
    assert _run_order(maps) == ["", "body.0", "body.1", "head", "lender"]
    assert _steps(["a", "b", "c"], 2) == [["c", "b"], ["a"]]
    assert _steps(["a", "b", "c"], None) == _steps(["a", "b", "c"], 9) == [["c"], ["b"], ["a"]]


def test_weights_are_permuted_and_batch_norms_fit_them():
    torch.manual_seed(0)
    network = Late().eval()
    maps = FeatureExtractor(network, ["body"], preprocess=None).fit_transform(torch.rand(16, 1, 8, 8) * 100)
    before, cascade = weights_of(network), _Cascade(np.random.RandomState(0))
    changed = maps_of_changed_network(maps, cascade.randomise(["body.1", "body.0"]))
    after = cascade._weights
    for name in ("body.0.weight", "body.0.bias", "head.weight"):
        assert torch.equal(after[name].flatten().sort()[0], before[name].flatten().sort()[0])
    assert not torch.equal(after["body.0.weight"], before["body.0.weight"])
    assert torch.equal(after["head.weight"], before["head.weight"])
    (batch,) = changed.batches()
    assert 0.2 < batch.activations["body"].std() < 1  # of the norm's output above zero, though inputs go up to 100
    repeated = maps_of_changed_network(maps[3:5], cascade.repeat)
    torch.testing.assert_close(next(repeated.batches()).outputs, batch.outputs[3:5])
    assert_same(network, before)


@pytest.mark.parametrize("where", ["refit", "in_memory"])
def test_networks_stay_as_they_are_also_after_an_error(pipe, digits, where, monkeypatch):
    networks = [digits.network, pipe[0].network_]
    before = [weights_of(network) for network in networks]
    calls = []

    def fail(*args, **options):
        calls.append(1)
        if len(calls) > 1 or where == "refit":
            raise KeyboardInterrupt
        return args[0]

    monkeypatch.setattr(f"skgmmcnn.metrics._randomisation.{where}", fail)
    with pytest.raises(KeyboardInterrupt):
        randomisation_test(pipe, digits.images[:150], n_steps=2, random_state=0)
    for network, weights in zip(networks, before, strict=True):
        assert_same(network, weights)


def test_networks_stay_as_they_are(pipe, digits, result):
    fresh = FeatureExtractor(digits.network, ["conv2", "conv3"], preprocess=None).fit(digits.images[:2])
    assert fresh.spec_.fingerprint == pipe[0].spec_.fingerprint
    assert_same(pipe[0].network_, weights_of(digits.network))


def test_held_maps_and_other_images(pipe, digits):
    maps = pipe[0].transform(digits.images[:150]).compute()
    options = {"n_steps": 1, "n_images": 3, "explained": digits.test_images[:40], "random_state": 0}
    result, again = (randomisation_test(pipe, X, **options) for X in (maps, digits.images[:150]))
    np.testing.assert_array_equal(result.classes, again.classes)
    np.testing.assert_array_equal(result.images, again.images)
    assert result.images.shape == (2, 3)
    assert result.agreement[-1] < 0.6


def test_bad_input(pipe, digits):
    with pytest.raises(ValueError, match="at least 1; got 0 and 20"):
        randomisation_test(pipe, digits.images[:20], n_steps=0)
    with pytest.raises(ValueError, match="made from arrays"):
        maps_of_changed_network(maps_of_arrays({"dense": np.zeros((3, 2))}), lambda *_: None)
