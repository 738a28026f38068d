"""Classes are read from words, and words are trained to tell them."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

from skgmmcnn import FeatureExtractor, LayerDictionary
from skgmmcnn.dictionary._labelling import average_posteriors
from skgmmcnn.dictionary._readouts import fit_readout
from skgmmcnn.mixture._em import Scorer


def test_mean_posteriors_equal_a_loop(maps, dictionary):
    averages = average_posteriors(maps[:20], dictionary.mixtures_)[0]
    for batch in maps[:20].batches():
        for layer, values in batch.activations.items():
            scorer = Scorer(dictionary.mixtures_[layer], values)
            for number, image in enumerate(values, batch.start):
                rows = image.reshape(len(image), -1).T
                np.testing.assert_allclose(averages[layer][number], scorer.predict_proba(rows).mean(0), atol=1e-6)


def test_generative_words_can_be_read(maps):
    dictionary = LayerDictionary(20, random_state=0).fit(maps[:200])
    with pytest.raises(NotFittedError, match="call fit_readout"):
        dictionary.predict_class_proba(maps)
    probabilities = dictionary.fit_readout(maps[:200]).predict_class_proba(maps[200:])
    decisions = maps.outputs.argmax(1)[200:]
    agreement = {layer: (values.argmax(1) == decisions).mean() for layer, values in probabilities.items()}
    assert agreement["conv3"] > 0.8  # 0.94 to 0.96 with 20 seeds and shaken networks
    assert all(values.shape == (100, 10) for values in probabilities.values())
    np.testing.assert_allclose(probabilities["conv1"].sum(1), 1)
    dictionary.fit(maps[:100])
    assert not hasattr(dictionary, "readouts_")  # they read other words


def test_discriminative_words_predict_better(digits):
    extractor = FeatureExtractor(digits.network, ["conv1", "conv2"], class_names=digits.class_names)
    maps = extractor.fit_transform(digits.images).compute()
    train, test = maps[:900], maps[900:]
    decisions = test.outputs.argmax(1)
    agreement = {}
    for objective in ("generative", "discriminative"):
        dictionary = LayerDictionary(6, objective=objective, random_state=0).fit(train)
        if objective == "generative":
            dictionary.fit_readout(train)
        probabilities = dictionary.predict_class_proba(test)
        agreement[objective] = np.mean(
            [(probabilities[layer].argmax(1) == decisions).mean() for layer in probabilities]
        )
        assert np.isfinite(dictionary.score(test))
    assert agreement["discriminative"] > agreement["generative"] + 0.05  # 0.18 to 0.28


def test_labels_take_the_place_of_decisions(maps, digits):
    """Words trained for wrong labels, of two classes, predict those; 20 seeds and networks gave 1 and 0.84."""
    maps = maps[:150]
    labels = np.where(maps.outputs.argmax(1) < 5, 7, 2)
    names = [digits.class_names[label] for label in labels]
    sizes = {"conv1": 2, "conv2": 2, "conv3": 16}
    for y in (labels, names):
        dictionary = LayerDictionary(sizes, objective="discriminative", random_state=0).fit(maps, y)
        assert (dictionary.predict_class_proba(maps)["conv3"].argmax(1) == labels).mean() > 0.85
    probabilities = LayerDictionary(16, random_state=0).fit(maps).fit_readout(maps, labels).predict_class_proba(maps)
    assert (probabilities["conv3"].argmax(1) == labels).mean() > 0.7
    assert (probabilities["conv3"][:, [0, 1, 3]] == 0).all()  # classes without examples


def test_one_class(maps):
    zeros = np.zeros(len(maps), int)
    probabilities = LayerDictionary(4, random_state=0).fit(maps).fit_readout(maps, zeros).predict_class_proba(maps)
    np.testing.assert_array_equal(probabilities["conv3"][:, 0], 1)


def test_readout_equals_scikit_learn(rng):
    posteriors = rng.dirichlet(np.ones(5), 200)
    for n_classes in (2, 3):
        targets = (posteriors[:, :n_classes].argmax(1) * 2) % 5
        readout = fit_readout(posteriors, targets, 6)
        peer = LogisticRegression(C=0.03, max_iter=1000).fit(posteriors * 5, targets)
        probabilities = readout.predict_proba(posteriors)
        np.testing.assert_allclose(probabilities[:, peer.classes_], peer.predict_proba(posteriors * 5), atol=1e-6)


def test_bad_input(maps, rng):
    X = rng.normal(size=(50, 3))
    with pytest.raises(ValueError, match="needs the FeatureMaps of a network"):
        LayerDictionary(2, objective="discriminative").fit(X, np.zeros(50, int))
    with pytest.raises(ValueError, match="fit_readout needs the FeatureMaps"):
        LayerDictionary(2).fit(X).fit_readout(X)
    with pytest.raises(ValueError, match="partial_fit supports the generative objective only"):
        LayerDictionary(2, objective="discriminative").partial_fit(maps)
    with pytest.raises(ValueError, match="objective"):
        LayerDictionary(2, objective="both").fit(maps)
