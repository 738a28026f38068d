"""Means of influence over images."""

import numpy as np
import pytest

from skgmmcnn import InferenceGraph


def test_together_means_over_images(branched):
    graph = InferenceGraph(n_nodes=2, random_state=0).fit(branched)
    target = int(np.bincount(branched.decisions).argmax())
    rows = np.flatnonzero(branched.decisions == target)
    actual = graph.explain_class(branched, target)
    totals = graph.transform(branched[rows])
    names = list(graph.get_feature_names_out())
    assert actual.graph["n_explained"] == len(rows)
    for key, node in actual.nodes(data=True):
        if node["layer"] == "decision":
            continue
        own = totals[:, names.index(key)]
        assert node["influence"] == pytest.approx(own.mean(), abs=1e-9)
        assert node["low"] <= own.mean() <= node["high"]
        assert 0 <= node["selected"] <= 1
        assert 0 <= node["changed"] <= 1
    few = InferenceGraph(n_nodes=2, max_images=4, random_state=0).fit(branched)
    one, again = (few.explain_class(branched, target) for _ in range(2))
    assert one.graph["n_explained"] == 4
    assert one.graph["n_images"] == len(rows)
    assert dict(one.nodes) == dict(again.nodes)
