import importlib.util
import os
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.datasets import load_digits_network

matplotlib.use("Agg")


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
def words(maps):
    return LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, random_state=0).fit_transform(maps)


@pytest.fixture(scope="session")
def graph(words):
    return InferenceGraph().fit(words)


@pytest.fixture(scope="session")
def data():
    """The module that reads real networks and images; see the environment variable."""
    folder = os.environ.get("SKGMMCNN_DATA")
    if not folder:
        pytest.skip("SKGMMCNN_DATA names no folder of real networks and images")
    spec = importlib.util.spec_from_file_location("skgmmcnn_data", Path(folder) / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
