"""Results do not depend on the number of threads, and the caller's number stays as it was."""

import threading
import time

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from torch import nn

from skgmmcnn import DiagonalGaussianMixture, FeatureExtractor, LayerDictionary, LayerHMM
from skgmmcnn._threads import by_blocks, n_threads, one_thread

LARGE = 1e12  # so many operations are worth several threads


@pytest.fixture
def threads():
    """Set torch's number of threads; it is put back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def of_new_thread(question):
    answers = []
    thread = threading.Thread(target=lambda: answers.append(question()))
    thread.start()
    thread.join()
    return answers[0]


def test_one_thread_and_the_number_put_back(threads):
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
    asked, answered, found = threading.Event(), threading.Event(), []

    def other():
        found.append(torch.get_num_threads())
        asked.wait()
        found.append(torch.get_num_threads())
        answered.set()

    thread = threading.Thread(target=other)
    thread.start()
    for _ in by_blocks(lambda i: torch.ones(9).sum(), range(9), LARGE):
        pass
    asked.set()
    assert answered.wait(10)
    thread.join()
    assert found == [3, 3]
    assert of_new_thread(torch.get_num_threads) == 3


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


def equal_with_any_number(threads, fit):
    """Compare what `fit` returns, tensors or arrays, with 1, 2 and 4 threads."""
    found = []
    for n in (1, 2, 4):
        threads(n)
        found.append([np.asarray(part) for part in fit()])
    for parts in found[1:]:
        for first, second in zip(found[0], parts, strict=True):
            np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("covariance_type", ["diag", "spherical", "tied_diag"])
def test_mixtures(threads, covariance_type):
    X = np.random.default_rng(0).normal(size=(20_000, 40)).astype("float32").clip(0)

    def fit():
        mixture = DiagonalGaussianMixture(30, covariance_type=covariance_type, max_iter=5, tol=1e3, random_state=0)
        mixture.fit(X)
        return mixture.means_, mixture.covariances_, mixture.weights_, mixture.predict(X), mixture.score_samples(X)

    equal_with_any_number(threads, fit)


def test_chains(threads):
    rng = np.random.default_rng(0)
    X = [rng.normal(size=(5_000, d)).astype("float32") for d in (30, 20)]

    def fit():
        chain = LayerHMM(20, max_iter=3, tol=1e3, random_state=0).fit(X)
        return *chain.transmats_, chain.score_samples(X), *chain.transform(X).T

    equal_with_any_number(threads, fit)


def looped(network):
    """Return the network in a form that branches on values."""

    class Branching(nn.Sequential):
        def forward(self, x):
            return None if x.sum() < -1 else super().forward(x)

    return Branching(network.conv1, network.conv2, network.pool, network.conv3, nn.AvgPool2d(4), nn.Flatten())


@pytest.mark.parametrize("branching", [False, True])
def test_maps_and_words(threads, digits, monkeypatch, branching):
    """Equal to the last bit for batches of any size, too."""
    monkeypatch.setattr("skgmmcnn._threads._MIN_OPERATIONS", 0)
    network, layers = (looped(digits.network), ["1", "3"]) if branching else (digits.network, ["conv2", "conv3"])
    images = digits.images[:201]
    found = []
    for batch_size, n in [(1, 1), (3, 2), (7, 4), (32, 1), (32, 2), (32, 4), (500, 2)]:
        threads(n)
        maps = FeatureExtractor(network, layers, batch_size=batch_size, device="cpu").fit_transform(images)
        held = maps.compute()
        dictionary = LayerDictionary(9, random_state=0, max_iter=3, tol=1e3, keep_proba=True)
        words = dictionary.fit_transform(maps)
        arrays = [*held._source.arrays.values(), held.outputs, words.decisions]
        arrays += [*words.words.values(), *words.proba.values()]
        found.append([*arrays, *(mixture.means_ for mixture in dictionary.mixtures_.values())])
    for parts in found[1:]:
        for first, second in zip(found[0], parts, strict=True):
            np.testing.assert_array_equal(first, second)


def test_photographs_pass_in_parts_of_one(threads):
    network = nn.Sequential(nn.Conv2d(3, 8, 7, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.Flatten(), nn.LazyLinear(5))
    images = torch.rand(5, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    network(images)
    found = []
    for batch_size, n in [(1, 1), (2, 2), (5, 3)]:
        threads(n)
        extractor = FeatureExtractor(network, ["2"], preprocess=None, batch_size=batch_size, device="cpu")
        maps = extractor.fit_transform(images).compute()
        found.append([maps.outputs, maps._source.arrays["2"]])
    for parts in found[1:]:
        for first, second in zip(found[0], parts, strict=True):
            np.testing.assert_array_equal(first, second)


def test_within_threads_of_joblib(threads, digits, monkeypatch):
    threads(2)
    monkeypatch.setattr("skgmmcnn._threads._MIN_OPERATIONS", 0)
    maps = FeatureExtractor(digits.network, ["conv3"], device="cpu", batch_size=200).fit_transform(digits.images[:200])
    expected = maps.outputs
    for outputs in Parallel(2, backend="threading")(delayed(getattr)(maps, "outputs") for _ in range(4)):
        np.testing.assert_array_equal(outputs, expected)
    assert torch.get_num_threads() == of_new_thread(torch.get_num_threads) == 2
