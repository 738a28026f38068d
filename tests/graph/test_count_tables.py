"""Counts and log-ratios against loops; coverage of decisions by the fitted images."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skgmmcnn import InferenceGraph
from skgmmcnn.features import ReceptiveField
from skgmmcnn.graph import _count_tables
from skgmmcnn.graph._count_tables import count_pairs, log_ratios
from tests.graph.naive import naive_log_ratio
from tests.graph.random_words import random_axis


def naive_count(upper, lower, field, n_upper, n_lower):
    counts = np.zeros((n_upper, n_lower), dtype=int)
    for above, below in zip(upper, lower, strict=True):
        for i, j in np.ndindex(above.shape):
            for word in below[field.window(i, j)].ravel():
                counts[above[i, j], word] += 1
    return counts


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    upper_size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    lower_size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    chunk=st.sampled_from([1, 7, 50, 2**22]),
)
def test_counts_equal_a_triple_loop(seed, upper_size, lower_size, chunk):
    rng = np.random.default_rng(seed)
    rows, columns = (random_axis(rng, u, v) for u, v in zip(upper_size, lower_size, strict=True))
    field = ReceptiveField(rows, columns, lower_size)
    upper = rng.integers(0, 4, (3, *upper_size)).astype(np.uint8)
    lower = rng.integers(0, 300, (3, *lower_size)).astype(np.uint16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_count_tables, "_CHUNK", chunk)
        counts = count_pairs(upper, lower, field, 4, 300)
    np.testing.assert_array_equal(counts, naive_count(upper, lower, field, 4, 300))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**31), smoothing=st.sampled_from([0.01, 1.0, 50.0]), share=st.floats(0, 1))
def test_log_ratios_follow_the_formulas(seed, smoothing, share):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 20, (5, 6)) * (rng.random((5, 6)) < share)
    counts[rng.integers(5)] = 0
    counts[:, rng.integers(6)] = 0
    ratios = log_ratios(counts, smoothing)
    for s, t in np.ndindex(counts.shape):
        assert ratios[s, t] == pytest.approx(naive_log_ratio(counts.tolist(), s, t, smoothing), abs=1e-12)
    assert (ratios[counts == 0] <= 1e-12).all()
    assert ratios[counts.sum(1) == 0] == pytest.approx(0, abs=1e-12)
    if counts.sum():
        marginal = counts.sum(0) / counts.sum()
        upper = (counts.sum(1) + smoothing) / (counts.sum() + smoothing * 5)
        np.testing.assert_allclose(upper @ (marginal * 2**ratios), marginal, atol=1e-12)


def test_fit_prints_the_coverage_of_decisions(words, capsys):
    labels = np.where(np.arange(len(words)) < 30, (words.decisions + 1) % 10, words.decisions)  # 30 wrong ones
    few = words[words.decisions != 3]
    rows = np.concatenate([np.flatnonzero(words.decisions != 3), np.flatnonzero(words.decisions == 3)[:4]])
    graph = InferenceGraph(verbose=1).fit(words[rows], labels[rows])
    printed = capsys.readouterr().out
    predicted, right = graph.predict(words[rows]) == words.decisions[rows], labels[rows] == words.decisions[rows]
    actual = [int(number) for number in re.findall(r"\d+", printed)]
    rates = [round(100 * rows.mean()) for rows in (predicted, predicted[right], predicted[~right])]
    assert actual == [len(few), len(rows), 10, *rates]
    InferenceGraph(verbose=1).fit(few)
    assert "wrong" not in capsys.readouterr().out
    InferenceGraph().fit(few)
    assert not capsys.readouterr().out
