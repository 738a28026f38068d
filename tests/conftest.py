import importlib.util
import os
import sys
from collections import OrderedDict
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_sample_image
from sklearn.linear_model import LogisticRegression
from torch import nn
from torchvision.models.vgg import make_layers

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.datasets import load_digits_network

matplotlib.use("Agg")
# Processes that tests start take over this path, and must find what test modules define.
sys.path.append(str(Path(__file__).parents[1]))
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)  # more of them would wait for each other over products as small as the tests'


@pytest.fixture(params=[0, 42])
def seed(request):
    """Tests that hold for any seed take this."""
    return request.param


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def digits():
    return load_digits_network()


@pytest.fixture(scope="session")
def maps(digits):
    """Feature maps of 300 digits."""
    extractor = FeatureExtractor(digits.network, ["conv1", "conv2", "conv3"], class_names=digits.class_names)
    return extractor.fit_transform(digits.images[:300])


@pytest.fixture(scope="session")
def digits_dictionary(maps):
    return LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, random_state=0).fit(maps)


@pytest.fixture(scope="session")
def words(digits_dictionary, maps):
    return digits_dictionary.transform(maps)


@pytest.fixture(scope="session")
def graph(words):
    """A graph of what goes together."""
    return InferenceGraph(evidence="counts").fit(words)


@pytest.fixture(scope="session")
def influence_graph(words):
    """A graph of what the network used."""
    return InferenceGraph(evidence="influence").fit(words)


@pytest.fixture(scope="session")
def data():
    """The module that reads real networks and images; see the environment variable."""
    folder = os.environ.get("SKGMMCNN_DATA")
    if not folder:
        pytest.skip("SKGMMCNN_DATA names no folder of real networks and images")
    return _module(Path(folder) / "load.py")


@pytest.fixture(scope="session")
def benchmark():
    """Import a script of the benchmarks by its name."""
    return lambda name: _module(Path(__file__).parents[1] / "benchmarks" / f"{name}.py")


def _module(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def crops(photograph, n, size=256):
    """Return n square pieces of a photograph that comes with scikit-learn, along its diagonal."""
    image = load_sample_image(photograph)
    height, width = image.shape[:2]
    corners = np.linspace((0, 0), (height - size, width - size), n).astype(int)
    return [image[top : top + size, left : left + size] for top, left in corners]


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder of photographs: flowers for pineapples, temples for swings, one of which lies among the pineapples."""
    monkeypatch.chdir(tmp_path)
    flowers, temples = crops("flower.jpg", 8), crops("china.jpg", 9)
    for name, images in [("pineapple", [*flowers, temples.pop()]), ("swing", temples)]:
        folder = tmp_path / "photographs" / name
        folder.mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{i}.jpg", quality=95)
    return tmp_path / "photographs"


def _resnet():
    """Return layers named as those of ResNet50, with maps of the same size and a few channels."""
    parts, channels = OrderedDict(), 3
    for name, width, stride in [("stem", 8, 8), ("layer2", 12, 1), ("layer3", 16, 2), ("layer4", 24, 2)]:
        parts[name] = nn.Sequential(nn.Conv2d(channels, width, 2 * stride + 1, stride, stride), nn.ReLU())
        channels = width
    return nn.Sequential(parts)


def _vgg():
    """Return layers named as those of VGG16, with maps of the same size and a few channels."""
    stages = [(4, 2), (8, 2), (12, 3), (16, 3), (24, 3)]
    plan = [item for width, repeats in stages for item in (*[width] * repeats, "M")]
    return nn.Sequential(OrderedDict(features=make_layers(plan)))


@pytest.fixture
def small_networks(monkeypatch):
    """Torchvision builds small networks in place of ResNet50 and VGG16: nothing is downloaded.

    They take weights' names, preprocessing and classes as the real ones do, and tell flowers from temples, which they
    call pineapples and swings.
    """
    asked = []

    def build(name, weights):
        asked.append((name, weights))
        return _trained({"resnet50": _resnet, "vgg16": _vgg}[name](), weights)

    monkeypatch.setattr(torchvision.models, "get_model", build)
    return asked


def _trained(body, weights):
    """Return the network of ImageNet's classes that has learnt two of them."""
    for module in body.modules():
        if isinstance(module, nn.Conv2d):  # or thirteen of them fade out
            nn.init.kaiming_normal_(module.weight)
    preprocess, names = weights.transforms(), weights.meta["categories"]
    images = {"pineapple": crops("flower.jpg", 8), "swing": crops("china.jpg", 8)}
    with torch.no_grad():
        batch = torch.stack([preprocess(Image.fromarray(image)) for part in images.values() for image in part])
        means = body(batch).mean((2, 3))
    classifier = LogisticRegression(C=1e4).fit(means, np.repeat([names.index(name) for name in images], 8))
    head = nn.Linear(means.shape[1], len(names))
    nn.init.zeros_(head.weight)
    nn.init.constant_(head.bias, -1e3)
    for sign, row in zip((-1, 1), classifier.classes_, strict=True):
        head.weight.data[row] = sign * torch.from_numpy(classifier.coef_[0]).float()
        head.bias.data[row] = sign * float(classifier.intercept_[0])
    return nn.Sequential(
        OrderedDict(
            [*body.named_children(), ("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten()), ("fc", head)]
        )
    )
