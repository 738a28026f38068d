from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import QuadMesh

from skgmmcnn import InfluenceMapDisplay, LayerDictionary
from skgmmcnn.graph._text import nats
from skgmmcnn.plot._drawing import AGAINST, INK
from tests.plot.readable import assert_readable, texts_of


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def dictionary(maps):
    return LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, random_state=0).fit(maps)


def written(display):
    return [text for text, _ in texts_of(display.figure_)]


@pytest.mark.parametrize("contrast", [None, 1])
def test_colours_are_influences(contrast, dictionary, words):
    display = InfluenceMapDisplay.from_estimator(dictionary, words, image=7, contrast=contrast)
    assert_readable(display.figure_)
    found = words.influence[7:8].of_classes(words.decisions[7:8], None if contrast is None else [contrast])
    overlays = [part.get_array() for part in display.ax_.collections if isinstance(part, QuadMesh)]
    for layer, colours in zip(words.layers, overlays, strict=True):
        influence = found.maps[layer][0]
        most = np.abs(influence).max()
        np.testing.assert_allclose(colours[..., 3], 0.9 * np.abs(influence) / most)
        np.testing.assert_allclose(colours[influence > 0, :3], [INK] * (influence > 0).sum())
        np.testing.assert_allclose(colours[influence < 0, :3], [AGAINST] * (influence < 0).sum())
        assert {nats(-most), nats(most), f"adds up to {nats(influence.sum())}"} <= set(written(display))
    decided = words.spec.class_name(words.decisions[7])
    assert (decided if contrast is None else f"{decided} rather than 1") in written(display)


def test_other_targets_layers_and_long_names(dictionary, words):
    names = tuple(f"{digit}, whose name is by far longer than usual" for digit in range(10))
    long = replace(words, spec=replace(words.spec, class_names=names))
    _, ax = plt.subplots()
    display = InfluenceMapDisplay.from_estimator(
        dictionary, long, image=-1, target=names[3], contrast=4, layers=["conv3"], ax=ax
    )
    assert display.ax_ is ax
    assert list(display.maps) == ["conv3"]
    assert display.title == f"{names[3]} rather than {names[4]}"
    assert_readable(InfluenceMapDisplay.from_estimator(dictionary, long, target=3, contrast=4).figure_)


def test_a_layer_without_influence_is_not_coloured(words):
    display = InfluenceMapDisplay(words[:1], {"conv3": np.zeros((4, 4))}, title="nothing").plot()
    (overlay,) = [part.get_array() for part in display.ax_.collections if isinstance(part, QuadMesh)]
    assert not overlay[..., 3].any()
    assert_readable(display.figure_)


def test_bad_input(dictionary, words):
    with pytest.raises(ValueError, match="no network that could tell what contributed"):
        InfluenceMapDisplay.from_estimator(dictionary, replace(words, influence=None))
    with pytest.raises(ValueError, match="no layer 'conv4'; there is 'conv"):
        InfluenceMapDisplay.from_estimator(dictionary, words, layers=["conv4"])
    with pytest.raises(ValueError, match="contrast='3' is the very class that is explained"):
        InfluenceMapDisplay.from_estimator(dictionary, words, target=3, contrast="3")
    with pytest.raises(ValueError, match="n_steps must be at least 1; got 0"):
        InfluenceMapDisplay.from_estimator(dictionary, words, n_steps=0)
    with pytest.raises(IndexError, match="no image 300 in X"):
        InfluenceMapDisplay.from_estimator(dictionary, words, image=300)
