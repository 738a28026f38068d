from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb

from skgmmcnn import InfluenceMapDisplay
from skgmmcnn.graph._wording import nats, probable
from skgmmcnn.plot._cells import Cells, grey, interpolate
from skgmmcnn.plot._drawing import PALETTE
from tests.plot.readable import assert_readable, written


def heat_of(display, number):
    """Return the heat map of one image, as drawn, and the image."""
    image, heat, *_ = (part.get_array() for part in display.ax_.images[number * 3 : number * 3 + 3])
    return np.asarray(heat), np.asarray(image)


@pytest.mark.parametrize("contrast", [None, 1])
def test_colours_are_influences(contrast, digits_dictionary, words):
    """Of a map as fine as the image: blue for, orange against, the stronger the more."""
    rows = [7, 12, 30] if contrast is None else np.flatnonzero(words.decisions != 1)[:3]
    display = InfluenceMapDisplay.from_estimator(
        digits_dictionary, words, image=rows, contrast=contrast, layers="conv1"
    )
    assert_readable(display.figure_)
    others = None if contrast is None else [contrast] * 3
    result = words.influence[rows].of_classes(words.decisions[rows], others)
    for number, row in enumerate(rows):
        influence = result.maps["conv1"][number]
        heat, image = heat_of(display, number)
        strength = 0.95 * np.abs(influence)[..., None] / np.abs(influence).max()
        colour = np.where(influence[..., None] > 0, to_rgb(PALETTE[0]), to_rgb(PALETTE[1]))
        np.testing.assert_allclose(heat, grey(image) / 255 * (1 - strength) + colour * strength, atol=1e-6)
        assert f"in all {nats(influence.sum())}" in written(display)
        decided = words.spec.class_name(words.decisions[row])
        ending = " rather than 1" if contrast else f": {probable(1 / (1 + np.exp(-result.margins[number])))}"
        assert f"{decided}{ending}" in written(display)


def test_words_are_segments_with_their_influence(digits_dictionary, words):
    display = InfluenceMapDisplay.from_estimator(digits_dictionary, words, image=7, n_words=3)
    influence, shown = words.influence[7:8].of_classes().maps["conv3"][0], words.words["conv3"][7]
    sums = {word: influence[shown == word].sum() for word in np.unique(shown)}
    strongest = sorted(sums, key=lambda word: -abs(sums[word]) / np.sqrt((shown == word).sum()))[:3]
    (tint,) = [part.get_array() for part in display.ax_.collections if isinstance(part, QuadMesh)]
    assert set(np.unique(tint[..., 3])) <= {0.0, 0.3}  # the image shows through
    for word, colour in zip(strongest, PALETTE, strict=False):
        np.testing.assert_allclose(tint[shown == word], [(*to_rgb(colour), 0.3)] * (shown == word).sum())
        assert f"w{word}  {nats(sums[word])}" in written(display)
    assert not tint[~np.isin(shown, strongest)].any()
    plain = InfluenceMapDisplay.from_estimator(digits_dictionary, words, image=7, n_words=0)
    assert len(plain.ax_.images) == 2


def test_smooth_maps_keep_their_values():
    cells = Cells(np.array([0, 0.5, 1]), np.array([0, 0.25, 1]))
    image = interpolate(np.array([[0.0, 1], [2, 3]]), cells, (4, 8))
    assert image.shape == (4, 8)
    assert image[0, 0] == 0  # beyond the middle of the first cell
    assert image[-1, -1] == 3
    assert (np.diff(image, axis=0) >= 0).all()
    quarters = np.linspace(0, 1, 5)
    np.testing.assert_allclose(interpolate(np.eye(4), Cells(quarters, quarters), (4, 4)), np.eye(4))


@pytest.mark.parametrize("right", [True, False])
def test_true_classes_and_all_images(right, digits_dictionary, words):
    display = InfluenceMapDisplay.from_estimator(digits_dictionary, words, (words.decisions + (not right)) % 10)
    texts = written(display)
    assert len(display.titles) == 8
    assert sum(text.startswith("right: labelled " if right else "wrong: labelled ") for text in texts) == 8
    assert list(display.maps) == ["conv3"]
    assert_readable(display.figure_)


def test_other_targets_layers_and_long_names(digits_dictionary, words):
    names = tuple(f"{digit}, whose name is by far longer than usual" for digit in range(10))
    long = replace(words, spec=replace(words.spec, class_names=names))
    _, ax = plt.subplots()
    display = InfluenceMapDisplay.from_estimator(
        digits_dictionary, long, image=-1, target=names[3], contrast=4, layers=["conv3"], ax=ax
    )
    assert display.ax_ is ax
    assert list(display.maps) == ["conv3"]
    assert display.titles == [f"{names[3]} rather than {names[4]}"]
    layers = ["conv1", "conv2", "conv3"]
    display = InfluenceMapDisplay.from_estimator(digits_dictionary, long, target=3, contrast=4, layers=layers)
    assert_readable(display.figure_)


def test_a_layer_without_influence_is_not_coloured(words):
    display = InfluenceMapDisplay(words[:1], {"conv3": np.zeros((1, 4, 4))}, titles=["nothing"]).plot()
    heat, image = heat_of(display, 0)
    np.testing.assert_allclose(heat, grey(image) / 255)
    assert_readable(display.figure_)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": ["conv4"]}, ValueError, "no layer 'conv4'; there is 'conv"),
        ({"target": 3, "contrast": "3"}, ValueError, "contrast='3' is the class that is explained"),
        ({"n_steps": 0}, ValueError, "n_steps must be at least 1; got 0"),
        ({"n_words": 9}, ValueError, "n_words must be 0 to 8; got 9"),
        ({"image": 300}, IndexError, "no image 300 in X"),
        ({"image": 1.5}, TypeError, "An image is a number, 0 to 299, or the name of its file in X; got 1.5"),
    ],
)
def test_bad_options(options, error, message, digits_dictionary, words):
    with pytest.raises(error, match=message):
        InfluenceMapDisplay.from_estimator(digits_dictionary, words, **options)


def test_words_without_a_network(digits_dictionary, words):
    with pytest.raises(ValueError, match="Influence needs the network and its images"):
        InfluenceMapDisplay.from_estimator(digits_dictionary, replace(words, influence=None))
