"""Bits that words tell of those below them, against plain loops and known answers."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline

from skgmmcnn import InferenceGraph, LayerDictionary
from skgmmcnn.metrics import bits_score, predictive_bits
from skgmmcnn.metrics._bits import _without, bits_by_image


@pytest.fixture(scope="module")
def held(maps):
    return maps[:60].compute()


@pytest.fixture(scope="module")
def pipe(held):
    dictionary = LayerDictionary({"conv1": 8, "conv2": 12, "conv3": 16}, random_state=0)
    return make_pipeline(dictionary, InferenceGraph(smoothing=2)).fit(held[:40])


def naive_bits(counts, smoothing, s, t):
    """log2 P(t | s) - log2 P(t), written out."""
    total, column, row = counts.sum(), counts[:, t].sum(), counts[s].sum()
    if not column or not row:
        return 0.0
    marginal = column / total
    return np.log2((counts[s, t] + smoothing * marginal) / (row + smoothing)) - np.log2(marginal)


def naive_fields(words, upper, lower):
    """All pairs of an upper location and a lower one that it sees."""
    if upper == "decision":
        return [((0, 0), place) for place in np.ndindex(words.words[lower].shape[1:])]
    field = words.spec.effective_fields[upper, lower]
    found = []
    for place in np.ndindex(words.words[upper].shape[1:]):
        rows, columns = field.window(*place)
        for r in range(rows.start, rows.stop):
            found += [(place, (r, c)) for c in range(columns.start, columns.stop)]
    return found


def test_bits_equal_a_plain_loop(pipe, held):
    found = predictive_bits(pipe, held[40:46], random_state=0)
    words = pipe[0].transform(held[40:46])
    assert list(found.bits) == [("decision", "conv3"), ("conv3", "conv2"), ("conv2", "conv1")]
    for (upper, lower), values in found.by_image.items():
        counts = pipe[1].transition_counts_[upper, lower]
        pairs = naive_fields(words, upper, lower)
        maps = words.decisions[:, None, None] if upper == "decision" else words.words[upper]
        shown = [[(maps[i][p], words.words[lower][i][q]) for p, q in pairs] for i in range(6)]
        expected = [np.mean([naive_bits(counts, 2, s, t) for s, t in image]) for image in shown]
        np.testing.assert_allclose(values, expected)
        marginal = counts.sum(0) / counts.sum()
        without = np.mean([-np.log2(marginal[t]) for image in shown for _, t in image])
        assert found.without[upper, lower] == pytest.approx(without)
        low, high = found.intervals[upper, lower]
        assert low <= values.mean() <= high
    assert found.mean == pytest.approx(np.mean([values.mean() for values in found.by_image.values()]))
    assert bits_score(pipe, held[40:46]) == pytest.approx(found.mean)


def relabelled(words, decisions, top):
    return replace(words, decisions=decisions, words={**words.words, "conv3": top})


def test_a_decision_that_follows_from_the_word_tells_its_entropy(words):
    """Four equally frequent words, one for each decision: two bits, and none left."""
    decisions = np.arange(300) % 4
    top = np.broadcast_to(decisions[:, None, None], (300, 4, 4))
    made = relabelled(words, decisions, top)
    graph = InferenceGraph(smoothing=1e-9).fit(made)
    np.testing.assert_allclose(bits_by_image(graph, made)["decision", "conv3"], 2)


def test_words_without_relation_tell_nothing_that_holds(words, rng):
    decisions, top = rng.integers(0, 4, 300), rng.integers(0, 16, (300, 4, 4))
    made = relabelled(words, decisions, top)
    graph = InferenceGraph().fit(made[:150])
    parts = made[:150], made[150:]
    fitted, held_out = (bits_by_image(graph, part)["decision", "conv3"].mean() for part in parts)
    assert -0.02 < held_out < 0 < fitted


def test_words_never_counted_tell_nothing(words):
    top = np.zeros((300, 4, 4), int)
    top[150:] = 9  # not among the fitted
    made = relabelled(words, np.arange(300) // 150, top)
    graph = InferenceGraph().fit(made[:150])
    np.testing.assert_array_equal(bits_by_image(graph, made[150:])["decision", "conv3"], 0)
    n_counted, n_unseen = 150 * 16, 15
    assert _without(graph, made[150:])["decision", "conv3"] == pytest.approx(np.log2(n_counted + n_unseen))


def test_a_grid_search_chooses_by_bits(held):
    pipe = Pipeline([("words", LayerDictionary(random_state=0)), ("graph", InferenceGraph())])
    search = GridSearchCV(pipe, {"words__n_components": [2, 12]}, scoring=bits_score, cv=2, error_score="raise")
    search.fit(held)
    assert search.best_params_ == {"words__n_components": 12}
    assert search.best_score_ == pytest.approx(search.cv_results_["mean_test_score"].max())


def test_the_text_tells_each_pair(pipe, held):
    found = predictive_bits(pipe, held[40:], random_state=0)
    assert [figure.value for figure in found.figures()] == list(found.bits.values())
    lines = str(found).splitlines()
    assert lines[0].startswith("Over 20 images")
    assert [line.split(" tells ")[0] for line in lines[1:]] == [
        "the decision",
        "the word of conv3",
        "the word of conv2",
    ]


def test_the_same_random_state_gives_the_same_intervals(pipe, held):
    first, second = (predictive_bits(pipe, held[40:], random_state=3).intervals for _ in range(2))
    assert first == second


def test_bits_need_a_graph(pipe, held):
    with pytest.raises(TypeError, match="ends with an InferenceGraph"):
        predictive_bits(pipe[0], held)
    with pytest.raises(TypeError, match="give FeatureMaps"):
        bits_score(pipe, np.zeros((3, 8, 8)))
