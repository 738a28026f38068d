import numpy as np
import pytest


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (7, 9, 10, 3), dtype=np.uint8)
