import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.patches import Rectangle
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, LayerDictionary, LayerHMM, VisualWordDisplay
from skgmmcnn.plot._visual_word import _BARS
from tests.plot.readable import assert_readable, written


@pytest.fixture(scope="module")
def dictionary(maps):
    names = {("conv3", 2): "a loop that is open to the left"}
    return LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, random_state=0, word_names=names).fit(maps)


def test_what_is_drawn(dictionary, words):
    """Shares and bars are what a plain count over the fitted images gives."""
    display = VisualWordDisplay.from_estimator(dictionary, [("conv3", 2), "conv2_w005"], n_patches=4, n_classes=3)
    assert display.words == [("conv3", 2), ("conv2", 5)]
    assert len(display.ax_.images) == 8
    assert_readable(display.figure_)
    texts = written(display)
    assert "a loop that is\nopen to the left\n(w2)" in texts
    assert "w5" in texts
    bars = [patch.get_width() for patch in display.ax_.patches if isinstance(patch, Rectangle)]
    expected = []
    for layer, word in display.words:
        locations = words.words[layer] == word
        per_class = np.array([locations[words.decisions == label].sum() for label in range(10)])
        best = np.argsort(-per_class, kind="stable")[:3]
        shares = [*per_class[best] / per_class.sum(), 1 - per_class[best].sum() / per_class.sum()]
        assert f"{layer}\n{100 * locations.mean():.0f} % of locations" in texts
        for label, share in zip(best, shares, strict=False):
            assert str(label) in texts
            assert f"{100 * share:.0f} %" in texts
        others = (per_class > 0).sum() - 3
        assert not others or f"{others} other{'s' if others > 1 else ''}" in texts
        expected += [share for share in shares if share]
    np.testing.assert_allclose(bars, _BARS * np.array(expected) / max(expected))


def test_a_pipeline_rings_and_given_axes(digits):
    extractor = FeatureExtractor(digits.network, ["conv2", "conv3"])
    pipe = make_pipeline(extractor, LayerDictionary(6, random_state=0)).fit(digits.images[:100])
    _, ax = plt.subplots()
    display = VisualWordDisplay.from_estimator(pipe, "conv3_w001", n_patches=9, ax=ax)
    assert display.ax_ is ax
    assert display.figure_ is ax.figure
    rings = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(rings) == (display.vocabulary.representatives["conv3"].images[1] >= 0).sum()
    assert any(text.startswith("class ") for text in written(display))
    assert display.plot() is display


def test_words_that_are_nowhere_and_what_is_not_kept(digits):
    """A dead word has neither patches nor classes; vectors without a network have no classes at all."""
    maps = FeatureExtractor(digits.network, ["conv1"]).fit_transform(digits.images[:100])
    dictionary = LayerDictionary(3, keep_patches=False, random_state=0).fit(maps)
    dictionary.vocabulary_.statistics["conv1"].counts[1] = 0
    display = VisualWordDisplay.from_estimator(dictionary, [("conv1", word) for word in range(3)])
    texts = written(display)
    assert "conv1\nat no location" in texts
    assert texts.count("no patches\nstored") == 3
    assert_readable(display.figure_)
    rows = np.random.default_rng(0).normal(size=(60, 3))
    display = VisualWordDisplay.from_estimator(LayerDictionary(4, random_state=0).fit(rows), ["dense_w000"])
    assert len(display.ax_.patches) == 1  # the note in place of patches
    assert not any("class" in text for text in written(display))


def test_words_of_a_chain(digits):
    pipe = make_pipeline(FeatureExtractor(digits.network, ["mean", "head"]), LayerHMM(8, random_state=0, tol=0.1))
    display = VisualWordDisplay.from_estimator(pipe.fit(digits.images[:200]), [("mean", 3), ("head", 0)])
    assert_readable(display.figure_)
    assert display.ax_.lines[0].get_marker() != "o"  # one location needs no ring


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        (["conv3_w02"], {}, r"no word 'conv3_w02'.*conv1_w000.*'conv3' has words 0 to 15\. Near names: conv3"),
        ([("conv3", 16)], {}, r"no word \('conv3', 16\)"),
        ([], {}, "no words to show"),
        ([("conv3", 1)], {"n_patches": 10}, "1 to 9 patches and 0 or more classes can be drawn; got 10 and 4"),
    ],
)
def test_bad_input(words, options, message, dictionary):
    with pytest.raises(ValueError, match=message):
        VisualWordDisplay.from_estimator(dictionary, words, **options)


def test_dictionaries_without_statistics(maps):
    with pytest.raises(ValueError, match="no statistics of its words; call its collect_representatives"):
        VisualWordDisplay.from_estimator(LayerDictionary(3).partial_fit(maps[:30]), [("conv3", 1)])
    with pytest.raises(NotFittedError):
        VisualWordDisplay.from_estimator(LayerDictionary(3), [("conv3", 1)])
