import numpy as np
import pytest

from skgmmcnn.metrics._orders import leaders_of, ranked_by_evidence
from skgmmcnn.metrics._parts import take_apart


@pytest.mark.parametrize("by", ["image", "class"])
def test_words_are_ranked_as_the_graph_chooses_them(either, shown, by):
    parts = take_apart(either, shown)
    evidence, counts, decisions = parts.evidence, parts.words.histogram(), parts.words.decisions
    result = ranked_by_evidence(parts, leaders_of(parts, by))
    for row in range(len(shown)):
        rows = [row] if by == "image" else decisions == decisions[row]
        mean, n_locations = evidence[rows].mean(0), counts[rows].mean(0)
        expected = mean / np.sqrt(np.maximum(n_locations, 1)) if parts.graph.evidence_ == "influence" else mean
        np.testing.assert_allclose(result["graph"][row], expected, atol=1e-12)
        np.testing.assert_allclose(result["reverse"][row], -expected, atol=1e-12)
        np.testing.assert_allclose(result["per_location"][row], mean / np.maximum(counts[rows].sum(0), 1), atol=1e-12)


def test_the_graph_keeps_the_first_words_of_its_order(pipe, shown):
    parts = take_apart(pipe, shown)
    ranked = ranked_by_evidence(parts, leaders_of(parts, "image"))["graph"]
    for layer, kept in parts.kept().items():
        places = (-ranked[:, parts.columns([layer])]).argsort(1).argsort(1)
        assert (places[kept] < 3).mean() > 0.9  # the others had no effect
