import copy
import json
from contextlib import suppress
from dataclasses import replace
from unittest import SkipTest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch import nn

from skgmmcnn import DiagonalGaussianMixture, FeatureExtractor, FeatureMaps, LayerDictionary, load, save
from skgmmcnn.dictionary._labelling import as_rows, average_posteriors
from skgmmcnn.dictionary._readouts import fit_readout
from skgmmcnn.dictionary._representatives import Typical
from skgmmcnn.dictionary._reservoir import Reservoir
from skgmmcnn.dictionary._statistics import count_classes
from skgmmcnn.features import maps_of_changed_network
from skgmmcnn.mixture._em import Scorer
from skgmmcnn.mixture._emissions import TiedDiagonalGaussian
from skgmmcnn.mixture._solvers import Rows, Training, fit_em
from skgmmcnn.mixture._starts import moments, random_rows, start

N_CHECKS = 46  # of scikit-learn 1.6; newer ones have more


def test_scikit_learn_checks_pass_in_full():
    """scikit-learn skips checks silently for estimators that it thinks cannot take them: the number is asserted."""
    ran = []
    for estimator, check in estimator_checks_generator(LayerDictionary(2)):
        with suppress(SkipTest):  # what needs an environment variable of scipy's
            check(estimator)
        ran.append(check.func.__name__)
    assert len(ran) >= N_CHECKS, len(ran)
    assert {"check_transformer_general", "check_methods_subset_invariance"} <= {*ran}


def test_rows_are_modelled_as_well_as_by_scikit_learn(rng):
    X = np.concatenate([rng.normal(mean, 1, (300, 3)) for mean in (-6, 0, 6)])
    dictionary = LayerDictionary(12, reg_covar=0.01, tol=1e-5, random_state=0).fit(X)
    peer = GaussianMixture(12, covariance_type="diag", reg_covar=0.01, random_state=0).fit(X)
    assert dictionary.score(X) > peer.score(X) - 0.05
    assert dictionary.transform(X).shape == (900, 12)
    np.testing.assert_array_equal(dictionary.transform(X).argmax(1), dictionary.predict(X))
    np.testing.assert_allclose(dictionary.transform(X).sum(1), 1)


@pytest.mark.parametrize("family", ["tied_diag", "diag", "spherical"])
def test_words_are_the_likeliest_components(maps, family):
    dictionary = LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, covariance_type=family, random_state=0)
    dictionary.set_params(emission="gaussian")
    words = dictionary.fit_transform(maps)
    for batch in maps.batches():
        for layer, values in batch.activations.items():
            rows = as_rows(values).double().numpy()
            mixture = dictionary.mixtures_[layer]
            covariances = mixture.covariances_[:, None] if family == "spherical" else mixture.covariances_
            covariances = np.broadcast_to(covariances, mixture.means_.shape)
            joint = np.log(mixture.weights_) - 0.5 * (
                ((rows[:, None] - mixture.means_) ** 2 / covariances).sum(2) + np.log(2 * np.pi * covariances).sum(1)
            )
            seen = words.words[layer][batch.start : batch.start + len(values)].ravel()
            best = joint.max(1)
            assert (joint[np.arange(len(seen)), seen] > best - 1e-2).all()
            assert (joint.argmax(1) == seen).mean() > 0.999


def test_word_maps(maps, words):
    assert words.shape == (300,)
    assert words.words["conv1"].dtype == np.uint8
    np.testing.assert_array_equal(words.decisions, maps.outputs.argmax(1))
    histogram = words.histogram()
    assert histogram.shape == (300, 36) == (300, len(words.get_feature_names_out()))
    assert words.get_feature_names_out()[8] == "conv2_w000"
    assert histogram[5, 8 + 3] == (words.words["conv2"][5] == 3).sum()
    part = words[[4, 2]]
    np.testing.assert_array_equal(part.words["conv3"], words.words["conv3"][[4, 2]])
    np.testing.assert_array_equal(part.pictures[0], maps.pictures()[4])
    np.testing.assert_array_equal(part.decisions, words.decisions[[4, 2]])


def test_the_network_runs_once_to_train_and_once_to_label(digits, maps):
    passes = CountedMaps(maps)
    dictionary = LayerDictionary(5, random_state=0)
    words = dictionary.fit_transform(passes)
    assert passes.n_images == 2 * len(maps)
    np.testing.assert_array_equal(words.words["conv2"], dictionary.transform(maps).words["conv2"])


class CountedMaps(FeatureMaps):
    """Counts the images that its source yields, also to parts of it."""

    def __init__(self, maps):
        self.__dict__.update(maps.__dict__)
        self.n_images = 0
        self._inner, self._source, self.device = self._source, self, "cpu"

    def batches(self, rows=None):
        if rows is None:
            yield from super().batches()
            return
        for batch in self._inner.batches(rows):
            self.n_images += len(batch.decisions)
            yield batch


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


def test_reservoir_is_uniform_bounded_and_independent_of_batches(seed):
    rows = torch.arange(6000.0).reshape(-1, 1)

    def sample(images_at_once):
        reservoir = Reservoir(300, 20, 500, seed)
        for first in range(0, 300, images_at_once):
            reservoir.add(first, rows[first * 20 : (first + images_at_once) * 20])
        drawn, images = reservoir.sample()
        np.testing.assert_array_equal(images, drawn.ravel().numpy() // 20)
        return drawn.ravel().numpy()

    chosen = sample(300)
    assert len(chosen) == len(set(chosen)) == 500
    np.testing.assert_array_equal(chosen, sample(7))
    # 10 equal parts: chi-squared with 9 degrees of freedom, 99.9 % below 27.9; also over locations of an image
    for parts in (np.histogram(chosen, 10, (0, 6000))[0], np.bincount(chosen.astype(int) % 20 // 2)):
        assert ((parts - 50) ** 2 / 50).sum() < 27.9
    everything = Reservoir(300, 20, 6000, seed)
    everything.add(0, rows)
    assert sorted(everything.sample()[0].ravel().tolist()) == rows.ravel().tolist()


def naive_choice(words, proba, density, word, n_best):
    """The best location of each image first, then each image's second best, and so on."""
    chosen = []
    for image in range(len(words)):
        own = [
            (-proba[image, q], -density[image, q], image, q) for q in range(words.shape[1]) if words[image, q] == word
        ]
        chosen += [(turn, *entry) for turn, entry in enumerate(sorted(own))]
    return [entry[3:] for entry in sorted(chosen)[:n_best]]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), n_best=st.integers(1, 6), images_at_once=st.integers(1, 9))
def test_representatives_equal_a_naive_choice(seed, n_best, images_at_once):
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 4, (9, 5))
    proba, density = rng.choice([0.5, 1], words.shape), rng.choice(4, words.shape).astype(float)
    typical = Typical(5, n_best)
    for first in range(0, 9, images_at_once):
        part = slice(first, first + images_at_once)
        typical.add(first, words[part], *(torch.from_numpy(values[part].ravel()) for values in (proba, density)))
    images, locations = typical.selection()
    for word in range(5):
        found = [pair for pair in zip(images[word], locations[word], strict=True) if pair[0] >= 0]
        assert found == naive_choice(words, proba, density, word, n_best)


def test_representatives_show_their_word(maps, words):
    for layer in maps.layers:
        found = words.vocabulary.representatives[layer]
        for word in range(words.vocabulary.n_words[layer]):
            places = np.argwhere(words.words[layer] == word)
            images = found.images[word][found.images[word] >= 0]
            assert len(images) == min(9, len(places))
            assert len(np.unique(images)) == min(9, len(np.unique(places[:, 0])))
            assert (words.words[layer][images, *found.locations[word][: len(images)].T] == word).all()


def test_keep_proba(maps):
    words = LayerDictionary(4, keep_proba=True, random_state=0).fit_transform(maps)
    assert words.proba["conv3"].shape == words.log_density["conv3"].shape == (300, 4, 4)
    assert words[:2].proba["conv3"].dtype == np.float16
    assert (words.proba["conv1"] >= 0.25).all()


def test_patches_show_where_activity_comes_from(maps, words):
    """Pieces of one size around the locations, inside the image."""
    found = words.vocabulary.representatives["conv2"]
    size = np.array(found.patches.shape[2:4])
    assert (size >= 3).all()
    assert (size <= 5).all()
    for word, place in np.argwhere(found.images >= 0):
        at = found.locations[word, place] + 0.5
        row, column = begin = np.clip(np.floor(at - size / 2 + 0.5).astype(int), 0, 8 - size)
        picture = maps.pictures()[found.images[word, place]]
        expected = picture[row : row + size[0], column : column + size[1]]
        np.testing.assert_array_equal(found.patches[word, place], expected)
        np.testing.assert_allclose(found.marks[word, place], (at - begin) / size)


def test_patches_of_deep_layers_are_parts_of_the_image():
    """At most half of it, although a location sees nearly all; whole fields, with marks, where asked for."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 5, padding=2), *(nn.Conv2d(4, 4, 9, padding=4) for _ in range(3))]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 32 * 32, 3))
    images = np.random.default_rng(0).random((12, 3, 32, 32), dtype=np.float32)
    maps = FeatureExtractor(network, ["0", "3"], preprocess=None).fit_transform(images)
    all_of_it = {("3", "0"): maps.receptive_fields["3", "0"]}
    for fields, side in ((all_of_it, 16), ({}, 29)):
        maps.spec = replace(maps.spec, effective_fields=fields)
        found = LayerDictionary(3, random_state=0).fit(maps).vocabulary_.representatives["3"]
        assert found.patches.shape[2:4] == (side, side)
        assert found.whole == (not fields)


def test_whole_fields_reach_outside_the_image(digits):
    maps = FeatureExtractor(digits.network, ["conv2", "conv3"]).fit_transform(digits.images[:100])
    maps.spec = replace(maps.spec, effective_fields={})
    vocabulary = LayerDictionary(12, random_state=0).fit(maps).vocabulary_
    found = vocabulary.representatives["conv2"]
    assert found.patches.shape[2:] == (5, 5, 3)
    word, place = np.argwhere((found.locations == 0).any(2) & (found.images >= 0))[0]
    axis = int(found.locations[word, place, 0] != 0)
    assert (np.moveaxis(found.patches[word, place], axis, 0)[:2] == 225).all()
    assert not found.whole
    assert vocabulary.representatives["conv3"].whole


def test_patches_need_not_be_kept(maps):
    dictionary = LayerDictionary(4, keep_patches=False, random_state=0).fit(maps)
    found = dictionary.vocabulary_.representatives["conv3"]
    assert found.patches is None
    assert (found.images[:, 0] >= 0).any()


def test_likelihood_after_every_pass(maps):
    """It never falls under EM, goes on with partial_fit, and ends with that of the words that are kept."""
    dictionary = LayerDictionary(8, random_state=0).fit(maps)
    bounds = dictionary.lower_bounds_
    assert tuple(bounds) == maps.layers
    assert max(map(len, bounds.values())) == dictionary.n_iter_
    assert all((np.diff(history) >= 0).all() for history in bounds.values())
    assert dictionary.lower_bound_ == sum(history[-1] for history in bounds.values())
    assert dictionary.lower_bound_ <= dictionary.score(maps) < dictionary.lower_bound_ + 0.3  # one M-step later
    score = dictionary.score(maps[:100])
    dictionary.partial_fit(maps[:100])
    assert all(dictionary.lower_bounds_[layer][:-1] == history for layer, history in bounds.items())
    assert dictionary.lower_bound_ == pytest.approx(score, abs=1e-3)
    fresh = LayerDictionary(8, random_state=0)
    for _ in range(3):
        fresh.partial_fit(maps)
    assert {len(history) for history in fresh.lower_bounds_.values()} == {3}
    sharp = LayerDictionary(4, objective="discriminative", random_state=0).fit(maps)
    assert sharp.lower_bound_ == pytest.approx(sharp.score(maps), abs=1e-3)
    assert max(map(len, sharp.lower_bounds_.values())) == sharp.n_iter_ + 1


def test_partial_fit(maps):
    dictionary = LayerDictionary(8, random_state=0)
    scores = []
    for _ in range(3):
        for rows in np.split(np.arange(300), 3):
            dictionary.partial_fit(maps[rows])
        scores.append(dictionary.score(maps))
    assert dictionary.n_iter_ == 9
    assert scores[0] < scores[1] < scores[2] < LayerDictionary(8, random_state=0).fit(maps).score(maps) + 0.5
    assert dictionary.transform(maps).vocabulary.representatives == {}
    dictionary.collect_representatives(maps)
    assert dictionary.transform(maps).vocabulary.representatives["conv3"].patches is not None
    fitted = dictionary.fit(maps)
    score, n_iter = fitted.score(maps), fitted.n_iter_
    assert n_iter != 9
    assert fitted.partial_fit(maps[:150]).score(maps) > score - 1  # goes on from the fit
    few = maps[:10]  # of which fit does not take an eighth first
    one_step = LayerDictionary(40, random_state=0).partial_fit(few)
    with pytest.warns(ConvergenceWarning):
        one_pass = LayerDictionary(40, random_state=0, max_iter=1).fit(few)
    for layer in maps.layers:
        np.testing.assert_allclose(one_step.mixtures_[layer].means_, one_pass.mixtures_[layer].means_, atol=1e-4)


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


def test_word_names(maps):
    dictionary = LayerDictionary(4, random_state=0).fit(maps)
    dictionary.set_params(word_names={("conv3", 2): "loop"})
    assert dictionary.transform(maps[:1]).vocabulary.names == {("conv3", 2): "loop"}
    for wrong in (
        {("conv9", 2): "loop"},
        {("conv3", 4): "loop"},
        {"conv3_w004": "loop"},
        {"conv3": "loop"},
        {5: "loop"},
    ):
        with pytest.raises(ValueError, match=r"word_names has key .* keys are .layer, number."):
            dictionary.set_params(word_names=wrong).transform(maps[:1])


def test_names_of_words_by_their_keys(maps):
    """As a page writes them to a JSON file."""
    names = json.loads('{"conv3_w002": "loop", "conv1_w000": "edge"}')
    dictionary = LayerDictionary(4, random_state=0, word_names=names).fit(maps)
    assert dictionary.transform(maps[:1]).vocabulary.names == {("conv3", 2): "loop", ("conv1", 0): "edge"}
    assert clone(dictionary).word_names == names
    with pytest.raises(ValueError, match="word_names"):  # no file is read, neither now nor when it is loaded
        clone(dictionary).set_params(word_names="names.json").fit(maps)


def test_bad_input_is_named(maps, digits):
    with pytest.raises(ValueError, match=r"'conv3' has 32 locations \(n_samples = 2.*too few for 50 words"):
        LayerDictionary({"conv1": 4, "conv2": 4, "conv3": 50}).fit(maps[:2])
    with pytest.raises(ValueError, match=r"n_components names layers \['conv1'\]; the layers are"):
        LayerDictionary({"conv1": 4}).fit(maps)
    with pytest.raises(ValueError, match="must be at least 1 for each layer"):
        LayerDictionary({"conv1": 4, "conv2": 0, "conv3": 4}).fit(maps)
    with pytest.warns(ConvergenceWarning, match=r"\['conv1', 'conv2', 'conv3'\] did not converge in 2 passes"):
        dictionary = LayerDictionary(4, max_iter=2, tol=0, random_state=0).fit(maps)
    fewer = FeatureExtractor(digits.network, ["conv3"]).fit_transform(digits.images[:5])
    with pytest.raises(ValueError, match="fitted on layers with channels"):
        dictionary.transform(fewer)
    with pytest.raises(ValueError, match="no class 'ten'"):
        LayerDictionary(4).fit(maps, ["ten"] * 300)
    with pytest.raises(NotFittedError):
        LayerDictionary(4).transform(maps)
    with pytest.raises(ValueError, match="'tol' parameter"):
        LayerDictionary(4, tol=-1).fit(maps)
    with pytest.raises(ValueError, match=r"X has 4 dimensions\. Pass images to a FeatureExtractor"):
        LayerDictionary(2).fit(np.zeros((5, 3, 8, 8)))
    with pytest.raises(ValueError, match="NaN"):
        LayerDictionary(2).fit(np.full((5, 2), np.nan))


def test_emission_is_chosen_by_the_share_of_zeros(maps, rng):
    """The digits network's layers end in a ReLU; its input does not."""
    dictionary = LayerDictionary(4, covariance_type="diag", random_state=0).fit(maps)
    assert dictionary.emissions_ == dict.fromkeys(maps.layers, "rectified")
    for options in ({"emission": "gaussian", "covariance_type": "diag"}, {"covariance_type": "tied_diag"}):
        assert LayerDictionary(4, **options).fit(maps).emissions_ == dict.fromkeys(maps.layers, "gaussian")
    for X, expected in [
        (rng.normal(size=(100, 3)), "gaussian"),
        (np.abs(rng.normal(size=(100, 3))), "gaussian"),
        (rng.normal(size=(100, 3)).clip(0), "rectified"),
    ]:
        assert LayerDictionary(2, covariance_type="diag").fit(X).emissions_ == {"dense": expected}
    with pytest.raises(ValueError, match="Layer 'dense' has negative values, but emission='rectified'"):
        LayerDictionary(2, emission="rectified", covariance_type="diag").fit(rng.normal(size=(100, 3)))
    with pytest.raises(ValueError, match="emission='rectified' needs covariance_type='diag'; got 'tied_diag'"):
        LayerDictionary(2, emission="rectified").fit(rng.normal(size=(100, 3)).clip(0))


@pytest.mark.parametrize("scale", [1e18, 1e-20])
@pytest.mark.parametrize("model", [LayerDictionary(3, random_state=0), DiagonalGaussianMixture(3, random_state=0)])
def test_rows_out_of_range_are_refused(rng, model, scale):
    with pytest.raises(ValueError, match="out of float32's range"):
        model.fit((scale * rng.normal(size=(60, 4))).astype(np.float32))


def test_a_layer_without_words_is_refused(digits):
    silent = copy.deepcopy(digits.network)
    with torch.no_grad():
        silent.conv3[0].weight.zero_()
    maps = FeatureExtractor(silent, ["conv2", "conv3"]).fit_transform(digits.images[:20])
    with pytest.raises(ValueError, match="Layer 'conv3' is constant over all locations"):
        LayerDictionary(3).fit(maps)


def test_training_ends_when_words_stay(rng):
    """Overlapping clusters, whose likelihood creeps on: a pass that moves few rows is the last."""
    rows = torch.from_numpy(rng.normal(size=(3000, 4)))
    generator = torch.Generator().manual_seed(0)
    mean, variance = moments(rows)
    begin = start(random_rows(rows, 20, generator), TiedDiagonalGaussian(0.1 * variance), mean, variance, rows)
    data = Rows(rows, None, rows)
    still = fit_em(data, begin, Training(500, 0.0, still=0.02))
    never = fit_em(data, begin, Training(still.n_iter - 1, 0.0))
    before = data.expect(fit_em(data, begin, Training(still.n_iter - 2, 0.0)).mixture).components
    assert still.converged
    assert not never.converged
    assert still.n_iter < 200
    assert 0 < (before != data.expect(never.mixture).components).double().mean() < 0.05


def test_report_says_what_words_are_worth(maps, digits):
    dictionary = LayerDictionary({"conv1": 30, "conv2": 30, "conv3": 30}, random_state=0).fit(maps)
    report = dictionary.report(maps, n_images=40)
    rows = np.unique(np.linspace(0, len(maps) - 1, 40).astype(int))
    network, images = digits.network, torch.as_tensor(digits.images[rows])[:, None]
    for layer, worth in report.layers.items():
        seen = {}

        def watch(module, inputs, output, seen=seen):
            seen["values"] = output

        with network.get_submodule(layer).register_forward_hook(watch), torch.no_grad():
            decisions = network(images).argmax(1)
        values = seen["values"].permute(0, 2, 3, 1).double().numpy()
        words = dictionary.transform(maps[rows]).words[layer].astype(int)
        means = dictionary.mixtures_[layer].emitted_means_
        center = dictionary.mixtures_[layer].weights_ @ means
        r2 = 1 - ((values - means[words]) ** 2).sum() / ((values - center) ** 2).sum()
        assert worth.r2 == pytest.approx(r2, abs=1e-4)
        made = torch.from_numpy(means[words]).permute(0, 3, 1, 2).float()
        with (
            network.get_submodule(layer).register_forward_hook(lambda module, inputs, output, made=made: made),
            torch.no_grad(),
        ):
            kept = (network(images).argmax(1) == decisions).double().mean().item()
        assert worth.kept == pytest.approx(kept, abs=0.03)  # one image may lie at a border
        assert (worth.n_words, worth.n_used) == (30, len(np.unique(words)))
        assert f"- {layer}: {worth.n_used} of 30 words" in str(report)


def test_report_warns_of_layers_that_hold_little(maps, rng):
    poor = LayerDictionary(2, random_state=0).fit(maps)
    with pytest.warns(UserWarning, match=r"'conv3' .*Use more words"):
        poor.report(maps)
    plain = LayerDictionary(5, random_state=0).fit(rng.normal(size=(100, 3)))
    report = plain.report(rng.normal(size=(100, 3)))
    assert np.isnan(report.layers["dense"].kept)
    assert "decisions" not in str(report)
    with pytest.raises(ValueError, match="n_images must be at least 1; got 0"):
        plain.report(rng.normal(size=(100, 3)), n_images=0)


def test_verbose_shows_passes_and_worth(maps, capsys):
    LayerDictionary(30, verbose=1, random_state=0).fit(maps)
    shown = capsys.readouterr()
    assert "conv2: 30 of 30 words in use" in shown.out
    assert "conv2" in shown.err
    assert "nats" in shown.err


@pytest.mark.parametrize("solver", ["online", "sgd"])
def test_solvers(maps, solver):
    dictionary = LayerDictionary(8, solver=solver, random_state=0).fit(maps)
    assert dictionary.score(maps) > LayerDictionary(8, random_state=0).fit(maps).score(maps) - 0.05 * 88


def test_statistics_of_words_equal_a_loop(maps):
    dictionary = LayerDictionary(10, random_state=0)
    words = dictionary.fit_transform(maps)
    for layer in maps.layers:
        statistics = words.vocabulary.statistics[layer]
        for word in range(10):
            shown = (words.words[layer] == word).reshape(300, -1).sum(1)
            classes = np.array([shown[words.decisions == c].sum() for c in range(10)])
            np.testing.assert_array_equal(statistics.counts[word], classes)
            assert statistics.share[word] == pytest.approx(shown.sum() / words.words[layer].size)
            shares = classes[classes > 0] / classes.sum()
            assert statistics.purity[word] == pytest.approx(shares.max())
            assert statistics.entropy[word] == pytest.approx(-(shares * np.log2(shares)).sum())


def test_dead_words_are_reported(maps):
    dictionary = LayerDictionary(5, random_state=0).fit(maps)
    assert all(len(dead) == 0 for dead in dictionary.dead_words_.values())
    statistics = count_classes(np.array([[[0, 3, 3]]]), np.array([1]), 4, 2)
    assert statistics.dead.tolist() == [1, 2]
    assert statistics.purity.tolist() == [1, 0, 0, 1]
    assert statistics.entropy.tolist() == [0, 0, 0, 0]


class TestReadouts:
    def test_mean_posteriors_equal_a_loop(self, maps):
        dictionary = LayerDictionary(6, random_state=0).fit(maps)
        found = average_posteriors(maps[:20], dictionary.mixtures_)[0]
        for batch in maps[:20].batches():
            for layer, values in batch.activations.items():
                scorer = Scorer(dictionary.mixtures_[layer], values)
                for number, image in enumerate(values, batch.start):
                    rows = image.reshape(len(image), -1).T
                    np.testing.assert_allclose(found[layer][number], scorer.predict_proba(rows).mean(0), atol=1e-6)

    def test_generative_words_can_be_read(self, maps):
        dictionary = LayerDictionary(20, random_state=0).fit(maps[:200])
        with pytest.raises(NotFittedError, match="call fit_readout"):
            dictionary.predict_class_proba(maps)
        probabilities = dictionary.fit_readout(maps[:200]).predict_class_proba(maps[200:])
        decisions = maps.outputs.argmax(1)[200:]
        agreement = {layer: (values.argmax(1) == decisions).mean() for layer, values in probabilities.items()}
        assert agreement["conv3"] > 0.8  # 0.94 to 0.96 with 20 seeds and shaken networks
        assert all(values.shape == (100, 10) for values in probabilities.values())
        np.testing.assert_allclose(probabilities["conv1"].sum(1), 1)
        dictionary.fit(maps[:100])
        assert not hasattr(dictionary, "readouts_")  # they read other words

    def test_discriminative_words_predict_better(self, digits):
        extractor = FeatureExtractor(digits.network, ["conv1", "conv2"], class_names=digits.class_names)
        maps = extractor.fit_transform(digits.images).compute()
        train, test = maps[:900], maps[900:]
        decisions = test.outputs.argmax(1)
        agreement = {}
        for objective in ("generative", "discriminative"):
            dictionary = LayerDictionary(6, objective=objective, random_state=0).fit(train)
            if objective == "generative":
                dictionary.fit_readout(train)
            found = dictionary.predict_class_proba(test)
            agreement[objective] = np.mean([(found[layer].argmax(1) == decisions).mean() for layer in found])
            assert np.isfinite(dictionary.score(test))
        assert agreement["discriminative"] > agreement["generative"] + 0.05  # 0.18 to 0.28

    def test_labels_take_the_place_of_decisions(self, maps, digits):
        """Words trained for wrong labels, of two classes, predict those; 20 seeds and networks gave 1 and 0.84."""
        maps = maps[:150]
        labels = np.where(maps.outputs.argmax(1) < 5, 7, 2)
        names = [digits.class_names[label] for label in labels]
        for y in (labels, names):
            dictionary = LayerDictionary(
                {"conv1": 2, "conv2": 2, "conv3": 16}, objective="discriminative", random_state=0
            )
            found = dictionary.fit(maps, y).predict_class_proba(maps)["conv3"].argmax(1)
            assert (found == labels).mean() > 0.85
        found = LayerDictionary(16, random_state=0).fit(maps).fit_readout(maps, labels).predict_class_proba(maps)
        assert (found["conv3"].argmax(1) == labels).mean() > 0.7
        assert (found["conv3"][:, [0, 1, 3]] == 0).all()  # classes without examples

    def test_one_class(self, maps):
        zeros = np.zeros(len(maps), int)
        found = LayerDictionary(4, random_state=0).fit(maps).fit_readout(maps, zeros).predict_class_proba(maps)
        np.testing.assert_array_equal(found["conv3"][:, 0], 1)

    def test_readout_equals_scikit_learn(self, rng):
        posteriors = rng.dirichlet(np.ones(5), 200)
        for n_classes in (2, 3):
            targets = (posteriors[:, :n_classes].argmax(1) * 2) % 5
            readout = fit_readout(posteriors, targets, 6)
            peer = LogisticRegression(C=0.03, max_iter=1000).fit(posteriors * 5, targets)
            found = readout.predict_proba(posteriors)
            np.testing.assert_allclose(found[:, peer.classes_], peer.predict_proba(posteriors * 5), atol=1e-6)

    def test_bad_input(self, maps, rng):
        X = rng.normal(size=(50, 3))
        with pytest.raises(ValueError, match="needs the FeatureMaps of a network"):
            LayerDictionary(2, objective="discriminative").fit(X, np.zeros(50, int))
        with pytest.raises(ValueError, match="fit_readout needs the FeatureMaps"):
            LayerDictionary(2).fit(X).fit_readout(X)
        with pytest.raises(ValueError, match="partial_fit supports the generative objective only"):
            LayerDictionary(2, objective="discriminative").partial_fit(maps)
        with pytest.raises(ValueError, match="objective"):
            LayerDictionary(2, objective="both").fit(maps)


def test_maps_of_another_network_are_refused(digits, tmp_path):
    """Equal names of layers and numbers of channels do not make equal words."""
    other = copy.deepcopy(digits.network)
    with torch.no_grad():
        other.conv2[0].weight += 1e-3
    mine, its = (
        FeatureExtractor(network, ["conv2"]).fit_transform(digits.images[:60]) for network in (digits.network, other)
    )
    dictionary = LayerDictionary(4, random_state=0).fit(mine)
    save(dictionary, tmp_path / "words")
    for fitted in (dictionary, load(tmp_path / "words")):
        with pytest.raises(ValueError, match=r"fitted on maps of another network: .*Pass maps of the fitted network"):
            fitted.transform(its)
        with pytest.raises(ValueError, match="another network"):
            fitted.partial_fit(its)
    again = FeatureExtractor(copy.deepcopy(digits.network), ["conv2"]).fit_transform(digits.images[60:90])
    assert len(dictionary.transform(again)) == 30
    changed = maps_of_changed_network(mine, lambda network, images: network.conv2[0].weight.mul_(0.5))
    assert len(dictionary.transform(changed)) == 60  # asked for by name
    assert len(dictionary.fit(its).transform(its)) == 60
