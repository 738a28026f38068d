import html
import itertools
import re
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import networkx as nx
import numpy as np
import pytest
import torch
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image
from sklearn.pipeline import Pipeline
from torch import nn
from torchvision.transforms import ToTensor

from skgmmcnn import FeatureExtractor, InferenceGraph, InferenceGraphDisplay, LayerDictionary, to_text
from skgmmcnn.graph._influence_wording import is_part
from skgmmcnn.graph._wording import nats, percent, probable
from skgmmcnn.plot import _reduction
from skgmmcnn.plot._cells import HELD, strongest
from skgmmcnn.plot._drawing import AGAINST, INK, in_lines
from skgmmcnn.plot._edge_maps import edge_maps
from skgmmcnn.plot._layout import Box, place_labels, rows_of
from skgmmcnn.plot._reading import locations_of
from tests.graph.random_words import random_words
from tests.plot.readable import assert_readable, written

# What counts warn of, pictures say themselves.
pytestmark = pytest.mark.filterwarnings("ignore:Counts know little")


def test_picture_of_an_image(graph, words):
    display = InferenceGraphDisplay.from_estimator(graph, words, image=7)
    explained = graph.explain(words[7:8])[0]
    assert display.graph.nodes.keys() == explained.nodes.keys()
    texts, drawn = written(display), display._drawn  # alike words as one
    for _, node in drawn.nodes(data=True):
        if node["layer"] != "decision":
            assert any(text.endswith(f"w{node['word']}") for text in texts)
            assert {f"{node['score']:.1f} bits", f"{node['count']} of {node['n_locations']} locations"} <= set(texts)
    labels = [text for text in texts if re.match(r"[0-9.]+ bits, ", text)]
    expected = [f"{edge['log_ratio']:.2f} bits, {percent(edge['frequency'])}" for *_, edge in drawn.edges(data=True)]
    assert set(labels) <= set(expected)
    assert len(labels) >= 0.9 * len(expected)  # where there is room
    assert "Lit: the locations of words in the image." in " ".join(" ".join(texts).split())
    n_words = len(drawn) - 1
    n_images = len(display.ax_.images)
    assert n_images == 2 + n_words * 5  # the decision's, as it is and lit; for a word four patches and the image
    assert_readable(display.figure_)


def lit_part(display, place):
    """Return where one of the images of a display is as it was, and the original."""
    drawn, original = display.ax_.images[place].get_array(), display.ax_.images[0].get_array()
    return (drawn == original).all(2), original


def test_words_are_lit_not_covered(graph, words):
    """Their places keep the image's own colours; all else is grey, and lighter."""
    display = InferenceGraphDisplay.from_estimator(graph, words, image=7)
    of_words = [place for place, image in enumerate(display.ax_.images) if image.get_array().shape == (8, 8, 3)]
    of_words = [place for place in of_words if place > 1][-3:]  # of the lowest layer, whose cells are pixels
    nodes = [node for node in display.graph.nodes.values() if node["layer"] == "conv1"]
    expected = {(words.words["conv1"][7] == node["word"]).tobytes() for node in nodes}
    for place in of_words:
        same, original = lit_part(display, place)
        drawn = display.ax_.images[place].get_array()
        pale = np.asarray(original, float).mean(2) * 125 / 255 + 130
        assert np.abs(np.asarray(drawn, float).mean(2) - pale)[~same].max() <= 1
        assert any(same[np.frombuffer(shown, bool).reshape(8, 8)].all() for shown in expected)
    assert not [part for part in display.ax_.collections if isinstance(part, QuadMesh)]


def test_strongest_places_hold_most_of_what_a_word_does(rng):
    for sign in (1, -1):
        influence, shown = sign * (rng.random((6, 7)) - 0.3), rng.random((6, 7)) < 0.5
        kept = strongest(shown, influence)
        does = np.where(shown, sign * influence, 0).clip(0)
        assert (does[kept] > 0).all()
        assert does[kept].sum() >= HELD * does.sum() > np.sort(does[kept])[1:].sum()
        assert does[shown & ~kept].max() <= does[kept].min()
    np.testing.assert_array_equal(strongest(shown, None), shown)
    np.testing.assert_array_equal(strongest(shown, np.zeros_like(influence)), shown)


@pytest.mark.parametrize("evidence", ["counts", "influence"])
@pytest.mark.parametrize("n_nodes", [1, 5, 8])
def test_readable_with_few_and_many_nodes(n_nodes, evidence, words):
    fitted = InferenceGraph(n_nodes=n_nodes, evidence=evidence).fit(words)
    display = InferenceGraphDisplay.from_estimator(fitted, words, image=2)
    assert_readable(display.figure_)
    display = InferenceGraphDisplay.from_estimator(fitted, words, target=4)
    assert_readable(display.figure_)
    n = (words.decisions == 4).sum()
    assert f"{n} of {n} images" + ("" if evidence == "counts" else f", the mean of {n}") in written(display)


def test_readable_with_many_images(words):
    many = words[np.repeat(np.flatnonzero(words.decisions == 4), 300)]
    display = InferenceGraphDisplay.from_estimator(
        InferenceGraph(n_nodes=6, evidence="counts").fit(words), many, target=4
    )
    assert max(node["score"] for _, node in display.graph.nodes(data=True)) > 100_000
    assert_readable(display.figure_)


def test_from_a_pipeline(digits):
    pipe = Pipeline(
        [
            ("features", FeatureExtractor(digits.network, ["conv2", "conv3"])),
            ("words", LayerDictionary(6, keep_patches=False, random_state=0)),
            ("graph", InferenceGraph(evidence="counts")),
        ]
    ).fit(digits.images[:100])
    display = InferenceGraphDisplay.from_estimator(pipe, digits.test_images, image=-1)
    np.testing.assert_array_equal(display.ax_.images[0].get_array()[..., 0], (digits.test_images[-1] * 255).round())
    assert "no patches\nstored" in written(display)
    with pytest.raises(IndexError, match="no image 450"):
        InferenceGraphDisplay.from_estimator(pipe, digits.test_images, image=450)


def test_from_a_folder(digits, tmp_path):
    """A folder cannot be indexed, its feature maps can."""
    pixels = (digits.images[:60].reshape(60, 8, 8) * 255).round().astype(np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number:02}.png")
    pipe = Pipeline(
        [
            ("features", FeatureExtractor(digits.network, ["conv2", "conv3"], preprocess=ToTensor())),
            ("words", LayerDictionary(8, random_state=0)),
            ("graph", InferenceGraph(evidence="counts")),
        ]
    ).fit(tmp_path)
    display = InferenceGraphDisplay.from_estimator(pipe, tmp_path, image=str(tmp_path / "07.png"))
    np.testing.assert_array_equal(display.ax_.images[0].get_array()[..., 0], pixels[7])
    assert "07.png" in written(display)
    with pytest.raises(IndexError, match="no image 60 in X, which has 60"):
        InferenceGraphDisplay.from_estimator(pipe, tmp_path, image=60)
    with pytest.raises(ValueError, match=r"no file '7.png' among the images of X; there is '(.7|7.).png'"):
        InferenceGraphDisplay.from_estimator(pipe, tmp_path, image="7.png")
    twice = [tmp_path / "07.png"] * 2
    with pytest.raises(ValueError, match="2 images of X have the file name"):
        InferenceGraphDisplay.from_estimator(pipe, twice, image="07.png")


def test_draws_into_given_axes_and_shows_names(graph, words):
    _, ax = plt.subplots()
    named = words[:1]
    word = int(graph.explain(named)[0].nodes[list(graph.explain(named)[0])[1]]["word"])
    named.vocabulary.names["conv3", word] = "upper loop"
    try:
        display = InferenceGraphDisplay.from_estimator(graph, named, ax=ax)
    finally:
        del named.vocabulary.names["conv3", word]
    assert display.ax_ is ax
    assert f"upper loop (w{word})" in written(display)


def test_without_images():
    """Words of vectors, or read from elsewhere: nothing to show but the graph."""
    words = random_words(0)
    display = InferenceGraphDisplay.from_estimator(InferenceGraph(evidence="counts").fit(words), words, image=1)
    assert_readable(display.figure_)


def test_rows_keep_strong_edges_straight(graph, words):
    explained = graph.explain(words[:1])[0]
    rows = rows_of(explained)
    assert [[len(layer) for layer in row] for row in rows] == [[1], [3], [3], [3]]
    assert {key for row in rows for layer in row for key in layer} == set(explained)


def test_labels_never_overlap(rng):
    lines = {i: tuple(rng.random(4)) for i in range(30)}
    placed = place_labels(lines, 0.2, 0.1, [])
    assert placed
    assert not any(a.overlaps(b) for a, b in itertools.combinations(placed.values(), 2))
    assert Box(0, 0, 1, 1).overlaps(Box(0.9, 0.9, 1, 1))
    assert not Box(0, 0, 1, 1).overlaps(Box(1, 0, 1, 1))


class Branches(nn.Module):
    """Two branches of different depth that join, and a convolution on top."""

    def __init__(self):
        super().__init__()
        self.stem, self.left, self.right = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)
        self.deep, self.top, self.head = nn.Conv2d(4, 4, 1), nn.Conv2d(8, 6, 3), nn.Linear(6, 3)

    def forward(self, x):
        x = self.stem(x)
        joined = torch.cat([self.left(x), self.deep(self.right(x))], 1)
        return self.head(self.top(joined).mean((2, 3)))


def test_branches_are_drawn_side_by_side(rng):
    """Layers as deep as each other share a row; an edge that passes by a row has no label on a picture."""
    torch.manual_seed(0)
    layers = ["stem", "left", "right", "deep", "top"]
    maps = FeatureExtractor(Branches(), layers).fit_transform(rng.random((60, 9, 9)).astype(np.float32))
    words = LayerDictionary(6, random_state=0).fit_transform(maps)
    words = replace(words, decisions=words.words["top"][:, 0, 0] % 3)  # the network is not trained
    estimator = InferenceGraph(n_nodes=2, evidence="counts").fit(words)
    assert estimator.explained_by_["top"] == ("deep", "left")
    display = InferenceGraphDisplay.from_estimator(estimator, words, image=3)
    depths = {node["layer"]: node["depth"] for node in display.graph.nodes.values()}
    assert depths == {"decision": 0, "top": 1, "deep": 2, "left": 2, "right": 3, "stem": 4}
    assert len(rows_of(display.graph)) == 5
    assert_readable(display.figure_)
    assert sum(text.startswith(("deep", "left")) for text in written(display)) == 2


def test_labels_stand_where_few_other_edges_pass(rng):
    """Against a search of every place, with 200 points on every other line."""
    lines = {i: tuple(rng.random(4)) for i in range(12)}
    placed = place_labels(lines, 0.15, 0.08, [])

    def passes(line, box):
        x, y = (start + np.linspace(0, 1, 2001) * (stop - start) for start, stop in (line[::2], line[1::2]))
        return ((box.left < x) & (x < box.right) & (box.bottom < y) & (y < box.top)).any()

    line, *others = lines.values()
    counts = []
    for share in np.linspace(0.1, 0.9, 17):
        x, y = line[0] + share * (line[2] - line[0]), line[1] + share * (line[3] - line[1])
        counts.append(sum(passes(other, Box(x - 0.075, y - 0.04, 0.15, 0.08)) for other in others))
    assert sum(passes(other, placed[0]) for other in others) == min(counts)


def test_edges_with_maps(graph, words):
    (explained,) = graph.explain(words[7])
    display = InferenceGraphDisplay.from_estimator(graph, words, image=7, edge_maps=True)
    assert display.edge_maps.keys() == set(explained.edges)
    drawn = [image.get_array() for image in display.ax_.images if image.get_array().dtype.kind == "f"]
    assert len(explained.edges) / 2 < len(drawn) <= len(explained.edges)  # as many as there is room for
    expected = []
    for found in edge_maps(graph, words[7:8], explained).values():
        expected.append(1 - np.nan_to_num(found / np.nanmax(found))[..., None] * (1 - np.array(INK)))
        expected[-1][np.isnan(found)] = 0.85
    for image in drawn:
        assert any(image.shape == other.shape and np.allclose(image, other) for other in expected)
    assert "Squares on arrows" in " ".join(" ".join(written(display)).split())
    assert_readable(display.figure_)
    assert_readable(InferenceGraphDisplay.from_estimator(graph, words, target=4, edge_maps=True).figure_)
    plain = InferenceGraphDisplay.from_estimator(graph, words, image=7)
    assert plain.edge_maps is None
    assert plain.figure_.get_figheight() < display.figure_.get_figheight()


def test_targets_and_contrasts(graph, words):
    decided = words.decisions[7]
    other = int(words.decisions[words.decisions != decided][0])
    display = InferenceGraphDisplay.from_estimator(graph, words, image=7, contrast=other)
    assert {str(decided), f"rather than {other}"} <= set(written(display))
    assert_readable(display.figure_)
    assert_readable(InferenceGraphDisplay.from_estimator(graph, words, target=int(decided), contrast=other).figure_)
    assert_readable(InferenceGraphDisplay.from_estimator(graph, words, image=7, target=other).figure_)
    of_location = InferenceGraphDisplay.from_estimator(graph, words, image=7, target=("conv3", 1, 2))
    root = of_location.graph.graph["root"]
    assert root.startswith("conv3_w")
    np.testing.assert_array_equal(
        np.argwhere(locations_of(of_location.words, of_location.graph.nodes[root])[0]), [[1, 2]]
    )
    assert_readable(of_location.figure_)
    names = tuple(f"{digit}, whose name is by far longer than usual" for digit in range(10))
    long = replace(words, spec=replace(words.spec, class_names=names))
    display = InferenceGraphDisplay.from_estimator(graph, long, image=7, contrast=other)
    said = " ".join(" ".join(written(display)).split())
    assert names[decided] in said
    assert f"rather than {names[other]}" in said
    assert_readable(display.figure_)
    assert_readable(InferenceGraphDisplay.from_estimator(graph, long, target=int(decided)).figure_)
    of_word = InferenceGraphDisplay.from_estimator(graph, words, target="conv3_w002")
    assert of_word.graph.graph["root"] == "conv3_w002"
    assert of_word.graph.graph["n_images"] > 1


def test_long_layer_names_take_several_lines():
    assert in_lines("features.9.expand3x3_activation") == "features.9.\nexpand3x3_\nactivation"
    assert in_lines("layer3") == "layer3"
    assert in_lines("a" * 30) == "a" * 30


@pytest.mark.parametrize("n_fitted", [1, 2, 9, 10])
def test_a_graph_learnt_from_few_images_says_so(n_fitted, words):
    """Also where its name takes all the room that there is, and beside the number of images of a class."""
    of_class = np.flatnonzero(words.decisions == 4)
    fitted = InferenceGraph(evidence="counts").fit(
        words[np.r_[of_class[:n_fitted], np.flatnonzero(words.decisions != 4)]]
    )
    names = tuple(f"{digit}, whose name is by far longer than usual, and then goes on" for digit in range(10))
    long = replace(words, spec=replace(words.spec, class_names=names))
    for shown in (words, long):
        for asked in ({"image": of_class[0]}, {"target": 4}, {"image": of_class[0], "contrast": 7}):
            display = InferenceGraphDisplay.from_estimator(fitted, shown, **asked)
            assert_readable(display.figure_)
            warnings = [text for text in written(display) if text.endswith("this decision.")]
            few = "Only one fitted image has" if n_fitted == 1 else f"Only {n_fitted} fitted images have"
            assert warnings == ([f"{few} this decision."] if n_fitted < 10 else [])


def test_a_contrast_that_counts_deny_says_so(graph, words):
    decisions = words.decisions.copy()
    decisions[7] = (decisions[7] + 1) % 10
    with pytest.warns(UserWarning, match="speak against 1 of 1 contrasts"):
        display = InferenceGraphDisplay.from_estimator(
            graph, replace(words, decisions=decisions), image=7, contrast=int(words.decisions[7])
        )
    assert "All its words together speak against it." in written(display)
    assert_readable(display.figure_)


def test_a_class_that_was_not_fitted(words):
    fitted = InferenceGraph(evidence="counts").fit(words[np.flatnonzero(words.decisions != 4)])
    display = InferenceGraphDisplay.from_estimator(fitted, words, target=4)
    why = "No fitted image was decided so: fit images that the network calls 4."
    assert to_text(display.graph).endswith(why)
    texts = [" ".join(text.split()) for text in written(display)]
    assert why in texts
    assert "No fitted image has this decision." in texts
    assert_readable(display.figure_)


def test_a_decision_that_no_word_speaks_for_says_so(words):
    fitted = InferenceGraph(evidence="counts").fit(words[words.decisions == words.decisions[0]])
    (explained,) = fitted.explain(words[:1])
    assert list(explained) == [explained.graph["root"]]
    assert to_text(explained).endswith("No word speaks for it: none has enough evidence.")
    display = InferenceGraphDisplay.from_estimator(fitted, words, image=0)
    assert any("No word speaks for it" in " ".join(text.split()) for text in written(display))


def arrows_of(display):
    """Return width and colour of each arrow, by its ends."""
    found = [text for text in display.ax_.texts if getattr(text, "arrow_patch", None)]
    return [(text.arrow_patch.get_linewidth(), np.array(text.arrow_patch.get_edgecolor()[:3])) for text in found]


@pytest.fixture(scope="module")
def against(words):
    return InferenceGraph(evidence="influence", n_against=1).fit(words)


def test_influence_in_plain_words(against, words):
    display = InferenceGraphDisplay.from_estimator(against, words, image=7)
    graph, shown = display.graph, written(display)
    root, names = graph.graph, words.spec.class_name
    assert f"{root['class_name']}: {probable(root['probability'])}" in shown
    assert f"then {root['runner_up_name']}: {probable(root['runner_up_probability'])}" in shown
    for node in list(display._drawn.nodes.values())[1:]:
        before, after = probable(root["probability"]), probable(node["probability_without"])
        without = f"without it {before} → {after}" if before != after else f"without it {nats(-node['effect'])}"
        if node["decision_without"] != root["decision"]:
            without += f", {node['class_without']}"
        assert without in shown
        counts = words.vocabulary.statistics[node["layer"]].counts[node.get("words", [node["word"]])].sum(0)
        first = int(counts.argmax())
        assert any(text.startswith(f"{names(first)}: {percent(counts[first] / counts.sum())}") for text in shown)
    assert_readable(display.figure_)
    assert not any("bits" in text or "Fitted images" in text for text in shown)


def test_bars_are_shares(influence_graph, words):
    """As long as the share is of the whole width, and with all other words the whole of a layer."""
    rows = range(20)
    for row in rows:
        display = InferenceGraphDisplay.from_estimator(influence_graph, words, image=row)
        if all(is_part(node) for node in list(display._drawn.nodes.values())[1:]):
            break
    bars = [part for part in display.ax_.patches if isinstance(part, Rectangle)]
    of_words = [part for part in bars if part.get_facecolor()[:3] == pytest.approx(INK)]
    nodes = [node for node in display._drawn.nodes.values() if node["layer"] != "decision"]
    widths = sorted(part.get_width() / (2 * 1.35 + 0.06) for part in of_words)
    np.testing.assert_allclose(widths, sorted(node["share"] for node in nodes), atol=1e-6)
    for layer in words.layers:
        shares = sum(node["share"] for node in nodes if node["layer"] == layer)
        assert f"other words\n{percent(1 - shares)}" in written(display)


@pytest.mark.parametrize("right", [True, False])
def test_true_classes_are_named(right, influence_graph, words):
    true = words.decisions.copy()
    true[7] = (true[7] + (not right)) % 10
    verdict = f"{'right' if right else 'wrong'}: labelled {words.spec.class_name(true[7])}"
    assert verdict in written(InferenceGraphDisplay.from_estimator(influence_graph, words, true, image=7))
    decided = int(words.decisions[7])
    display = InferenceGraphDisplay.from_estimator(influence_graph, words, true, target=decided)
    n = (words.decisions == decided).sum()
    assert any(text == f"{n - (not right)} of {n} decisions right" for text in written(display))
    with pytest.raises(ValueError, match="y must contain one label per image"):
        InferenceGraphDisplay.from_estimator(influence_graph, words, true[:5], image=2)


def test_several_images_together(influence_graph, words):
    """Each with where the words are."""
    rows = np.flatnonzero(words.decisions == 4)[:3]
    display = InferenceGraphDisplay.from_estimator(influence_graph, words, image=rows.tolist(), target=4)
    assert display.graph.graph["n_images"] == 3
    assert "3 of 3 images, the mean of 3" in written(display)
    assert_readable(display.figure_)
    with pytest.raises(ValueError, match="explained together for one target; give target="):
        InferenceGraphDisplay.from_estimator(influence_graph, words, image=[1, 2])


def test_words_together_hold_most_of_their_influence(influence_graph, words):
    display = InferenceGraphDisplay.from_estimator(influence_graph, words, image=7)
    nodes = {key: node for key, node in display.graph.nodes.items() if node["layer"] == "conv3"}
    assert len(nodes) > 1
    assert all(node["influence"] > 0 for node in nodes.values())
    shown = np.isin(words.words["conv3"][7], [node["word"] for node in nodes.values()])
    lit = np.any(list(display._strongest(nodes, 0).values()), axis=0)
    np.testing.assert_array_equal(lit, strongest(shown, display.influence["conv3"][0]))
    assert lit.sum() < shown.sum()


def test_large_graphs_show_the_strongest_quickly(words):
    large = nx.DiGraph(evidence="counts", root="decision_4", target=4, class_name="4", n_images=1)
    large.add_node(
        "decision_4", layer="decision", word=4, count=1, n_locations=1, class_name="4", score=9.0, n_fitted=99, depth=0
    )
    for layer, depth in (("conv3", 1), ("conv2", 2), ("conv1", 3)):
        for word in range(words.vocabulary.n_words[layer]):
            for copy in range(30):
                attributes = {"layer": layer, "word": word, "count": 1, "n_locations": 16, "score": copy + word / 100}
                large.add_node(f"{layer}_w{word:03}_{copy}", **attributes, depth=depth)
    above = {1: ["decision_4"]}
    for key, node in list(large.nodes.items())[1:]:
        above.setdefault(node["depth"] + 1, []).append(key)
        for head in above[node["depth"]]:
            large.add_edge(key, head, log_ratio=1.0, count=1, frequency=0.1, contribution=node["score"])
    assert len(large) > 1000
    begin = time.process_time()
    display = InferenceGraphDisplay(large, words[:1]).plot()
    assert time.process_time() - begin < 20
    said = " ".join(" ".join(text.get_text() for text in display.ax_.texts).split())
    assert f"Drawn are the strongest 40 of {len(large):,} nodes." in said
    assert f"{max(node['score'] for node in list(large.nodes.values())[1:]):.1f} bits" in said


def test_words_that_are_nearly_the_same_are_drawn_as_one(influence_graph, words, monkeypatch):
    """With their number, sums, and what the network says without all of them."""
    monkeypatch.setattr(_reduction, "near_words", lambda words, layer: np.ones((99, 99), bool))
    monkeypatch.setattr(_reduction, "_TOUCHING", 0.01)
    row = 7
    display = InferenceGraphDisplay.from_estimator(influence_graph, words, image=row)
    assert display.groups
    for group, found in display.groups.items():
        nodes, drawn = [display.graph.nodes[key] for key in group], display._drawn.nodes[group[0]]
        layer, numbers = drawn["layer"], drawn["words"]
        assert drawn["influence"] == pytest.approx(sum(node["influence"] for node in nodes))
        assert f"{len(group)} words like w{nodes[0]['word']}" in written(display)
        maps = words.influence[row : row + 1]
        where = torch.from_numpy(np.isin(words.words[layer][row : row + 1], numbers))[:, None]

        def work(part, where=where, layer=layer, maps=maps):
            edit = {layer: lambda x: torch.where(where, maps.baseline(layer, x), x)}
            return part.run(edit).outputs.softmax(1)[0, words.decisions[row]]

        (expected,) = maps.rerun(work)
        assert found["probability_without"] == pytest.approx(float(expected), rel=1e-4)
    assert len(display._drawn) == len(display.graph) - sum(len(group) - 1 for group in display.groups)
    assert_readable(display.figure_)
    monkeypatch.setattr(_reduction, "near_words", lambda words, layer: np.zeros((99, 99), bool))
    assert not InferenceGraphDisplay.from_estimator(influence_graph, words, image=row).groups


def test_near_words_are_as_near_as_neighbours_are(words):
    means = words.influence.mixtures["conv3"].emitted_means_ - words.influence.mixtures["conv3"].weights_ @ (
        words.influence.mixtures["conv3"].emitted_means_
    )
    near = _reduction.near_words(words, "conv3")
    cosines = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in means] for b in means])
    nearest = [max(row[:i].tolist() + row[i + 1 :].tolist()) for i, row in enumerate(cosines)]
    assert near.any(1).sum() >= len(means) / 2
    np.testing.assert_array_equal(near, (cosines >= np.median(nearest) - 1e-12) & ~np.eye(len(means), dtype=bool))


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_letters_and_bars_stand_out_from_the_paper(style, influence_graph, words):
    """Contrast of at least 4.5, as the Web Content Accessibility Guidelines ask for."""
    with plt.style.context(style):
        display = InferenceGraphDisplay.from_estimator(influence_graph, words, 9 - words.decisions, image=7)
        paper = display.figure_.get_facecolor()[:3]
        colours = {
            to_rgb(text.get_color()) for text in display.ax_.texts if text.get_text() and not text.get_bbox_patch()
        }
    for colour in colours:
        low, high = sorted([luminance(paper), luminance(colour)])
        assert (high + 0.05) / (low + 0.05) > 4.5, colour


def luminance(colour):
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def test_vector_files_hold_text_as_text(influence_graph, words, tmp_path):
    display = InferenceGraphDisplay.from_estimator(influence_graph, words, image=7)
    display.save(tmp_path / "why.svg")
    svg = (tmp_path / "why.svg").read_text()
    for text in written(display):
        for line in text.split("\n"):
            assert f">{html.escape(line, quote=False)}<" in svg, line


def test_arrows_are_as_wide_as_their_effects(against, words):
    display = InferenceGraphDisplay.from_estimator(against, words, image=7)
    effects = sorted((abs(effect), effect) for *_, effect in display._drawn.edges.data("effect"))
    arrows = sorted(arrows_of(display), key=lambda arrow: arrow[0])
    assert any(effect < 0 for _, effect in effects)
    for (width, colour), (size, effect) in zip(arrows, effects, strict=True):
        assert width == pytest.approx(0.6 + 3.4 * size / effects[-1][0])
        paleness = 1 - colour
        ink = 1 - np.array(INK if effect > 0 else AGAINST)
        np.testing.assert_allclose(paleness / paleness.max(), ink / ink.max(), atol=1e-6)
    assert "orange is against it." in " ".join(" ".join(written(display)).split())


@pytest.mark.parametrize("held", [True, False])
def test_words_that_do_not_keep_the_decision_say_so(held, influence_graph, words):
    (explained,) = influence_graph.explain(words[7])
    explained.graph["held"] = held
    display = InferenceGraphDisplay(explained, words[7:8]).plot()
    said = " ".join(text.get_text() for text in display.ax_.texts if text.get_color() == AGAINST)
    assert said == ("" if held else "Incomplete: these words alone do not keep the decision.")
    assert_readable(display.figure_)


def test_influence_that_does_not_add_up_is_written(influence_graph, words):
    display = InferenceGraphDisplay.from_estimator(influence_graph, words, image=7)
    assert display.residuals.keys() == set(words.layers)
    assert not any(text.startswith("Rough") for text in written(display))
    display.residuals = {"conv1": 0.1, "conv2": 0.45}
    said = " ".join(written(display.plot()))
    assert "Rough in conv2: 45 % of the influence does not add up." in said
    assert_readable(display.figure_)


@pytest.mark.parametrize("evidence", ["counts", "influence"])
def test_a_checked_graph_says_the_probabilities(evidence, words):
    fitted = InferenceGraph(evidence=evidence).fit(words)
    (explained,) = fitted.check(words[7], fitted.explain(words[7]))
    here, elsewhere = (probable(explained.graph[f"probability_hidden{where}"]) for where in ("", "_elsewhere"))
    display = InferenceGraphDisplay(explained, words[7]).plot()
    assert f"{here} with the words' places hidden, {elsewhere} with other places" in " ".join(written(display))
    assert_readable(display.figure_)


def test_influence_of_targets_and_contrasts(against, words):
    decided = int(words.decisions[7])
    other = int(words.decisions[words.decisions != decided][0])
    names = tuple(f"{digit}, whose name is by far longer than usual" for digit in range(10))
    long = replace(words, spec=replace(words.spec, class_names=names))
    for asked in ({"contrast": other}, {"target": other}, {"target": ("conv3", 1, 2)}, {"target": ("conv3", 5)}):
        display = InferenceGraphDisplay.from_estimator(against, long, image=7, edge_maps=True, **asked)
        assert_readable(display.figure_)
    said = " ".join(written(InferenceGraphDisplay.from_estimator(against, words, image=7, target=other)))
    assert f"the network says {decided}: " in said
    assert_readable(InferenceGraphDisplay.from_estimator(against, long, target=decided, contrast=other).figure_)


def test_a_decision_that_the_words_do_not_speak_for_says_so(graph, words):
    """Only where they disagree, and only where counts explain it."""
    row = 7
    decided, predicted = int(words.decisions[row]), int(graph.predict(words[row])[0])
    assert decided == predicted
    shown = written(InferenceGraphDisplay.from_estimator(graph, words, image=row))
    assert not any(text.startswith("Its words speak for") for text in shown)
    decisions = words.decisions.copy()
    decisions[row] = (decided + 1) % 10
    mistaken = replace(words, decisions=decisions)
    display = InferenceGraphDisplay.from_estimator(graph, mistaken, image=row)
    assert f"Its words speak for {decided}." in written(display)
    assert_readable(display.figure_)
