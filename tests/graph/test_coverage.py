"""What counts cannot tell is said early."""

import re

import numpy as np
import pytest

from skgmmcnn import InferenceGraph


def test_fit_tells_how_far_counts_can_speak(words, capsys):
    labels = np.where(np.arange(len(words)) < 30, (words.decisions + 1) % 10, words.decisions)  # 30 wrong ones
    few = words[words.decisions != 3]
    some = np.concatenate([np.flatnonzero(words.decisions != 3), np.flatnonzero(words.decisions == 3)[:4]])
    graph = InferenceGraph(verbose=1).fit(words[some], labels[some])
    told = capsys.readouterr().out
    predicted, right = graph.predict(words[some]) == words.decisions[some], labels[some] == words.decisions[some]
    found = [int(number) for number in re.findall(r"\d+", told)]
    rates = [round(100 * rows.mean()) for rows in (predicted, predicted[right], predicted[~right])]
    assert found == [len(few), len(some), 10, *rates]
    InferenceGraph(verbose=1).fit(few)
    assert "wrong" not in capsys.readouterr().out
    InferenceGraph().fit(few)
    assert not capsys.readouterr().out


def test_counts_warn_where_they_know_little(words):
    some = np.concatenate([np.flatnonzero(words.decisions != 3), np.flatnonzero(words.decisions == 3)[:4]])
    rare = words[words.decisions == 3]
    counts = InferenceGraph(evidence="counts").fit(words[some])
    for asked in (lambda: counts.explain(rare[:2]), lambda: counts.explain_class(rare, 3)):
        with pytest.warns(UserWarning, match=r"fewer than 10 fitted images: '3' \(4\)"):
            asked()
    counts.explain(words[words.decisions != 3][:3])
    InferenceGraph(evidence="influence").fit(words[some]).explain(rare[:2])


def test_counts_warn_of_contrasts_that_they_deny(words, graph):
    one = words[:1]
    decided = int(one.decisions[0])
    with pytest.warns(UserWarning, match="speak against 1 of 1 contrasts"):
        graph.explain(one, (decided + 1) % 10, contrast=decided)
