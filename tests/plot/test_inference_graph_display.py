import itertools
import math
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.pipeline import Pipeline
from torch import nn
from torchvision.transforms import ToTensor

from skgmmcnn import FeatureExtractor, InferenceGraph, InferenceGraphDisplay, LayerDictionary, to_text
from skgmmcnn.graph._text import probable
from skgmmcnn.plot._drawing import AGAINST, INK, WARNING, in_lines
from skgmmcnn.plot._edge_maps import edge_maps
from skgmmcnn.plot._layout import Box, place_labels, rows_of
from tests.graph.test_inference_graph import random_words
from tests.plot.readable import assert_readable, texts_of

# What counts warn of, pictures say themselves.
pytestmark = pytest.mark.filterwarnings("ignore:Counts know little")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def written(display):
    return [text for text, _ in texts_of(display.figure_)]


def test_picture_of_an_image(graph, words):
    display = InferenceGraphDisplay.from_estimator(graph, words, image=7)
    explained = graph.explain(words[7:8])[0]
    assert display.graph.nodes.keys() == explained.nodes.keys()
    texts = "\n".join(written(display))
    for _, node in explained.nodes(data=True):
        if node["layer"] != "decision":
            assert f"w{node['word']}" in texts
            assert f"{node['count']}/{node['n_locations']}   {node['score']:.1f} bits" in texts
    for *_, edge in explained.edges(data=True):
        assert f"{edge['log_ratio']:.2f} bits" in texts
    assert "Magenta: where the explained image shows the word." in " ".join(texts.split())
    n_words = len(explained) - 1
    n_images = len(display.ax_.images)
    assert n_images == 1 + n_words * 5  # the decision's; for a word four patches and the image
    tint = display.ax_.collections[-1].get_array()
    last = list(explained.nodes(data=True))[-1][1]
    assert {node["count"] for _, node in explained.nodes(data=True)} >= {int((tint[..., 3] > 0).sum())}
    assert last["layer"] == "conv1"
    assert_readable(display.figure_)


@pytest.mark.parametrize("evidence", ["counts", "influence"])
@pytest.mark.parametrize("n_nodes", [1, 5, 8])
def test_readable_with_few_and_many_nodes(n_nodes, evidence, words):
    fitted = InferenceGraph(n_nodes=n_nodes, evidence=evidence).fit(words)
    display = InferenceGraphDisplay.from_estimator(fitted, words, image=2)
    assert_readable(display.figure_)
    display = InferenceGraphDisplay.from_estimator(fitted, words, label=4)
    assert_readable(display.figure_)
    assert f"{(words.decisions == 4).sum()} images decided as 4, 4 shown" in written(display)


def test_readable_with_many_images(words):
    many = words[np.repeat(np.flatnonzero(words.decisions == 4), 300)]
    display = InferenceGraphDisplay.from_estimator(
        InferenceGraph(n_nodes=6, evidence="counts").fit(words), many, label=4
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
    display = InferenceGraphDisplay.from_estimator(pipe, digits.test_images, image=-1, n_patches=9)
    np.testing.assert_array_equal(display.images[0][..., 0], (digits.test_images[-1] * 255).round())
    assert "no patches\nstored" in written(display)
    with pytest.raises(IndexError, match="no image 450"):
        InferenceGraphDisplay.from_estimator(pipe, digits.test_images, image=450)
    with pytest.raises(ValueError, match="n_patches must be 1, 4 or 9"):
        InferenceGraphDisplay.from_estimator(pipe, digits.test_images, n_patches=5)


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
    display = InferenceGraphDisplay.from_estimator(pipe, tmp_path, image=7)
    np.testing.assert_array_equal(display.images[0][..., 0], pixels[7])
    with pytest.raises(IndexError, match="no image 60 in X, which has 60"):
        InferenceGraphDisplay.from_estimator(pipe, tmp_path, image=60)


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
    assert [len(row) for row in rows] == [1, 3, 3, 3]
    assert {key for row in rows for key in row} == set(explained)


def test_labels_never_overlap(rng):
    lines = [((str(i), ""), tuple(rng.random(4))) for i in range(30)]
    placed = place_labels(lines, 0.2, 0.1)
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
    lines = [(i, tuple(rng.random(4))) for i in range(12)]
    placed = place_labels(lines, 0.15, 0.08)

    def passes(line, box):
        x, y = (start + np.linspace(0, 1, 2001) * (stop - start) for start, stop in (line[::2], line[1::2]))
        return ((box.left < x) & (x < box.right) & (box.bottom < y) & (y < box.top)).any()

    first, line = lines[0]
    others = [other for key, other in lines if key != first]
    counts = []
    for share in np.linspace(0.1, 0.9, 17):
        x, y = line[0] + share * (line[2] - line[0]), line[1] + share * (line[3] - line[1])
        counts.append(sum(passes(other, Box(x - 0.075, y - 0.04, 0.15, 0.08)) for other in others))
    assert sum(passes(other, placed[first]) for other in others) == min(counts)


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
    assert_readable(InferenceGraphDisplay.from_estimator(graph, words, label=4, edge_maps=True).figure_)
    plain = InferenceGraphDisplay.from_estimator(graph, words, image=7)
    assert plain.edge_maps is None
    assert plain.figure_.get_figheight() < display.figure_.get_figheight()


def test_targets_and_contrasts(graph, words):
    decided = words.decisions[7]
    other = int(words.decisions[words.decisions != decided][0])
    display = InferenceGraphDisplay.from_estimator(graph, words, image=7, contrast=other)
    assert f"{decided} rather than {other}" in written(display)
    assert_readable(display.figure_)
    assert_readable(InferenceGraphDisplay.from_estimator(graph, words, label=int(decided), contrast=other).figure_)
    assert_readable(InferenceGraphDisplay.from_estimator(graph, words, image=7, target=other).figure_)
    of_location = InferenceGraphDisplay.from_estimator(graph, words, image=7, target=("conv3", 1, 2))
    root = of_location.graph.graph["root"]
    assert root.startswith("conv3_w")
    np.testing.assert_array_equal(np.argwhere(of_location.locations[root]), [[1, 2]])
    assert_readable(of_location.figure_)
    names = tuple(f"{digit}, whose name is by far longer than usual" for digit in range(10))
    long = replace(words, spec=replace(words.spec, class_names=names))
    display = InferenceGraphDisplay.from_estimator(graph, long, image=7, contrast=other)
    assert f"{names[decided]} rather than {names[other]}" in " ".join(" ".join(written(display)).split())
    assert_readable(display.figure_)
    assert_readable(InferenceGraphDisplay.from_estimator(graph, long, label=int(decided)).figure_)
    with pytest.raises(ValueError, match="give one of them"):
        InferenceGraphDisplay.from_estimator(graph, words, label=1, target=2)


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
        for asked in ({"image": of_class[0]}, {"label": 4}, {"image": of_class[0], "contrast": 7}):
            display = InferenceGraphDisplay.from_estimator(fitted, shown, **asked)
            assert_readable(display.figure_)
            warnings = [text for text in display.ax_.texts if text.get_text().startswith("learnt from")]
            assert [text.get_text() for text in warnings] == (
                [f"learnt from {n_fitted} image{'s' if n_fitted > 1 else ''}"] if n_fitted < 10 else []
            )
            assert all(text.get_color() == WARNING for text in warnings)
            top = max(text.xy[1] for text in display.ax_.texts if getattr(text, "arrow_patch", None))
            heads = display.ax_.transData.transform((0, top))[1]
            assert all(text.get_window_extent().y0 > heads for text in warnings)


def test_a_contrast_that_counts_deny_says_so(graph, words):
    decisions = words.decisions.copy()
    decisions[7] = (decisions[7] + 1) % 10
    with pytest.warns(UserWarning, match="speak against 1 of 1 contrasts"):
        display = InferenceGraphDisplay.from_estimator(
            graph, replace(words, decisions=decisions), image=7, contrast=int(words.decisions[7])
        )
    assert "all words together speak against it" in written(display)
    assert_readable(display.figure_)


def test_a_class_that_was_not_fitted(words):
    fitted = InferenceGraph(evidence="counts").fit(words[np.flatnonzero(words.decisions != 4)])
    display = InferenceGraphDisplay.from_estimator(fitted, words, label=4)
    why = "No fitted image was decided so: fit images that the network calls 4."
    assert to_text(display.graph).endswith(why)
    texts = [" ".join(text.split()) for text in written(display)]
    assert why in texts
    assert "learnt from 0 images" in texts
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
    root = graph.graph
    assert (
        f"probability {probable(root['probability'])}, then {root['runner_up_name']} "
        + probable(root["runner_up_probability"])
        in shown
    )
    for node in list(graph.nodes.values())[1:]:
        share = math.copysign(100 * node["share"], node["influence"])
        share = f"{share:.0f} %" if abs(share) >= 1 else "under 1 %"
        without = f"without it {probable(node['probability_without'])}"
        if node["decision_without"] != root["decision"]:
            without += f", {node['class_without']}"
        assert f"{node['count']}/{node['n_locations']}   {share}\n{without}" in shown
    assert_readable(display.figure_)
    assert not any("bits" in text or "learnt from" in text for text in shown)


def test_arrows_are_as_wide_as_their_effects(against, words):
    display = InferenceGraphDisplay.from_estimator(against, words, image=7)
    effects = sorted((abs(effect), effect) for *_, effect in display.graph.edges.data("effect"))
    arrows = sorted(arrows_of(display), key=lambda arrow: arrow[0])
    assert any(effect < 0 for _, effect in effects)
    for (width, colour), (size, effect) in zip(arrows, effects, strict=True):
        assert width == pytest.approx(0.6 + 3.4 * size / effects[-1][0])
        paleness = 1 - colour
        ink = 1 - np.array(INK if effect > 0 else AGAINST)
        np.testing.assert_allclose(paleness / paleness.max(), ink / ink.max(), atol=1e-6)
    assert "Orange: works against it." in " ".join(" ".join(written(display)).split())


@pytest.mark.parametrize("held", [True, False])
def test_words_that_do_not_keep_the_decision_say_so(held, influence_graph, words):
    (explained,) = influence_graph.explain(words[7])
    explained.graph["held"] = held
    display = InferenceGraphDisplay._of_image(explained, words[7:8]).plot()
    warnings = [text for text in display.ax_.texts if text.get_color() == WARNING]
    assert [text.get_text() for text in warnings] == ([] if held else ["these words alone do not keep the decision"])
    assert_readable(display.figure_)


@pytest.mark.parametrize("evidence", ["counts", "influence"])
def test_a_checked_graph_tells_what_was_found(evidence, words):
    fitted = InferenceGraph(evidence=evidence).fit(words)
    (explained,) = fitted.check(words[7], fitted.explain(words[7]))
    here, elsewhere = (probable(explained.graph[f"probability_hidden{where}"]) for where in ("", "_elsewhere"))
    told = f"with the words' places hidden in the image {here}, with as many others {elsewhere}"
    assert told in to_text(explained).splitlines()[0]
    display = InferenceGraphDisplay._of_image(explained, words[7]).plot()
    assert told in written(display)
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
    assert f"where the network says {decided}, " in said
    assert_readable(InferenceGraphDisplay.from_estimator(against, long, label=decided, contrast=other).figure_)


def test_a_decision_that_the_words_do_not_speak_for_says_so(graph, words):
    """Only where they disagree, and only where counts explain it."""
    row = 7
    decided, predicted = int(words.decisions[row]), int(graph.predict(words[row])[0])
    assert decided == predicted
    shown = written(InferenceGraphDisplay.from_estimator(graph, words, image=row))
    assert not any(text.startswith("its words speak for") for text in shown)
    decisions = words.decisions.copy()
    decisions[row] = (decided + 1) % 10
    mistaken = replace(words, decisions=decisions)
    display = InferenceGraphDisplay.from_estimator(graph, mistaken, image=row)
    assert f"its words speak for {decided}" in written(display)
    assert_readable(display.figure_)
