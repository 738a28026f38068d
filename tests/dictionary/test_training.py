"""Training: families of emissions, bounds, steps."""

import copy

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning

from skgmmcnn import DiagonalGaussianMixture, FeatureExtractor, LayerDictionary
from skgmmcnn.dictionary._training import Reservoir
from skgmmcnn.mixture import Rows
from skgmmcnn.mixture._emissions import TiedDiagonalGaussian
from skgmmcnn.mixture._solvers import Training, fit_em
from skgmmcnn.mixture._starts import moments, random_rows, start


def test_layers_behind_a_relu_are_rectified(maps):
    """The digits network's layers end in a ReLU."""
    dictionary = LayerDictionary(4, covariance_type="diag", random_state=0).fit(maps)
    assert dictionary.emissions_ == dict.fromkeys(maps.layers, "rectified")


@pytest.mark.parametrize("options", [{"emission": "gaussian", "covariance_type": "diag"}, {}])
def test_emissions_are_gaussian_where_chosen_or_the_only_ones(maps, options):
    assert LayerDictionary(4, **options).fit(maps).emissions_ == dict.fromkeys(maps.layers, "gaussian")


@pytest.mark.parametrize(
    ("function", "emission"),
    [(lambda x: x, "gaussian"), (np.abs, "gaussian"), (lambda x: x.clip(0), "rectified")],
    ids=["any sign", "no zeros", "zeros"],
)
def test_emission_is_chosen_by_the_fraction_of_zeros(rng, function, emission):
    X = function(rng.normal(size=(100, 3)))
    assert LayerDictionary(2, covariance_type="diag").fit(X).emissions_ == {"dense": emission}


@pytest.mark.parametrize(
    ("lowest", "covariance_type", "message"),
    [
        (-np.inf, "diag", "Layer 'dense' has negative values, but emission='rectified'"),
        (0, "tied_diag", "emission='rectified' needs covariance_type='diag'; got 'tied_diag'"),
    ],
)
def test_impossible_emissions_are_refused(rng, lowest, covariance_type, message):
    dictionary = LayerDictionary(2, emission="rectified", covariance_type=covariance_type)
    with pytest.raises(ValueError, match=message):
        dictionary.fit(rng.normal(size=(100, 3)).clip(lowest))


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
    initial = start(random_rows(rows, 20, generator), TiedDiagonalGaussian(0.1 * variance), mean, variance, rows)
    data = Rows(rows)
    still = fit_em(data, initial, Training(500, 0.0, still=0.02))
    never = fit_em(data, initial, Training(still.n_iter - 1, 0.0))
    before = data.expect(fit_em(data, initial, Training(still.n_iter - 2, 0.0)).mixture).components
    assert still.converged
    assert not never.converged
    assert still.n_iter < 200
    assert 0 < (before != data.expect(never.mixture).components).double().mean() < 0.05


def test_likelihood_never_falls(maps):
    dictionary = LayerDictionary(8, random_state=0).fit(maps)
    bounds = dictionary.lower_bounds_
    assert tuple(bounds) == maps.layers
    assert max(map(len, bounds.values())) == dictionary.n_iter_
    assert all((np.diff(history) >= 0).all() for history in bounds.values())
    assert dictionary.lower_bound_ == sum(history[-1] for history in bounds.values())
    assert dictionary.lower_bound_ <= dictionary.score(maps) < dictionary.lower_bound_ + 0.3  # one M-step later


def test_partial_fit_appends_the_likelihood_before_its_step(maps):
    dictionary = LayerDictionary(8, random_state=0).fit(maps)
    bounds, score = dictionary.lower_bounds_, dictionary.score(maps[:100])
    dictionary.partial_fit(maps[:100])
    assert all(dictionary.lower_bounds_[layer][:-1] == history for layer, history in bounds.items())
    assert dictionary.lower_bound_ == pytest.approx(score, abs=1e-3)


def test_likelihood_ends_with_that_of_discriminative_words(maps):
    dictionary = LayerDictionary(4, objective="discriminative", random_state=0).fit(maps)
    assert dictionary.lower_bound_ == pytest.approx(dictionary.score(maps), abs=1e-3)
    assert max(map(len, dictionary.lower_bounds_.values())) == dictionary.n_iter_ + 1


@pytest.fixture(scope="module")
def stepwise(maps):
    """A dictionary after three rounds of steps on a third of the images each, and the score after each round."""
    dictionary, scores = LayerDictionary(8, random_state=0), []
    for _ in range(3):
        for rows in np.split(np.arange(300), 3):
            dictionary.partial_fit(maps[rows])
        scores.append(dictionary.score(maps))
    return dictionary, scores


def test_steps_climb(maps, stepwise):
    dictionary, scores = stepwise
    assert dictionary.n_iter_ == 9
    assert {len(history) for history in dictionary.lower_bounds_.values()} == {9}
    assert scores[0] < scores[1] < scores[2] < LayerDictionary(8, random_state=0).fit(maps).score(maps) + 0.5


def test_representatives_are_collected_on_demand_after_steps(maps, stepwise):
    dictionary = copy.deepcopy(stepwise[0])
    assert dictionary.transform(maps).vocabulary.representatives == {}
    dictionary.collect_representatives(maps)
    assert dictionary.transform(maps).vocabulary.representatives["conv3"].patches is not None


def test_steps_continue_from_a_fit_and_a_fit_begins_anew(maps, stepwise):
    dictionary = copy.deepcopy(stepwise[0]).fit(maps)
    score = dictionary.score(maps)
    assert dictionary.n_iter_ != 9
    assert dictionary.partial_fit(maps[:150]).score(maps) > score - 1


def test_the_first_step_is_a_pass(maps):
    few = maps[:10]  # of which fit does not take an eighth first
    one_step = LayerDictionary(40, random_state=0).partial_fit(few)
    with pytest.warns(ConvergenceWarning):
        one_pass = LayerDictionary(40, random_state=0, max_iter=1).fit(few)
    for layer in maps.layers:
        np.testing.assert_allclose(one_step.mixtures_[layer].means_, one_pass.mixtures_[layer].means_, atol=1e-4)


@pytest.mark.parametrize("solver", ["online", "sgd"])
def test_solvers(maps, solver):
    dictionary = LayerDictionary(8, solver=solver, random_state=0).fit(maps)
    assert dictionary.n_iter_ == max(map(len, dictionary.lower_bounds_.values()))
    assert dictionary.score(maps) > LayerDictionary(8, random_state=0).fit(maps).score(maps) - 0.05 * 88


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
