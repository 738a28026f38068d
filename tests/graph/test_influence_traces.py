"""Flows between words."""

import numpy as np

from skgmmcnn import InferenceGraph
from skgmmcnn.dictionary import ClassMargin
from skgmmcnn.graph._influence_traces import Question, Tracer


def test_flows_and_background_add_up(branched):
    """To first order, the contribution of an upper word is the sum of its background and of flows from lower words."""
    words = branched[:5]
    pairs = [("left", "stem"), ("right", "stem")]
    margin = ClassMargin(words.decisions.astype(np.int64), None)
    question = Question(margin, words.layers, pairs, n_steps=4, n_nodes=dict.fromkeys(words.layers, 5))

    def measure(part):
        tracer = Tracer(words, words.influence, question, part)
        tracer.measure_kept_words()
        return [tracer.flows_into(*pair, ranked) for pair in pairs for ranked in tracer.ranked(pair[0])]

    results = [result for results in words.influence.rerun(measure) for result in results]
    assert results
    for flows, contributions, background in results:
        np.testing.assert_allclose(flows.sum(1) + background, contributions, atol=1e-6)


def test_backgrounds_are_attributes_of_upper_words(branched):
    for graph in InferenceGraph(n_nodes=5).fit(branched).explain(branched[:5]):
        for key, node in graph.nodes.items():
            if node["layer"] in ("left", "right"):
                shares = [share for *_, share in graph.in_edges(key, data="share")]
                assert np.isfinite([node["background"], *shares]).all()
