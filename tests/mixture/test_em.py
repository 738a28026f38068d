"""Scoring, sums and sampling of mixtures of every family, against loops and scipy."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm

from skgmmcnn.mixture._em import Expectation, Mixture, Rows, Scorer
from skgmmcnn.mixture._emissions import (
    DiagonalGaussian,
    Parameters,
    RectifiedGaussian,
    SphericalGaussian,
    TiedDiagonalGaussian,
)
from skgmmcnn.mixture._starts import moments, start

from .mixtures import FAMILIES, e_step, initial_mixture, naive_joint, supported, train


@pytest.mark.parametrize("family", FAMILIES)
def test_densities_and_assignments_equal_a_loop(rows, family):
    rows = supported(rows, family)
    mixture = train(rows, initial_mixture(rows, family=family)).mixture
    joint = naive_joint(rows.numpy(), mixture)
    evidence = logsumexp(joint, axis=1)
    scorer = Scorer(mixture, rows)
    assigned = scorer.assign(rows)
    best = joint.argmax(1)
    np.testing.assert_array_equal(assigned.component, best)
    np.testing.assert_array_equal(scorer.predict(rows), best)
    # Rectified rows are not shifted, and one channel lies a thousand deviations from zero.
    tolerance = 1e-7 if family is RectifiedGaussian else 1e-10
    np.testing.assert_allclose(scorer.evidence(rows), evidence, rtol=0, atol=tolerance)
    np.testing.assert_allclose(assigned.posterior, np.exp(joint.max(1) - evidence), rtol=0, atol=tolerance)
    np.testing.assert_allclose(assigned.log_density, joint.max(1) - np.log(mixture.weights_[best]), atol=tolerance)
    np.testing.assert_allclose(scorer.predict_proba(rows), np.exp(joint - evidence[:, None]), atol=tolerance)


@pytest.mark.parametrize("channels", [1, 7, 512, 2048])
@pytest.mark.parametrize(("floor", "offset"), [(1e-3, 0), (1e-3, 1e3), (1e-6, 0)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_rounding_stays_within_the_documented_bound(rng, channels, floor, offset, dtype):
    rows = torch.from_numpy(rng.normal(size=(50, channels)) + offset).to(dtype)
    mean, variance = moments(rows)
    emission = DiagonalGaussian(torch.full((channels,), floor, dtype=torch.float64))
    mixture = start(rows[:3], emission, mean, variance, rows)
    tight = mixture.parameters._replace(variance=torch.full_like(mixture.parameters.variance, floor))
    mixture = Mixture(mixture.weights, tight, mixture.shift, emission)
    scorer = Scorer(mixture, rows)
    joint = scorer.log_joint(scorer.features(rows)).double().numpy()
    shifted = rows.double() - mixture.shift.double()
    terms = ((shifted.square()[:, None] + tight.mean.square()) / floor + 10).sum(-1).numpy()
    x, means = (array.astype(np.longdouble) for array in (rows.double().numpy(), mixture.means_))
    exact = -0.5 * ((x[:, None] - means) ** 2 / floor + np.log(2 * np.pi * floor)).sum(-1) + np.log(1 / 3)
    assert (np.abs(joint - exact) <= (1 + np.sqrt(channels) / 2) * torch.finfo(dtype).eps * terms).all()


def test_float32_is_close_far_from_zero(rows):
    mixture = train(rows, initial_mixture(rows)).mixture
    single = train(rows.float(), initial_mixture(rows.float())).mixture
    np.testing.assert_allclose(single.covariances_, mixture.covariances_, rtol=2e-3)
    evidence = Scorer(single, rows.float()).evidence(rows.float())
    np.testing.assert_allclose(evidence, logsumexp(naive_joint(rows.numpy(), single), axis=1), atol=5e-3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_equal_a_loop(rows, rng, family, weighted):
    rows = supported(rows, family)
    mixture = initial_mixture(rows, family=family)
    weights = rng.integers(0, 4, len(rows)).astype(float) if weighted else np.ones(len(rows))
    joint = naive_joint(rows.numpy(), mixture)
    shares = np.exp(joint - logsumexp(joint, axis=1, keepdims=True)) * weights[:, None]
    shifted = rows.numpy() - mixture.shift.numpy()
    expectation = e_step(rows, mixture, torch.from_numpy(weights) if weighted else None)
    total, sums = expectation.statistics.total, expectation.statistics.sums
    np.testing.assert_allclose(total, shares.sum(0), rtol=1e-9)
    np.testing.assert_allclose(sums[0], shares.T @ shifted, rtol=1e-7, atol=1e-9)
    squares = shares.T @ shifted**2
    if family is SphericalGaussian:
        squares = squares.sum(1, keepdims=True)
    if family is TiedDiagonalGaussian:
        squares = squares.sum(0, keepdims=True)
    np.testing.assert_allclose(sums[1], squares, rtol=1e-8)
    if family is RectifiedGaussian:
        np.testing.assert_allclose(sums[2], shares.T @ (shifted == 0), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(expectation.mean_log_likelihood, weights @ logsumexp(joint, axis=1) / weights.sum())


@pytest.mark.parametrize("family", FAMILIES)
def test_few_responsibilities_that_count_give_the_same_sums(rng, family, monkeypatch):
    centres = rng.uniform(1, 9, (40, 30))
    rows = torch.from_numpy(np.abs(centres[rng.integers(0, 40, 500)] + rng.normal(size=(500, 30))))
    weights = torch.from_numpy(rng.integers(0, 4, 500).astype(float))
    mixture = train(rows, initial_mixture(rows, 40, family=family)).mixture
    sparse = e_step(rows, mixture, weights)
    monkeypatch.setattr("skgmmcnn.mixture._em._FEW", 0)
    dense = e_step(rows, mixture, weights)
    assert sparse.bound == pytest.approx(dense.bound, rel=1e-14)
    assert torch.equal(sparse.components, dense.components)
    assert not torch.equal(sparse.statistics.sums[0], dense.statistics.sums[0])  # they were summed otherwise
    torch.testing.assert_close(sparse.statistics.total, dense.statistics.total, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sparse.statistics.sums, dense.statistics.sums, rtol=1e-12, atol=1e-12)


def test_sums_do_not_depend_on_how_rows_arrive(rows):
    mixture = initial_mixture(rows)
    whole = e_step(rows, mixture)
    parts = Expectation(mixture, rows)
    for part in rows.split(37):
        parts.add(Rows(part))
    np.testing.assert_allclose(parts.statistics.total, whole.statistics.total, rtol=1e-12)
    np.testing.assert_allclose(parts.mean_log_likelihood, whole.mean_log_likelihood, rtol=1e-12)


@pytest.mark.parametrize("family", [DiagonalGaussian, SphericalGaussian, RectifiedGaussian])
def test_components_without_rows_are_revived(rows, family):
    """Two starting means lie where no rows are; all components end with some."""
    rows = supported(rows, family)
    mixture = initial_mixture(rows, 5, share=1e-3, family=family)
    means = mixture.parameters.mean.clone()
    means[:2] = 1e6
    mixture = Mixture(mixture.weights, mixture.parameters._replace(mean=means), mixture.shift, mixture.emission)
    assert initial_mixture(rows, 5, family=family).revived(600) is None
    alone = train(rows, mixture, 200, 1e-3)
    assert (alone.mixture.weights * len(rows) >= 1).all()
    assert (np.diff(alone.lower_bounds) >= -1e-9).all()
    assert alone.n_iter < 200


@pytest.mark.parametrize("family", [DiagonalGaussian, RectifiedGaussian])
def test_sampling_draws_what_the_mixture_says(family):
    means = torch.tensor([[0.0, 3.0], [-1.0, -9.0]], dtype=torch.float64)
    variance = torch.tensor([[1.0, 4.0], [0.25, 9.0]], dtype=torch.float64)
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    mixture = Mixture(weights, Parameters(means, variance), torch.zeros(2), family(torch.zeros(2)))
    drawn, components = mixture.sample(40_000, torch.Generator().manual_seed(0))
    again, _ = mixture.sample(40_000, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, again)
    np.testing.assert_allclose(np.bincount(components) / 40_000, weights, atol=0.01)
    if family is DiagonalGaussian:
        np.testing.assert_allclose(drawn[components == 1].mean(0), means[1], atol=0.05)
        np.testing.assert_allclose(drawn[components == 0].var(0), variance[0], rtol=0.05)
    else:
        zero = (drawn == 0).double()
        np.testing.assert_allclose(zero[components == 1].mean(0), norm.cdf([2, 3]), atol=0.01)
        assert (drawn >= 0).all()
