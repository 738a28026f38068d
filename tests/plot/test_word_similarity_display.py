import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary, WordSimilarityDisplay
from skgmmcnn.plot._word_measures import Cohesion, Locality, class_profiles, class_similarity, locality
from tests.plot.readable import assert_readable


@pytest.fixture(scope="module")
def pipe(digits):
    extractor = FeatureExtractor(digits.network, ["conv2", "conv3"], class_names=digits.class_names)
    return make_pipeline(extractor, LayerDictionary(30, random_state=0), InferenceGraph()).fit(digits.images[:400])


def test_words_of_a_digit_become_more_alike(pipe, digits):
    display = WordSimilarityDisplay.from_estimator(pipe, digits.test_images, random_state=0, n_permutations=200)
    gaps = [cohesion.within - cohesion.between for cohesion in display.by_class.values()]
    assert gaps[0] < gaps[1] - 0.1
    assert display.by_class["conv3"].p_value < 0.01
    words = pipe[:-1].transform(digits.test_images)
    profiles = [class_profiles(words, layer) for layer in words.layers]
    np.testing.assert_array_equal(display.similarity[:30, 30:], class_similarity(*profiles))
    assert display.spread["conv2"] == locality(words.words["conv2"], 30)


def test_what_is_drawn(pipe, digits):
    display = WordSimilarityDisplay.from_estimator(pipe, digits.test_images[:60], random_state=0, n_permutations=50)
    assert len(display.axes_) == 4
    assert display.figure_ is display.axes_[0].figure
    living = sum((classes >= 0).sum() for classes in display.classes.values())
    assert display.axes_[0].images[0].get_array().shape == (living, living)
    for ax, cohesions in [(display.axes_[1], display.by_class), (display.axes_[2], display.by_mean)]:
        within, between = ax.lines[0].get_ydata(), ax.lines[1].get_ydata()
        assert list(within) == [part.within for part in cohesions.values()]
        assert list(between) == [part.between for part in cohesions.values()]
        assert [text.get_text().split("\n")[0] for text in ax.get_xticklabels()] == ["conv2", "conv3"]
    assert list(display.axes_[3].lines[0].get_ydata()) == [part.autocorrelation for part in display.spread.values()]
    assert_readable(display.figure_)


def test_legends_cover_no_line(pipe, digits):
    display = WordSimilarityDisplay.from_estimator(pipe, digits.test_images[:200], random_state=0, n_permutations=50)
    display.figure_.canvas.draw()
    for ax in display.axes_[1:]:
        box = ax.get_legend().get_window_extent()
        for line in ax.lines:
            assert ax.transData.transform(line.get_xydata())[:, 1].max() < box.y0, ax.get_title()


def test_draws_into_given_axes_and_takes_words(pipe, digits):
    _, axes = plt.subplots(1, 4)
    words = pipe[:-1].transform(digits.test_images[:50])
    display = WordSimilarityDisplay.from_estimator(pipe[1], words, n_permutations=20, ax=axes)
    assert list(display.axes_) == list(axes)
    with pytest.raises(ValueError, match="4 panels; ax has 2"):
        display.plot(ax=axes[:2])
    single = make_pipeline(FeatureExtractor(digits.network, ["conv3"]), LayerDictionary(9, random_state=0))
    WordSimilarityDisplay.from_estimator(single.fit(digits.images[:60]), digits.images[:60], n_permutations=20)


def test_six_layers_of_long_names_can_be_read():
    """The panels grow with the number of layers."""
    layers = [f"features.{i}.expand3x3_activation" for i in range(6)]
    alike = Cohesion(0.9, 0.5, np.linspace(0, 1, 50))
    display = WordSimilarityDisplay(
        similarity=np.eye(60),
        classes={layer: np.arange(10) for layer in layers},
        by_class=dict.fromkeys(layers, alike),
        by_mean=dict.fromkeys(layers, alike),
        spread=dict.fromkeys(layers, Locality(12.3, 14.5, 0.2, 0.4, 3025)),
    )
    assert_readable(display.plot().figure_)


def test_bad_input_is_named(digits, maps):
    dictionary = LayerDictionary(4).partial_fit(maps)
    with pytest.raises(ValueError, match="no statistics of its words; call its collect_representatives"):
        WordSimilarityDisplay.from_estimator(dictionary, maps)
    with pytest.raises(TypeError, match="needs a fitted LayerDictionary, or a pipeline with one; got a Pipeline"):
        WordSimilarityDisplay.from_estimator(
            make_pipeline(FeatureExtractor(digits.network).fit(digits.images)), digits.images
        )
