"""The code of the pages runs as doctests; the small network that most pages train is trained once."""

import copy
from functools import cache

import matplotlib
import pytest

from skgmmcnn import datasets

matplotlib.use("Agg")
# What builds the pages, and what the build leaves.
collect_ignore_glob = ["*.py", "_*", "api/generated", "figures", "gallery"]


@pytest.fixture(autouse=True, scope="session")
def _train_once():
    train = datasets.load_digits_network
    kept = cache(train)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "load_digits_network", lambda **options: copy.deepcopy(kept(**options)))
        yield
