import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.pipeline import make_pipeline

from skgmmcnn import DiagonalGaussianMixture, FeatureExtractor, LayerDictionary, LayerHMM, TrainingDisplay
from tests.plot.readable import assert_readable, written


def test_a_panel_per_layer(maps):
    dictionary = LayerDictionary(6, random_state=0).fit(maps)
    display = TrainingDisplay.from_estimator(make_pipeline(dictionary))
    assert_readable(display.figure_)
    for ax, layer in zip(display.axes_, maps.layers, strict=True):
        (line,) = ax.lines
        bounds = dictionary.lower_bounds_[layer]
        assert list(line.get_ydata()) == bounds
        assert list(line.get_xdata()) == list(range(1, len(bounds) + 1))
        low, high = ax.get_ylim()
        assert all(low < bound < high for bound in bounds[1:])
        assert ax.get_title() == f"{layer}\n{bounds[-1]:.2f} nats\n{len(bounds)} passes, converged"


def endings(display):
    return [ax.get_title().splitlines()[-1] for ax in display.axes_]


def test_says_how_training_ended(maps, rng):
    """Each layer by itself; steps of partial_fit neither converge nor stop."""
    maps = maps[:10]  # of which training does not take a quarter first
    dictionary = LayerDictionary(40, random_state=0).fit(maps)
    passes = [len(bounds) for bounds in dictionary.lower_bounds_.values()]
    most = max(passes) - 1
    assert min(passes) < most
    with pytest.warns(ConvergenceWarning):
        dictionary.set_params(max_iter=most).fit(maps)
    display = TrainingDisplay.from_estimator(dictionary)
    assert_readable(display.figure_)
    assert endings(display) == [
        f"{number} passes, converged" if number < most else f"{most} passes, stopped at max_iter" for number in passes
    ]
    mixture = DiagonalGaussianMixture(3, random_state=0).partial_fit(rng.normal(size=(100, 2)))
    assert endings(TrainingDisplay.from_estimator(mixture)) == ["1 pass"]


def test_words_trained_on_for_the_class(maps):
    dictionary = LayerDictionary(4, objective="discriminative", random_state=0).fit(maps)
    display = TrainingDisplay.from_estimator(dictionary)
    for ax, bounds in zip(display.axes_, dictionary.lower_bounds_.values(), strict=True):
        described, decided = ax.lines
        assert list(described.get_ydata()) == bounds[:-1]
        assert decided.get_linestyle() == "--"
        assert list(decided.get_ydata()) == bounds[-2:]
        assert "then for the class" in ax.get_xlabel()
    assert_readable(display.figure_)


def test_chains_mixtures_and_given_axes(digits, rng):
    extractor = FeatureExtractor(digits.network, ["mean", "head"])
    hmm = LayerHMM(5, random_state=0, tol=0.05).fit(extractor.fit_transform(digits.images[:200]))
    display = TrainingDisplay.from_estimator(hmm)
    assert list(display.axes_[0].lines[0].get_ydata()) == hmm.lower_bounds_
    assert "nats per example" in display.axes_[0].get_ylabel()
    mixture = DiagonalGaussianMixture(3, random_state=0).fit(rng.normal(size=(100, 2)))
    _, ax = plt.subplots()
    display = TrainingDisplay.from_estimator(mixture, ax=ax)
    assert display.axes_.tolist() == [ax]
    assert display.figure_ is ax.figure
    with pytest.raises(ValueError, match="There are 2 panels; ax has 1 axes"):
        TrainingDisplay({"a": [1.0, 2.0], "b": [0.0]}).plot(ax=ax)
    with pytest.raises(TypeError, match="LayerDictionary or LayerHMM or DiagonalGaussianMixture"):
        TrainingDisplay.from_estimator(extractor)


def test_one_pass_and_long_names():
    bounds = {f"features.{i}.a_block_of_a_long_name.conv": [-float(i)] for i in range(5)}
    display = TrainingDisplay(bounds).plot()
    assert_readable(display.figure_)
    assert any("1 pass" in text and "passes" not in text for text in written(display))
    assert np.isfinite(display.axes_[0].get_ylim()).all()
