"""The E-step and the M-step of every emission, against loops, scipy, scikit-learn and numerical integration."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize
from scipy.special import log_ndtr, logsumexp
from scipy.stats import norm
from sklearn.datasets import load_digits
from sklearn.mixture import GaussianMixture

from skgmmcnn import LayerDictionary
from skgmmcnn.mixture._em import Expectation, Mixture, Scorer
from skgmmcnn.mixture._emissions import (
    DiagonalGaussian,
    Parameters,
    RectifiedGaussian,
    SphericalGaussian,
    TiedDiagonalGaussian,
)
from skgmmcnn.mixture._solvers import (
    Rows,
    Training,
    fit_em,
    fit_online,
    fit_sgd,
    in_blocks,
    online_pass,
    online_step,
)
from skgmmcnn.mixture._starts import moments, random_rows, spread_rows, start, variance_floor

FAMILIES = [DiagonalGaussian, SphericalGaussian, TiedDiagonalGaussian, RectifiedGaussian]


@pytest.fixture
def rows(rng):
    """Three clusters of different shapes, far from zero in one channel."""
    parts = [rng.normal(mean, scale, (200, 4)) for mean, scale in [(0, 1), (6, 0.5), (-4, 2)]]
    return torch.from_numpy(np.concatenate(parts) + np.array([0, 0, 0, 1000]))


def shown(rows, family):
    """Rows that the family can describe."""
    return rows.clamp_min(0) if family is RectifiedGaussian else rows


def started(rows, n_components=5, seed=0, share=1e-6, family=DiagonalGaussian):
    mean, variance = moments(rows)
    means = random_rows(rows, n_components, torch.Generator().manual_seed(seed))
    return start(means, family(variance_floor(variance, share)), mean, variance, rows)


def trained(rows, mixture, max_iter=5, tol=0.0, weights=None, momentum=0.0):
    return fit_em(Rows(rows, weights, rows), mixture, Training(max_iter, tol, momentum))


def expected(rows, mixture, weights=None):
    return Rows(rows, weights, rows).expect(mixture)


def naive_joint(rows, mixture):
    """log(weight_k p(x | k)) in a loop over components and channels, by scipy."""
    joint = np.empty((len(rows), len(mixture.weights_)))
    variances = np.broadcast_to(mixture.parameters.variance.numpy(), mixture.means_.shape)
    for k, (weight, mean, variance) in enumerate(zip(mixture.weights_, mixture.means_, variances, strict=True)):
        joint[:, k] = np.log(weight)
        for channel in range(rows.shape[1]):
            deviation = np.sqrt(variance[channel])
            density = norm.logpdf(rows[:, channel], mean[channel], deviation)
            if isinstance(mixture.emission, RectifiedGaussian):
                density = np.where(rows[:, channel] == 0, log_ndtr(-mean[channel] / deviation), density)
            joint[:, k] += density
    return joint


@pytest.mark.parametrize("family", FAMILIES)
def test_densities_and_assignments_equal_a_loop(rows, family):
    rows = shown(rows, family)
    mixture = trained(rows, started(rows, family=family)).mixture
    joint = naive_joint(rows.numpy(), mixture)
    evidence = logsumexp(joint, axis=1)
    scorer = Scorer(mixture, rows)
    assigned = scorer.assign(rows)
    best = joint.argmax(1)
    np.testing.assert_array_equal(assigned.component, best)
    np.testing.assert_array_equal(scorer.predict(rows), best)
    # Rectified rows are not shifted, and one channel lies a thousand deviations from zero.
    tolerance = 1e-7 if family is RectifiedGaussian else 1e-10
    np.testing.assert_allclose(assigned.evidence, evidence, rtol=0, atol=tolerance)
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
    mixture = trained(rows, started(rows)).mixture
    single = trained(rows.float(), started(rows.float())).mixture
    np.testing.assert_allclose(single.covariances_, mixture.covariances_, rtol=2e-3)
    evidence = Scorer(single, rows.float()).evidence(rows.float())
    np.testing.assert_allclose(evidence, logsumexp(naive_joint(rows.numpy(), single), axis=1), atol=5e-3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_statistics_equal_a_loop(rows, rng, family, weighted):
    rows = shown(rows, family)
    mixture = started(rows, family=family)
    weights = rng.integers(0, 4, len(rows)).astype(float) if weighted else np.ones(len(rows))
    joint = naive_joint(rows.numpy(), mixture)
    shares = np.exp(joint - logsumexp(joint, axis=1, keepdims=True)) * weights[:, None]
    shifted = rows.numpy() - mixture.shift.numpy()
    found = expected(rows, mixture, torch.from_numpy(weights) if weighted else None)
    total, sums = found.statistics.total, found.statistics.sums
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
    np.testing.assert_allclose(found.mean_log_likelihood, weights @ logsumexp(joint, axis=1) / weights.sum())


@pytest.mark.parametrize(("family", "name"), [(DiagonalGaussian, "diag"), (SphericalGaussian, "spherical")])
def test_training_equals_scikit_learn(rows, family, name):
    """From equal parameters, without a floor, after equally many passes of textbook EM."""
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))]
    mixture = started(rows, share=1e-12, family=family)
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
    ours = trained(rows, mixture, 6).mixture
    np.testing.assert_allclose(ours.weights_, peer.weights_, rtol=1e-6)
    np.testing.assert_allclose(ours.means_, peer.means_, rtol=1e-6)
    np.testing.assert_allclose(ours.covariances_, peer.covariances_, rtol=1e-5)


def test_tied_maximisation_equals_a_loop(rows):
    mixture = started(rows, family=TiedDiagonalGaussian)
    joint = naive_joint(rows.numpy(), mixture)
    shares = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    after = mixture.maximize(expected(rows, mixture).statistics)
    means = shares.T @ rows.numpy() / shares.sum(0)[:, None]
    pooled = sum(shares[:, k] @ (rows.numpy() - means[k]) ** 2 for k in range(5)) / len(rows)
    np.testing.assert_allclose(after.means_, means, rtol=1e-9)
    np.testing.assert_allclose(after.covariances_, pooled, rtol=1e-6)
    assert after.covariances_.shape == (4,)


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
    rows = shown(torch.from_numpy(X), family)
    fitted = trained(rows, started(rows, n_components, seed, 1e-3, family), 15, momentum=momentum)
    bounds = np.array(fitted.lower_bounds)
    assert np.isfinite(bounds).all()
    assert (np.diff(bounds) > -1e-9 * (1 + np.abs(bounds[1:]))).all()
    floor = variance_floor(moments(rows)[1], 1e-3).numpy()
    assert (fitted.mixture.parameters.variance.numpy() >= 0.999 * floor.min()).all()
    np.testing.assert_allclose(fitted.mixture.weights_.sum(), 1)


def test_momentum_takes_fewer_passes(seed):
    rows = torch.from_numpy(load_digits().data)
    mixture = started(rows, 60, seed, 0.1)
    plain, moved = (trained(rows, mixture, 400, 1e-3, momentum=share) for share in (0, 0.9))
    assert plain.converged
    assert moved.converged
    assert moved.n_iter < 0.8 * plain.n_iter
    assert moved.lower_bounds[-1] > plain.lower_bounds[-1] - 0.1


@pytest.mark.parametrize("family", FAMILIES)
def test_few_responsibilities_that_count_give_the_same_sums(rng, family, monkeypatch):
    centres = rng.uniform(1, 9, (40, 30))
    rows = torch.from_numpy(np.abs(centres[rng.integers(0, 40, 500)] + rng.normal(size=(500, 30))))
    weights = torch.from_numpy(rng.integers(0, 4, 500).astype(float))
    mixture = trained(rows, started(rows, 40, family=family)).mixture
    sparse = expected(rows, mixture, weights)
    monkeypatch.setattr("skgmmcnn.mixture._em._FEW", 0)
    dense = expected(rows, mixture, weights)
    assert sparse.bound == pytest.approx(dense.bound, rel=1e-14)
    assert torch.equal(sparse.components, dense.components)
    assert not torch.equal(sparse.statistics.sums[0], dense.statistics.sums[0])  # they were summed otherwise
    torch.testing.assert_close(sparse.statistics.total, dense.statistics.total, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(sparse.statistics.sums, dense.statistics.sums, rtol=1e-12, atol=1e-12)


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
    np.testing.assert_allclose(state.mixture.means_, trained(first, mixture, 1).mixture.means_)
    expectation = expected(second, state.mixture)
    after = online_step(expectation, state.mixture, state)
    share = (1 + 2) ** -0.6
    blended = (1 - share) * state.statistics.total + share * expectation.statistics.total / len(second)
    np.testing.assert_allclose(after.statistics.total, blended)
    assert after.n_steps == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_every_solver_climbs(rows, family):
    rows = shown(rows, family)
    mixture = started(rows, family=family, share=1e-3)
    begin = expected(rows, mixture).mean_log_likelihood
    best = trained(rows, mixture, 300, 1e-6, momentum=0.9).lower_bounds[-1]
    for solver in (fit_online, fit_sgd):
        training = Training(60, 1e-4, batch_size=100, generator=torch.Generator().manual_seed(0))
        fitted = solver(Rows(rows, None, rows), mixture, training)
        reached = expected(rows, fitted.mixture).mean_log_likelihood
        assert reached > begin + 0.7 * (best - begin), solver
        assert fitted.n_iter <= 60
        # Steps may go on from the state.
        _, state = online_pass(in_blocks(Rows(rows, None, rows), 100), fitted.mixture, fitted.state)
        assert state.n_steps == fitted.state.n_steps + 6


def test_convergence_is_said_only_where_a_pass_gains_little(rows):
    rounds = Training(2, 1e-9, batch_size=100, generator=torch.Generator().manual_seed(0))
    for solver in (fit_em, fit_online, fit_sgd):
        assert not solver(Rows(rows, None, rows), started(rows), rounds).converged
    fitted = trained(rows, started(rows), 500, 1e-6)
    assert fitted.converged
    assert fitted.lower_bounds[-1] - fitted.lower_bounds[-2] < 1e-6 <= fitted.lower_bounds[-2] - fitted.lower_bounds[-3]


def test_constant_channels_and_repeated_rows(rng):
    X = np.repeat(rng.normal(size=(3, 4)), 20, axis=0)
    X[:, 2] = 7
    rows = torch.from_numpy(X).float()
    fitted = trained(rows, started(rows, 6, share=1e-3), 20, 1e-6)
    assert np.isfinite(fitted.mixture.covariances_).all()
    assert np.isfinite(fitted.lower_bounds).all()
    assert len(np.unique(Scorer(fitted.mixture, rows).predict(rows))) == 3
    same = torch.ones(10, 2)
    assert np.isfinite(trained(same, started(same, 2, share=1e-3), 3).lower_bounds).all()


def test_starts_choose_distinct_rows(rng):
    rows = torch.from_numpy(np.concatenate([np.zeros((500, 2)), rng.normal(size=(6, 2))]))
    for choose in (random_rows, spread_rows):
        assert len(np.unique(choose(rows, 7, torch.Generator().manual_seed(0)).numpy(), axis=0)) == 7


def test_moments_equal_numpy(rng):
    X = rng.normal(1e4, 1, (9000, 3)).astype(np.float32)
    weights = rng.uniform(size=9000)
    for given_weights in (None, weights):
        mean, variance = moments(torch.from_numpy(X), None if given_weights is None else torch.from_numpy(weights))
        centre = np.average(X.astype(float), axis=0, weights=given_weights)
        np.testing.assert_allclose(mean, centre, rtol=1e-12)
        np.testing.assert_allclose(variance, np.average((X - centre) ** 2, axis=0, weights=given_weights), rtol=1e-9)


def test_component_without_rows_keeps_its_parameters(rows):
    for family in FAMILIES:
        seen = shown(rows, family)
        mixture = started(seen, 3, family=family)
        statistics = expected(seen, mixture).statistics
        statistics.total[1] = 0
        for part in statistics.sums:
            part[-2 if len(part) > 1 else 0] *= 0 if len(part) > 1 else 1
        parameters = mixture.emission.maximize(statistics, mixture.parameters)
        assert torch.equal(parameters.mean[1], mixture.parameters.mean[1])
        if len(parameters.variance) == 3:
            assert torch.equal(parameters.variance[1], mixture.parameters.variance[1])
        assert torch.isfinite(parameters.variance).all()


@pytest.mark.parametrize("family", [DiagonalGaussian, SphericalGaussian, RectifiedGaussian])
def test_components_without_rows_are_revived(rows, family):
    """Two starting means lie where no rows are; all components end with some."""
    rows = shown(rows, family)
    mixture = started(rows, 5, share=1e-3, family=family)
    means = mixture.parameters.mean.clone()
    means[:2] = 1e6
    mixture = Mixture(mixture.weights, mixture.parameters._replace(mean=means), mixture.shift, mixture.emission)
    assert started(rows, 5, family=family).revived(600) is None
    alone = trained(rows, mixture, 200, 1e-3)
    assert (alone.mixture.weights * len(rows) >= 1).all()
    assert (np.diff(alone.lower_bounds) >= -1e-9).all()
    assert alone.n_iter < 200


def test_sampling_draws_what_the_mixture_says():
    means = torch.tensor([[0.0, 3.0], [-1.0, -9.0]], dtype=torch.float64)
    variance = torch.tensor([[1.0, 4.0], [0.25, 9.0]], dtype=torch.float64)
    weights = torch.tensor([0.25, 0.75], dtype=torch.float64)
    for family in (DiagonalGaussian, RectifiedGaussian):
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


class TestRectified:
    """The family that has no closed M-step."""

    def one(self, x, floor=1e-12, rounds=1):
        rows = torch.as_tensor(np.asarray(x, dtype=float).reshape(-1, 1))
        mean, variance = moments(rows)
        emission = RectifiedGaussian(torch.tensor([floor], dtype=torch.float64))
        mixture = start(rows[:1], emission, mean, variance, rows)
        for _ in range(rounds):
            mixture = mixture.maximize(expected(rows, mixture).statistics)
        return rows, mixture

    @pytest.mark.parametrize("ratio", [-4, -1.5, 0, 2, 40])
    def test_density_integrates_to_one(self, ratio):
        deviation = 0.7
        variance = torch.tensor([[deviation**2]], dtype=torch.float64)
        mean = torch.tensor([[ratio * deviation]], dtype=torch.float64)
        emission = RectifiedGaussian(torch.zeros(1, dtype=torch.float64))
        mixture = Mixture(torch.ones(1).double(), Parameters(mean, variance), torch.zeros(1).double(), emission)

        def density(x):
            rows = torch.tensor([[float(x)]], dtype=torch.float64)
            return Scorer(mixture, rows).evidence(rows).exp().item()

        top = ratio * deviation + 9 * deviation
        positive, _ = integrate.quad(density, 1e-300, top, points=[max(1e-9, ratio * deviation)], limit=200)
        np.testing.assert_allclose(positive + density(0.0), 1, atol=1e-8)

    @pytest.mark.parametrize("ratio", [-3.5, -1.5, 0.0, 3.0, 40.0])
    def test_one_step_finds_the_maximum(self, rng, ratio):
        """An independent optimiser, given the same rows, finds nothing better."""
        x = np.maximum(0, rng.normal(ratio * 2.5, 2.5, 20_000))
        rows, mixture = self.one(x)

        def loss(point):
            mean, log_deviation = point
            densities = np.where(
                x == 0, log_ndtr(-mean / np.exp(log_deviation)), norm.logpdf(x, mean, np.exp(log_deviation))
            )
            return -densities.mean()

        best = optimize.minimize(loss, [ratio * 2.5, np.log(2.5)], method="Nelder-Mead", options={"fatol": 1e-12})
        ours = Scorer(mixture, rows).evidence(rows).mean().item()
        if mixture.means_.item() / np.sqrt(mixture.covariances_.item()) > -3.999:
            assert ours > -best.fun - 1e-7
        if ratio > -3:  # below, a handful of positive rows tell little
            np.testing.assert_allclose(mixture.means_.item(), ratio * 2.5, atol=0.2)

    def test_a_mostly_silent_unit_within_ten_steps(self, rng):
        x = np.maximum(0, rng.normal(-1.5, 1, 100_000))
        rows, mixture = self.one(x, rounds=10)
        bounds = [Scorer(self.one(x, rounds=r)[1], rows).evidence(rows).mean().item() for r in (1, 10)]
        assert abs(bounds[0] - bounds[1]) < 1e-9  # one step is enough
        np.testing.assert_allclose(mixture.means_.item(), -1.5, atol=0.05)
        np.testing.assert_allclose(mixture.covariances_.item(), 1, atol=0.06)

    def test_dead_units_lie_on_the_boundary(self):
        _, mixture = self.one(np.zeros(50))
        assert mixture.means_.item() == pytest.approx(-4 * np.sqrt(mixture.covariances_.item()))
        assert np.isfinite(mixture.covariances_).all()
        # One faint positive value among many zeros: the free maximum lies below the boundary.
        x = np.zeros(10**6)
        x[0] = 1.0
        _, mixture = self.one(x)
        ratio = mixture.means_.item() / np.sqrt(mixture.covariances_.item())
        assert ratio == pytest.approx(-4)
        first, second = x.sum(), (x**2).sum()  # the boundary's closed form, design of the M-step
        assert np.sqrt(mixture.covariances_.item()) == pytest.approx(2 * first + np.sqrt(4 * first**2 + second))

    def test_units_that_are_never_silent_are_gaussian(self, rng):
        x = rng.normal(100, 0.5, 500)
        _, mixture = self.one(x)
        np.testing.assert_allclose(mixture.means_.item(), x.mean())
        np.testing.assert_allclose(mixture.covariances_.item(), x.var())

    def test_the_floor_holds(self, rng):
        _, mixture = self.one(np.maximum(0, rng.normal(1, 0.1, 100)), floor=0.5)
        assert mixture.covariances_.item() == pytest.approx(0.5)
        assert mixture.means_.item() == pytest.approx(1, abs=0.2)

    def test_recovers_a_mixture(self, rng):
        means = np.array([[2.0, -1.0, 0.5], [-1.0, 2.0, 3.0]])
        deviations = np.array([[0.5, 1.0, 0.8], [1.0, 0.5, 0.6]])
        component = rng.integers(2, size=20_000)
        rows = torch.from_numpy(np.maximum(0, rng.normal(means[component], deviations[component])))
        fitted = trained(rows, started(rows, 2, family=RectifiedGaussian), 200, 1e-7, momentum=0.9).mixture
        order = np.argsort(-fitted.means_[:, 0])
        np.testing.assert_allclose(fitted.means_[order], means, atol=0.1)
        np.testing.assert_allclose(np.sqrt(fitted.covariances_[order]), deviations, atol=0.06)


def test_emitted_means_are_those_of_samples(maps, rng):
    mean, deviation = rng.normal(size=(4, 3)), rng.uniform(0.3, 2, (4, 3))
    parameters = Parameters(torch.from_numpy(mean), torch.from_numpy(deviation**2))
    found = RectifiedGaussian(torch.zeros(3)).expect(parameters).numpy()
    values = np.linspace(0, 15, 200_001)[:, None, None]
    density = norm.pdf(values, mean, deviation)
    np.testing.assert_allclose(found, (values * density).sum(0) * values[1, 0, 0], rtol=1e-4, atol=1e-6)
    mixture = LayerDictionary(5, covariance_type="diag", random_state=0).fit(maps).mixtures_["conv3"]
    rows, components = mixture.sample(40_000, torch.Generator().manual_seed(0))
    for word in range(5):
        drawn = rows[components == word].numpy()
        error = drawn.std(0) / np.sqrt(len(drawn)) + 1e-4
        assert (abs(mixture.emitted_means_[word] - drawn.mean(0)) < 5 * error).all()
    assert (mixture.emitted_means_ >= 0).all()
    assert (mixture.means_ < 0).any()
