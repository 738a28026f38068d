import importlib.util
import os
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.datasets import load_digits_network
from tests.networks import (
    BRANCHES,
    NETWORK,
    crops,
    images_of,
    small_resnet,
    small_vgg,
    trained_on_photographs,
    words_of,
)

matplotlib.use("Agg")
# Processes started by tests inherit this path, and import from test modules.
sys.path.append(str(Path(__file__).parents[1]))
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)  # more threads are slower for the small products of tests


@pytest.fixture(params=[0, 42])
def seed(request):
    """Seed of tests that hold for any seed."""
    return request.param


@pytest.fixture
def rng(seed):
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def digits():
    return load_digits_network()


@pytest.fixture(scope="session")
def extractor(digits):
    extractor = FeatureExtractor(digits.network, ["conv1", "conv2", "conv3"], class_names=digits.class_names)
    return extractor.fit(digits.images[:300])


@pytest.fixture(scope="session")
def maps(extractor, digits):
    """Feature maps of the 300 images to which all session fixtures are fitted."""
    return extractor.transform(digits.images[:300])


@pytest.fixture(scope="session")
def digits_dictionary(maps):
    return LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, random_state=0).fit(maps)


@pytest.fixture(scope="session")
def words(digits_dictionary, maps):
    return digits_dictionary.transform(maps)


@pytest.fixture(scope="session")
def graph(words):
    """A fitted graph of counts."""
    return InferenceGraph(evidence="counts").fit(words)


@pytest.fixture(scope="session")
def influence_graph(words):
    """A fitted graph of influence."""
    return InferenceGraph(evidence="influence").fit(words)


@pytest.fixture(scope="session")
def pipe(extractor, digits_dictionary, influence_graph):
    """The fitted pipeline of these; tests do not change it."""
    return make_pipeline(extractor, digits_dictionary, influence_graph)


@pytest.fixture(scope="session")
def branched():
    """Words of all layers of a network with branches."""
    return words_of(NETWORK, BRANCHES, images_of())


@pytest.fixture(scope="session")
def data():
    """Module that reads real networks and images from the folder of the environment variable."""
    folder = os.environ.get("SKGMMCNN_DATA")
    if not folder:
        pytest.skip("SKGMMCNN_DATA names no folder of real networks and images")
    return _module(Path(folder) / "load.py")


@pytest.fixture(scope="session")
def benchmark():
    """Function that imports a script of the benchmarks by its name."""
    return lambda name: _module(Path(__file__).parents[1] / "benchmarks" / f"{name}.py")


def _module(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Folder of photographs: flowers as pineapples, and temples as swings, one of them among the pineapples."""
    monkeypatch.chdir(tmp_path)
    flowers, temples = crops("flower.jpg", 8), crops("china.jpg", 9)
    for name, images in [("pineapple", [*flowers, temples.pop()]), ("swing", temples)]:
        folder = tmp_path / "photographs" / name
        folder.mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{i}.jpg", quality=95)
    return tmp_path / "photographs"


@pytest.fixture
def small_networks(monkeypatch):
    """Make torchvision build small networks in place of ResNet50 and VGG16; list the names and weights of calls."""
    calls = []

    def build(name, weights):
        calls.append((name, weights))
        return trained_on_photographs({"resnet50": small_resnet, "vgg16": small_vgg}[name](), weights)

    monkeypatch.setattr(torchvision.models, "get_model", build)
    return calls
