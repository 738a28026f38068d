"""The M-step of every family, against loops, other optimisers and numerical integration."""

import numpy as np
import pytest
import torch
from scipy import integrate, optimize
from scipy.special import log_ndtr, logsumexp
from scipy.stats import norm

from skgmmcnn import LayerDictionary
from skgmmcnn.mixture._em import Mixture, Scorer
from skgmmcnn.mixture._emissions import (
    Parameters,
    RectifiedGaussian,
    TiedDiagonalGaussian,
)
from skgmmcnn.mixture._starts import moments, start

from .mixtures import FAMILIES, e_step, initial_mixture, naive_joint, supported, train


def test_tied_maximisation_equals_a_loop(rows):
    mixture = initial_mixture(rows, family=TiedDiagonalGaussian)
    joint = naive_joint(rows.numpy(), mixture)
    shares = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    after = mixture.maximize(e_step(rows, mixture).statistics)
    means = shares.T @ rows.numpy() / shares.sum(0)[:, None]
    pooled = sum(shares[:, k] @ (rows.numpy() - means[k]) ** 2 for k in range(5)) / len(rows)
    np.testing.assert_allclose(after.means_, means, rtol=1e-9)
    np.testing.assert_allclose(after.covariances_, pooled, rtol=1e-6)
    assert after.covariances_.shape == (4,)


@pytest.mark.parametrize("family", FAMILIES)
def test_component_without_rows_keeps_its_parameters(rows, family):
    rows = supported(rows, family)
    mixture = initial_mixture(rows, 3, family=family)
    statistics = e_step(rows, mixture).statistics
    statistics.total[1] = 0
    for part in statistics.sums:
        if len(part) > 1:
            part[1] = 0
    parameters = mixture.emission.maximize(statistics, mixture.parameters)
    assert torch.equal(parameters.mean[1], mixture.parameters.mean[1])
    assert len(parameters.variance) == 1 or torch.equal(parameters.variance[1], mixture.parameters.variance[1])
    assert torch.isfinite(parameters.variance).all()


class TestRectified:
    """The family that has no closed M-step."""

    def one(self, x, floor=1e-12, rounds=1):
        rows = torch.as_tensor(np.asarray(x, dtype=float).reshape(-1, 1))
        mean, variance = moments(rows)
        emission = RectifiedGaussian(torch.tensor([floor], dtype=torch.float64))
        mixture = start(rows[:1], emission, mean, variance, rows)
        for _ in range(rounds):
            mixture = mixture.maximize(e_step(rows, mixture).statistics)
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
        fitted = train(rows, initial_mixture(rows, 2, family=RectifiedGaussian), 200, 1e-7, momentum=0.9).mixture
        order = np.argsort(-fitted.means_[:, 0])
        np.testing.assert_allclose(fitted.means_[order], means, atol=0.1)
        np.testing.assert_allclose(np.sqrt(fitted.covariances_[order]), deviations, atol=0.06)


def test_emitted_means_are_those_of_samples(maps, rng):
    mean, deviation = rng.normal(size=(4, 3)), rng.uniform(0.3, 2, (4, 3))
    parameters = Parameters(torch.from_numpy(mean), torch.from_numpy(deviation**2))
    means = RectifiedGaussian(torch.zeros(3)).expect(parameters).numpy()
    values = np.linspace(0, 15, 200_001)[:, None, None]
    density = norm.pdf(values, mean, deviation)
    np.testing.assert_allclose(means, (values * density).sum(0) * values[1, 0, 0], rtol=1e-4, atol=1e-6)
    mixture = LayerDictionary(5, covariance_type="diag", random_state=0).fit(maps).mixtures_["conv3"]
    rows, components = mixture.sample(40_000, torch.Generator().manual_seed(0))
    for word in range(5):
        drawn = rows[components == word].numpy()
        error = drawn.std(0) / np.sqrt(len(drawn)) + 1e-4
        assert (abs(mixture.emitted_means_[word] - drawn.mean(0)) < 5 * error).all()
    assert (mixture.emitted_means_ >= 0).all()
    assert (mixture.means_ < 0).any()
