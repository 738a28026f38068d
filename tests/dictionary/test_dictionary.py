"""LayerDictionary as an estimator."""

import copy

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture

from skgmmcnn import FeatureExtractor, LayerDictionary, load, save
from skgmmcnn.features import maps_of_changed_network


def test_rows_are_modelled_as_well_as_by_scikit_learn(rng):
    X = np.concatenate([rng.normal(mean, 1, (300, 3)) for mean in (-6, 0, 6)])
    dictionary = LayerDictionary(12, reg_covar=0.01, tol=1e-5, random_state=0).fit(X)
    peer = GaussianMixture(12, covariance_type="diag", reg_covar=0.01, random_state=0).fit(X)
    assert dictionary.score(X) > peer.score(X) - 0.05
    assert dictionary.transform(X).shape == (900, 12)
    np.testing.assert_array_equal(dictionary.transform(X).argmax(1), dictionary.predict(X))
    np.testing.assert_allclose(dictionary.transform(X).sum(1), 1)


def test_same_seed_same_fit_and_words_whatever_the_batches(digits):
    def fitted(batch_size, random_state=0):
        extractor = FeatureExtractor(digits.network, ["conv1", "conv3"], batch_size=batch_size)
        maps = extractor.fit_transform(digits.images[:200])
        return maps, LayerDictionary(10, max_samples=1000, random_state=random_state).fit(maps)

    maps, dictionary = fitted(32)
    _, again = fitted(32)
    other_maps, _ = fitted(7)
    for layer in maps.layers:
        np.testing.assert_array_equal(dictionary.mixtures_[layer].means_, again.mixtures_[layer].means_)
        words, others = (dictionary.transform(x).words[layer] for x in (maps, other_maps))
        assert (words != others).mean() < 1e-4  # ties at rounding
        some = dictionary.transform(maps[50:60]).words[layer]
        assert (some != words[50:60]).mean() < 1e-3
    assert dictionary.vocabulary_.fingerprint == again.vocabulary_.fingerprint
    assert dictionary.vocabulary_.fingerprint != fitted(32, 1)[1].vocabulary_.fingerprint


def test_failed_fit_loses_nothing(digits):
    dictionary = LayerDictionary(4, random_state=0)
    maps = FeatureExtractor(digits.network, ["conv2", "conv3"]).fit_transform(digits.images[:50])
    bad = maps_of_changed_network(maps, lambda network, images: network.conv3[0].weight.fill_(3e38))
    with pytest.raises(ValueError, match="NaN or infinity for image 0, first in layer 'conv3'"):
        dictionary.fit(bad)
    with pytest.raises(NotFittedError):
        dictionary.transform(maps)
    expected = dictionary.fit(maps).transform(maps).words["conv3"]
    with pytest.raises(ValueError, match="NaN or infinity for image 0, first in layer 'conv3'"):
        dictionary.fit(bad)
    np.testing.assert_array_equal(dictionary.transform(maps).words["conv3"], expected)


BAD_SETTINGS = {
    "too few locations": ({"n_components": 50}, 2, r"'conv3' has 32 locations \(n_samples = 2.*too few for 50 words"),
    "a layer without a number of words": ({"n_components": {"conv1": 4}}, 9, r"names layers \['conv1'\]; the layers"),
    "no words": ({"n_components": {"conv1": 4, "conv2": 0, "conv3": 4}}, 9, "at least 1 for each layer"),
    "a negative tolerance": ({"tol": -1}, 9, "'tol' parameter"),
}


@pytest.mark.parametrize(("settings", "n_images", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_bad_settings_are_named(maps, settings, n_images, message):
    with pytest.raises(ValueError, match=message):
        LayerDictionary(**{"n_components": 4} | settings).fit(maps[:n_images])


BAD_ARRAYS = {
    "images": (np.zeros((5, 3, 8, 8)), r"X has 4 dimensions\. Pass images to a FeatureExtractor"),
    "NaN": (np.full((5, 2), np.nan), "NaN"),
}


@pytest.mark.parametrize(("X", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_are_named(X, message):
    with pytest.raises(ValueError, match=message):
        LayerDictionary(2).fit(X)


def test_maps_of_other_layers_are_refused(digits, dictionary):
    fewer = FeatureExtractor(digits.network, ["conv3"]).fit_transform(digits.images[:5])
    with pytest.raises(ValueError, match="fitted on layers with channels"):
        dictionary.transform(fewer)


def test_unknown_classes_are_named(maps):
    with pytest.raises(ValueError, match="no class 'ten'"):
        LayerDictionary(4).fit(maps, ["ten"] * 300)


def test_a_dictionary_must_be_fitted(maps):
    with pytest.raises(NotFittedError):
        LayerDictionary(4).transform(maps)


def test_slow_layers_get_a_warning(maps):
    with pytest.warns(ConvergenceWarning, match=r"\['conv1', 'conv2', 'conv3'\] did not converge in 1 pass"):
        LayerDictionary(4, max_iter=1, tol=0, random_state=0).fit(maps)


def test_maps_of_another_network_are_refused(digits, tmp_path):
    """Equal names of layers and numbers of channels do not make equal words."""
    other = copy.deepcopy(digits.network)
    with torch.no_grad():
        other.conv2[0].weight += 1e-3
    own, foreign = (
        FeatureExtractor(network, ["conv2"]).fit_transform(digits.images[:60]) for network in (digits.network, other)
    )
    dictionary = LayerDictionary(4, random_state=0).fit(own)
    save(dictionary, tmp_path / "words")
    for fitted in (dictionary, load(tmp_path / "words")):
        with pytest.raises(ValueError, match=r"fitted on maps of another network: .*Pass maps of the fitted network"):
            fitted.transform(foreign)
        with pytest.raises(ValueError, match="another network"):
            fitted.partial_fit(foreign)
    again = FeatureExtractor(copy.deepcopy(digits.network), ["conv2"]).fit_transform(digits.images[60:90])
    assert len(dictionary.transform(again)) == 30
    changed = maps_of_changed_network(own, lambda network, images: network.conv2[0].weight.mul_(0.5))
    assert len(dictionary.transform(changed)) == 60  # asked for by name
    assert len(dictionary.fit(foreign).transform(foreign)) == 60
