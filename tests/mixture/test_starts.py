"""Starts of mixtures: means and variances of rows."""

import numpy as np
import pytest
import torch

from skgmmcnn.mixture._starts import moments, random_rows, spread_rows


@pytest.mark.parametrize("choose", [random_rows, spread_rows])
def test_starts_choose_distinct_rows(rng, choose):
    rows = torch.from_numpy(np.concatenate([np.zeros((500, 2)), rng.normal(size=(6, 2))]))
    assert len(np.unique(choose(rows, 7, torch.Generator().manual_seed(0)).numpy(), axis=0)) == 7


@pytest.mark.parametrize("weighted", [False, True])
def test_moments_equal_numpy(rng, weighted):
    X = rng.normal(1e4, 1, (9000, 3)).astype(np.float32)
    weights = rng.uniform(size=9000) if weighted else None
    mean, variance = moments(torch.from_numpy(X), torch.from_numpy(weights) if weighted else None)
    centre = np.average(X.astype(float), axis=0, weights=weights)
    np.testing.assert_allclose(mean, centre, rtol=1e-12)
    np.testing.assert_allclose(variance, np.average((X - centre) ** 2, axis=0, weights=weights), rtol=1e-9)
