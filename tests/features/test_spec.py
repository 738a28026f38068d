"""Labels and names of classes."""

import numpy as np
import pytest

from skgmmcnn import FeatureExtractor

from .small import READY, small_network

NAMES = ["cat", "dog", "dog", "cow"]


@pytest.mark.parametrize(
    ("names", "y", "message"),
    [
        (NAMES, [0, 1, 2], "one label per image"),
        (NAMES, [0, 1, 2, 4], "no output 4"),
        (NAMES, ["cat", "dog", "cow", "cow"], "Several outputs are named 'dog'"),
        (NAMES, ["cat", "cat", "cow", "pig"], "no class 'pig'"),
        (NAMES, [0.5, 1, 2, 3], "got 0.5"),
        (None, ["cat"] * 4, "outputs have no names"),
    ],
)
def test_bad_labels_are_named(names, y, message):
    with pytest.raises(ValueError, match=message):
        FeatureExtractor(small_network(), ["4"], class_names=names).fit(READY, y)


def test_labels_are_encoded():
    extractor = FeatureExtractor(small_network(), ["4"], class_names=NAMES).fit(READY)
    np.testing.assert_array_equal(extractor.spec_.encode(["cow", "cat"], 2), [3, 0])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({0: "cat", 1: "dog", 2: "cow", 3: "hen"}, None),
        ({3: "hen", 1: "dog", 0: "cat", 2: "cow"}, None),
        (
            {1: "cat", 2: "dog", 3: "cow", 4: "hen"},
            r"dict with keys \[1, 2, 3, 4\]; they must be the outputs 0",
        ),
        ({"cat": 0, "dog": 1, "cow": 2, "hen": 3}, "they must be the outputs 0 to 3"),
        ({"cat", "dog", "cow", "hen"}, "class_names is a set; give a list with one name per output"),
    ],
)
def test_class_names_are_in_the_order_of_outputs(names, message):
    extractor = FeatureExtractor(small_network(), ["4"], class_names=names)
    if message is None:
        assert extractor.fit(READY).spec_.class_names == ("cat", "dog", "cow", "hen")
    else:
        with pytest.raises((TypeError, ValueError), match=message):
            extractor.fit(READY)


@pytest.mark.parametrize("labels", [[None], [{}], [0.5], [np.nan]])
def test_labels_that_are_none(labels):
    with pytest.raises(ValueError, match="y must contain output numbers or class names; got"):
        FeatureExtractor(small_network(), ["4"]).fit(READY, labels * len(READY))
