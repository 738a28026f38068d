"""The page without a browser: what is in it, how much, and that no text gets out of its place."""

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import networkx as nx
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.pipeline import make_pipeline

from skgmmcnn import FeatureExtractor, InferenceGraph, InferenceGraphPage, LayerDictionary
from skgmmcnn.graph import nats, percent, probable
from skgmmcnn.plot import _page_data
from skgmmcnn.plot._reading import pictures
from skgmmcnn.plot._reduction import prune
from tests.graph.random_words import random_words

# What counts warn of, the page says itself.
pytestmark = pytest.mark.filterwarnings("ignore:Counts know little", "ignore:The counts of all words together")

NASTY = '</script><script>alert(1)</script><!-- "&'


class Parts(HTMLParser):
    """The elements of a page with their attributes."""

    def __init__(self, page):
        super().__init__()
        self.elements = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def data_of(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.to_html(), re.DOTALL)
    classes = json.loads(found[1])["classes"]
    return json.loads(
        re.sub(
            r"\\ue000(\d+)\\ue001",
            lambda mark: json.dumps(classes[mark[1]])[1:-1] if mark[1] in classes else mark[0],
            found[1],
        )
    )


def picture_of(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).convert("RGBA"))


@pytest.fixture(scope="module")
def page(graph, words):
    return InferenceGraphPage.from_estimator(graph, words, images=[7, -1, 7])


def test_graphs_of_images_and_classes_with_contrasts(page, graph, words):
    assert list(page.graphs) == [7, 299]
    decided = int(words.decisions[7])
    other = int(np.argsort(graph.decision_function(words[7:8])[0])[-2])
    assert decided == graph.predict(words[7:8])[0]
    expected = [
        graph.explain(words[7:8])[0],
        graph.explain(words[7:8], contrast=other)[0],
        graph.explain_class(words, decided),
        graph.explain_class(words, decided, contrast=other),
    ]
    for found, wanted in zip(page.graphs[7], expected, strict=True):
        assert nx.utils.graphs_equal(found, wanted)


def test_images_by_numbers_of_numpy(graph, words):
    page = InferenceGraphPage.from_estimator(graph, words, images=np.array([7, -1]), contrast=words.decisions[8])
    assert [image["number"] for image in data_of(page)["images"]] == [7, 299]
    data_of(InferenceGraphPage(words, {np.int64(7): page.graphs[7]}))


def test_contrast_is_chosen_given_or_left_out(graph, words):
    decided = int(words.decisions[7])
    same = next(i for i in range(8, 300) if words.decisions[i] == decided)
    of_none = InferenceGraphPage.from_estimator(graph, words, images=[7], contrast=False)
    assert len(of_none.graphs[7]) == 2
    given = InferenceGraphPage.from_estimator(graph, words, images=[7, same], contrast=str((decided + 1) % 10))
    assert given.graphs[7][1].graph["contrast"] == (decided + 1) % 10
    assert given.graphs[7][2] is given.graphs[same][2]  # the graph of a class is made once
    itself = InferenceGraphPage.from_estimator(graph, words, images=[7], contrast=decided)
    assert len(itself.graphs[7]) == 2  # nothing is contrasted with itself
    alone = InferenceGraphPage.from_estimator(graph, words[7:8])
    assert [len(graphs) for graphs in alone.graphs.values()] == [2]  # the class is this image


def test_a_wrong_decision_is_contrasted_with_the_true_class(graph, words):
    labels = words.decisions.copy()
    labels[7] = true = (labels[7] + 3) % 10
    names = [words.spec.class_name(label) for label in labels]
    page = InferenceGraphPage.from_estimator(graph, words, labels, images=[7, 8])
    right = InferenceGraphPage.from_estimator(graph, words, images=[8])
    assert [graphs[1].graph["contrast"] for graphs in page.graphs.values()] == [
        true,
        right.graphs[8][1].graph["contrast"],
    ]
    assert [(image["decision"], image["label"]) for image in data_of(page)["images"]] == [
        (words.spec.class_name(words.decisions[row]), names[row]) for row in (7, 8)
    ]
    assert {image["label"] for image in data_of(right)["images"]} == {None}
    with pytest.raises(ValueError, match="one label per image"):
        InferenceGraphPage.from_estimator(graph, words, [0, 1], images=[7])


def test_several_contrasts(graph, words):
    decided = int(words.decisions[7])
    others = [(decided + 1) % 10, str((decided + 2) % 10)]
    page = InferenceGraphPage.from_estimator(graph, words, images=[7], contrast=others)
    assert [g.graph.get("contrast") for g in page.graphs[7]] == 2 * [None, *map(int, others)]
    for found, other in zip(page.graphs[7][1:3], others, strict=True):
        assert nx.utils.graphs_equal(found, graph.explain(words[7:8], contrast=other)[0])


def test_names_of_classes_are_there_once(influence_graph, words):
    """Not once for every node that has them."""
    long = tuple(f"{'very ' * 200}long name {number}" for number in range(10))
    named = replace(words, spec=replace(words.spec, class_names=long))
    text = InferenceGraphPage.from_estimator(influence_graph, named, images=[3, 7]).to_html()
    assert {text.count(name) for name in long} <= {0, 1}


def test_names_that_look_like_marks_of_classes_stay(graph, words):
    mark = "\ue000999\ue001"
    named = replace(
        words, vocabulary=replace(words.vocabulary, names=dict.fromkeys([("conv3", i) for i in range(16)], mark))
    )
    assert mark in {
        word.get("name")
        for word in data_of(InferenceGraphPage.from_estimator(graph, named, images=[3]))["words"].values()
    }


def test_images_of_files_have_their_names(digits, tmp_path):
    files = [tmp_path / f"digit {number}.png" for number in range(3)]
    for file, image in zip(files, digits.test_images, strict=False):
        Image.fromarray((image.squeeze() * 255).astype(np.uint8)).save(file)
    pipe = make_pipeline(
        FeatureExtractor(
            digits.network, ["conv3"], preprocess=lambda image: torch.tensor(np.array(image) / 255.0)[None]
        ),
        LayerDictionary(6, random_state=0),
        InferenceGraph(),
    ).fit(files)
    data = data_of(InferenceGraphPage.from_estimator(pipe, files, images=[2, 0]))
    assert [image["name"] for image in data["images"]] == ["digit 2.png", "digit 0.png"]


def test_a_class_without_fitted_images_is_no_contrast(words):
    few = np.isin(words.decisions, [1, 2])
    estimator = InferenceGraph(evidence="counts").fit(words[np.flatnonzero(few)])
    evidence = estimator.decision_function(words[:5])
    assert np.isfinite(evidence).sum(0).nonzero()[0].tolist() == [1, 2]
    row = int(np.flatnonzero(few)[0])
    page = InferenceGraphPage.from_estimator(estimator, words, images=[row])
    assert page.graphs[row][1].graph["contrast"] == 3 - words.decisions[row]
    row = int(np.flatnonzero(~few)[0])
    page = InferenceGraphPage.from_estimator(estimator, words, images=[row])
    assert all("contrast" not in graph.graph for graph in page.graphs[row])


def test_data_says_what_the_graphs_say(page, words):
    data = data_of(page)
    assert {layer: [len(cells["rows"]) - 1, len(cells["columns"]) - 1] for layer, cells in data["layers"].items()} == {
        layer: list(words.words[layer].shape[1:]) for layer in words.layers
    }
    for image, (row, graphs) in zip(data["images"], page.graphs.items(), strict=True):
        assert image["number"] == row
        assert image["decision"] == words.spec.class_name(words.decisions[row])
        for number, graph in zip(image["views"], graphs, strict=True):
            view = data["views"][number]
            assert view["remarks"] == []
            assert view["root"] == graph.graph["root"]
            assert view["nodes"].keys() == graph.nodes.keys()
            for key, node in graph.nodes.items():
                shown, of = view["nodes"][key], node["layer"]
                assert shown.items() >= {name: node[name] for name in ("layer", "word", "count")}.items()
                assert of == "decision" or shown["bar"][0] == f"{node['score']:.1f} bits"
                assert shown.get("class_name") == node.get("class_name")
            assert {(edge["tail"], edge["head"]): edge["short"].split()[0] for edge in view["edges"]} == {
                (tail, head): f"{ratio:.2f}" for tail, head, ratio in graph.edges.data("log_ratio")
            }


def test_influence_says_what_the_graphs_say(influence_graph, words):
    page = InferenceGraphPage.from_estimator(influence_graph, words, images=[7])
    of_image, contrast, of_class, of_contrast = page.graphs[7]
    assert contrast.graph["contrast"] == of_contrast.graph["contrast"] == of_image.graph["runner_up"]
    of_image.graph["held"] = False
    for view, graph in zip(data_of(page)["views"], page.graphs[7], strict=True):
        assert view["evidence"] == "influence"
        for key, node in graph.nodes.items():
            shown_bar, length = view["nodes"][key]["bar"]
            if node["layer"] == "decision":
                assert (shown_bar, length) == (probable(node["probability"]), round(node["probability"], 3))
            else:
                assert shown_bar in (nats(node["influence"]), percent(node["share"]))
                assert 0 < length <= 1
        largest = max(abs(effect) for *_, effect in graph.edges.data("effect"))
        for edge in view["edges"]:
            effect = graph.edges[edge["tail"], edge["head"]]["effect"]
            assert edge["strength"] == pytest.approx(abs(effect) / largest, abs=1e-3)
            assert edge["against"] == (effect < 0)
            assert edge["text"].startswith(nats(effect))
    views = data_of(page)["views"]
    key = next(key for key, node in of_image.nodes.items() if node["layer"] != "decision")
    word, shown = of_image.nodes[key], views[0]["nodes"][key]
    before, after = probable(of_image.graph["probability"]), probable(word["probability_without"])
    assert shown["lines"][0].startswith(f"without it {before} \u2192 {after}")
    first, second = np.argsort(-words.vocabulary.statistics[word["layer"]].classes[word["word"]], kind="stable")[:2]
    assert re.fullmatch(rf"seen in {first} \d+ %, {second} \d+ %", shown["lines"][1])
    assert shown["panel"][0] == f"{word['count']} of {word['n_locations']} locations in this image."
    assert views[0]["remarks"] == ["Incomplete: these words alone do not keep the decision."]
    assert views[2]["nodes"][views[2]["root"]]["panel"] == [
        f"Mean probability {probable(of_class.graph['probability'])}."
    ]


def test_the_strongest_are_kept_whether_for_or_against():
    graph = nx.DiGraph(evidence="influence", root="decision_7")
    graph.add_node("decision_7", layer="decision", margin=1.0)
    for key, influence in {"a": 1.0, "b": -5.0, "c": 2.0, "d": -0.1}.items():
        graph.add_node(key, layer="conv", influence=influence)
    graph.add_edges_from([("b", "decision_7", {"effect": -3.0}), ("b", "c", {"effect": 1.0})])
    part = prune(graph, 3, 1)
    assert set(part) == {"decision_7", "b", "c"}
    assert list(part.edges) == [("b", "decision_7")]


def test_places_are_those_of_the_words(page, words):
    data = data_of(page)
    for image in data["images"]:
        for key, word in data["words"].items():
            shown = words.words[word["layer"]][image["number"]].ravel() == word["word"]
            runs = np.array(image["places"].get(key, [])).reshape(-1, 2)
            assert [i for start, length in runs for i in range(start, start + length)] == np.flatnonzero(shown).tolist()


def test_statistics_are_those_of_the_words(page, words):
    for word in data_of(page)["words"].values():
        statistics = words.vocabulary.statistics[word["layer"]]
        assert word["share"] == pytest.approx(statistics.share[word["word"]])
        assert word["classes"][0][1] == pytest.approx(statistics.purity[word["word"]])
        for name, share in word["classes"]:
            assert share == pytest.approx(statistics.classes[word["word"], int(name)])
        assert word["n_classes"] == (statistics.classes[word["word"]] > 0).sum()


def test_pictures_and_patches(page, words):
    data = data_of(page)
    for image in data["images"]:
        (picture,) = pictures(words[image["number"]])
        np.testing.assert_array_equal(picture_of(image["picture"])[10::20, 10::20, :3], picture)
    for word in data["words"].values():
        representatives = words.vocabulary.representatives[word["layer"]]
        sheet = picture_of(word["sprite"])
        assert sheet.shape[0] == sheet.shape[1]
        cell = sheet.shape[0] // 3
        best = representatives.patches[word["word"], :4]
        times = 48 // max(best.shape[1:3])
        for patch, (top, left) in zip(best, [(0, 0), (0, cell), (cell, 0), (cell, cell)], strict=True):
            inside = sheet[top : top + cell, left : left + cell]
            rows, columns = np.flatnonzero(inside[..., 3].any(1)), np.flatnonzero(inside[..., 3].any(0))
            shown = inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, :3]
            np.testing.assert_array_equal(shown[times // 2 :: times, times // 2 :: times], patch)
        assert len(word["marks"]) == (9 if representatives.whole else 0)


def test_every_word_and_picture_is_there_once(page):
    text, data = page.to_html(), data_of(page)
    sprites = [word["sprite"] for word in data["words"].values()]
    assert sum(len(view["nodes"]) for view in data["views"]) > len(data["words"]) + len(data["views"])
    assert all(text.count(sprite) == sprites.count(sprite) for sprite in sprites)


def test_nothing_can_get_out_of_the_data(words):
    named = replace(
        words,
        spec=replace(words.spec, class_names=(NASTY, *map(str, range(1, 10)))),
        vocabulary=replace(words.vocabulary, names={("conv3", word): NASTY for word in range(16)}),
    )
    row = int(np.flatnonzero(words.decisions == 0)[0])
    page = InferenceGraphPage.from_estimator(InferenceGraph(evidence="counts").fit(named), named, images=[row])
    data = data_of(page)
    assert data["views"][0]["nodes"]["decision_0"]["class_name"] == NASTY
    assert NASTY in {word.get("name") for word in data["words"].values()}
    parts = Parts(page.to_html())
    assert [tag for tag, _ in parts.elements].count("script") == 2
    assert "alert(1)" not in page.to_html().replace("\\u003cscript>alert(1)\\u003c/script>", "")
    assert "<script" not in page._repr_html_().lower()


def test_the_page_loads_nothing(page):
    text = page.to_html()
    assert text.isascii()
    parts = Parts(text)
    (policy,) = [attrs["content"] for tag, attrs in parts.elements if attrs.get("http-equiv")]
    assert policy.startswith("default-src 'none'; img-src data:;")
    for tag in ("style", "script"):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    outside = {attrs[name] for _, attrs in parts.elements for name in ("src", "href") if name in attrs}
    assert outside == {"data:,"}
    assert not [
        attrs for _, attrs in parts.elements if "style" in attrs or any(name.startswith("on") for name in attrs)
    ]
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_large_graphs_are_cut_and_say_so(words, monkeypatch):
    monkeypatch.setattr(_page_data, "_MOST_NODES", 13)
    monkeypatch.setattr(_page_data, "_MOST_EDGES", 12)
    estimator = InferenceGraph(n_nodes=8, evidence="counts").fit(words)
    page = InferenceGraphPage.from_estimator(estimator, words, images=[3])
    whole = page.graphs[3][0]  # 21 to 24 nodes with other seeds; 17 to 23 edges between the strongest 13
    view = data_of(page)["views"][0]
    assert (len(view["nodes"]), len(view["edges"])) == (13, 12)
    assert view["remarks"] == [
        f"This graph is too large for a page: it shows the strongest 13 of {len(whole)} nodes and 12 of "
        f"{whole.number_of_edges()} edges."
    ]
    part = prune(whole, 13, 12)
    by_layer = {}
    for key, node in whole.nodes.items():
        by_layer.setdefault(node["layer"], []).append((node["score"], key))
    for layer, nodes in by_layer.items():
        kept = [key for key in part if part.nodes[key]["layer"] == layer]
        assert layer == "decision" or len(kept) == 4
        assert set(kept) == {key for _, key in sorted(nodes, reverse=True)[: len(kept)]}
    for tail in part:  # a word that explains anything here keeps its strongest edge
        edges = [(edge["contribution"], head) for _, head, edge in whole.out_edges(tail, data=True) if head in part]
        assert not edges or max(edges)[1] in part.successors(tail)
    assert nx.utils.graphs_equal(prune(whole, 99, 999), whole)


def test_save_returns_the_size(page, tmp_path):
    size = page.save(tmp_path / "why.html")
    assert size == (tmp_path / "why.html").stat().st_size == len(page.to_html())
    assert size < 200_000
    with pytest.raises(FileNotFoundError):
        page.save(tmp_path / "nowhere" / "why.html")


def test_a_notebook_shows_the_page(page):
    ((tag, attributes),) = Parts(page._repr_html_()).elements
    assert tag == "iframe"
    assert attributes["srcdoc"] == page.to_html()


def test_other_targets_words_and_locations(graph, words):
    graphs = [*graph.explain(words[3:4], ("conv3", 1, 2)), *graph.explain(words[3:4], int(words.decisions[3] + 1) % 10)]
    data = data_of(InferenceGraphPage(words, {3: graphs}))
    assert data["views"][0]["root"].startswith("conv3_w")
    assert data["views"][0]["nodes"][data["views"][0]["root"]]["row"] == 1
    assert data["views"][1]["nodes"][data["views"][1]["root"]]["count"] == 0


def test_without_images_patches_and_statistics():
    words = random_words(0)
    data = data_of(InferenceGraphPage.from_estimator(InferenceGraph(evidence="counts").fit(words), words))
    assert len(data["images"]) == 8
    assert {image["picture"] for image in data["images"]} == {None}
    assert not any("sprite" in word or "classes" in word for word in data["words"].values())


def test_from_a_pipeline(digits):
    pipe = make_pipeline(
        FeatureExtractor(digits.network, ["conv2", "conv3"]),
        LayerDictionary(6, keep_patches=False, random_state=0),
        InferenceGraph(evidence="counts"),
    ).fit(digits.images[:100])
    data = data_of(InferenceGraphPage.from_estimator(pipe, digits.test_images[:30], images=[-1]))
    assert data["images"][0]["number"] == 29
    assert all(word["sprite"] is None for word in data["words"].values())
    with pytest.raises(IndexError, match="no image 30 in X, which has 30"):
        InferenceGraphPage.from_estimator(pipe, digits.test_images[:30], images=[30])


def test_bad_input_is_named(graph, words):
    with pytest.raises(ValueError, match="no class 'cat'"):
        InferenceGraphPage.from_estimator(graph, words, contrast="cat")
    with pytest.raises(ValueError, match="at least one image"):
        InferenceGraphPage(words, {}).to_html()
    with pytest.raises(ValueError, match="at most 100 images, not 101"):
        InferenceGraphPage(words, dict.fromkeys(range(101), graph.explain(words[:1]))).to_html()
    with pytest.raises(IndexError, match="no image 300"):
        InferenceGraphPage(words, {300: graph.explain(words[:1])}).to_html()


def test_a_decision_that_no_word_speaks_for_says_so(words):
    page = InferenceGraphPage.from_estimator(
        InferenceGraph(evidence="counts").fit(words[words.decisions == words.decisions[0]]), words, images=[0]
    )
    assert {" ".join(view["remarks"]) for view in data_of(page)["views"]} == {
        "No word speaks for it: none has enough evidence."
    }


def test_a_class_that_was_not_fitted_says_so(words):
    four = int(np.flatnonzero(words.decisions == 4)[0])
    fitted = InferenceGraph(evidence="counts").fit(words[np.flatnonzero(words.decisions != 4)])
    data = data_of(InferenceGraphPage.from_estimator(fitted, words, images=[four]))
    assert {" ".join(view["remarks"]) for view in data["views"]} == {
        "No fitted image was decided so: fit images that the network calls 4."
    }
    data = data_of(
        InferenceGraphPage.from_estimator(InferenceGraph(evidence="counts").fit(words), words, images=[four])
    )
    assert not any(view["remarks"] for view in data["views"])
