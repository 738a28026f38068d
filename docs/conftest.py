"""The code of the pages runs as doctests."""

import matplotlib
import pytest
from matplotlib import pyplot as plt

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _figures_are_closed():
    yield
    plt.close("all")


# What builds the pages, and what the build leaves.
collect_ignore_glob = ["*.py", "_*", "api/generated", "figures", "gallery"]
