import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from skgmmcnn.metrics._intervals import rank_correlation, weighted_spearman


@settings(max_examples=60, deadline=None)
@given(data=st.data(), m=st.integers(3, 9))
def test_correlations_of_resamples_equal_those_of_scipy(data, m):
    few = st.lists(st.integers(-3, 3), min_size=m, max_size=m)
    x, y, times = (np.array(data.draw(few), float) for _ in range(3))
    times = np.abs(times)
    times[0] += 1
    a, b = np.repeat(x, times.astype(int)), np.repeat(y, times.astype(int))
    (result,) = weighted_spearman(x, y, times[None])
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert np.isnan(result)
    else:
        assert result == pytest.approx(spearmanr(a, b).statistic)


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
