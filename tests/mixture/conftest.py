import numpy as np
import pytest
import torch


@pytest.fixture
def rows(rng):
    """Three clusters of different shapes, far from zero in one channel."""
    parts = [rng.normal(mean, scale, (200, 4)) for mean, scale in [(0, 1), (6, 0.5), (-4, 2)]]
    return torch.from_numpy(np.concatenate(parts) + np.array([0, 0, 0, 1000]))
