"""The EM of the chain, against enumeration of all paths and independent computations."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import log_ndtr, logsumexp
from scipy.stats import norm

from skgmmcnn.chain._chain import Chain, ChainScorer, uniform
from skgmmcnn.chain._recursions import viterbi
from skgmmcnn.mixture import Mixture, Rows
from skgmmcnn.mixture._emissions import DiagonalGaussian, Parameters, RectifiedGaussian
from skgmmcnn.mixture._solvers import Training, fit_em, fit_online

from .naive import distributions, enumerated


def small_chain(rng, sizes=(3, 2, 4), channels=(2, 3, 2), n_outputs=3, smoothing=0.0):
    """A chain whose second layer is Gaussian, and whose others are rectified."""
    mixtures = []
    for layer, (size, d) in enumerate(zip(sizes, channels, strict=True)):
        family = DiagonalGaussian if layer == 1 else RectifiedGaussian
        parameters = Parameters(
            torch.from_numpy(rng.normal(0.5, 2, (size, d))), torch.from_numpy(rng.uniform(0.3, 2, (size, d)))
        )
        weights = torch.full((size,), 1 / size, dtype=torch.float64)
        shift = torch.full((d,), 0.7 if layer == 1 else 0.0, dtype=torch.float64)
        mixtures.append(Mixture(weights, parameters, shift, family(torch.full((d,), 1e-3, dtype=torch.float64))))
    tables = [distributions(rng, pair) for pair in itertools.pairwise(sizes)]
    ends = distributions(rng, (1, sizes[0])), distributions(rng, (sizes[-1], n_outputs))
    return Chain((), tuple(mixtures), smoothing).with_tables([ends[0], *tables, ends[1]])


def draw_examples(rng, chain, n):
    """Examples of a chain (n, sum of d), and their decisions, drawn in plain loops."""
    values, targets = [], []
    for _ in range(n):
        state = rng.choice(len(chain.start), p=chain.start.numpy())
        row = []
        for layer, mixture in enumerate(chain.mixtures):
            if layer:
                state = rng.choice(chain.transitions[layer - 1].shape[1], p=chain.transitions[layer - 1][state].numpy())
            hidden = rng.normal(mixture.means_[state], np.sqrt(mixture.covariances_[state]))
            row.append(hidden if layer == 1 else np.maximum(hidden, 0))
        values.append(np.concatenate(row))
        targets.append(rng.choice(chain.decision.shape[1], p=chain.decision[state].numpy()))
    return torch.from_numpy(np.array(values)), torch.tensor(targets)


def naive_emissions(chain, values, targets=None):
    """log p(x_l | h_l) in loops, by scipy; the last with that of the decision."""
    emissions = []
    for mixture, rows in zip(chain.mixtures, values.split(chain.sizes, 1), strict=True):
        deviation = np.sqrt(mixture.covariances_)
        x = rows.numpy()[:, None]
        density = norm.logpdf(x, mixture.means_, deviation)
        if isinstance(mixture.emission, RectifiedGaussian):
            density = np.where(x == 0, log_ndtr(-mixture.means_ / deviation), density)
        emissions.append(torch.from_numpy(density.sum(2)))
    if targets is not None:
        emissions[-1] = emissions[-1] + chain.decision.log().T[targets]
    return emissions


@pytest.mark.parametrize("observed", [False, True])
def test_expectations_equal_enumeration_with_mixed_emissions(rng, observed):
    chain = small_chain(rng)
    values, targets = draw_examples(rng, chain, 40)
    given = targets if observed else None
    emissions = naive_emissions(chain, values, given)
    paths, joint = enumerated(chain.start, chain.transitions, emissions)
    shares = np.exp(joint - logsumexp(joint, axis=1, keepdims=True))

    expectation = Rows(values, targets=given).expect(chain)
    statistics = expectation.statistics
    np.testing.assert_allclose(expectation.log_likelihood, logsumexp(joint, axis=1).sum(), rtol=1e-10)
    for layer, rows in enumerate(values.split(chain.sizes, 1)):
        for state in range(len(chain.mixtures[layer].weights)):
            held = shares[:, paths[:, layer] == state].sum(1)
            np.testing.assert_allclose(statistics.layers[layer].total[state], held.sum(), rtol=1e-8)
            first = held @ (rows - chain.mixtures[layer].shift).numpy()
            np.testing.assert_allclose(statistics.layers[layer].sums[0][state], first, rtol=1e-7, atol=1e-9)
            if observed and layer == 2:
                counted = [held[targets == c].sum() for c in range(3)]
                np.testing.assert_allclose(statistics.tables[-1][state], counted, atol=1e-9)
    for layer in range(2):
        for j, k in np.ndindex(*chain.transitions[layer].shape):
            through = (paths[:, layer] == j) & (paths[:, layer + 1] == k)
            np.testing.assert_allclose(statistics.tables[layer + 1][j, k], shares[:, through].sum(), atol=1e-9)


def test_blocks_and_parts_do_not_matter(rng):
    chain = small_chain(rng)
    values, targets = draw_examples(rng, chain, 60)
    whole = Rows(values, targets=targets).expect(chain)
    parts = Rows(values[:13], targets=targets[:13]).expect(chain)
    parts.add(Rows(values[13:], targets=targets[13:]))
    np.testing.assert_allclose(parts.bound, whole.bound, rtol=1e-12)
    np.testing.assert_allclose(parts.statistics.tables[2], whole.statistics.tables[2])
    np.testing.assert_allclose(parts.statistics.tables[-1], whole.statistics.tables[-1])
    assert parts.n_rows == whole.n_rows == 60


@pytest.mark.parametrize("smoothing", [0.0, 1.0, 30.0])
def test_batch_em_never_lowers_the_penalised_likelihood(rng, smoothing):
    values, targets = draw_examples(rng, small_chain(rng), 300)
    begin = small_chain(rng, smoothing=smoothing)
    fitted = fit_em(Rows(values, targets=targets), begin, Training(60, 1e-7, momentum=0))
    assert len(fitted.lower_bounds) > 5
    assert (np.diff(fitted.lower_bounds) >= -1e-9).all()
    for after in fitted.mixture.transitions:
        np.testing.assert_allclose(after.sum(1), 1)
        assert smoothing == 0 or (after > 0).all()


def test_the_prior_pulls_rows_towards_equal_shares(rng):
    """With counts c and smoothing b the maximum of sum c log p + b / K sum log p has a closed form."""
    chain = small_chain(rng, smoothing=6.0)
    values, targets = draw_examples(rng, chain, 50)
    statistics = Rows(values, targets=targets).expect(chain).statistics
    after = chain.maximize(statistics)
    counts = statistics.tables[2].numpy()
    np.testing.assert_allclose(after.transitions[1], (counts + 6 / 4) / (counts.sum(1, keepdims=True) + 6))
    averaged = chain.maximize(statistics.per_row())  # the same, from averages
    np.testing.assert_allclose(averaged.transitions[1], after.transitions[1])
    np.testing.assert_allclose(averaged.decision, after.decision)
    np.testing.assert_allclose(after.mixtures[2].weights, after.start @ after.transitions[0] @ after.transitions[1])
    stronger = replace(chain, smoothing=12.0)
    assert stronger.log_prior() == pytest.approx(2 * chain.log_prior())


def match_words(true, estimate):
    """The order of the estimated words that lies nearest to the true ones, by their means, and the largest distance."""
    from scipy.optimize import linear_sum_assignment

    distance = np.abs(true.means_[:, None] - estimate.means_[None]).max(2)
    rows, columns = linear_sum_assignment(distance)
    return columns, distance[rows, columns].max()


def separated_chain(chain, rng):
    """The chain with words that can be told from each other: each is high in a channel of its own."""
    mixtures = []
    for mixture in chain.mixtures:
        mean = rng.uniform(0, 1, mixture.parameters.mean.shape) + 5 * np.eye(*mixture.parameters.mean.shape)
        mixtures.append(replace(mixture, parameters=mixture.parameters._replace(mean=torch.from_numpy(mean))))
    return replace(chain, mixtures=tuple(mixtures))


def initial_chain(rng, true, values):
    """A chain that knows nothing but rows to begin at."""
    mixtures = []
    for mixture, part in zip(true.mixtures, values.split(true.sizes, 1), strict=True):
        rows = part[torch.from_numpy(rng.choice(len(part), len(mixture.weights), replace=False))] - mixture.shift
        mixtures.append(replace(mixture, parameters=mixture.emission.bounded(rows, part.var(0).expand_as(rows))))
    tables = uniform([len(mixture.weights) for mixture in mixtures], true.decision.shape[1])
    return replace(true, mixtures=tuple(mixtures), smoothing=0.1).with_tables(tables)


@pytest.mark.parametrize("solver", [fit_em, fit_online])
def test_generating_parameters_are_recovered(solver):
    rng = np.random.default_rng(3)
    true = separated_chain(small_chain(rng, sizes=(3, 2, 3), channels=(3, 3, 3)), rng)
    values, targets = draw_examples(rng, true, 3000)
    examples = Rows(values, targets=targets)
    training = Training(30, 1e-4, 0, 500, torch.Generator().manual_seed(0))
    runs = [solver(examples, initial_chain(rng, true, values), training) for _ in range(4)]
    estimate = max(runs, key=lambda run: run.lower_bounds[-1]).mixture
    # With so few examples the likeliest chain is not the true one: it is where EM ends that begins at the truth.
    likeliest = fit_em(examples, true, replace(training, max_iter=200, tol=1e-6)).mixture
    assert_same_chain(likeliest, true, means=0.5, tables=0.08)  # what the sample lets one expect
    assert_same_chain(estimate, likeliest, means=0.1, tables=0.02)


def assert_same_chain(estimate, true, means, tables):
    """The chains are equal up to the order of words and these tolerances."""
    orders = []
    for expected, estimated in zip(true.mixtures, estimate.mixtures, strict=True):
        order, distance = match_words(expected, estimated)
        orders.append(order)
        assert distance < means
    np.testing.assert_allclose(estimate.start[orders[0]], true.start, atol=tables)
    for i, table in enumerate(true.transitions):
        np.testing.assert_allclose(estimate.transitions[i][orders[i]][:, orders[i + 1]], table, atol=tables)
    np.testing.assert_allclose(estimate.decision[orders[-1]], true.decision, atol=tables)


def test_online_averages_know_how_many_examples_they_are_worth(rng):
    chain = small_chain(rng)
    values, targets = draw_examples(rng, chain, 90)
    parts = [Rows(values[i : i + 30], targets=targets[i : i + 30]).expect(chain).statistics for i in (0, 30, 60)]
    first, second, third = (part.per_row() for part in parts)
    plain = first.blend(second, 1 / 2).blend(third, 1 / 3)
    assert plain.n_rows == pytest.approx(90)
    whole = Rows(values, targets=targets).expect(chain).statistics.per_row()
    np.testing.assert_allclose(plain.tables[1], whole.tables[1], atol=1e-12)
    np.testing.assert_allclose(plain.tables[-1], whole.tables[-1], atol=1e-12)
    assert first.blend(second, 0.9).n_rows < 40  # mostly the last thirty


def test_words_without_examples_are_moved(rng):
    """Two words of the middle layer begin where nothing is; in the end all words hold examples, and none is lost."""
    true = small_chain(rng, sizes=(3, 4, 3))
    values, targets = draw_examples(rng, true, 400)
    middle = true.mixtures[1]
    means = middle.parameters.mean.clone()
    means[:2] = 1e6
    lost = replace(middle, parameters=middle.parameters._replace(mean=means))
    begin = replace(true, mixtures=(true.mixtures[0], lost, true.mixtures[2]), smoothing=0.5)
    fitted = fit_em(Rows(values, targets=targets), begin, Training(200, 1e-4, momentum=0))
    assert (np.diff(fitted.lower_bounds) >= -1e-9).all()
    assert (fitted.mixture.mixtures[1].weights * 400 >= 1).all()
    for table in fitted.mixture.tables:
        np.testing.assert_allclose(table.sum(1), 1)


def test_words_are_moved_beside_the_heaviest(rng):
    chain = small_chain(rng, sizes=(2, 4, 3))
    into = torch.tensor([[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 1e-9]], dtype=torch.float64)
    before = chain.with_tables([chain.tables[0], into / into.sum(1, keepdim=True), *chain.tables[2:]])
    heavy = int(before.mixtures[1].weights.argmax())
    moved = before.revived(100)
    halved = before.mixtures[1].weights[heavy] / 2
    np.testing.assert_allclose(moved.mixtures[1].weights[[3, heavy]], halved)
    np.testing.assert_allclose(moved.tables[2][3], before.tables[2][heavy])
    for table in moved.tables:
        np.testing.assert_allclose(table.sum(1), 1)
    assert moved.revived(100) is None


def test_float32_densities_of_thousands_of_channels_do_not_underflow(rng):
    """d = 4,096: log-densities of words differ by tens of thousands of nats, and float32 has exp(-104) at least."""
    rows = torch.from_numpy(np.maximum(rng.normal(size=(30, 4096)), 0)).float()
    rows = torch.cat([rows, torch.from_numpy(rng.normal(size=(30, 4096))).float()], 1)
    mixtures = []
    for family in (RectifiedGaussian, DiagonalGaussian):
        parameters = Parameters(
            torch.from_numpy(rng.normal(size=(3, 4096))), torch.full((3, 4096), 0.05, dtype=torch.float64)
        )
        weights = torch.full((3,), 1 / 3, dtype=torch.float64)
        mixtures.append(
            Mixture(weights, parameters, torch.zeros(4096), family(torch.full((4096,), 1e-3, dtype=torch.float64)))
        )
    start, table = uniform((3, 3), 0)
    cyclic = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    for transitions in (table, cyclic):
        chain = Chain((start, transitions), tuple(mixtures), 0.0)
        expectation = Rows(rows).expect(chain)
        exact = enumerated(chain.start, chain.transitions, naive_emissions(chain, rows.double()))
        np.testing.assert_allclose(expectation.log_likelihood, logsumexp(exact[1], axis=1).sum(), rtol=1e-5)
        assert expectation.log_likelihood < -30_000 * 30 / 2
        assert torch.isfinite(expectation.statistics.tables[1]).all()
        np.testing.assert_allclose(expectation.statistics.tables[1].sum(), 30)
        scorer = ChainScorer(chain, rows)
        (paths,) = scorer.infer(viterbi, rows)
        assert torch.isfinite(paths[0]).all()
