"""Flows between words."""

import numpy as np

from skgmmcnn import InferenceGraph
from skgmmcnn.graph._influence_traces import Tracer
from skgmmcnn.graph._kinds import evidence_for
from skgmmcnn.graph._targets import targets_of


def test_flows_and_background_add_up(branched):
    """The contribution of an upper word, to first order, is the sum of flows from words below and of the background."""
    graph = InferenceGraph(n_nodes=5).fit(branched)  # all words that speak for it
    words = branched[:5]
    question = evidence_for(graph, words)._question(targets_of(words))
    linear = {}

    def work(part):
        tracer = Tracer(words, words.influence, question, part)
        tracer._choose()
        for upper, lower in [("left", "stem"), ("right", "stem")]:
            for ranked in tracer.ranked(upper):
                linear[upper, len(linear)] = tracer.flows_into(upper, lower, ranked)

    list(words.influence.rerun(work))
    assert linear
    for flows, reached, rest in linear.values():
        np.testing.assert_allclose(flows.sum(1) + rest, reached, atol=1e-6)
    for one in graph.explain(words):
        for key, node in one.nodes(data=True):
            if node["layer"] in ("left", "right"):
                shares = sum(edge["share"] for *_, edge in one.in_edges(key, data=True))
                assert np.isfinite(node["background"])
                assert np.isfinite(shares)
