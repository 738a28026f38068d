from collections import OrderedDict

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.features import log_proba, proba_of
from skgmmcnn.metrics import completeness, edge_effects, faithfulness, fidelity, fidelity_score, trust_report


def test_agreement_and_divergence_equal_a_loop(digits, pipe, shown):
    result = fidelity(pipe, shown)
    maps = pipe[0].transform(shown)
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
    low, high = result.agreement_interval
    assert low <= result.agreement == fidelity_score(pipe, shown) <= high


def test_coverage_and_agreement_of_right_and_wrong_decisions(pipe, digits, shown):
    """Half of the labels are not what the network decides."""
    decisions = pipe[:-1].transform(shown).decisions
    y = np.where(np.arange(40) < 20, decisions, (decisions + 1) % 10)
    result = fidelity(pipe, shown, y)
    fitted = np.bincount(pipe[:-1].transform(digits.images[:300]).decisions, minlength=10)
    np.testing.assert_array_equal(result.n_fitted, fitted[decisions])
    assert result.coverage == np.mean(fitted[decisions] >= 10) == 1
    assert result.agreement_of(True) == result.agrees[:20].mean()
    assert result.agreement_of(False) == result.agrees[20:].mean()
    assert result.accuracy == 0.5
    measurements = {row.measure: row.value for row in result.measurements()}
    assert measurements["network right"] == 0.5
    assert measurements["agreement, wrong decisions"] == result.agreement_of(False)
    assert np.isnan(fidelity(pipe, shown).agreement_of(True))


def test_classes_without_fitted_images_are_left_out(digits, shown):
    extractor = FeatureExtractor(digits.network, ["conv3"], device="cpu")
    decided = extractor.fit_transform(digits.images).outputs.argmax(1)
    images = digits.images[np.flatnonzero(decided != 3)[:200]]
    pipe = make_pipeline(extractor, LayerDictionary(8, random_state=0), InferenceGraph()).fit(images)
    result = fidelity(pipe, shown)
    assert np.isfinite(result.divergence).all()
    assert result.coverage < 1
    assert not result.agrees[pipe[0].transform(shown).outputs.argmax(1) == 3].any()


def test_a_single_output_is_a_logit():
    log_p = log_proba(np.array([[0.0], [np.log(3)]]))
    np.testing.assert_allclose(log_p.exp().numpy(), [[0.5, 0.5], [0.25, 0.75]])


def test_a_grid_search_chooses_by_agreement(digits):
    maps = FeatureExtractor(digits.network, ["conv3"], device="cpu").fit_transform(digits.images[:200]).compute()
    pipe = make_pipeline(LayerDictionary(random_state=0, tol=0.1), InferenceGraph())
    search = GridSearchCV(pipe, {"layerdictionary__n_components": [2, 15]}, scoring=fidelity_score, cv=2).fit(maps)
    assert search.best_params_ == {"layerdictionary__n_components": 15}


def test_bad_input(pipe, shown):
    with pytest.raises(TypeError, match="needs a pipeline that ends with an InferenceGraph"):
        fidelity(pipe[:-1], shown)
    with pytest.raises(TypeError, match="needs a fitted LayerDictionary or LayerHMM"):
        fidelity(pipe[-1], shown)
    with pytest.raises(TypeError, match="no FeatureExtractor comes before"):
        fidelity(pipe[1:], shown)
    with pytest.raises(ValueError, match=r"scores \(n, C\) of the classes; the network returns a dict"):
        log_proba({})


def test_probabilities_are_taken_as_they_are(digits, pipe, shown):
    network = nn.Sequential(OrderedDict(conv=digits.network, proba=nn.Softmax(1))).eval()
    extractor = FeatureExtractor(network, ["conv.conv2", "conv.conv3"], device="cpu").fit(digits.images[:300])
    of_proba = [proba_of(batch.outputs, batch.decisions) for batch in extractor.transform(shown).batches()]
    of_scores = [proba_of(batch.outputs, batch.decisions) for batch in pipe[0].transform(shown).batches()]
    np.testing.assert_allclose(np.concatenate(of_proba), np.concatenate(of_scores), rtol=1e-4)


@pytest.mark.parametrize(
    ("decision", "names"), [(lambda scores: scores.argmin(1), None), (lambda scores: (scores.argmax(1) > 4).long(), 2)]
)
def test_a_decision_that_is_not_the_largest_score_is_refused(digits, shown, decision, names):
    extractor = FeatureExtractor(
        digits.network, ["conv3"], decision=decision, class_names=[str(i) for i in range(names or 10)], device="cpu"
    )
    pipe = make_pipeline(extractor, LayerDictionary(4, random_state=0), InferenceGraph()).fit(digits.images[:80])
    for measure in (fidelity, completeness, faithfulness, edge_effects, trust_report):
        with pytest.raises(ValueError, match="must be the class of the largest score; with this decision="):
            measure(pipe, shown)


def test_shares_of_all_images_have_an_interval(one_channel):
    pipe, images = one_channel
    result = fidelity(pipe, images)
    assert result.agreement == 1
    low, high = result.agreement_interval
    assert 0.9 < low < 0.96
    assert high == pytest.approx(1)
