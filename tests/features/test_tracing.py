"""Tracing and running of networks while other threads run."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torchvision
from torch import fx, nn
from torchvision.models.feature_extraction import create_feature_extractor

from skgmmcnn import FeatureExtractor
from skgmmcnn.features._tracing import TracedNetwork

N_THREADS = 8
pytestmark = pytest.mark.filterwarnings("ignore:.*cannot be traced")


class Block(nn.Module):
    def __init__(self, inside, outside):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(inside, outside, 3, 2, 1), nn.BatchNorm2d(outside)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.norm(self.conv(x)).relu() * (self.scale / math.sqrt(self.conv.in_channels))


class Traceable(nn.Sequential):
    """Of modules with parameters of their own."""

    def __init__(self):
        super().__init__(Block(3, 6), Block(6, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


class Remembering(Traceable):
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


@pytest.mark.parametrize("kind", [Traceable, Remembering])
def test_fits_beside_each_other_and_beside_other_networks(kind, images):
    torch.manual_seed(0)
    networks = [kind().eval() for _ in range(N_THREADS)]
    expected = [fitted(network, images).transform(images).compute() for network in networks]
    bystander, done, failures = Traceable().eval(), threading.Event(), []
    with torch.no_grad():
        right = bystander(images)

    def run_their_own():
        with torch.no_grad():
            while not done.is_set():
                try:
                    assert torch.equal(bystander(images), right)
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
        theirs = expected[number % N_THREADS]
        np.testing.assert_array_equal(maps.outputs, theirs.outputs)
        for pair, field in theirs.spec.receptive_fields.items():
            mine = maps.spec.receptive_fields[pair]
            np.testing.assert_array_equal([*mine.rows, *mine.columns], [*field.rows, *field.columns])


@pytest.mark.parametrize("kind", [Traceable, Remembering])
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
        for mine, its in zip(arrays, expected[number % len(images)], strict=True):
            np.testing.assert_array_equal(mine, its)


@fx.wrap
def marked(x, sizes):
    return x[..., : sizes[0]] if len(x) else x


class Marking(Traceable):
    def forward(self, x, more=False):
        x = marked(self[0](x), [5])
        return super().forward(x) if more else self[1](x) * math.log(x.shape[1]) + len(self)


def test_graphs_are_those_of_torch():
    network = Marking().eval()
    batch = torch.rand(3, 3, 16, 16)
    traced = TracedNetwork(network)
    targets = {node.target for node in traced._graph.nodes}
    assert {marked, math.log} <= targets
    with torch.no_grad():
        torch.testing.assert_close(traced.run(batch)[0], network(batch))
        network[0].scale.mul_(2)  # a symbol, not a constant
        torch.testing.assert_close(traced.run(batch)[0], network(batch))
    resnet = torchvision.models.resnet18(weights=None).eval()
    theirs = create_feature_extractor(resnet, ["layer1.0.relu_1", "layer3"])
    selected, _ = TracedNetwork(resnet).select(["layer1.0.relu_1", "layer3"], batch[:1])
    with torch.no_grad():
        for name, values in theirs(batch).items():
            torch.testing.assert_close(selected.run(batch)[1][name], values)
