"""Receptive fields against the spread of NaN from single locations through the whole network."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skgmmcnn import FeatureExtractor
from skgmmcnn.features import ReceptiveField


def probe(network, upper, lower, image):
    """Return for every upper location the rows and columns of the lower locations that reach it: (H, W, h, w) bool."""
    network = copy.deepcopy(network).double().eval()
    image = image.double()
    size = image.shape[-2:] if lower == "input" else _output(network, lower, image).shape[-2:]
    place = np.indices(size).reshape(2, -1)

    def spoil(tensor):
        spoiled = tensor.clone()
        spoiled[torch.arange(len(spoiled)), :, place[0], place[1]] = torch.nan
        return spoiled

    batch = image.expand(place.shape[1], -1, -1, -1)
    if lower == "input":
        out = _output(network, upper, spoil(batch))
    else:
        handle = network.get_submodule(lower).register_forward_hook(lambda module, args, result: spoil(result))
        out = _output(network, upper, batch)
        handle.remove()
    out = out[:, :, None, None] if out.ndim == 2 else out
    return out.isnan().any(1).permute(1, 2, 0).reshape(*out.shape[2:], *size).numpy()


def _output(network, layer, batch):
    kept = []
    handle = network.get_submodule(layer).register_forward_hook(lambda module, args, out: kept.append(out.clone()))
    with torch.no_grad():
        network(batch)
    handle.remove()
    return kept[0]


def assert_equal_to_probe(field, reached):
    """Compare the windows with the bounding boxes of what was reached."""
    for i, j in np.ndindex(reached.shape[:2]):
        rows, columns = (np.flatnonzero(reached[i, j].any(axis)) for axis in (1, 0))
        window = field.window(i, j)
        if len(rows):
            assert window == (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)), (i, j)
        else:
            assert any(part.start == part.stop for part in window), (i, j)


def check(network, layers, shape):
    """Check every pair of layers, and of layer and input."""
    image = torch.rand(1, *shape)
    extractor = FeatureExtractor(network, layers, preprocess=None).fit(image)
    fields = extractor.spec_.receptive_fields
    ordered = ["input", *extractor.spec_.layers]
    pairs = [(upper, lower) for i, upper in enumerate(ordered) for lower in ordered[:i]]
    assert set(fields) <= set(pairs)
    for pair in pairs:
        reached = probe(network, *pair, image)
        assert reached.any() == (pair in fields)
        if pair in fields:
            assert_equal_to_probe(fields[pair], reached)


def head(channels):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3))


class Residual(nn.Module):
    """A block whose shortcut subsamples by slicing and pads with zero channels."""

    def __init__(self, inside, outside, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1)
        self.bn = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1)
        self.stride, self.pad = stride, outside - inside

    def forward(self, x):
        y = self.conv2(F.relu(self.bn(self.conv1(x))))
        if self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad // 2, self.pad - self.pad // 2))
        return F.relu(x + y)


class Branches(nn.Module):
    """Two branches of different reach, concatenated, as in SqueezeNet's fire modules."""

    def __init__(self, inside):
        super().__init__()
        self.one = nn.Conv2d(inside, 2, 1)
        self.three = nn.Conv2d(inside, 3, (3, 5), padding=(1, 2))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x)], 1)


class AsymmetricPad(nn.Module):
    def forward(self, x):
        return F.pad(x, (0, 3, 2, 1))


class Halves(nn.Module):
    """Split channels, shuffle and join them: tensors of five axes on the way."""

    def forward(self, x):
        left, right = x.chunk(2, dim=1)
        x = torch.cat([left, F.avg_pool2d(right, 3, 1, 1)], 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Unfolded(nn.Module):
    """Windows as channels, from a map that is padded by ones."""

    def forward(self, x):
        x = F.pad(x, (0, 1, 0, 1), value=1)
        n, c, h, w = x.shape
        return F.unfold(x, 3, padding=1).view(n, 9 * c, h, w)


NETWORKS = {
    "plain": (
        [nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(2, 2, 3), nn.ReLU(inplace=True)],
        2,
    ),
    "residual": ([nn.Conv2d(1, 2, 3, 1, 1), Residual(2, 2, 1), Residual(2, 5, 2), Residual(5, 5, 1)], 5),
    "branches": ([nn.Conv2d(1, 2, 3, 2), Branches(2), nn.ReLU(inplace=True), Branches(5)], 5),
    "dilated": ([nn.Conv2d(1, 2, 3, dilation=2, padding=2), nn.Conv2d(2, 2, 3, dilation=3, padding=1), nn.ReLU()], 2),
    "asymmetric": ([AsymmetricPad(), nn.Conv2d(1, 2, (2, 3), (2, 1), (1, 0)), AsymmetricPad(), nn.ReLU()], 2),
    "ceil": ([nn.Conv2d(1, 2, 3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(3, 2, 1, ceil_mode=True)], 2),
    "even": ([nn.Conv2d(1, 2, 4, 2, 1), nn.AvgPool2d(2, 1), nn.Conv2d(2, 2, 3, padding="same")], 2),
    "unread": ([nn.Conv2d(1, 2, 1, 3), nn.MaxPool2d(2, 3), nn.Conv2d(2, 2, 1, 2)], 2),
    "adaptive": ([nn.Conv2d(1, 2, 3, 1, 1), nn.AdaptiveAvgPool2d((6, 4)), nn.AdaptiveMaxPool2d((4, 3))], 2),
    "transposed": ([nn.Conv2d(1, 2, 3, 2), nn.ConvTranspose2d(2, 2, 3, 2, 1, 1), nn.ConvTranspose2d(2, 2, 2, 3)], 2),
    "upsampled": ([nn.Conv2d(1, 2, 3, 3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(2, 2, 3)], 2),
    "shuffled": ([nn.Conv2d(1, 4, 3, padding=1), Halves(), nn.Conv2d(4, 4, 3), Halves()], 4),
    "reflecting": ([nn.Conv2d(1, 2, 5, padding=2, padding_mode="reflect"), nn.GroupNorm(1, 2)], 2),
    "unfolded": ([nn.Conv2d(1, 2, 1, 2), Unfolded(), nn.Conv2d(18, 2, 3)], 2),
    "border": ([nn.Conv2d(1, 2, 1, padding=2), nn.Conv2d(2, 2, 2, padding=1, stride=2)], 2),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("shape", [(13, 13), (17, 11)])
def test_equal_to_probe(name, shape):
    layers, channels = NETWORKS[name]
    network = nn.Sequential(*layers, *head(channels))
    check(network, [str(i) for i in range(len(layers) + 3) if i != len(layers) + 1], (1, *shape))


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@settings(max_examples=20, deadline=None)
@given(data=st.data(), height=st.integers(7, 11), width=st.integers(7, 11))
def test_random_stacks_equal_probe(data, height, width):
    small = st.integers(1, 3)
    layers = []
    for _ in range(data.draw(st.integers(1, 4))):
        kernel, stride, dilation = data.draw(small), data.draw(small), data.draw(st.integers(1, 2))
        padding = data.draw(st.integers(0, 2))
        if data.draw(st.booleans()):
            layers.append(nn.Conv2d(1, 1, kernel, stride, padding, dilation))
        else:
            layers.append(nn.MaxPool2d(kernel, stride, min(padding, kernel // 2), ceil_mode=data.draw(st.booleans())))
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    try:
        network(torch.zeros(1, 1, height, width))
    except RuntimeError:
        return  # the map became too small
    names = [str(i) for i in range(len(layers))]
    image = torch.rand(1, 1, height, width)
    blind = [name for name in names if not probe(network, name, "input", image).any()]
    if blind:  # sees nothing but padding
        with pytest.raises(ValueError, match="does not depend on the image"):
            check(network, blind, (1, height, width))
    else:
        check(network, names, (1, height, width))


class Gated(nn.Module):
    """Squeeze-and-excitation: a factor of spatial size 1, multiplied in one of several ways."""

    def __init__(self, multiply):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1), nn.Sigmoid())
        self.behind = nn.ReLU()
        self.head = nn.Linear(2, 2)
        self.multiply = multiply

    def forward(self, x):
        x = self.conv(x)
        return self.head(self.behind(self.multiply(x, self.gate(x))).mean((2, 3)))


@pytest.mark.parametrize(
    "multiply",
    [lambda x, g: x * g, lambda x, g: x * g.expand_as(x), torch.multiply, lambda x, g: g.expand(-1, -1, 7, 7).mul(x)],
)
def test_gate_is_left_out(multiply):
    extractor = FeatureExtractor(Gated(multiply), ["conv", "behind"], preprocess=None).fit(torch.rand(1, 1, 7, 7))
    field = extractor.spec_.receptive_fields["behind", "conv"]
    assert [field.window(i, i) for i in range(7)] == [(slice(i, i + 1), slice(i, i + 1)) for i in range(7)]


def test_squeezenet_at_224_equals_probe():
    """Strides of 2 with ceil_mode pooling leave rows unread at this size."""
    network = torchvision.models.squeezenet1_1(weights=None)
    image = torch.rand(1, 3, 224, 224)
    layers = ["features.2", "features.5", "features.7", "features.12"]
    fields = FeatureExtractor(network, layers, preprocess=None).fit(image).spec_.receptive_fields
    rng = np.random.default_rng(0)
    for upper, lower in [("features.5", "features.2"), ("features.12", "features.5"), ("features.12", "features.7")]:
        field = fields[upper, lower]
        for _ in range(3):
            i, j = (int(rng.integers(len(axis[0]))) for axis in (field.rows, field.columns))
            assert _reached_by_gradient(upper, lower, image, i, j) == field.window(i, j)


def _reached_by_gradient(upper, lower, image, i, j):
    """Return the bounding box of the lower locations that (i, j) depends on, by smooth pooling and gradients."""
    network = torchvision.models.squeezenet1_1(weights=None).double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            nn.init.constant_(module.bias, 0.1)
    kept = {}
    for name in (upper, lower):
        network.get_submodule(name).register_forward_hook(
            lambda module, args, out, name=name: kept.__setitem__(name, out)
        )
    pools = [module for module in network.modules() if isinstance(module, nn.MaxPool2d)]
    for pool in pools:  # a maximum passes the gradient to one input only; a mean passes it to all
        pool.forward = lambda x, pool=pool: F.avg_pool2d(x, pool.kernel_size, pool.stride, ceil_mode=pool.ceil_mode)
    network(image.double().requires_grad_())
    (gradient,) = torch.autograd.grad(kept[upper][0, :, i, j].sum(), kept[lower])
    rows, columns = (np.flatnonzero(gradient[0].abs().sum((0, axis)).numpy()) for axis in (2, 1))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def test_real_networks_equal_probe(data):
    check_layers = ["layer1", "layer2.0", "layer2", "layer3"]
    network = data.cifar_resnet20()
    image = torch.rand(1, 3, 16, 20)  # the network takes any size
    fields = FeatureExtractor(network, check_layers, preprocess=None).fit(image).spec_.receptive_fields
    for pair in [("layer3", "layer2"), ("layer3", "layer1"), ("layer2", "layer2.0"), ("layer2.0", "layer1")]:
        assert_equal_to_probe(fields[pair], probe(network, *pair, image))
    assert_equal_to_probe(fields["layer1", "input"], probe(network, "layer1", "input", image))


class Fork(nn.Module):
    """Two branches that do not see each other."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 3)
        self.head = nn.Linear(2, 2)

    def forward(self, x):
        return self.head((self.left(x) + self.right(x)).mean((2, 3)))


def test_parallel_branches_have_no_field():
    extractor = FeatureExtractor(Fork(), ["left", "right"], preprocess=None).fit(torch.rand(1, 1, 7, 7))
    assert set(extractor.spec_.receptive_fields) == {("left", "input"), ("right", "input")}


class ChannelsLast(nn.Module):
    """As ConvNeXt and Swin do: the axes of maps are moved, normalised, mixed and moved back."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.mix = nn.Conv2d(1, 4, 3), nn.LayerNorm(4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)
        self.behind, self.pool = nn.Conv2d(4, 4, 3, stride=2), nn.MaxPool2d(2)

    def forward(self, x):
        x = self.mix(self.norm(self.conv(x).permute(0, 2, 3, 1)) * 2)
        x = torch.cat([x, x.roll(1, dims=1)], -1)[..., 2:6].transpose(1, 3).movedim(2, 3)
        return self.head(self.pool(self.behind(x)).mean((2, 3)))


def test_moved_axes_are_followed():
    check(ChannelsLast(), ["conv", "behind", "pool"], (1, 13, 11))
    extractor = FeatureExtractor(ChannelsLast(), ["norm", "behind"], preprocess=None)
    images = torch.rand(2, 1, 13, 11)
    (batch,) = extractor.fit_transform(images).batches()
    assert extractor.spec_.shapes["norm"] == (4, 11, 9)
    network = ChannelsLast()
    network.load_state_dict(extractor.network_.state_dict())
    expected = network.norm(network.conv(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(batch.activations["norm"], expected.detach())
    assert extractor.spec_.receptive_fields["norm", "input"].window(4, 5) == (slice(4, 7), slice(5, 8))


class Mixing(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.behind, self.head = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        x = self.conv(x)
        return self.head(self.behind(x.flatten(2).reshape(x.shape[0], 4, 5, 5)).mean((2, 3)))


class Folding(Mixing):
    def forward(self, x):
        x = self.conv(x)
        return self.head(self.behind(x.reshape(x.shape[0], 4, 1, 5, 5, 1)[:, :, 0, ..., 0]).mean((2, 3)))


@pytest.mark.parametrize("kind", [Mixing, Folding])
def test_reshaped_maps_are_followed(kind):
    check(kind(), ["conv", "behind"], (1, 7, 7))


def test_stride():
    axis = np.array([0, 0, 2, 4, 6]), np.array([2, 4, 6, 8, 8])
    assert ReceptiveField(axis, axis, (8, 8)).stride == (2, 2)
    uneven = np.array([0, 1, 3, 4]), np.array([2, 4, 5, 6])
    assert ReceptiveField(uneven, axis, (6, 8)).stride == (None, 2)
