"""Which layers there are, which are taken by default, and networks that torch.fx cannot trace."""

import pickle

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.features import list_layers
from skgmmcnn.features._layers import choose_layers
from skgmmcnn.features._probing import HookedNetwork
from skgmmcnn.features._tracing import TracedNetwork, watch

UNTRACEABLE = "cannot be traced by torch.fx"


class Branching(nn.Module):
    """Control flow that depends on values; one submodule runs twice, one gates."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.top = nn.Sequential(nn.Conv2d(8, 12, 5, stride=2), nn.ReLU())
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        x = self.stem(x)
        if x.shape[0] > 10**6 or float(x.detach().nan_to_num().sum()) > 1e30:
            return x
        x = self.twice(self.twice(x))
        x = x * self.gate(self.pool(x))
        return self.head(self.top(x).mean((2, 3)))


class Plain(nn.Module):
    """Without control flow: both ways work."""

    def __init__(self):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(inplace=True))
        self.b = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.c = nn.Conv2d(6, 7, (3, 5), padding=(0, 2))
        self.d = nn.Linear(7, 9)
        self.e = nn.Linear(9, 3)

    def forward(self, x):
        return self.e(self.d(self.c(self.b(self.a(x))).mean((2, 3))).relu())


@pytest.fixture
def image():
    return torch.rand(1, 3, 25, 22, generator=torch.Generator().manual_seed(0))


def test_list_of_layers(digits):
    layers = {layer.name: layer for layer in list_layers(digits.network, digits.images)}
    assert list(layers) == ["conv1.0", "conv1", "conv2.0", "conv2", "pool", "conv3.0", "conv3", "head"]
    assert layers["pool"].kind == "MaxPool2d"
    assert layers["pool"].shape == (16, 4, 4)
    assert layers["conv3"].field == (8, 8)
    assert layers["pool"].stride == (2, 2)
    assert layers["head"].shape == (10, 1, 1)


def test_listed_fields_equal_those_of_the_extractor(image):
    network = torchvision.models.resnet18(weights=None)
    image = torch.rand(2, 3, 96, 96)
    listed = {layer.name: layer for layer in list_layers(network, image, preprocess=None)}
    names = ["layer1", "layer2.0.conv1", "layer3"]
    fields = FeatureExtractor(network, names, preprocess=None).fit(image).spec_.receptive_fields
    for name in names:
        field = fields[name, "input"]
        assert listed[name].field == tuple(max(stop - start) for start, stop in (field.rows, field.columns))
        assert listed[name].stride == field.stride


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("squeezenet1_1", ["features.1", "features.4", "features.7", "features"]),
        ("densenet121", ["features.transition1", "features.denseblock2", "features.denseblock3", "features"]),
        ("mobilenet_v3_small", ["features.1", "features.3", "features.8", "features"]),
        ("efficientnet_b0", ["features.2", "features.3", "features.5", "features"]),
        ("vgg16", ["features.15", "features.22", "features.29", "avgpool"]),
    ],
)
def test_default_layers(name, expected):
    network = torchvision.models.get_model(name, weights=None).eval()
    survey = watch(network).survey(torch.rand(1, 3, 224, 224))
    chosen = choose_layers(survey, network)
    if name == "densenet121":
        assert chosen[-1] == "features"
        assert len(chosen) == 4
    else:
        assert chosen == expected


def test_default_layers_of_vectors_and_without_any():
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    extractor = FeatureExtractor(mlp, preprocess=None).fit(np.zeros((3, 8), np.float32))
    assert extractor.spec_.layers == ("2", "4")
    with pytest.raises(ValueError, match="no hidden layer that could be chosen"):
        FeatureExtractor(nn.Sequential(nn.Linear(8, 2)), preprocess=None).fit(np.zeros((3, 8), np.float32))


def test_a_first_attempt_needs_no_layers(digits):
    extractor = FeatureExtractor(digits.network)
    words = LayerDictionary(5, random_state=0).fit_transform(extractor.fit_transform(digits.images[:200]))
    assert words.layers == ("conv2", "conv3")
    assert InferenceGraph().fit(words).score(words) > 0.3


class TestProbing:
    def test_probing_equals_arithmetic(self, image):
        """All pairs of layers of a network that can be traced."""
        network = Plain().eval()
        layers = ["a", "b", "c", "d"]
        by_hooks, found = HookedNetwork(network).select(layers, image)
        by_trace, expected = TracedNetwork(network).select(layers, image)
        assert by_hooks.layers == by_trace.layers
        assert found.keys() == expected.keys()
        for pair, field in expected.items():
            for mine, its in zip((field.rows, field.columns), (found[pair].rows, found[pair].columns), strict=True):
                np.testing.assert_array_equal(mine, its, err_msg=str(pair))
        for (output, values), (output_of_hooks, values_of_hooks) in [(by_trace.run(image), by_hooks.run(image))]:
            torch.testing.assert_close(output, output_of_hooks)
            for name in layers:
                torch.testing.assert_close(values[name], values_of_hooks[name])

    def test_the_whole_road(self, image):
        X = torch.rand(40, 3, 25, 22, generator=torch.Generator().manual_seed(1)).numpy()
        network = Branching()
        with pytest.warns(UserWarning, match=UNTRACEABLE):
            extractor = FeatureExtractor(network, ["stem", "top"], preprocess=None).fit(X)
        maps = extractor.transform(X)
        with torch.no_grad():
            network.eval()
            torch.testing.assert_close(torch.from_numpy(maps.outputs), network(torch.from_numpy(X)))
            (batch, *_) = maps.batches()
            torch.testing.assert_close(
                batch.activations["stem"], network.stem(torch.from_numpy(X))[: len(batch.outputs)]
            )
        words = LayerDictionary(3, random_state=0).fit_transform(maps)
        field = maps.effective_fields["top", "stem"]
        pairs = np.prod([(stop - start).sum() for start, stop in (field.rows, field.columns)])
        assert InferenceGraph().fit(words).transition_counts_["top", "stem"].sum() == 40 * pairs
        loaded = pickle.loads(pickle.dumps(extractor))
        np.testing.assert_array_equal(loaded.transform(X).outputs, maps.outputs)
        assert not [module for module in network.modules() if module._forward_hooks]

    def test_gates(self, image):
        """Factors for all locations do not count: top sees 5 x 5 locations, and with the convolutions 9 x 9 of stem."""
        _, fields = HookedNetwork(Branching().eval()).select(["stem", "top"], image)
        rows = fields["top", "stem"].rows
        assert (rows[1] - rows[0]).max() == 9

    def test_layers_that_run_twice(self, image):
        watched = HookedNetwork(Branching().eval())
        with pytest.raises(ValueError, match=r"'twice' runs 2 times.*'twice_0' is the first, 'twice_1' the second"):
            watched.select(["twice"], image)
        selected, fields = watched.select(["twice_1", "twice_0"], image)
        assert selected.layers == ("twice_0", "twice_1")
        rows = fields["twice_1", "twice_0"].rows
        assert (rows[1] - rows[0]).max() == 3

    def test_bad_names(self, image):
        with pytest.raises(ValueError, match=r"no layer 'stme'. Near names: 'stem'"):
            HookedNetwork(Branching().eval()).select(["stme"], image)

    def test_list_and_default(self, image):
        with pytest.warns(UserWarning, match=UNTRACEABLE):
            listed = {layer.name: layer for layer in list_layers(Branching().eval(), image, preprocess=None)}
        assert listed["stem"].field == (3, 3)
        assert listed["twice_1"].field == (11, 11)
        with pytest.warns(UserWarning, match="torch.fx"):
            extractor = FeatureExtractor(Branching(), preprocess=None).fit(image.numpy())
        assert extractor.spec_.layers == ("twice_1", "top")
