"""The estimator: counts, prediction, errors, and the walk of explain."""

import copy
import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from skgmmcnn import InferenceGraph
from tests.graph.naive import naive_log_ratio, naive_walk
from tests.graph.random_words import SIZES, random_words

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little", "ignore:The counts of all words")  # few images


def test_prediction_equals_a_naive_version(seed):
    fitted, words = random_words(seed, 30), random_words(seed + 1)
    estimator = InferenceGraph().fit(fitted)
    table = estimator.transition_counts_["decision", "top"].tolist()
    for i in range(len(words)):
        totals = [
            np.log2((fitted.decisions == c).mean())
            + sum(naive_log_ratio(table, c, t, estimator.smoothing) for t in words.words["top"][i].ravel())
            for c in range(3)
        ]
        assert estimator.predict(words)[i] == np.argmax(totals)


def test_evidence_equals_a_naive_version(seed):
    fitted, words = random_words(seed, 30), random_words(seed + 1)
    estimator = InferenceGraph().fit(fitted)
    evidence = estimator.transform(words)
    assert evidence.shape == (len(words), len(estimator.get_feature_names_out()))
    depends = {"low": set(), "middle": {"low"}, "top": {"low", "middle"}}
    parameters = dict.fromkeys(SIZES, 3), estimator.smoothing
    for i, decision in enumerate(words.decisions):
        _, scores, _ = naive_walk(fitted, words[i], depends, ("decision", int(decision)), parameters)
        expected = np.concatenate([scores[layer] for layer in SIZES])
        np.testing.assert_allclose(evidence[i], expected, atol=1e-9)


def test_score_is_the_agreement_with_the_network(seed):
    words = random_words(seed + 1)
    estimator = InferenceGraph().fit(random_words(seed, 30))
    agreement = (estimator.predict(words) == words.decisions).mean()
    assert estimator.score(words) == agreement
    names = np.array(["cat", "dog", "layer3"])
    assert estimator.score(words, names[words.decisions]) == agreement
    assert estimator.score(words, estimator.predict(words)) == 1


def test_class_without_images_is_never_predicted():
    fitted = random_words(0)
    others = fitted[fitted.decisions != 1]
    assert 1 not in InferenceGraph().fit(others).predict(random_words(3, 50))


def assert_equal_fits(first, second):
    np.testing.assert_array_equal(first.class_counts_, second.class_counts_)
    for name in ("transition_counts_", "log_ratios_"):
        tables = getattr(first, name), getattr(second, name)
        assert tables[0].keys() == tables[1].keys()
        for pair in tables[0]:
            np.testing.assert_array_equal(tables[0][pair], tables[1][pair])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), cuts=st.lists(st.integers(1, 11), max_size=3))
def test_counts_add_up_under_any_split(seed, cuts):
    words = random_words(seed, 12)
    graph = InferenceGraph()
    whole, stepwise = clone(graph).fit(words), clone(graph)
    parts = np.split(np.arange(12), sorted(set(cuts)))
    for rows in parts:
        stepwise.partial_fit(words[rows])
    assert_equal_fits(whole, stepwise)
    first, *others = (clone(graph).partial_fit(words[rows]) for rows in reversed(parts))
    assert_equal_fits(whole, first.merge(*others))
    bare, unordered = InferenceGraph().fit(words), InferenceGraph()
    for rows in np.split(np.random.default_rng(seed).permutation(12), sorted(set(cuts))):
        unordered.partial_fit(words[rows])
    assert_equal_fits(bare, unordered)
    assert whole.fit(words[:3]).class_counts_.sum() == 3


@pytest.fixture(scope="module")
def effective(words):
    """A graph that counts in effective fields; tests do not change it."""
    return InferenceGraph().fit(words[:100])


@pytest.fixture(scope="module")
def whole(words):
    """A graph that counts in whole fields."""
    return InferenceGraph(fields="whole").fit(words[:100])


def with_fields(words, fields):
    """Return words of a network with other effective fields."""
    return replace(words, spec=replace(words.spec, effective_fields=fields))


def test_effective_fields_are_the_default(effective, whole, words):
    assert effective.fields_ == "effective"
    assert InferenceGraph().fit(with_fields(words, {})).fields_ == "whole"
    lower = "conv3", "conv2"
    assert whole.transition_counts_[lower].sum() > effective.transition_counts_[lower].sum()
    upper = "decision", "conv3"
    np.testing.assert_array_equal(whole.transition_counts_[upper], effective.transition_counts_[upper])


@pytest.mark.parametrize("fields", ["unmeasured", "whole"])
def test_fitted_fields_explain_words_with_other_fields(effective, whole, words, fields):
    others = with_fields(words, {} if fields == "unmeasured" else words.spec.receptive_fields)
    for graph in (effective, whole):
        np.testing.assert_array_equal(graph.transform(others[:3]), graph.transform(words[:3]))


def test_fitted_fields_do_not_follow_the_parameter(effective, words):
    graph = copy.deepcopy(effective).set_params(fields="whole")
    np.testing.assert_array_equal(graph.transform(words[:3]), effective.transform(words[:3]))
    with pytest.raises(ValueError, match="which cannot change in partial_fit"):
        graph.partial_fit(words[100:])


def test_counts_in_other_fields_do_not_add_up(effective, whole, words):
    before = effective.transform(words[:3])
    with pytest.raises(ValueError, match="do not add up: here effective ones, there whole ones"):
        effective.merge(whole)
    others = InferenceGraph().fit(with_fields(words, words.spec.receptive_fields))
    with pytest.raises(ValueError, match="do not add up: here effective ones, there effective ones, or others"):
        effective.merge(others)
    np.testing.assert_array_equal(effective.transform(words[:3]), before)


def test_fields_of_maps_of_another_size_are_refused(effective, words):
    small = replace(words, words={**words.words, "conv3": words.words["conv3"][:, :2]})
    with pytest.raises(ValueError, match=r"measured in maps of sizes .*\(4, 4\).*; these have .*\(2, 4\)"):
        effective.explain(small[:1])


def test_words_of_another_dictionary_are_refused(graph, words):
    other = random_words(0)
    first = InferenceGraph().fit(words[:50])
    before = first.class_counts_
    for call in (
        lambda: graph.explain(other),
        lambda: clone(graph).fit(words).partial_fit(other),
        lambda: first.merge(InferenceGraph().fit(other)),
    ):
        with pytest.raises(ValueError, match="come from another dictionary"):
            call()
    assert first.class_counts_ is before


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [(np.zeros((3, 4)), TypeError, r"reads WordMaps.*got a ndarray"), (random_words(0)[[]], ValueError, "no images")],
)
def test_other_input_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        InferenceGraph().fit(X)


def test_unfitted():
    with pytest.raises(NotFittedError):
        InferenceGraph().explain(random_words(0))


def test_labels_of_other_images_are_refused(graph, words):
    with pytest.raises(ValueError, match="one label per image"):
        graph.score(words, [1, 2])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_nodes": {"conv3": 3}}, r"n_nodes names layers \['conv3'\]; the layers are"),
        ({"n_nodes": {"conv1": 1, "conv2": 0, "conv3": 3}}, "at least one word of every layer"),
        ({"smoothing": 0}, "'smoothing' parameter"),
        ({"fields": "narrow"}, "'fields' parameter of InferenceGraph"),
        ({"n_steps": 0}, "'n_steps' parameter"),
        ({"evidence": "causal"}, "'evidence' parameter"),
        ({"n_nodes": "enough", "evidence": "counts"}, "needs words with a network"),
    ],
)
def test_bad_settings_are_named(words, parameters, message):
    with pytest.raises(ValueError, match=message):
        InferenceGraph(**parameters).fit(words)


def test_fitted_smoothing_does_not_follow_the_parameter(words):
    fitted = InferenceGraph(evidence="counts").fit(words)
    expected = [dict(graph.edges) for graph in fitted.explain(words[:3])]
    fitted.set_params(smoothing=100.0)
    assert [dict(graph.edges) for graph in fitted.explain(words[:3])] == expected


def test_decision_function_equals_loops(graph, words):
    evidence = graph.decision_function(words[:5])
    shares = graph.class_counts_ / graph.class_counts_.sum()
    for image, output in itertools.product(range(5), range(10)):
        ratios = [graph.log_ratios_["decision", "conv3"][output, word] for word in words.words["conv3"][image].flat]
        assert evidence[image, output] == pytest.approx(np.log2(shares[output]) + sum(ratios))
    np.testing.assert_array_equal(evidence.argmax(1), graph.predict(words[:5]))


@pytest.mark.parametrize("evidence", ["influence", "counts"])
@pytest.mark.parametrize("by", ["image", "class"])
def test_select_returns_the_words_of_the_graphs(words, evidence, by):
    estimator = InferenceGraph(evidence=evidence, random_state=0).fit(words)
    some = words[:40]
    kept = estimator.select(some, by=by)
    for image, graph in enumerate(estimator.explain(some)):
        explained = graph if by == "image" else estimator.explain_class(some, some.decisions[image])
        actual = {(layer, int(word)) for layer in kept for word in np.flatnonzero(kept[layer][image])}
        assert actual == {(node["layer"], node["word"]) for node in list(explained.nodes.values())[1:]}
    with pytest.raises(ValueError, match="'image' or 'class'"):
        estimator.select(some, by="all")


@pytest.mark.parametrize("evidence", ["influence", "counts"])
def test_explain_visits_each_file_once(words, evidence):
    """In the order of the architecture page."""
    estimator = InferenceGraph(evidence=evidence).fit(words)
    visited = []

    def note(frame, event, arg):
        folder, _, name = frame.f_code.co_filename.rpartition("/")
        if event == "call" and folder.endswith("skgmmcnn/graph") and visited[-1:] != [name]:
            visited.append(name)

    sys.setprofile(note)
    try:
        estimator.explain(words[:1])
    finally:
        sys.setprofile(None)
    kinds = {
        "influence": ["_influence_evidence.py", "_influence_traces.py", "_influence_summary.py"],
        "counts": ["_count_evidence.py"],
    }
    first = ["_inference_graph.py", "_targets.py", "_kinds.py", "_hierarchy.py", "_evidence.py"]
    assert visited == [*first, *kinds[evidence], "_building.py"]
