"""Capture of layers by the names of torchvision, and beside other threads."""

import math
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from skgmmcnn import FeatureExtractor
from skgmmcnn.features._captured import CapturedNetwork

N_THREADS = 8


class Block(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.norm(self.conv(x)).relu() * (self.scale / math.sqrt(self.conv.in_channels))


class Chain(nn.Sequential):
    """Of modules with parameters of their own."""

    def __init__(self):
        super().__init__(Block(3, 6), Block(6, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


class Remembering(Chain):
    """Branches on values, and keeps what it computes where another thread could change it."""

    def forward(self, x):
        self.seen = self[1](self[0](x))
        if x.sum() > 1e9:
            return x
        return self[4](self[3](self[2](self.seen)))


def fitted(network, images):
    return FeatureExtractor(network, ["0", "1"], preprocess=None, device="cpu").fit(images)


@pytest.fixture
def images():
    return torch.rand(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", [Chain, Remembering])
def test_fits_beside_each_other_and_beside_other_networks(kind, images):
    torch.manual_seed(0)
    networks = [kind().eval() for _ in range(N_THREADS)]
    expected = [fitted(network, images).transform(images).compute() for network in networks]
    bystander, done, failures = Chain().eval(), threading.Event(), []
    with torch.no_grad():
        alone = bystander(images)

    def run_their_own():
        with torch.no_grad():
            while not done.is_set():
                try:
                    assert torch.equal(bystander(images), alone)
                except Exception as error:
                    failures.append(error)

    def fit(number):
        return fitted(networks[number % N_THREADS], images).transform(images).compute()

    others = [threading.Thread(target=run_their_own) for _ in range(2)]
    for thread in others:
        thread.start()
    try:
        with ThreadPoolExecutor(N_THREADS) as pool:
            found = list(pool.map(fit, range(3 * N_THREADS)))
    finally:
        done.set()
        for thread in others:
            thread.join()
    assert not failures
    for number, maps in enumerate(found):
        right = expected[number % N_THREADS]
        np.testing.assert_array_equal(maps.outputs, right.outputs)
        for pair, field in right.spec.receptive_fields.items():
            actual = maps.spec.receptive_fields[pair]
            np.testing.assert_array_equal([*actual.rows, *actual.columns], [*field.rows, *field.columns])


@pytest.mark.parametrize("kind", [Chain, Remembering])
def test_threads_see_their_own_values(kind, images):
    """Also where they run one network, change its layers, and where it keeps values on itself."""
    torch.manual_seed(0)
    extractor = fitted(kind().eval(), images)

    def read(number):
        maps = extractor.transform(images[number : number + 1])
        (part,) = maps.rerun(lambda part: part)
        changed = part.run({"0": lambda values: values * number}).outputs
        return maps.outputs, next(iter(maps.batches())).activations["1"], changed

    expected = [read(number) for number in range(len(images))]
    with ThreadPoolExecutor(N_THREADS) as pool:
        found = list(pool.map(read, list(range(len(images))) * 10))
    for number, arrays in enumerate(found):
        for pair in zip(arrays, expected[number % len(images)], strict=True):
            np.testing.assert_array_equal(*pair)


class Borrower(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layers = [layer]  # not a submodule

    def forward(self, x):
        return self.layers[0](x)


class Shared(nn.Module):
    """Runs a layer inside another submodule."""

    def __init__(self, share):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.inner = share(self.conv)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.inner(x).mean((2, 3)))


@pytest.mark.parametrize("share", [nn.Sequential, Borrower])
def test_layers_run_in_other_submodules(share, images):
    network = Shared(share).eval()
    extractor = FeatureExtractor(network, ["conv"], preprocess=None, device="cpu").fit(images)
    (batch,) = extractor.transform(images).batches()
    with torch.no_grad():
        torch.testing.assert_close(batch.activations["conv"], network.conv(images))


class ActedOn(nn.Module):
    """A convolution before an activation that may be shared."""

    def __init__(self, inside, act):
        super().__init__()
        self.conv, self.act = nn.Conv2d(inside, 4, 3), act

    def forward(self, x):
        return self.act(self.conv(x))


@pytest.mark.parametrize("layers", [["b1.act_1"], ["b1.act_1", "b3.conv"], ["b1.conv", "b1.act_2"]])
def test_calls_of_a_shared_layer_count_in_all_submodules(layers, images):
    act = nn.ReLU()
    blocks = {f"b{number}": ActedOn(4 if number > 1 else 3, act) for number in (1, 2, 3)}
    network = nn.Sequential(OrderedDict(**blocks, head=nn.Flatten())).eval()
    seen = {}
    for number, block in enumerate((network.b1, network.b2, network.b3)):
        for part, name in ((block.conv, f"b{number + 1}.conv"), (block, f"b1.act_{number}")):
            part.register_forward_hook(lambda module, args, out, name=name: seen.update({name: out}))
    with torch.no_grad():
        network(images)
    expected = dict(seen)
    maps = FeatureExtractor(network, layers, preprocess=None, device="cpu").fit(images).transform(images)
    (batch,) = maps.batches()
    (part,) = maps.rerun(lambda part: part)
    for layer in layers:
        torch.testing.assert_close(batch.activations[layer], expected[layer])
        torch.testing.assert_close(part.run({layer: lambda values: values + 0}).activations[layer], expected[layer])


class Catching(nn.Module):
    """Goes on when a submodule fails."""

    def __init__(self):
        super().__init__()
        self.failing, self.conv = Chain(), nn.Conv2d(3, 4, 3)

    def forward(self, x):
        try:
            return self.failing(x[:, :1])
        except RuntimeError:
            return self.conv(x)


def test_failed_calls_do_not_run_on(images):
    selected, _ = CapturedNetwork(Catching().eval()).select(["conv"], images[:1])
    assert not selected._calls.scopes


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ("resnet18", ["layer1.0.relu_1", "layer2.0.add", "layer3", "flatten"]),
        ("shufflenet_v2_x0_5", ["stage2.1.cat", "mean"]),
        ("convnext_tiny", ["features.1.1.add", "features.2.0.layer_norm", "features.2.1"]),
    ],
)
def test_values_and_names_are_those_of_torchvision(model, layers):
    network, batch = torchvision.models.get_model(model, weights=None).eval(), torch.rand(3, 3, 32, 32)
    for module in network.modules():
        if hasattr(module, "inplace"):  # torchvision returns tensors that were changed later
            module.inplace = False
    selected, _ = CapturedNetwork(network).select(layers, batch[:1])
    assert set(selected.layers) == set(layers)
    maps = selected.run(batch)[1]
    with torch.no_grad():
        for name, values in create_feature_extractor(network, layers)(batch).items():
            torch.testing.assert_close(maps[name], selected._forms[name].as_map(values))
