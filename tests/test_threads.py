"""Results are independent of the number of threads, and this number does not change."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from torch import nn

from skgmmcnn import DiagonalGaussianMixture, FeatureExtractor, LayerDictionary, LayerHMM
from skgmmcnn._threads import by_blocks, n_threads, one_thread

LARGE = 1e12  # operations that are divided among threads


@pytest.fixture
def threads():
    """Function that sets the number of threads of torch until the end of the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def call_in_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_one_thread_restores_the_number(threads):
    threads(3)
    with one_thread():
        assert (torch.get_num_threads(), n_threads()) == (1, 3)
        with one_thread():
            assert (torch.get_num_threads(), n_threads()) == (1, 3)
        assert (torch.get_num_threads(), n_threads()) == (1, 3)
    assert (torch.get_num_threads(), n_threads()) == (3, 3)
    with pytest.raises(ZeroDivisionError), one_thread():
        1 / 0  # noqa: B018
    assert (torch.get_num_threads(), n_threads()) == (3, 3)


@pytest.mark.parametrize("n_operations", [0, LARGE])
def test_blocks_come_in_order_each_by_one_thread(threads, n_operations):
    threads(3)

    def work(i):
        time.sleep(0.01 * (i % 3))
        return i, torch.get_num_threads(), threading.get_ident()

    numbers, counts, workers = zip(*by_blocks(work, range(20), n_operations), strict=True)
    assert numbers == tuple(range(20))
    assert set(counts) == {1}
    assert len(set(workers)) == 3 if n_operations else set(workers) == {threading.get_ident()}
    assert torch.get_num_threads() == 3


def test_other_threads_keep_their_number(threads):
    threads(3)
    start, end = threading.Event(), threading.Event()
    counts = []

    def other():
        counts.append(torch.get_num_threads())
        start.wait()
        counts.append(torch.get_num_threads())
        end.set()

    thread = threading.Thread(target=other)
    thread.start()
    for _ in by_blocks(lambda i: torch.ones(9).sum(), range(9), LARGE):
        pass
    start.set()
    assert end.wait(10)
    thread.join()
    assert counts == [3, 3]
    assert call_in_thread(torch.get_num_threads) == 3


def test_errors_arrive_and_no_thread_is_left(threads):
    threads(2)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(by_blocks(lambda i: 1 / (5 - i), range(100), LARGE))
    for _ in by_blocks(lambda i: i, range(100), LARGE):
        break
    assert threading.active_count() == before


def test_blocks_within_blocks(threads):
    threads(2)

    def work(i):
        return sum(by_blocks(lambda j: i * j, range(4), LARGE))

    assert list(by_blocks(work, range(3), LARGE)) == [0, 6, 12]


def assert_all_equal(results):
    """Raise AssertionError unless all lists of arrays are equal."""
    for arrays in results[1:]:
        for first, second in zip(results[0], arrays, strict=True):
            np.testing.assert_array_equal(first, second)


def assert_independent_of_threads(threads, fit):
    """Compare the results of `fit`, tensors or arrays, with 1, 2 and 4 threads."""
    results = []
    for n in (1, 2, 4):
        threads(n)
        results.append([np.asarray(array) for array in fit()])
    assert_all_equal(results)


def activations_of(maps):
    return [np.concatenate([batch.activations[layer].numpy() for batch in maps.batches()]) for layer in maps.layers]


@pytest.mark.parametrize("covariance_type", ["diag", "spherical", "tied_diag"])
def test_mixtures(threads, covariance_type):
    X = np.random.default_rng(0).normal(size=(20_000, 40)).astype("float32").clip(0)

    def fit():
        mixture = DiagonalGaussianMixture(30, covariance_type=covariance_type, max_iter=5, tol=1e3, random_state=0)
        mixture.fit(X)
        return mixture.means_, mixture.covariances_, mixture.weights_, mixture.predict(X), mixture.score_samples(X)

    assert_independent_of_threads(threads, fit)


def test_chains(threads):
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(5_000, d)).astype("float32") for d in (30, 20)]

    def fit():
        chain = LayerHMM(20, max_iter=3, tol=1e3, random_state=0).fit(X)
        return *chain.transmats_, chain.score_samples(X), *chain.transform(X).T

    assert_independent_of_threads(threads, fit)


def branching(network):
    """Return the digits network with control flow that depends on values."""

    class Branching(nn.Sequential):
        def forward(self, x):
            return None if x.sum() < -1 else super().forward(x)

    return Branching(network.conv1, network.conv2, network.pool, network.conv3, nn.AvgPool2d(4), nn.Flatten())


@pytest.mark.parametrize(("make", "layers"), [(lambda network: network, ["conv2", "conv3"]), (branching, ["1", "3"])])
def test_maps_and_words(threads, digits, monkeypatch, make, layers):
    """Equal bit for bit for all batch sizes, too."""
    monkeypatch.setattr("skgmmcnn._threads._MIN_OPERATIONS", 0)
    network, images = make(digits.network), digits.images[:201]
    results = []
    for batch_size, n in [(1, 1), (3, 2), (7, 4), (32, 1), (32, 2), (32, 4), (500, 2)]:
        threads(n)
        maps = FeatureExtractor(network, layers, batch_size=batch_size, device="cpu").fit_transform(images)
        dictionary = LayerDictionary(9, random_state=0, max_iter=3, tol=1e3, keep_proba=True)
        words = dictionary.fit_transform(maps)
        arrays = [*activations_of(maps), maps.outputs, words.decisions, *words.words.values(), *words.proba.values()]
        results.append([*arrays, *(mixture.means_ for mixture in dictionary.mixtures_.values())])
    assert_all_equal(results)


def test_large_images(threads):
    network = nn.Sequential(nn.Conv2d(3, 8, 7, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.Flatten(), nn.LazyLinear(5))
    images = torch.rand(5, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    network(images)
    results = []
    for batch_size, n in [(1, 1), (2, 2), (5, 3)]:
        threads(n)
        extractor = FeatureExtractor(network, ["2"], preprocess=None, batch_size=batch_size, device="cpu")
        maps = extractor.fit_transform(images)
        results.append([maps.outputs, *activations_of(maps)])
    assert_all_equal(results)


def test_within_threads_of_joblib(threads, digits, monkeypatch):
    threads(2)
    monkeypatch.setattr("skgmmcnn._threads._MIN_OPERATIONS", 0)
    maps = FeatureExtractor(digits.network, ["conv3"], device="cpu", batch_size=200).fit_transform(digits.images[:200])
    expected = maps.outputs
    for outputs in Parallel(2, backend="threading")(delayed(getattr)(maps, "outputs") for _ in range(4)):
        np.testing.assert_array_equal(outputs, expected)
    assert torch.get_num_threads() == call_in_thread(torch.get_num_threads) == 2
