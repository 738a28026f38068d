"""Samples are uniform, bounded and independent of batches."""

import numpy as np
import torch

from skgmmcnn.dictionary._reservoir import Reservoir


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
