"""The recursions, against enumeration of all paths."""

import itertools

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

from skgmmcnn.chain._recursions import (
    forward_backward,
    likeliest_paths,
    log_product,
    state_posteriors,
    viterbi,
)

from .naive import distributions, enumerated


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    scale=st.sampled_from([0.1, 10.0, 3e3, 1e5]),
    zeros=st.sampled_from([0.0, 0.5]),
)
def test_recursions_equal_enumeration(seed, sizes, scale, zeros):
    """Also where densities differ by more than float64 can hold as ratios, and where tables have zeros."""
    rng = np.random.default_rng(seed)
    start = distributions(rng, (sizes[0],), zeros)
    tables = [distributions(rng, pair, zeros) for pair in itertools.pairwise(sizes)]
    emissions = [torch.from_numpy(scale * rng.normal(size=(7, size))) for size in sizes]
    paths, joint = enumerated(start, tables, emissions)
    evidence = logsumexp(joint, axis=1)
    shares = np.exp(joint - evidence[:, None])
    close = {"rtol": 1e-11, "atol": 1e-12 * scale * len(sizes) + 1e-12}

    log_evidence, states, pairs = forward_backward(start, tables, emissions)
    np.testing.assert_allclose(log_evidence, evidence, **close)
    for layer, size in enumerate(sizes):
        expected = np.stack([shares[:, paths[:, layer] == state].sum(1) for state in range(size)], axis=1)
        np.testing.assert_allclose(states[layer], expected, atol=1e-8)
        np.testing.assert_allclose(state_posteriors(start, tables, emissions)[1][layer], expected, atol=1e-8)
    for layer, (below, above) in enumerate(itertools.pairwise(sizes)):
        for j, k in itertools.product(range(below), range(above)):
            through = (paths[:, layer] == j) & (paths[:, layer + 1] == k)
            np.testing.assert_allclose(pairs[layer][j, k], shares[:, through].sum(), atol=1e-7)

    log_joint, path = viterbi(start, tables, emissions)
    np.testing.assert_allclose(log_joint, joint.max(1), **close)
    np.testing.assert_array_equal(path, paths[joint.argmax(1)])
    path, path_share, single, last = likeliest_paths(start, tables, emissions)
    np.testing.assert_allclose(path_share, shares.max(1), atol=1e-8)
    np.testing.assert_allclose(single[:, -1], last[np.arange(7), path[:, -1]])


def test_products_that_underflow_are_exact():
    """The only way to the second state leads through a first one whose share is exp(-5000)."""
    values = torch.tensor([[0.0, -5000.0], [-1e6, -1e6 - 900], [-torch.inf, 3.0]], dtype=torch.float64)
    table = torch.tensor([[1.0, 0.0], [0.25, 0.75]], dtype=torch.float64)
    product = log_product(values, table)
    expected = [[0, -5000 + np.log(0.75)], [-1e6, -1e6 - 900 + np.log(0.75)], [3 + np.log(0.25), 3 + np.log(0.75)]]
    np.testing.assert_allclose(product, expected, rtol=1e-14)
    assert (log_product(values[2:], table.new_tensor([[1.0, 0.0], [1.0, 0.0]]))[:, 1] == -torch.inf).all()
