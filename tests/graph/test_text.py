"""Text of graphs."""

import networkx as nx
import pytest

from skgmmcnn import InferenceGraph, to_text
from tests.graph.random_words import random_words


def seven(**of):
    """Return a graph with a word for the decision, one against it, and an edge between words."""
    overall = {
        "evidence": "influence",
        "n_images": 1,
        "n_explained": 1,
        "root": "decision_7",
        "target": 7,
        "decision": 7,
    }
    overall |= {"probability": 0.93, "runner_up_name": "cat", "runner_up_probability": 0.04, "held": True}
    graph = nx.DiGraph(**overall | of)
    contrast = {"contrast_name": of["contrast_name"]} if "contrast_name" in of else {}
    graph.add_node("decision_7", layer="decision", word=7, count=1, n_locations=1, class_name="seven", **contrast)
    for key, influence, without, decision in [("up_w003", 2.1, 0.41, 2), ("up_w004", -0.5, 0.93, 7)]:
        actual = {"influence": influence, "share": influence / 7, "effect": 1.5 * influence}
        actual |= {"probability_without": without, "decision_without": decision, "class_without": "tench"}
        graph.add_node(key, layer="up", word=int(key[-1]), count=6, n_locations=64, **actual)
        graph.add_edge(key, "decision_7", flow=influence, share=influence / 7, effect=1.5 * influence)
    graph.add_node("low_w001", **{**graph.nodes["up_w003"], "layer": "low", "word": 1})
    graph.add_edge("low_w001", "up_w003", flow=0.5, share=0.24, effect=0.8)
    graph.add_edge("low_w001", "up_w004", flow=0.3, share=-0.6, effect=0.2)
    return graph


def test_text_of_influence():
    carries = (
        "6 of 64 locations, carries 30 % of the log-odds (+2.1 nats); without it 3.2 nats less: 0.93 becomes 0.41, and "
        "the network says tench"
    )
    assert to_text(seven()).split("\n") == [
        "decision_7 seven: probability 0.93, then cat 0.04; these words alone keep the decision",
        "up",
        f"  up_w003: {carries}",
        "  up_w004: 6 of 64 locations, speaks against it by 7 % of the log-odds (-0.50 nats); without it 0.75 nats "
        "more: still 0.93",
        "low",
        f"  low_w001: {carries}",
        "    for up_w003: +0.80 nats (24 % of it) come from here",
        "    for up_w004: +0.20 nats come from here",
    ]


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        ({"held": False}, "probability 0.93, then cat 0.04; these words alone do not keep the decision"),
        ({"decision": 2, "held": False}, "probability 0.93, the network says cat 0.04"),
        ({"contrast": 3, "contrast_name": "cat"}, "probability 0.93, then cat 0.04; these words alone keep the lead"),
        ({"n_images": 1, "probability": 0.999999}, "probability >0.9999, then cat 0.04; these words alone keep"),
    ],
)
def test_the_decision(of, expected):
    first, *others = to_text(seven(**of)).split("\n")
    assert f": {expected}" in first
    assert ("of the lead over cat" in others[1]) == ("contrast" in of)


def test_no_word():
    graph = seven()
    graph.remove_nodes_from(list(graph)[1:])
    assert to_text(graph).endswith("No word speaks for it: without any of those tried it would be no less likely.")


def test_several_images_and_words(influence_graph, words):
    text = to_text(influence_graph.explain_class(words, 4))
    n_images = (words.decisions == 4).sum()
    assert f"decision_4 4: the decision for {n_images} of {n_images} images, mean probability 0." in text
    assert "of the images; without it" in text
    assert "% of it)" not in text  # a mean of shares means little
    few = InferenceGraph(evidence="influence", max_images=5).fit(words)
    assert " in 5 of them, which are explained" in to_text(few.explain_class(words, 4))
    of_word = to_text(influence_graph.explain(words[7], ("conv3", 1, 2))[0])
    assert "here at row 1, column 2, log-odds of this word " in of_word.split("\n")[1]
    assert "becomes" not in of_word


@pytest.mark.filterwarnings("ignore:Counts know little")
def test_text_of_counts(graph, words):
    named = random_words(1, names={("top", 3): "whisker"})
    text = to_text(InferenceGraph(n_nodes=5).fit(named).explain_class(named, "layer3"))
    assert text.startswith("decision_2 layer3: the decision for")
    assert "top_w003 whisker: " in text
    assert f"learnt from {(named.decisions == 2).sum()} images" in text
    explained = graph.explain(words[:1])[0]
    assert all(key in to_text(explained) for key in explained)
