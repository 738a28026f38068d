"""Common checks of all estimators on images and containers, which scikit-learn's own checks do not cover."""

import copy
import inspect
import pickle
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate, train_test_split
from sklearn.pipeline import Pipeline
from sklearn.utils import estimator_checks, estimator_html_repr
from torchvision.transforms import ToTensor

import skgmmcnn
from skgmmcnn import (
    DiagonalGaussianMixture,
    FeatureExtractor,
    FeatureMaps,
    InferenceGraph,
    LayerDictionary,
    LayerHMM,
    WordMaps,
    to_text,
)
from skgmmcnn.datasets import DigitsNetwork, load_digits_network


def extractor(digits, layers=("conv2", "conv3")):
    return FeatureExtractor(digits.network, list(layers), batch_size=16)


# Each estimator with the steps before it.
ESTIMATORS = {
    "FeatureExtractor": lambda digits: [extractor(digits)],
    "LayerDictionary": lambda digits: [extractor(digits), LayerDictionary(5, random_state=0)],
    "LayerHMM": lambda digits: [extractor(digits, ["mean", "head"]), LayerHMM(5, random_state=0)],
    "InferenceGraph": lambda digits: [extractor(digits), LayerDictionary(5, random_state=0), InferenceGraph()],
}


OF_ARRAYS = {
    "LayerDictionary": LayerDictionary(2),
    "LayerHMM": LayerHMM(2),
    "LayerHMM of two layers": LayerHMM(2, layer_sizes=(1, -1)),
    **{
        f"DiagonalGaussianMixture, {solver}": DiagonalGaussianMixture(2, solver=solver, random_state=0)
        for solver in ("em", "online", "sgd")
    },
}
N_CHECKS = 45  # of scikit-learn 1.6; newer ones have more
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data": "starts and blocks are chosen from rows, not from their weights"
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", OF_ARRAYS.values(), ids=OF_ARRAYS)
def test_scikit_learn_checks_pass_in_full(estimator):
    """scikit-learn skips checks silently for estimators that it thinks cannot take them: the number is asserted."""
    failures = EXPECTED_FAILURES if isinstance(estimator, DiagonalGaussianMixture) else None
    results = estimator_checks.check_estimator(estimator, expected_failed_checks=failures, on_skip=None)
    passed = [result["check_name"] for result in results if result["status"] == "passed"]
    others = [result["status"] for result in results if result["status"] != "passed"]
    assert len(results) >= N_CHECKS
    assert sorted(others) in ([], ["skipped"], ["skipped", "xfail"], ["xfail"])
    assert "check_methods_subset_invariance" in passed
    assert "check_transformer_general" in passed or not hasattr(estimator, "transform")


@pytest.fixture(params=ESTIMATORS)
def case(request, digits):
    """An unfitted estimator and its X for 100 images."""
    *before, estimator = ESTIMATORS[request.param](digits)
    X = digits.images[:100]
    for step in before:
        X = step.fit_transform(X)
    return estimator, X


def as_arrays(result):
    """Return the output of a transformer as a list of arrays."""
    if isinstance(result, FeatureMaps):
        parts = list(result.batches())
        return [np.concatenate([batch.activations[layer].numpy() for batch in parts]) for layer in result.layers]
    return list(result.words.values()) if isinstance(result, WordMaps) else [np.asarray(result)]


def assert_equal(first, second, atol=1e-6):
    for a, b in zip(as_arrays(first), as_arrays(second), strict=True):
        np.testing.assert_allclose(a, b, atol=atol)


def check_every_estimator_is_listed(estimator, X):
    public = {name for name in skgmmcnn.__all__ if inspect.isclass(getattr(skgmmcnn, name))}
    estimators = {name for name in public if issubclass(getattr(skgmmcnn, name), BaseEstimator)}
    assert estimators == {*ESTIMATORS, "DiagonalGaussianMixture"}  # scikit-learn's own checks cover it


def check_constructor_only_stores_parameters(estimator, X):
    assert vars(estimator).keys() == estimator.get_params(deep=False).keys()
    again = type(estimator)(**estimator.get_params(deep=False))
    assert all(vars(again)[name] is value for name, value in vars(estimator).items())


def check_not_fitted(estimator, X):
    with pytest.raises(NotFittedError):
        estimator.transform(X)


def check_fit_returns_self_and_changes_no_parameter(estimator, X):
    before = estimator.get_params()
    assert estimator.fit(X) is estimator
    assert estimator.get_params() == before
    assert {name for name in vars(estimator) if name.endswith("_") and not name.startswith("_")}


def check_clone_is_unfitted_and_fits_alike(estimator, X):
    other = clone(estimator.fit(X))
    assert not [name for name in vars(other) if name.endswith("_")]
    assert_equal(other.fit(X).transform(X), estimator.transform(X))


def check_fit_transform(estimator, X):
    assert_equal(clone(estimator).fit_transform(X), estimator.fit(X).transform(X))


def check_refit_is_independent(estimator, X):
    expected = clone(estimator).fit(X).transform(X)
    assert_equal(estimator.fit(X[:60]).fit(X).transform(X), expected)


def check_transform_changes_nothing(estimator, X):
    estimator.fit(X)
    before = dict(vars(estimator))
    as_arrays(estimator.transform(X))
    assert vars(estimator).keys() == before.keys()
    assert all(vars(estimator)[name] is value for name, value in before.items())


def check_pickle_and_deepcopy(estimator, X):
    for fitted in (False, True):
        if fitted:
            estimator.fit(X)
        for other in (pickle.loads(pickle.dumps(estimator)), copy.deepcopy(estimator)):
            expected = estimator if fitted else clone(estimator).fit(X)
            assert_equal((other if fitted else other.fit(X)).transform(X), expected.transform(X))


def check_rows_are_independent(estimator, X):
    whole = as_arrays(estimator.fit(X).transform(X))
    rows = np.array([70, 3, 41])
    for a, b in zip(as_arrays(estimator.transform(X[rows])), whole, strict=True):
        np.testing.assert_allclose(a, b[rows], atol=1e-6)


def check_hash_does_not_depend_on_the_object(estimator, X):
    assert joblib.hash(estimator) == joblib.hash(clone(estimator)) == joblib.hash(pickle.loads(pickle.dumps(estimator)))
    if not isinstance(estimator, InferenceGraph):
        estimator.fit(X)
        result = estimator.transform(X)
        assert joblib.hash(result) == joblib.hash(pickle.loads(pickle.dumps(result)))


def check_output_can_be_set(estimator, X):
    with config_context(transform_output="pandas"):
        result = clone(estimator).fit_transform(X)
    for output in (result, clone(estimator).set_output(transform="pandas").fit_transform(X)):
        expected = estimator.fit(X).transform(X)
        assert_equal(output, expected)
        if isinstance(estimator, InferenceGraph):
            assert list(output.columns) == list(estimator.get_feature_names_out())
        else:
            assert type(output) is type(expected)


def check_repr(estimator, X):
    assert type(estimator).__name__ in repr(estimator)
    assert type(estimator).__name__ in estimator_html_repr(estimator.fit(X))


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]


def test_number_of_checks():
    assert len(CHECKS) == 13
    assert len(ESTIMATORS) == 4


@pytest.mark.parametrize("check", CHECKS)
def test_common(check, case):
    check(*case)


def make_pipe(network, **parameters):
    return Pipeline(
        [
            ("features", FeatureExtractor(network, ["conv2", "conv3"])),
            ("words", LayerDictionary(8, random_state=0)),
            ("graph", InferenceGraph()),
        ],
        **parameters,
    )


@pytest.fixture
def pipe(digits):
    return make_pipe(digits.network)


def test_pipeline_with_and_without_labels(pipe, digits):
    images, labels = digits.images[:200], digits.labels[:200]
    pipe.fit(images)
    text = to_text(pipe["graph"].explain(pipe[:-1].transform(images[:1]))[0])
    assert pipe.score(images) > 0.5
    assert pipe.fit(images, labels).score(images, labels) > 0.5
    assert to_text(pipe["graph"].explain(pipe[:-1].transform(images[:1]))[0]) == text
    with pytest.raises(ValueError, match="there is no output 10"):
        pipe.fit(images, labels + 2)


def test_plain_array_in_pandas(rng):
    X = rng.normal(size=(40, 3))
    frame = LayerDictionary(4, random_state=0).set_output(transform="pandas").fit_transform(X)
    assert list(frame.columns) == [f"dense_w{word:03d}" for word in range(4)]
    np.testing.assert_allclose(frame.sum(axis=1), 1)


def test_set_output_of_a_whole_pipeline(pipe, digits):
    evidence = pipe.set_output(transform="pandas").fit_transform(digits.images[:100])
    assert evidence.shape == (100, 16)
    assert evidence.columns[8] == "conv3_w000"


def test_grid_search_over_images_and_over_features(pipe, digits):
    grid = {"words__n_components": [3, 8]}
    by_images = GridSearchCV(pipe, grid, cv=2).fit(digits.images[:100])
    assert by_images.best_params_ == {"words__n_components": 8}
    networks = {
        id(fitted["features"].network_) for fitted in [by_images.best_estimator_, pipe.fit(digits.images[:100])]
    }
    assert len(networks) == 1
    maps = pipe["features"].transform(digits.images[:100]).compute()
    by_maps = GridSearchCV(pipe[1:], grid, cv=2).fit(maps)
    np.testing.assert_allclose(by_maps.cv_results_["mean_test_score"], by_images.cv_results_["mean_test_score"])
    train, test, labels, _ = train_test_split(maps, digits.labels[:100], random_state=0)
    assert len(train) == 75
    assert cross_validate(pipe[1:], train, labels, cv=2)["test_score"].shape == (2,)
    assert pipe[1:].fit(train).score(test) > 0.4


def test_grid_search_in_parallel(pipe, digits):
    grid = GridSearchCV(pipe, {"words__n_components": [3, 8]}, cv=2, n_jobs=2).fit(digits.images[:100])
    assert grid.best_params_ == {"words__n_components": 8}


def test_saved_pipeline_draws_and_explains(pipe, digits, tmp_path):
    pipe.fit(digits.images[:100])
    joblib.dump(pipe, tmp_path / "pipe.joblib")
    loaded = joblib.load(tmp_path / "pipe.joblib")
    words, others = (model[:-1].transform(digits.test_images[:5]) for model in (pipe, loaded))
    assert [to_text(g) for g in pipe["graph"].explain(words)] == [to_text(g) for g in loaded["graph"].explain(others)]
    assert others.vocabulary.representatives["conv3"].patches is not None
    assert (tmp_path / "pipe.joblib").stat().st_size < 2e6


class CountingNetwork(DigitsNetwork):
    """Counts images in a pooling layer that tracing takes for one of torch."""

    n_images = 0

    def __init__(self):
        super().__init__()
        self.pool = CountingPool(2)


class CountingPool(torch.nn.MaxPool2d):
    def forward(self, x):
        if isinstance(x, torch.Tensor):
            CountingNetwork.n_images += len(x)
        return super().forward(x)


CountingPool.__module__ = "torch.nn.counting"


@pytest.fixture
def counting(digits):
    network = CountingNetwork()
    network.load_state_dict(digits.network.state_dict())
    CountingNetwork.n_images = 0
    return network


def test_forward_passes_of_a_pipeline(counting, digits):
    make_pipe(counting).fit(digits.images[:128])  # a multiple of the batch size
    # Two passes over the images, and a few images to inspect the network and measure its fields.
    assert 0 < CountingNetwork.n_images - 256 < 14


FIT = """
import sys
sys.path.insert(0, {root!r})
from skgmmcnn.datasets import load_digits_network
from tests.test_common import make_pipe
make_pipe(load_digits_network().network, memory={folder!r}).fit(load_digits_network().images[:100])
"""


def test_memory_of_another_process_is_used(digits, tmp_path, monkeypatch):
    script = FIT.format(root=str(Path(__file__).parents[1]), folder=str(tmp_path))
    subprocess.run([sys.executable, "-c", script], check=True)

    def refuse(maps):
        raise AssertionError("the network ran")

    monkeypatch.setattr(FeatureMaps, "batches", refuse)
    pipe = make_pipe(load_digits_network().network)
    with pytest.raises(AssertionError, match="the network ran"):
        pipe.fit(digits.images[:100])
    pipe.set_params(memory=str(tmp_path)).fit(digits.images[:100])


def test_memory_notices_a_replaced_file(digits, tmp_path):
    files = []
    for i, image in enumerate(digits.images[:30]):
        files.append(str(tmp_path / f"{i}.png"))
        Image.fromarray((image * 255).astype(np.uint8)).save(files[-1])
    pipe = make_pipe(digits.network, memory=str(tmp_path / "cache")).set_params(features__preprocess=ToTensor())
    before = pipe.fit(files)["graph"].transition_counts_["conv3", "conv2"]
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(files[0])
    after = clone(pipe).fit(files)["graph"].transition_counts_["conv3", "conv2"]
    assert (before != after).any()
