import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerHMM, PathDisplay
from tests.plot.readable import assert_readable


@pytest.fixture(scope="module")
def pipe(digits):
    """The two fully connected stages of the digits network."""
    extractor = FeatureExtractor(digits.network, ["mean", "head"], class_names=list("abcdefghij"))
    return make_pipe(extractor).fit(digits.images)


def make_pipe(extractor):
    return make_pipeline(extractor, LayerHMM(25, random_state=0, max_iter=30), InferenceGraph())


@pytest.fixture(scope="module")
def wrong(pipe, digits):
    """The number of a test image that the network decides wrongly."""
    decisions = pipe[:-1].transform(digits.test_images).decisions
    return int(np.flatnonzero(decisions != digits.test_labels)[0])


def texts(display):
    return [text.get_text() for text in display.ax_.texts]


def test_a_wrong_decision_among_two_classes(pipe, digits, wrong):
    display = PathDisplay.from_estimator(pipe, digits.test_images, digits.test_labels, image=wrong)
    assert display.figure_ is display.ax_.figure
    assert display.plot() is display
    paths, shown = display.paths, texts(display)
    true, decision = digits.test_labels[wrong], paths.decisions[wrong]
    assert display.targets == [true, decision]
    assert f"image {wrong}\nlabel: {'abcdefghij'[true]}" in shown
    for label in (true, decision):
        table = paths.path_table(label, n_paths=3)
        counted = f"{100 * table.shares.sum():.0f} % of {(paths.decisions == label).sum()}\nimages shown"
        assert counted in shown
    leaving = f"leaves the paths of {'abcdefghij'[true]}"
    marks = [text for text in display.ax_.texts if text.get_text() == leaving]
    (layer,) = paths[wrong].departures([true])
    column = layer * 2.7 + 0.5
    assert [round(mark.get_position()[0], 3) for mark in marks] == [round(column, 3)]
    # Every word of the image's path is there, with its picture.
    for layer, word in enumerate(paths.words[wrong]):
        assert any(
            text.get_text() == f"w{word}" and round(text.get_position()[0], 3) == round(layer * 2.7 + 0.5, 3)
            for text in display.ax_.texts
        )
    assert len(display.ax_.images) > 20


def test_lines_are_as_wide_as_shares(pipe, digits):
    display = PathDisplay.from_estimator(pipe, digits.test_images, targets=["c"], n_paths=1)
    table = display.paths.path_table(2, n_paths=1)
    widths = {line.get_linewidth() for line in display.ax_.lines}
    assert len(display.ax_.lines) == 2
    np.testing.assert_allclose([*widths], max(1, 16 * table.shares[0]))


def test_axes_names_and_plain_arrays(pipe, digits, rng):
    _, ax = plt.subplots()
    path = PathDisplay.from_estimator(pipe, digits.test_images, targets=[3]).paths.path_table(3).paths[0]
    pipe["layerhmm"].set_params(word_names={("mean", int(path[0])): "loop"})
    display = PathDisplay.from_estimator(pipe, digits.test_images, targets=[3, 5, 8], ax=ax)
    assert display.ax_ is ax
    assert f"loop (w{path[0]})" in texts(display)
    pipe["layerhmm"].set_params(word_names=None)
    y = rng.choice(["left", "right"], 200)
    side = 8 * (y == "left")[:, None]
    parts = [rng.normal(side, 1, (200, 3)), rng.normal(-side, 1, (200, 2))]
    hmm = LayerHMM(3, solver="em", random_state=0).fit(parts, y)
    shown = texts(PathDisplay.from_estimator(hmm, parts, y, targets=["right", "left"], image=4))
    assert {"left", "right", "layer dense0", f"image 4\nlabel: {y[4]}"} <= {*shown}


def test_long_names_of_classes_can_be_read(digits):
    names = [f"{digit}, which is a class of a very long name" for digit in digits.class_names]
    pipe = make_pipe(FeatureExtractor(digits.network, ["mean", "head"], class_names=names)).fit(digits.images[:400])
    for image in (0, 3):
        display = PathDisplay.from_estimator(pipe, digits.test_images[:100], targets=[3, 8, 5], n_paths=3, image=image)
        assert_readable(display.figure_)


def test_bad_input(pipe, digits, rng):
    with pytest.raises(TypeError, match="needs a fitted LayerHMM"):
        PathDisplay.from_estimator(pipe[:1], digits.test_images)
    with pytest.raises(IndexError, match="There is no image 500 in X, which has 450"):
        PathDisplay.from_estimator(pipe, digits.test_images, image=500)
    with pytest.raises(ValueError, match=r"There is no file 'a.png' among the images of X; there is none"):
        PathDisplay.from_estimator(pipe, digits.test_images, image="folder/a.png")
    with pytest.raises(ValueError, match="1 to 4 classes can be drawn; got 5"):
        PathDisplay.from_estimator(pipe, digits.test_images, targets=range(5))
    parts = [rng.normal(size=(50, 2)), rng.normal(size=(50, 2))]
    with pytest.raises(ValueError, match="fitted on arrays without y"):
        PathDisplay.from_estimator(LayerHMM(2, random_state=0, tol=1).fit(parts), parts)
    hmm = LayerHMM(2, random_state=0, tol=1).fit(parts, np.arange(50) % 2)
    with pytest.raises(ValueError, match="no class 7"):
        PathDisplay.from_estimator(hmm, parts, targets=[7])
