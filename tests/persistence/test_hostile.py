"""Whatever a file holds, loading it gives an estimator, or one error that names the file."""

import copy
import random

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.pipeline import make_pipeline

from skgmmcnn import DiagonalGaussianMixture, FeatureExtractor, InferenceGraph, LayerDictionary, load, save
from skgmmcnn.datasets import DigitsNetwork

from .test_files import forge, opened

ARRAYS = [["0", [5, 5]], ["?", []], ["0", []], 5]
ITEMS = [["O", [10**12], []], ["O", [-1, -1], [1]], ["U", [3], [1, 2, 3]], 5]
OTHERS = [
    {"float": "nan"}, {"float": []}, {"scalar": 1}, {"text": {}}, {"tensor": ["0", [7]]},
    {"tensor": [0, [0]]}, {"tuple": 3}, {"dict": [[[], 1]]},
    {"estimator": ["Pipeline", {}]}, {"estimator": ["Pipeline", {"steps": 5}]}, {"estimator": "LayerDictionary"},
    {"record": ["Parameters", []]}, {"transform": ["Compose", {"__call__": 1}]}, {"interpolation": 3}, {"path": "/"},
    {"weights": "a.b"}, {"weights": 5}, {"captured": []}, {"code": ["argument", "nothing"]}, {"code": ["network", "?"]},
    {"random_state": [1, 2, 3]}, {"random_state": ["MT19937", [0] * 624, 9**9, 0, 0.0]}, {"nothing": 1},
    {"device": "disk"}, {"dtype": "Tensor"}, {"a": 1, "b": 2},
]  # fmt: skip
PLAIN = [None, True, 0, -1, 7, 2**70, 1.5, "", "fit", "__class__", "x" * 5000, [], {}, [[]], [None] * 5]
VALUES = [*PLAIN, *OTHERS, *({"array": content} for content in ARRAYS), *({"items": content} for content in ITEMS)]


def places(node, path=()):
    """Yield the places of all nodes of a document."""
    yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def mutated(document, chance):
    """Return a copy of a document with one place changed, removed, renamed, or taken by another of its own."""
    changed = copy.deepcopy(document)
    where = list(places(changed))
    *above, last = chance.choice(where[1:])
    node = changed
    for key in above:
        node = node[key]
    kind = chance.randrange(4)
    if kind == 0:
        del node[last]
    elif kind == 1 and isinstance(node, dict):
        node[chance.choice(["fit", "transform", "__class__", "steps", "array", ""])] = node.pop(last)
    elif kind == 2:
        other = document
        for key in chance.choice(where):
            other = other[key]
        node[last] = copy.deepcopy(other)
    else:
        node[last] = chance.choice(VALUES)
    return changed


@pytest.fixture(scope="module")
def seeds(digits, tmp_path_factory):
    rows = np.random.default_rng(0).normal(size=(60, 3))
    extractor = FeatureExtractor(digits.network, ["conv2", "conv3"], class_names=digits.class_names)
    estimators = [
        DiagonalGaussianMixture(3, random_state=np.random.RandomState(0)).fit(rows),
        LayerDictionary(4, random_state=0).fit(rows),
        make_pipeline(extractor, LayerDictionary(4, random_state=0), InferenceGraph()).fit(digits.images[:40]),
    ]
    file = tmp_path_factory.mktemp("seeds") / "seed"
    return [(save(estimator, file), opened(file))[1] for estimator in estimators]


def loads(file, **given):
    """Return whether a file can be loaded; if not, its name must be in the error."""
    try:
        estimator = load(file, **given)
    except ValueError as error:
        message = str(error)
    else:
        assert isinstance(estimator, BaseEstimator)
        return True
    assert str(file) in message
    return False


@pytest.mark.filterwarnings("ignore")  # of what a changed estimator is worth
@pytest.mark.parametrize(("seed", "n"), [(0, 250), (1, 250), (2, 150)])
def test_documents_that_were_never_written(seed, n, seeds, tmp_path):
    chance = random.Random(seed)
    document, arrays = seeds[seed]
    given = {"model": DigitsNetwork} if seed == 2 else {}
    refused = 0
    for _ in range(n):
        forge(tmp_path / "hostile", mutated(document, chance), arrays)
        refused += not loads(tmp_path / "hostile", **given)
    assert refused > n / 4


@pytest.mark.parametrize("text", ["", "[]", "5", "null", "{", "[" * 100_000, "{}", '{"estimator": 1e999}', "9" * 9999])
def test_texts_that_are_no_documents(text, tmp_path):
    forge(tmp_path / "hostile", text)
    assert not loads(tmp_path / "hostile")


def test_arrays_of_another_type_or_shape(seeds, tmp_path):
    document, arrays = seeds[0]
    for name in arrays:
        for other in (torch.zeros(0), torch.zeros((2, 2), dtype=torch.bool), torch.full((1, 1), torch.nan)):
            forge(tmp_path / "hostile", document, arrays | {name: other})
            loads(tmp_path / "hostile")
