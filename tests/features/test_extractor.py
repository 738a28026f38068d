"""The extractor gives what its network computes, and names mistakes."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from skgmmcnn import FeatureExtractor, FeatureMaps, LayerDictionary

from .small import READY, TO_TENSOR, activations, in_memory, small_network, with_nan


def test_capture_comes_before_operations_in_place():
    network = small_network().eval()
    image = torch.randn(1, 3, 9, 9)
    maps = FeatureExtractor(network, ["1", "2"], preprocess=None).fit_transform(image)
    before = network[1](network[0](image)).detach().numpy()
    assert (before < 0).any()
    np.testing.assert_allclose(activations(maps, "1"), before, atol=1e-6)
    np.testing.assert_allclose(activations(maps, "2"), before.clip(0), atol=1e-6)


def test_the_callers_network_is_left_alone(pixels):
    network = small_network().train()
    network[0].weight.grad = torch.ones_like(network[0].weight)
    network[3].eval()
    seen = []
    network[0].register_forward_hook(lambda *args: seen.append(1))
    state = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    needs = [parameter.requires_grad for parameter in network.parameters()]
    extractor = FeatureExtractor(network, ["4"], preprocess=TO_TENSOR).fit(pixels)
    extractor.transform(pixels).compute()
    assert modes == [module.training for module in network.modules()]
    assert needs == [parameter.requires_grad for parameter in network.parameters()]
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert torch.equal(network[0].weight.grad, torch.ones_like(network[0].weight))
    assert [len(module._forward_hooks) for module in network.modules()].count(1) == 1
    assert not seen
    network.eval()
    with torch.no_grad():
        outputs = network(in_memory(pixels))
    np.testing.assert_allclose(extractor.transform(pixels).outputs, outputs, atol=1e-6)


def test_layers_may_be_operations_and_calls_of_shared_modules():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 3)
            self.act = nn.ReLU()
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            x = self.act(self.conv2(self.act(self.conv1(x))))
            return self.head((x + 1).mean((2, 3)))

    image = torch.rand(1, 1, 6, 6)
    extractor = FeatureExtractor(Shared(), ["add", "act_1", "act_0"], preprocess=None).fit(image)
    assert extractor.spec_.layers == ("act_0", "act_1", "add")
    assert extractor.spec_.shapes["act_0"] == (3, 6, 6)
    with pytest.raises(ValueError, match=r"'act' runs 2 times.*'act_0' is the first, 'act_1' the second"):
        FeatureExtractor(Shared(), ["act"], preprocess=None).fit(image)


def test_reduced_precision(digits):
    networks = digits.network, copy.deepcopy(digits.network).bfloat16()
    extractors = [FeatureExtractor(network, ["conv2", "conv3"]) for network in networks]
    exact, reduced = (extractor.fit_transform(digits.images[:300]) for extractor in extractors)
    for first, second in zip(exact.batches(), reduced.batches(), strict=True):
        for layer, values in first.activations.items():
            assert second.activations[layer].dtype == torch.float32
            assert not torch.equal(values, second.activations[layer])
            assert (values - second.activations[layer]).abs().max() < 0.03 * values.abs().max()
    dictionary = LayerDictionary(20, random_state=0).fit(exact)
    reduced._source.spec = exact.spec  # whose words else are those of another network
    for layer, words in dictionary.predict(exact).items():
        assert (words != dictionary.predict(reduced)[layer]).mean() < 0.03


BAD = {
    "unknown layer": (dict(layers=["layr"]), READY, "no layer 'layr'. Near names"),
    "no layers": (dict(layers=[]), READY, "at least one layer"),
    "same tensor twice": (dict(layers=["4", "4_0"]), READY, "'4' and '4_0' are the same tensor"),
    "channels": ({}, np.zeros((4, 5, 9, 9), np.float32), "no axis of 3 channels"),
    "channels said": (dict(layout="channels_first"), np.zeros((4, 5, 9, 3), np.float32), "takes 3 channels; X has 5"),
    "both layouts": ({}, np.zeros((4, 3, 9, 3), np.float32), "channels first or last.*layout='channels_first'"),
    "grey": ({}, np.zeros((4, 9, 9), np.float32), "grey images.*takes 3 channels"),
    "vectors": ({}, np.zeros((4, 9), np.float32), "takes images of 3 channels"),
    "five axes": ({}, np.zeros((4, 1, 3, 9, 9), np.float32), "got shape"),
    "no images": ({}, np.zeros((0, 3, 9, 9), np.float32), "no images"),
    "not numbers": ({}, np.zeros((4, 3, 9, 9), complex), "array of complex128"),
    "bytes": ({}, READY.astype(np.uint8), "uint8 values, and there is no preprocessing.*preprocess="),
    "pil without preprocessing": ({}, [Image.new("RGB", (9, 9))], "Image 0 is a PIL image.*preprocess="),
    "NaN first": ({}, with_nan(READY, 0), "Image 0 contains NaN"),
    "failing": (dict(preprocess=lambda x: x.nothing), READY.astype(np.uint8), "preprocess failed on image 0, a PIL"),
    "no tensor": (dict(preprocess=lambda x: x), READY.astype(np.uint8), "must return a float tensor"),
    "one image": ({}, np.zeros((20, 30, 3), np.uint8), r"\(20, 30, 3\) looks like one colour image.*X\[None\]"),
    "one picture": ({}, Image.new("RGB", (9, 9)), r"one PIL image; give a list of images: \[image\]"),
    "letters of a path": ({}, list("photographs"), "split into letters, 'photographs': cross-validation needs a list"),
    "batches": ({}, DataLoader(TensorDataset(torch.zeros(4, 3, 9, 9))), "its data set, X.dataset"),
    "missing folder": (dict(model="resnet50", weights="DEFAULT"), "nowhere", "'nowhere', which is not a folder; give"),
    "missing file": ({}, ["nowhere.png"], "no image file 'nowhere.png'"),
    "missing weights": (dict(weights="nowhere.pth"), READY, "no weights file 'nowhere.pth'"),
    "named weights": (dict(weights="DEFAULT"), READY, "needs a torchvision name as model"),
    "unknown model": (dict(model="resnet51"), READY, "no classification model 'resnet51'. Near names: resnet5"),
    "unknown weights": (dict(model="resnet50", weights="V9"), READY, "no weights 'V9': use one of 'DEFAULT', 'IMAGE"),
    "factory": (dict(model=lambda: 3), READY, "factory returned a int"),
    "class names": (dict(class_names=["a", "b"]), READY, "2 names, but the network has 4 outputs"),
    "batch size": (dict(batch_size=0), READY, "'batch_size' parameter"),
    "no gpu": (dict(device="cuda:0"), READY, "finds no GPU"),
    "no decision": (dict(model=small_network()[:6], layers=["4"]), READY, "not scores .1, C..*decision=callable"),
    "decision names": (
        dict(model=small_network()[:6], layers=["4"], decision=lambda out: out.flatten(1).argmax(1)),
        READY,
        "pass class_names",
    ),
    "wrong decision": (dict(decision=lambda out: out), READY, "must return 1 output numbers"),
    "decision out of range": (dict(decision=lambda out: out.argmax(1) + 4), READY, "outputs 0 to 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    if case == "no gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    parameters, X, message = BAD[case]
    extractor = FeatureExtractor(**{"model": small_network(), "layers": ["4"], **parameters})
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        extractor.fit(X)


def test_network_of_doubles():
    maps = FeatureExtractor(small_network().double(), ["4"]).fit_transform(READY)
    assert next(maps.batches()).activations["4"].dtype == torch.float32


def test_decision_by_callable():
    network = small_network()[:6]
    extractor = FeatureExtractor(
        network, ["4"], decision=lambda out: out.mean((2, 3)).argmax(1), class_names=list("abcdef")
    )
    maps = extractor.fit_transform(READY)
    assert maps.spec.n_outputs == 6
    assert isinstance(maps, FeatureMaps)


def test_capture_is_what_the_layer_returned_after_its_own_work_in_place():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            torch.relu_(y)
            return y

    network = nn.Sequential(Block(), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    image = torch.randn(2, 3, 6, 6)
    maps = FeatureExtractor(network, ["0"], preprocess=None).fit_transform(image)
    with torch.no_grad():
        expected = network[0](image)
    np.testing.assert_allclose(activations(maps, "0"), expected, atol=1e-6)


def test_failed_fit_loses_nothing(pixels):
    extractor = FeatureExtractor(small_network(), ["4"], preprocess=TO_TENSOR)
    with pytest.raises(ValueError, match="no layer"):
        extractor.set_params(layers=["nine"]).fit(pixels)
    with pytest.raises(NotFittedError):
        extractor.transform(pixels)
    extractor.set_params(layers=["4"]).fit(pixels)
    expected = extractor.transform(pixels).outputs
    with pytest.raises(ValueError, match="one label per image"):
        extractor.set_params(model=small_network(outputs=7)).fit(pixels, [1])
    np.testing.assert_array_equal(extractor.transform(pixels).outputs, expected)


def test_outputs_other_than_scores():
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            scores = self.head(self.conv(x).mean((2, 3)))
            return {"scores": scores, "boxes": scores * 2}

    maps = FeatureExtractor(
        Detector(), ["conv"], decision=lambda out: out["scores"].argmax(1), class_names=["a", "b", "c"]
    ).fit_transform(READY)
    with pytest.raises(ValueError, match=r"not return a tensor of scores \(n, C\)"):
        _ = maps.outputs
    assert len(maps.compute()[[1, 2]]) == 2
    with pytest.raises(ValueError, match="returns a dict for one image"):
        FeatureExtractor(Detector(), ["conv"]).fit(READY)


def test_reserved_layer_names():
    network = nn.Sequential()
    network.add_module("decision", nn.Conv2d(3, 2, 3))
    network.add_module("rest", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(ValueError, match="name 'decision' is reserved"):
        FeatureExtractor(network, ["decision"]).fit(READY)


def test_score_is_the_networks_own_accuracy():
    extractor = FeatureExtractor(small_network(), ["4"], class_names=["cat", "dog", "cow", "hen"]).fit(READY)
    decided = np.concatenate([batch.decisions for batch in extractor.transform(READY).batches()])
    labels = decided.copy()
    labels[0] = (labels[0] + 1) % 4
    assert extractor.score(READY, decided) == 1
    names = [extractor.spec_.class_name(label) for label in labels]
    assert extractor.score(READY, names) == pytest.approx(1 - 1 / len(READY))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"device": "gpu"}, ValueError, "Unknown device='gpu'; use 'auto'"),
        ({"layers": [2]}, TypeError, "names of layers, as returned by list_layers; got 2"),
        ({"layers": [None]}, TypeError, "names of layers, as returned by list_layers; got None"),
        ({"n_jobs": 0}, ValueError, "'n_jobs' parameter .* Got 0"),
        ({"store": ""}, ValueError, "The folder of a store is ''"),
        ({"batch_size": True}, ValueError, "'batch_size' parameter .* Got True"),
    ],
)
def test_parameters_that_are_mistakes(parameters, error, message):
    with pytest.raises(error, match=message):
        FeatureExtractor(small_network(), **{"layers": ["4"]} | parameters).fit(READY)


def test_one_layer_by_its_name(digits):
    one, listed = (FeatureExtractor(digits.network, layers).fit(digits.images[:4]) for layers in ("conv3", ["conv3"]))
    assert one.spec_.layers == listed.spec_.layers == ("conv3",)
