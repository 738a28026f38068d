"""Training, against scikit-learn and by the properties of EM."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

from skgmmcnn.mixture._em import Rows, Scorer, in_blocks
from skgmmcnn.mixture._emissions import (
    DiagonalGaussian,
    SphericalGaussian,
)
from skgmmcnn.mixture._solvers import Training, fit_em, fit_online, fit_sgd, online_pass, online_step
from skgmmcnn.mixture._starts import moments, variance_floor

from .mixtures import FAMILIES, e_step, initial_mixture, supported, train


@pytest.mark.parametrize(("family", "name"), [(DiagonalGaussian, "diag"), (SphericalGaussian, "spherical")])
def test_training_equals_scikit_learn(rows, family, name):
    """From equal parameters, without a floor, after equally many passes of textbook EM."""
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    mixture = initial_mixture(rows, share=1e-12, family=family)
    peer = GaussianMixture(
        5,
        covariance_type=name,
        reg_covar=0,
        max_iter=6,
        tol=0,
        weights_init=mixture.weights_,
        means_init=mixture.means_,
        precisions_init=1 / mixture.covariances_,
    )
    with pytest.warns(UserWarning, match="did not converge"):
        peer.fit(rows.numpy())
    ours = train(rows, mixture, 6).mixture
    np.testing.assert_allclose(ours.weights_, peer.weights_, rtol=1e-6)
    np.testing.assert_allclose(ours.means_, peer.means_, rtol=1e-6)
    np.testing.assert_allclose(ours.covariances_, peer.covariances_, rtol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_components=st.integers(1, 8),
    channels=st.integers(1, 5),
    family=st.sampled_from(FAMILIES),
    momentum=st.sampled_from([0.0, 0.9]),
)
def test_likelihood_never_falls(seed, n_components, channels, family, momentum):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, channels)) * rng.uniform(0.01, 100, channels) + rng.normal(size=channels) * 10
    X[:, 0] = X[:, 0].clip(0) if seed % 2 else -np.abs(X[:, 0])  # some channels are dead once they are rectified
    rows = supported(torch.from_numpy(X), family)
    fitted = train(rows, initial_mixture(rows, n_components, seed, 1e-3, family), 15, momentum=momentum)
    bounds = np.array(fitted.lower_bounds)
    assert np.isfinite(bounds).all()
    assert (np.diff(bounds) > -1e-9 * (1 + np.abs(bounds[1:]))).all()
    floor = variance_floor(moments(rows)[1], 1e-3).numpy()
    assert (fitted.mixture.parameters.variance.numpy() >= 0.999 * floor.min()).all()
    np.testing.assert_allclose(fitted.mixture.weights_.sum(), 1)


def test_momentum_takes_fewer_passes(seed):
    rows = torch.from_numpy(load_digits().data)
    mixture = initial_mixture(rows, 60, seed, 0.1)
    plain, moved = (train(rows, mixture, 400, 1e-3, momentum=share) for share in (0, 0.9))
    assert plain.converged
    assert moved.converged
    assert moved.n_iter < 0.8 * plain.n_iter
    assert moved.lower_bounds[-1] > plain.lower_bounds[-1] - 0.1


def test_online_steps_average_statistics(rows):
    mixture = initial_mixture(rows)
    first, second = rows[::2], rows[1::2]
    state = online_step(e_step(first, mixture), mixture, None)
    np.testing.assert_allclose(state.mixture.means_, train(first, mixture, 1).mixture.means_)
    expectation = e_step(second, state.mixture)
    after = online_step(expectation, state.mixture, state)
    share = (1 + 2) ** -0.6
    blended = (1 - share) * state.statistics.total + share * expectation.statistics.total / len(second)
    np.testing.assert_allclose(after.statistics.total, blended)
    assert after.n_steps == 2


@pytest.mark.parametrize("solver", [fit_online, fit_sgd])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_solver_climbs(rows, family, solver):
    rows = supported(rows, family)
    mixture = initial_mixture(rows, family=family, share=1e-3)
    begin = e_step(rows, mixture).mean_log_likelihood
    best = train(rows, mixture, 300, 1e-6, momentum=0.9).lower_bounds[-1]
    training = Training(60, 1e-4, batch_size=100, generator=torch.Generator().manual_seed(0))
    fitted = solver(Rows(rows), mixture, training)
    assert e_step(rows, fitted.mixture).mean_log_likelihood > begin + 0.7 * (best - begin)
    assert fitted.n_iter <= 60
    # Steps may go on from the state.
    _, state = online_pass(in_blocks(Rows(rows), 100), fitted.mixture, fitted.state)
    assert state.n_steps == fitted.state.n_steps + 6


@pytest.mark.parametrize("solver", [fit_em, fit_online, fit_sgd])
def test_two_passes_do_not_converge(rows, solver):
    training = Training(2, 1e-9, batch_size=100, generator=torch.Generator().manual_seed(0))
    assert not solver(Rows(rows), initial_mixture(rows), training).converged


def test_the_first_pass_that_gains_little_is_the_last(rows):
    fitted = train(rows, initial_mixture(rows), 500, 1e-6)
    assert fitted.converged
    assert fitted.lower_bounds[-1] - fitted.lower_bounds[-2] < 1e-6 <= fitted.lower_bounds[-2] - fitted.lower_bounds[-3]


def test_constant_channels_and_repeated_rows(rng):
    X = np.repeat(rng.normal(size=(3, 4)), 20, axis=0)
    X[:, 2] = 7
    rows = torch.from_numpy(X).float()
    fitted = train(rows, initial_mixture(rows, 6, share=1e-3), 20, 1e-6)
    assert np.isfinite(fitted.mixture.covariances_).all()
    assert np.isfinite(fitted.lower_bounds).all()
    assert len(np.unique(Scorer(fitted.mixture, rows).predict(rows))) == 3
    same = torch.ones(10, 2)
    assert np.isfinite(train(same, initial_mixture(same, 2, share=1e-3), 3).lower_bounds).all()
