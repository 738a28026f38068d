"""Lists and choice of layers, and their receptive fields in networks of any kind."""

import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision import transforms

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.features import list_layers
from skgmmcnn.features._captured import CapturedNetwork
from skgmmcnn.features._following import Follower
from skgmmcnn.features._layers import choose_layers


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


def test_progress_bar_of_long_passes(digits, monkeypatch, capsys):
    list_layers(digits.network, digits.images)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("skgmmcnn.features._following._PATIENCE", 0)
    list_layers(digits.network, digits.images)
    assert "receptive fields: 100%" in capsys.readouterr().err


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
        ("squeezenet1_1", ["features.4", "features.7", "features"]),
        ("densenet121", ["features.denseblock1", "features.denseblock2", "features.denseblock3", "features"]),
        ("shufflenet_v2_x0_5", ["stage2", "stage3", "conv5"]),
        ("swin_t", ["features.1", "features.3", "features.5", "features"]),
        ("mobilenet_v3_small", ["features.1", "features.3", "features.8", "features"]),
        ("efficientnet_b0", ["features.2", "features.3", "features.5", "features"]),
        ("vgg16", ["features.15", "features.22", "features.29", "features"]),
    ],
)
def test_default_layers(name, expected):
    network = torchvision.models.get_model(name, weights=None).eval()
    survey = CapturedNetwork(network).survey(torch.rand(1, 3, 224, 224))
    chosen = choose_layers(survey, network)
    assert chosen == expected


def test_default_layers_of_vectors_and_without_any():
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    extractor = FeatureExtractor(mlp, preprocess=None).fit(np.zeros((3, 8), np.float32))
    assert extractor.spec_.layers == ("2", "4")
    with pytest.raises(ValueError, match="no hidden layer to choose by default"):
        FeatureExtractor(nn.Sequential(nn.Linear(8, 2)), preprocess=None).fit(np.zeros((3, 8), np.float32))


class SamePadding(nn.Conv2d):
    """Pads by a module of its own, and branches on values, as some EfficientNets do."""

    def __init__(self, inside, outside, stride):
        super().__init__(inside, outside, 3, stride)
        self.static_padding = nn.ZeroPad2d((0, 1, 0, 1) if stride == 2 else 1)

    def forward(self, x):
        return super().forward(self.static_padding(x))


class Padded(nn.Module):
    """Blocks, one activation module for all, dropout; the head is a convolution that scores every location."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(SamePadding(i, o, 2), nn.BatchNorm2d(o)) for i, o in [(3, 4), (4, 6), (6, 8)]
        )
        self.swish, self.dropout, self.same = nn.SiLU(), nn.Dropout(), nn.Identity()
        self.scores, self.pool = nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        for block in self.blocks:
            x = self.same(self.swish(block(x)))
        if float(x.detach().sum()) == 1e30:
            return x
        return self.pool(self.scores(self.dropout(x))).flatten(1)


def test_defaults_are_blocks_and_no_scores():
    X = torch.rand(2, 3, 48, 48)
    listed = list_layers(Padded(), X, preprocess=None)
    assert [layer.name for layer in listed if layer.default] == ["blocks.0", "blocks.1", "blocks.2"]
    assert FeatureExtractor(Padded(), preprocess=None).fit(X).spec_.layers == ("blocks.0", "blocks.1", "blocks.2")
    flat = nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 5, 3, 2), nn.ReLU(), nn.Conv2d(5, 7, 1), nn.AdaptiveAvgPool2d(1)
    )
    flat.append(nn.Flatten())
    assert [layer.name for layer in list_layers(flat, X, preprocess=None) if layer.default] == ["1", "3"]


def test_submodules_may_have_names_of_functions():
    network = nn.Sequential(OrderedDict(code=nn.Conv2d(1, 2, 3), flatten=nn.Flatten(), head=nn.Linear(18, 2)))
    extractor = FeatureExtractor(network, ["code"], preprocess=None).fit(torch.rand(2, 1, 5, 5))
    assert extractor.spec_.shapes == {"code": (2, 3, 3)}


def test_the_first_layer_may_pad_first():
    """Vectors were expected where the first convolution is a class of the user's."""
    network = nn.Sequential(SamePadding(3, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16 * 16, 2))
    assert CapturedNetwork(network).first_layer is network[0]
    grey = np.zeros((2, 32, 32), np.uint8)
    extractor = FeatureExtractor(network, ["1"], preprocess=transforms.ToTensor()).fit(grey)
    assert extractor.spec_.input_shape == (3, 32, 32)


class Stubborn(nn.Module):
    """Refuses or swallows what is not a number, in one of several ways; none of them moves anything."""

    def __init__(self, way):
        super().__init__()
        self.low, self.high, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3, 2), nn.Linear(5, 2)
        self.way = way
        self.register_buffer("table", torch.rand(256))

    def forward(self, x):
        return self.head(self.high(self.way(self.low(x), self.table)).mean((2, 3)))


def refused(x, table):
    assert torch.isfinite(x).all()
    return x


@pytest.mark.parametrize(
    "way",
    [
        refused,
        lambda x, table: x.nan_to_num(),
        lambda x, table: torch.where(x > 0, x, 0),
        lambda x, table: table[x.sigmoid().mul(255).round().long()],
        lambda x, table: x.masked_fill(x.isnan(), 0),
        lambda x, table: x * F.pad(x > 0, (1, 1, 2, 0))[:, :, 2:, 1:-1],
        lambda x, table: table[F.pad(x.sigmoid().mul(255).long(), (1, 1, 2, 0), value=3)[:, :, 2:, 1:-1]],
        lambda x, table: F.pad(torch.view_as_complex(torch.stack([x, x], -1)), (1, 1, 2, 0))[:, :, 2:, 1:-1].real.abs(),
    ],
)
def test_networks_that_swallow_or_refuse_nan(way):
    X = torch.rand(1, 3, 12, 12)
    _, fields = CapturedNetwork(Stubborn(way).eval()).select(["low", "high"], X)
    plain = Stubborn(lambda x, table: x).eval()
    _, expected = CapturedNetwork(plain).select(["low", "high"], X)
    assert fields.keys() == expected.keys()
    for pair, field in expected.items():
        np.testing.assert_array_equal([*fields[pair].rows, *fields[pair].columns], [*field.rows, *field.columns])


class Hypernetwork(nn.Module):
    """A map whose convolution has a bias, or whose normalisation has weights, computed from the image."""

    def __init__(self, way):
        super().__init__()
        self.beside, self.low, self.high = nn.Linear(3, 4), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
        self.behind, self.head, self.way = nn.Identity(), nn.Linear(4, 2), way

    def forward(self, x):
        own = self.beside(x.mean((0, 2, 3)))
        return self.head(self.behind(self.way(self, x, own)).mean((2, 3)))


def test_a_bias_from_the_image_adds_to_the_field(recwarn):
    network = Hypernetwork(lambda self, x, own: F.conv2d(self.low(x), self.high.weight, own)).eval()
    _, fields = CapturedNetwork(network).select(["low", "behind"], torch.rand(1, 3, 12, 12))
    assert fields["behind", "low"].window(2, 3) == (slice(2, 5), slice(3, 6))
    assert fields["behind", "input"].window(2, 3) == (slice(0, 12), slice(0, 12))
    assert not recwarn.list


@pytest.mark.filterwarnings("ignore:The outputs of")
def test_weights_of_normalisation_from_the_image():
    network = Hypernetwork(lambda self, x, own: F.group_norm(torch.ones(1, 4, 6, 6), 2, own)).eval()
    layouts = {"behind": "channels_first"}
    _, fields = CapturedNetwork(network).select(["behind"], torch.rand(1, 3, 12, 12), layouts)
    assert fields["behind", "input"].window(2, 3) == (slice(0, 12), slice(0, 12))


class Largest(TorchDispatchMode):
    """Notes the largest number of values in a new tensor."""

    n_values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.n_values = max(self.n_values, result.untyped_storage().nbytes() // result.element_size())
        return result


@pytest.mark.parametrize("operation", [lambda x: F.pad(x, (3, 3, 3, 3)), lambda x: F.max_pool2d(x, 9, 1, 4)])
def test_shadows_stay_small(operation):
    """They have one channel where channels do not differ, and windows take no memory."""
    image = torch.rand(1, 7, 30, 30)
    follower = Follower(image, pairs=False, layouts={}, n_layers=1)
    with torch.no_grad(), Largest() as largest, follower:
        operation(image)
    assert largest.n_values <= 7 * 36 * 36


def test_what_is_not_followed_counts_as_everything_or_is_refused():
    X = torch.rand(1, 3, 12, 12)
    fourier = Stubborn(lambda x, table: torch.fft.ifft2(torch.fft.fft2(x)).real).eval()
    _, fields = CapturedNetwork(fourier).select(["low", "high"], X)
    assert fields["high", "low"].window(0, 0) == (slice(0, 10), slice(0, 10))
    sampled = Stubborn(lambda x, table: F.grid_sample(x, torch.zeros(1, 9, 9, 2), align_corners=False)).eval()
    with pytest.warns(UserWarning, match=r"grid_sampler.* are taken to depend on all inputs"):
        _, fields = CapturedNetwork(sampled).select(["low", "high"], X)
    assert fields["high", "low"].window(0, 0) == (slice(0, 10), slice(0, 10))
    outside = Stubborn(lambda x, table: torch.from_numpy(x.detach().numpy().copy())).eval()
    with pytest.raises(ValueError, match="Layer 'high' does not depend on the image: it is constant"):
        CapturedNetwork(outside).select(["low", "high"], X)


@pytest.mark.parametrize("way", [lambda x, table: F.dropout(x), lambda x, table: x - x.mean(0)])
def test_networks_that_are_random_or_mix_images_get_a_warning(way):
    X = torch.rand(3, 3, 12, 12)
    steady = FeatureExtractor(Stubborn(lambda x, table: x), ["low", "high"], preprocess=None).fit(X)
    assert steady.spec_.layers == ("low", "high")
    with pytest.warns(UserWarning, match="'high' returns different values for the same image beside another one"):
        FeatureExtractor(Stubborn(way), ["low", "high"], preprocess=None).fit(X)


@pytest.mark.filterwarnings("ignore:The outputs of")
def test_volumes_inside_a_network_and_layers_of_several_tensors():
    X = torch.rand(2, 1, 6, 6)
    solid = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Unflatten(1, (2, 2)), nn.Conv3d(2, 3, 1), nn.Flatten(), nn.Linear(96, 2)
    )
    assert FeatureExtractor(solid, ["0"], preprocess=None).fit(X).spec_.shapes == {"0": (4, 4, 4)}

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.lstm = nn.Conv2d(1, 4, 3), nn.LSTM(4, 2, batch_first=True)

        def forward(self, x):
            return self.lstm(self.conv(x).flatten(2).mT)[0][:, -1]

    with pytest.raises(ValueError, match="returns a tuple"):
        FeatureExtractor(Recurrent(), ["lstm"], preprocess=None).fit(X)


class Windows(nn.Module):
    """Channels last, halves that attend to themselves, tokens on the way, and a pooled factor."""

    def __init__(self, blank=False):
        super().__init__()
        self.conv, self.norm, self.mix = nn.Conv2d(3, 4, 4, 4), nn.LayerNorm(4), nn.Linear(4, 4)
        self.merge, self.reduce, self.head = nn.Identity(), nn.Linear(16, 6), nn.Linear(6, 2)
        self.blank = blank

    def forward(self, x):
        x = self.norm(self.conv(x).permute(0, 2, 3, 1))
        if x.sum() > 1e9:
            return x
        n, h, w, c = x.shape
        windows = x.view(n, h // 2, 2, w // 2, 2, c).transpose(2, 3).reshape(-1, 4, c)
        windows = F.scaled_dot_product_attention(windows, windows, windows)
        x = x + self.mix(windows.view(n, h // 2, w // 2, 2, 2, c).transpose(2, 3).reshape(n, h, w, c))
        x = torch.cat([x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]], -1)
        x = self.reduce(self.merge(x))
        if self.blank:
            x = x.sum((1, 2), keepdim=True).expand(-1, h // 2, w // 2, -1)
        return self.head(self.merge(x).mean((1, 2)))


def test_channels_are_found_by_evidence():
    X = torch.rand(2, 3, 32, 32)
    extractor = FeatureExtractor(Windows(), ["norm", "merge_0", "reduce"], preprocess=None).fit(X)
    assert extractor.spec_.shapes == {"norm": (4, 8, 8), "merge_0": (16, 4, 4), "reduce": (6, 4, 4)}
    assert extractor.spec_.receptive_fields["reduce", "norm"].window(1, 2) == (slice(2, 4), slice(4, 6))
    network = extractor.network_
    expected = network.norm(network.conv(X).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    (batch,) = extractor.transform(X).batches()
    torch.testing.assert_close(batch.activations["norm"], expected)


@pytest.mark.parametrize(("layout", "shape"), [("channels_last", (6, 4, 4)), ("channels_first", (4, 4, 6))])
def test_layout_decides_between_two_readings(layout, shape):
    X, layers = torch.rand(2, 3, 32, 32), ["norm", "merge_1"]
    with pytest.raises(ValueError, match=r"'merge_1' returns .*\(1, 4, 4, 6\).*layout=\{'merge_1': 'channels_first'\}"):
        FeatureExtractor(Windows(blank=True), layers, preprocess=None).fit(X)
    layouts = {"merge_1": layout, "input": "channels_first"}
    extractor = FeatureExtractor(Windows(blank=True), layers, layout=layouts, preprocess=None).fit(X)
    assert extractor.spec_.shapes["merge_1"] == shape
    assert pickle.loads(pickle.dumps(extractor)).transform(X).shapes["merge_1"] == shape


@pytest.mark.parametrize(
    ("layout", "message"),
    [({"merge_1": "first"}, "must be 'channels_first'"), ({"mix": "channels_last"}, "neither one of")],
)
def test_wrong_layouts_are_refused(layout, message):
    with pytest.raises(ValueError, match=message):
        FeatureExtractor(Windows(), ["norm"], layout=layout, preprocess=None).fit(torch.rand(2, 3, 32, 32))


def test_a_first_attempt_needs_no_layers(digits):
    extractor = FeatureExtractor(digits.network)
    words = LayerDictionary(5, random_state=0).fit_transform(extractor.fit_transform(digits.images[:200]))
    assert words.layers == ("conv2", "conv3")
    assert InferenceGraph().fit(words).score(words) > 0.3


class TestBranching:
    def test_the_whole_road(self, image):
        X = torch.rand(40, 3, 25, 22, generator=torch.Generator().manual_seed(1)).numpy()
        network = Branching()
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
        field = maps.spec.effective_fields["top", "stem"]
        pairs = np.prod([(stop - start).sum() for start, stop in (field.rows, field.columns)])
        assert InferenceGraph().fit(words).transition_counts_["top", "stem"].sum() == 40 * pairs
        loaded = pickle.loads(pickle.dumps(extractor))
        np.testing.assert_array_equal(loaded.transform(X).outputs, maps.outputs)
        assert not [module for module in network.modules() if module._forward_hooks]

    def test_gates(self, image):
        """Factors for all locations do not count: top sees 5 x 5 locations, and with the convolutions 9 x 9 of stem."""
        _, fields = CapturedNetwork(Branching().eval()).select(["stem", "top"], image)
        rows = fields["top", "stem"].rows
        assert (rows[1] - rows[0]).max() == 9

    def test_layers_that_run_twice(self, image):
        watched = CapturedNetwork(Branching().eval())
        with pytest.raises(ValueError, match=r"'twice' runs 2 times.*'twice_0' is the first, 'twice_1' the second"):
            watched.select(["twice"], image)
        selected, fields = watched.select(["twice_1", "twice_0"], image)
        assert selected.layers == ("twice_0", "twice_1")
        rows = fields["twice_1", "twice_0"].rows
        assert (rows[1] - rows[0]).max() == 3

    def test_bad_names(self, image):
        with pytest.raises(ValueError, match=r"no layer 'stme'. Near names: 'stem'"):
            CapturedNetwork(Branching().eval()).select(["stme"], image)

    def test_list_and_default(self, image):
        listed = {layer.name: layer for layer in list_layers(Branching().eval(), image, preprocess=None)}
        assert listed["stem"].field == (3, 3)
        assert listed["twice_1"].field == (11, 11)
        extractor = FeatureExtractor(Branching(), preprocess=None).fit(image.numpy())
        assert extractor.spec_.layers == ("stem", "top")
