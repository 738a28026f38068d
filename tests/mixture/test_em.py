import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.mixture import GaussianMixture

from skgmmcnn.mixture import (
    DiagonalGaussian,
    Expectation,
    Scorer,
    fit_em,
    online_step,
    start,
    variance_floor,
)


@pytest.fixture
def rows(rng):
    """Three clusters of different shapes, far from zero in one channel."""
    parts = [rng.normal(mean, scale, (200, 4)) for mean, scale in [(0, 1), (6, 0.5), (-4, 2)]]
    return torch.from_numpy(np.concatenate(parts) + np.array([0, 0, 0, 1000]))


def started(rows, n_components=5, seed=0, share=1e-6):
    return start(rows, n_components, variance_floor(rows, share), torch.Generator().manual_seed(seed))


def expected(rows, mixture):
    expectation = Expectation(mixture, rows)
    expectation.add(rows)
    return expectation


def naive_joint(rows, mixture):
    """log(weight_k p(x | k)) in a loop over components and channels, by scipy."""
    joint = np.empty((len(rows), len(mixture.weights_)))
    for k, (weight, mean, variance) in enumerate(
        zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True)
    ):
        joint[:, k] = np.log(weight)
        for channel in range(rows.shape[1]):
            joint[:, k] += norm.logpdf(rows[:, channel], mean[channel], np.sqrt(variance[channel]))
    return joint


def test_densities_and_assignments_equal_a_loop(rows):
    mixture = fit_em(rows, started(rows), 5, 0).mixture
    joint = naive_joint(rows.numpy(), mixture)
    evidence = logsumexp(joint, axis=1)
    assigned = Scorer(mixture, rows).assign(rows)
    best = joint.argmax(1)
    np.testing.assert_array_equal(assigned.component, best)
    np.testing.assert_array_equal(Scorer(mixture, rows).predict(rows), best)
    np.testing.assert_allclose(assigned.evidence, evidence, rtol=1e-9)
    np.testing.assert_allclose(assigned.posterior, np.exp(joint.max(1) - evidence), rtol=1e-8)
    np.testing.assert_allclose(assigned.log_density, joint.max(1) - np.log(mixture.weights_[best]), rtol=1e-8)
    np.testing.assert_allclose(Scorer(mixture, rows).predict_proba(rows), np.exp(joint - evidence[:, None]), atol=1e-10)


def test_float32_is_close_far_from_zero(rows):
    mixture = fit_em(rows, started(rows), 5, 0).mixture
    single = fit_em(rows.float(), started(rows.float()), 5, 0).mixture
    np.testing.assert_allclose(single.covariances_, mixture.covariances_, rtol=2e-3)
    evidence = Scorer(single, rows.float()).assign(rows.float()).evidence
    np.testing.assert_allclose(evidence, logsumexp(naive_joint(rows.numpy(), single), axis=1), atol=5e-3)


def test_statistics_equal_a_loop(rows):
    mixture = started(rows)
    joint = naive_joint(rows.numpy(), mixture)
    responsibilities = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    shifted = rows.numpy() - mixture.shift.numpy()
    total, (sums, squares) = expected(rows, mixture).statistics
    np.testing.assert_allclose(total, responsibilities.sum(0), rtol=1e-9)
    np.testing.assert_allclose(sums, responsibilities.T @ shifted, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(squares, responsibilities.T @ shifted**2, rtol=1e-8)


def test_training_equals_scikit_learn(rows):
    """From equal parameters, without a floor, after equally many passes."""
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    mixture = started(rows, share=1e-12)
    peer = GaussianMixture(
        5,
        covariance_type="diag",
        reg_covar=0,
        max_iter=6,
        tol=0,
        weights_init=mixture.weights_,
        means_init=mixture.means_,
        precisions_init=1 / mixture.covariances_,
    )
    with pytest.warns(UserWarning, match="did not converge"):
        peer.fit(rows.numpy())
    ours = fit_em(rows, mixture, 6, 0).mixture
    np.testing.assert_allclose(ours.weights_, peer.weights_, rtol=1e-6)
    np.testing.assert_allclose(ours.means_, peer.means_, rtol=1e-6)
    np.testing.assert_allclose(ours.covariances_, peer.covariances_, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n_components=st.integers(1, 8), channels=st.integers(1, 5), zeros=st.booleans())
def test_likelihood_never_falls(seed, n_components, channels, zeros):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, channels)) * rng.uniform(0.01, 100, channels) + rng.normal(size=channels) * 10
    rows = torch.from_numpy(X.clip(0) if zeros else X)
    mixture = started(rows, n_components, seed, share=1e-3)
    bounds = []
    for _ in range(12):
        fitted = fit_em(rows, mixture, 1, 0)
        mixture = fitted.mixture
        bounds.append(fitted.lower_bound)
    assert np.diff(bounds).min() > -1e-9
    assert (mixture.covariances_ >= variance_floor(rows, 1e-3).numpy()).all()
    np.testing.assert_allclose(mixture.weights_.sum(), 1)


def test_sums_do_not_depend_on_how_rows_arrive(rows):
    mixture = started(rows)
    whole = expected(rows, mixture)
    parts = Expectation(mixture, rows)
    for part in rows.split(37):
        parts.add(part)
    np.testing.assert_allclose(parts.statistics.total, whole.statistics.total, rtol=1e-12)
    np.testing.assert_allclose(parts.mean_log_likelihood, whole.mean_log_likelihood, rtol=1e-12)


def test_online_steps_average_statistics(rows):
    mixture = started(rows)
    first, second = rows[::2], rows[1::2]
    state = online_step(expected(first, mixture), mixture, None)
    np.testing.assert_allclose(state.mixture.means_, fit_em(first, mixture, 1, 0).mixture.means_)
    expectation = expected(second, state.mixture)
    after = online_step(expectation, state.mixture, state)
    share = (1 + 2) ** -0.6
    blended = (1 - share) * state.statistics.total + share * expectation.statistics.total / len(second)
    np.testing.assert_allclose(after.statistics.total, blended)
    assert after.n_steps == 2
    for i in range(40):
        state = online_step(expected(rows[i::40], state.mixture), state.mixture, state)
    assert expected(rows, state.mixture).mean_log_likelihood > expected(rows, mixture).mean_log_likelihood


def test_constant_channels_and_repeated_rows(rng):
    X = np.repeat(rng.normal(size=(3, 4)), 20, axis=0)
    X[:, 2] = 7
    rows = torch.from_numpy(X).float()
    fitted = fit_em(rows, started(rows, 6, share=1e-3), 20, 1e-6)
    assert np.isfinite(fitted.mixture.covariances_).all()
    assert np.isfinite(fitted.lower_bound)
    assert len(np.unique(Scorer(fitted.mixture, rows).predict(rows))) == 3
    same = torch.ones(10, 2)
    assert np.isfinite(fit_em(same, started(same, 2, share=1e-3), 3, 0).lower_bound)


def test_start_chooses_distinct_rows(rng):
    rows = torch.from_numpy(np.concatenate([np.zeros((500, 2)), rng.normal(size=(6, 2))]))
    assert len(np.unique(started(rows, 7).means_.round(9), axis=0)) == 7


def test_component_without_rows_keeps_its_parameters(rows):
    mixture = started(rows, 3)
    statistics = expected(rows, mixture).statistics
    statistics.total[1] = 0
    for part in statistics.sums:
        part[1] = 0
    parameters = DiagonalGaussian(mixture.emission.floor).maximize(statistics, mixture.parameters)
    assert torch.equal(parameters.mean[1], mixture.parameters.mean[1])
    assert torch.equal(parameters.variance[1], mixture.parameters.variance[1])
    assert torch.isfinite(parameters.variance).all()
