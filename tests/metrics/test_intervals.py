import numpy as np
import pytest
from scipy.stats import spearmanr

from skgmmcnn.metrics._intervals import rank_correlation


def test_intervals_of_correlations_keep_images_together():
    random = np.random.RandomState(0)
    x = np.repeat(random.randn(12), 50)  # 600 numbers, but twelve images
    y = np.repeat(random.randn(12), 50)
    images = np.repeat(np.arange(12), 50)
    rho, low, high = rank_correlation(x, y, images, seed=0)
    assert rho == pytest.approx(spearmanr(x, y).statistic)
    assert low < rho < high
    assert high - low > 0.6
    assert np.isnan(rank_correlation(x[:50], y[:50], images[:50], seed=0)[1:]).all()
