"""Refits, and how alike their words and graphs are."""

from typing import ClassVar

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.dictionary import Alignment
from skgmmcnn.graph import compare_graphs
from skgmmcnn.metrics import stability
from skgmmcnn.metrics._refits import shuffled

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little")  # few images


class Everything(np.random.RandomState):
    """Draws every image once: its resamples are the images themselves."""

    def randint(self, low, high=None, size=None, dtype=int):
        return np.arange(size) if size == low else super().randint(low, high, size, dtype)


@pytest.fixture(scope="module")
def maps(maps):
    return maps[:120].compute()


@pytest.fixture(scope="module")
def pipe(maps):
    dictionary = LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, random_state=0)
    return make_pipeline(dictionary, InferenceGraph(2, evidence="counts")).fit(maps)


@pytest.fixture(scope="module")
def result(pipe, maps):
    return stability(pipe, maps, n_refits=2, kind="seed", n_images=5, random_state=0)


@pytest.mark.parametrize("evidence", ["counts", "influence"])
def test_equal_refits_are_alike_in_all(maps, evidence):
    pipe = make_pipeline(LayerDictionary(12, random_state=0), InferenceGraph(2, evidence=evidence)).fit(maps[:40])
    result = stability(pipe, maps[:40], n_refits=1, n_images=3, random_state=Everything(0))
    for values in result.words.values():
        np.testing.assert_allclose(values, 1)
    for graphs in (result.classes, result.images):
        np.testing.assert_allclose(graphs.similarity, 1, rtol=1e-5)
        assert graphs.stable_edges == 1
        assert graphs.chance.mean() < 0.5
    assert result.classes.similarity.shape == (len(np.unique(pipe[0].transform(maps[:40]).decisions)), 1)
    assert result.images.similarity.shape == (3, 1)


def cosines(first, second):
    """The cosine of each two means, one by one."""
    return np.array([[a @ b / np.sqrt((a @ a) * (b @ b)) for b in second] for a in first])


def test_results_equal_a_plain_loop(pipe, maps, monkeypatch):
    """The refits are fitted here again, and their words and graphs compared one by one."""
    refits = []

    def noted(parts, maps, y, seed):
        dictionary = LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, random_state=seed).fit(maps)
        refits.append((dictionary, InferenceGraph(2, evidence="counts").fit(dictionary.transform(maps))))
        return refits[-1]

    monkeypatch.setattr("skgmmcnn.metrics._stability.refit", noted)
    result = stability(pipe, maps, n_refits=2, kind="both", n_images=4, random_state=0)
    assert len(refits) == 2
    words = pipe[0].transform(maps)
    again = {}
    for i, (dictionary, graph) in enumerate(refits):
        pairs = {}
        for layer in maps.layers:
            table = cosines(*(fit.mixtures_[layer].emitted_means_ for fit in (pipe[0], dictionary)))
            rows, columns = linear_sum_assignment(-table)
            np.testing.assert_allclose(result.words[layer][i], table[rows, columns])
            assert result.chance_words[layer][i] == pytest.approx(table.mean())
            pairs[layer] = np.stack([rows, columns], 1)
        words_again = dictionary.transform(maps)
        for j, c in enumerate(np.unique(words.decisions)):
            graphs = pipe[1].explain_class(words, int(c)), graph.explain_class(words_again, int(c))
            compared = compare_graphs(*graphs, Alignment(pairs, {}))
            assert result.classes.similarity[j, i] == pytest.approx(compared.similarity)
            for tail, head in graphs[0].edges:
                partners = [
                    key if key.startswith("decision") else f"{layer}_w{dict(pairs[layer].tolist())[int(number)]:03d}"
                    for key in (tail, head)
                    for layer, _, number in [key.rpartition("_w")]
                ]
                again.setdefault((result.classes.names[j], tail, head), []).append(graphs[1].has_edge(*partners))
    edges = {
        (name, *edge): share
        for name, graph in zip(result.classes.names, result.classes.edges, strict=True)
        for edge, share in graph.items()
    }
    assert edges == {edge: pytest.approx(np.mean(flags)) for edge, flags in again.items()}
    assert result.classes.stable_edges == pytest.approx(np.mean([np.mean(flags) >= 0.5 for flags in again.values()]))


def test_partners_at_random_are_not_alike(result):
    for layer, values in result.words.items():
        assert values.mean() > result.chance_words[layer].mean()
    for graphs in (result.classes, result.images):
        assert graphs.similarity.mean() > graphs.chance.mean() + 0.1
        assert graphs.stable_edges > graphs.stable_by_chance
        low, high = graphs.interval
        assert low <= graphs.similarity.mean() <= high
    values = {(row.measure, row.where): row.value for row in result.measurements()}
    assert values["stable edges of image graphs, seed", "graph"] == result.images.stable_edges
    assert values["cosine of words, seed", "conv2"] == result.words["conv2"].mean()
    assert values["cosine of words, seed, random partners", "conv2"] == result.chance_words["conv2"].mean()
    assert values["similarity of class graphs, seed, random partners", "graph"] == result.classes.chance.mean()


def test_shuffled_partners_have_the_mean_of_all_pairs(pipe):
    means = pipe[0].mixtures_["conv3"].emitted_means_
    table, random = cosines(means, means), np.random.RandomState(0)
    alignment = Alignment({"conv3": np.repeat(np.arange(16), 2).reshape(16, 2)}, {"conv3": np.ones(16)})
    means_of_draws = [table[tuple(shuffled(alignment, random).pairs["conv3"].T)].mean() for _ in range(2000)]
    assert np.mean(means_of_draws) == pytest.approx(table.mean(), abs=0.01)


def test_the_same_random_state_gives_the_same(pipe, maps, result):
    again = stability(pipe, maps, n_refits=2, kind="seed", n_images=5, random_state=0)
    np.testing.assert_array_equal(again.classes.similarity, result.classes.similarity)
    np.testing.assert_array_equal(again.images.chance, result.images.chance)
    assert again.images.names == result.images.names
    other = stability(pipe, maps, n_refits=2, kind="seed", n_images=5, random_state=1)
    assert not np.array_equal(other.classes.similarity, result.classes.similarity)


class Counted(nn.Sequential):
    """Counts the runs of all its copies."""

    runs: ClassVar[list] = []

    def forward(self, x):
        self.runs.append(1)
        return super().forward(x)


def test_the_network_runs_once_over_images(digits):
    images, runs = digits.images[:60], Counted.runs
    pipe = make_pipeline(
        FeatureExtractor(Counted(digits.network), ["0.conv2", "0.conv3"], batch_size=60),
        LayerDictionary(6, random_state=0),
        InferenceGraph(2, evidence="counts"),
    ).fit(images)
    maps = pipe[0].transform(images).compute()
    runs.clear()
    stability(pipe, maps, n_refits=2, n_images=2, random_state=0)
    assert not runs
    stability(pipe, images, n_refits=2, n_images=2, random_state=0)
    assert len(runs) == 1


def test_labels_follow_their_images(pipe, maps, digits, monkeypatch):
    decisions = pipe[0].transform(maps).decisions
    calls = []

    def noted(parts, maps, y, seed):
        calls.append((y, np.concatenate([batch.decisions for batch in maps.batches()])))
        return pipe[0], pipe[1]

    monkeypatch.setattr("skgmmcnn.metrics._stability.refit", noted)
    stability(pipe, maps, [digits.class_names[c] for c in decisions], n_refits=2, n_images=1, random_state=0)
    assert not np.array_equal(calls[0][0], calls[1][0])
    for labels, decisions in calls:
        np.testing.assert_array_equal(labels, decisions)


def test_bad_input(pipe, maps):
    with pytest.raises(ValueError, match="kind must be one of 'resample', 'seed', 'both'; got 'bootstrap'"):
        stability(pipe, maps, kind="bootstrap")
    with pytest.raises(ValueError, match="at least 1; got 0 and 20"):
        stability(pipe, maps, n_refits=0)
    with pytest.raises(ValueError, match="119"):
        stability(pipe, maps, np.zeros(119, int))
