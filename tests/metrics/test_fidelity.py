from collections import OrderedDict

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.features import log_proba, proba_of
from skgmmcnn.metrics import fidelity, fidelity_score


def test_agreement_and_divergence_equal_a_loop(digits, pipe, test_images):
    result = fidelity(pipe, test_images)
    maps = pipe[0].transform(test_images)
    words = pipe[1].transform(maps)
    evidence = pipe[2].decision_function(words)
    agrees, divergence, tempered = [], [], []
    for scores, bits, decision in zip(maps.outputs.astype(float), evidence, words.decisions, strict=True):
        p = np.exp(scores) / np.exp(scores).sum()
        q = 2.0 ** (bits - bits.max())
        cooled = 2.0 ** ((bits - bits.max()) / result.temperature)
        agrees.append(bits.argmax() == decision)
        divergence.append(entropy(p, q / q.sum(), base=2))
        tempered.append(entropy(p, cooled / cooled.sum(), base=2))
    np.testing.assert_array_equal(result.agrees, agrees)
    np.testing.assert_allclose(result.divergence, divergence, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(result.tempered_divergence, tempered, rtol=1e-6, atol=1e-9)
    assert result.tempered_divergence.mean() < result.divergence.mean()
    assert result.agreement.low <= result.agreement.value == fidelity_score(pipe, test_images) <= result.agreement.high


def test_coverage_and_agreement_of_right_and_wrong_decisions(pipe, digits, test_images):
    """Half of the labels are not what the network decides."""
    decisions = pipe[:-1].transform(test_images).decisions
    y = np.where(np.arange(40) < 20, decisions, (decisions + 1) % 10)
    result = fidelity(pipe, test_images, y)
    fitted = np.bincount(pipe[:-1].transform(digits.images[:300]).decisions, minlength=10)
    np.testing.assert_array_equal(result.n_fitted, fitted[decisions])
    assert result.coverage.value == np.mean(fitted[decisions] >= 10) == 1
    assert result.agreement_of(True).value == result.agrees[:20].mean()
    assert result.agreement_of(False).value == result.agrees[20:].mean()
    assert result.accuracy.value == 0.5
    measurements = {row.measure: row.value for row in result.measurements()}
    assert measurements["network right"] == 0.5
    assert measurements["agreement, wrong decisions"] == result.agreement_of(False).value
    assert np.isnan(fidelity(pipe, test_images).agreement_of(True).value)


def test_classes_without_fitted_images_are_left_out(digits, test_images):
    extractor = FeatureExtractor(digits.network, ["conv3"], device="cpu")
    decided = extractor.fit_transform(digits.images).outputs.argmax(1)
    images = digits.images[np.flatnonzero(decided != 3)[:200]]
    pipe = make_pipeline(extractor, LayerDictionary(8, random_state=0), InferenceGraph()).fit(images)
    result = fidelity(pipe, test_images)
    assert np.isfinite(result.divergence).all()
    assert result.coverage.value < 1
    assert not result.agrees[pipe[0].transform(test_images).outputs.argmax(1) == 3].any()


def test_a_single_output_is_a_logit():
    log_p = log_proba(np.array([[0.0], [np.log(3)]]))
    np.testing.assert_allclose(log_p.exp().numpy(), [[0.5, 0.5], [0.25, 0.75]])


def test_a_grid_search_chooses_by_agreement(digits):
    maps = FeatureExtractor(digits.network, ["conv3"], device="cpu").fit_transform(digits.images[:200]).compute()
    pipe = make_pipeline(LayerDictionary(random_state=0, tol=0.1), InferenceGraph())
    search = GridSearchCV(pipe, {"layerdictionary__n_components": [2, 15]}, scoring=fidelity_score, cv=2).fit(maps)
    assert search.best_params_ == {"layerdictionary__n_components": 15}


def test_scores_are_needed():
    with pytest.raises(ValueError, match=r"scores \(n, C\) of the classes; the network returns a dict"):
        log_proba({})


def test_probabilities_are_taken_as_they_are(digits, pipe, test_images):
    network = nn.Sequential(OrderedDict(conv=digits.network, proba=nn.Softmax(1))).eval()
    extractor = FeatureExtractor(network, ["conv.conv2", "conv.conv3"], device="cpu").fit(digits.images[:300])
    of_proba = [proba_of(batch.outputs, batch.decisions) for batch in extractor.transform(test_images).batches()]
    of_scores = [proba_of(batch.outputs, batch.decisions) for batch in pipe[0].transform(test_images).batches()]
    np.testing.assert_allclose(np.concatenate(of_proba), np.concatenate(of_scores), rtol=1e-4)


def test_shares_of_all_images_have_an_interval(one_channel):
    pipe, images = one_channel
    value, low, high = fidelity(pipe, images).agreement
    assert value == high == pytest.approx(1)
    assert 0.9 < low < 0.96
