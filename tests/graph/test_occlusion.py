"""Occlusion of the places of words against plain passes of the network."""

import numpy as np
import pytest
import torch

from skgmmcnn import InferenceGraph
from tests.networks import NETWORK, images_of, without_network, words_of

pytestmark = pytest.mark.filterwarnings("ignore:Counts know little", "ignore:The counts of all words")  # few images


@pytest.fixture(scope="module")
def topped():
    return words_of(NETWORK, ["left", "top"], images_of())


@pytest.mark.parametrize("evidence", ["influence", "counts"])
def test_hidden_places_equal_masks_by_hand(topped, evidence):
    graph = InferenceGraph(n_nodes=2, evidence=evidence, random_state=0).fit(topped)
    some = topped[5:11]
    graphs = graph.check(some, graph.explain(some))
    n_hidden = 0
    for i, actual in enumerate(graphs):
        image = torch.from_numpy(images_of()[5 + i])
        mask = np.zeros((8, 8), bool)
        for _, node in actual.nodes(data=True):
            if node["layer"] == "top":
                assert node.get("effect", node.get("score")) > 0
                present = some.words[node["layer"]][i] == node["word"]
                mask |= np.kron(present, np.ones((8 // len(present), 8 // len(present)))).astype(bool)
        hidden = image.clone()
        hidden[0][torch.from_numpy(mask)] = image.mean()
        with torch.no_grad():
            proba = NETWORK(hidden[None]).softmax(1)[0, actual.graph["target"]]
        assert actual.graph["probability_hidden"] == pytest.approx(float(proba), abs=1e-5)
        assert actual.graph["share_hidden"] == pytest.approx(mask.mean())
        assert 0 <= actual.graph["probability_hidden_elsewhere"] <= 1
        n_hidden += mask.sum()
    assert n_hidden > 10


def test_places_that_matter_cost_more(words, influence_graph):
    """Over six seeds, the probability is 0.24 to 0.30 with the places of words hidden, and 0.42 to 0.52 with others."""
    graphs = influence_graph.check(words[:60], influence_graph.explain(words[:60]))
    hidden, elsewhere = (
        np.mean([graph.graph[name] for graph in graphs])
        for name in ("probability_hidden", "probability_hidden_elsewhere")
    )
    assert hidden < elsewhere - 0.1


def test_each_image_needs_a_graph(topped):
    graph = InferenceGraph().fit(topped)
    with pytest.raises(ValueError, match="one graph for each of the 3"):
        graph.check(topped[:3], graph.explain(topped[:2]))


@pytest.mark.parametrize("kind", ["class", "word"])
def test_only_graphs_of_one_decision_are_checked(topped, kind):
    graph = InferenceGraph().fit(topped)
    if kind == "class":
        graphs = [graph.explain_class(topped, int(topped.decisions[0]))]
    else:
        graphs = graph.explain(topped[:1], ("top", 0))
    with pytest.raises(ValueError, match="explain an output for one image"):
        graph.check(topped[:1], graphs)


def test_words_need_a_network(topped):
    graph = InferenceGraph().fit(topped)
    with pytest.raises(ValueError, match="no network, from which"):
        graph.check(without_network(topped[:2]), graph.explain(topped[:2]))
