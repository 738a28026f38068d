"""Maps of the places of lower words in the fields of upper ones."""

import numpy as np

from skgmmcnn import InferenceGraph
from skgmmcnn.plot._edge_maps import edge_maps


def test_edge_maps_equal_loops(words):
    """The share of the fields of the upper word that show the lower one, place by place in a whole field."""
    graph = InferenceGraph(fields="whole", evidence="counts").fit(words)
    some = words[:20]
    explained = graph.explain_together(some, int(some.decisions[0]))
    maps = edge_maps(graph, some, explained)
    assert maps.keys() == set(explained.edges)
    for (tail, head), actual in maps.items():
        lower, upper = explained.nodes[tail], explained.nodes[head]
        shown = some.words[lower["layer"]] == lower["word"]
        if upper["layer"] == "decision":
            np.testing.assert_allclose(actual, shown.mean(0))
            continue
        step, size, before = {"conv3": (2, 6, 2), "conv2": (1, 3, 1)}[upper["layer"]]  # of 3, behind pooling and not
        padded = np.pad(shown.astype(float), ((0, 0), (4, 4), (4, 4)), constant_values=np.nan)
        windows = [
            padded[n, 4 - before + step * i :, 4 - before + step * j :][:size, :size]
            for n, i, j in zip(*np.nonzero(some.words[upper["layer"]] == upper["word"]), strict=True)
        ]
        there = np.isfinite(windows).sum(0)
        np.testing.assert_allclose(actual, np.where(there, np.nansum(windows, 0) / np.maximum(there, 1), np.nan))
        assert explained.edges[tail, head]["count"] == np.nansum(windows)
