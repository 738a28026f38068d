import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skgmmcnn.metrics._orders import first_of_equal_size, leaders_of, priorities_by_evidence, ranks_of
from skgmmcnn.metrics._parts import take_apart


@pytest.mark.parametrize("by", ["image", "class"])
def test_words_are_ranked_as_the_graph_chooses_them(either, test_images, by):
    parts = take_apart(either, test_images)
    evidence, counts, decisions = parts.evidence, parts.words.histogram(), parts.words.decisions
    tables = priorities_by_evidence(parts, leaders_of(parts, by))
    result = {order: np.hstack(list(table.values())) for order, table in tables.items()}
    for row in range(len(test_images)):
        rows = [row] if by == "image" else decisions == decisions[row]
        mean, n_locations = evidence[rows].mean(0), counts[rows].mean(0)
        expected = mean / np.sqrt(np.maximum(n_locations, 1)) if parts.graph.evidence_ == "influence" else mean
        np.testing.assert_allclose(result["graph"][row], expected, atol=1e-12)
        np.testing.assert_allclose(result["reverse"][row], -expected, atol=1e-12)
        np.testing.assert_allclose(result["per_location"][row], mean / np.maximum(counts[rows].sum(0), 1), atol=1e-12)


def test_the_graph_keeps_the_first_words_of_its_order(pipe, test_images):
    parts = take_apart(pipe, test_images)
    priorities = priorities_by_evidence(parts, leaders_of(parts, "image"))["graph"]
    for layer, kept in parts.kept().items():
        places = (-priorities[layer]).argsort(1).argsort(1)
        assert (places[kept] < 3).mean() > 0.9  # the others had no effect


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n_words=st.integers(1, 7), n=st.integers(1, 4))
def test_first_words_with_about_as_many_columns(data, n_words, n):
    def table(values):
        return np.array([data.draw(st.lists(values, min_size=n_words, max_size=n_words)) for _ in range(n)])

    counts, kept, priority = table(st.integers(0, 5)), table(st.booleans()), table(st.integers(-3, 3))
    counts[:, 0] += 1
    ranks = ranks_of(priority, counts)
    first = first_of_equal_size(ranks, counts, kept)
    for i in range(n):
        order = np.argsort(ranks[i])
        present = sorted(np.flatnonzero(counts[i]), key=lambda word: -priority[i, word])
        assert order[: len(present)].tolist() == present
        wanted = counts[i, kept[i]].sum()
        nearest = min(abs(counts[i, order[:end]].sum() - wanted) for end in range(n_words + 1))
        assert abs(counts[i, first[i]].sum() - wanted) == nearest
