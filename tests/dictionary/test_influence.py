"""Influence of locations against passes of the whole network with hooks."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary, LayerHMM
from skgmmcnn.dictionary import Influence
from tests.networks import BRANCHES, NETWORK, baseline, images_of, log_odds, run_edited


def test_influences_add_up_to_the_margin_and_converge(branched):
    actual = branched.influence.of_classes(n_steps=4)
    images = torch.as_tensor(images_of())
    fine = branched.influence.of_classes(n_steps=200)
    for layer in BRANCHES:
        means = baseline(branched, layer)
        outputs, _ = run_edited(NETWORK, images, {layer: lambda maps, means=means: means.expand_as(maps)})
        expected = [float(log_odds(outputs[i : i + 1], target)) for i, target in enumerate(branched.decisions)]
        np.testing.assert_allclose(actual.baselines[layer], expected, atol=1e-4)
        change = actual.margins - actual.baselines[layer]
        np.testing.assert_allclose(actual.maps[layer].sum((1, 2)), change, atol=1e-3)
        assert fine.residuals[layer].max() < 1e-3  # the quadrature converges to the integral
        largest = np.abs(fine.maps[layer]).max()
        np.testing.assert_allclose(actual.maps[layer], fine.maps[layer], atol=0.15 * largest)


def test_the_handle_follows_rows_and_pickles(branched):
    rows = [3, 1]
    picked = branched[rows]
    expected = branched.influence.of_classes()
    for words in (picked, pickle.loads(pickle.dumps(picked))):
        assert len(words.influence) == 2
        actual = words.influence.of_classes()
        np.testing.assert_allclose(actual.margins, expected.margins[rows], atol=1e-5)
        np.testing.assert_allclose(actual.maps["top"], expected.maps["top"][rows], atol=1e-4)
    assert joblib.hash(branched) == joblib.hash(pickle.loads(pickle.dumps(branched)))


def test_held_and_stored_maps_ask_the_network(tmp_path):
    images = images_of()
    extractor = FeatureExtractor(NETWORK, ["top"], preprocess=None, device="cpu").fit(images)
    plain = extractor.transform(images)
    expected = None
    for maps in (plain, plain.compute(), plain.store(tmp_path), plain.compute()[::-1][::-1]):
        words = LayerDictionary(5, random_state=0).fit_transform(maps)
        actual = words.influence.of_classes().maps["top"]
        expected = actual if expected is None else expected
        np.testing.assert_allclose(actual, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_steps": 0}, "at least 1"),
        ({"classes": [9] * 40}, "outputs 0 to 3; there is no output 9"),
        ({"classes": [1, 2]}, "one label per image"),
        ({"layers": ["bottom"]}, "There is no layer 'bottom'; there is 'stem'"),
    ],
)
def test_bad_input_of_influence_maps(branched, options, message):
    with pytest.raises(ValueError, match=message):
        branched.influence.of_classes(**options)


def test_chains_have_influence():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)).eval()
    rows = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    maps = FeatureExtractor(network, ["1", "3"], preprocess=None, device="cpu").fit_transform(rows)
    words = LayerHMM(4, random_state=0).fit_transform(maps)
    graph = InferenceGraph(n_nodes=1).fit(words).explain(words[0])[0]
    assert graph.graph["evidence"] == "influence"
    actual = words.influence.of_classes()
    for layer in ("1", "3"):
        change = actual.margins - actual.baselines[layer]
        np.testing.assert_allclose(actual.maps[layer].sum((1, 2)), change, atol=1e-4)


def test_memory_short_of_a_batch_halves_it(branched, monkeypatch):
    """A device that is limited to three images at once leads to the same result."""
    graph = InferenceGraph(n_nodes=2).fit(branched)
    expected = graph.transform(branched[:8])
    whole = Influence.attribute

    def short(self, part, *args):
        if len(part) > 3:
            raise torch.OutOfMemoryError
        return whole(self, part, *args)

    monkeypatch.setattr(Influence, "attribute", short)
    with pytest.warns(UserWarning, match="ran out of memory"):
        actual = graph.transform(branched[:8])
    np.testing.assert_allclose(actual, expected, atol=1e-4)
