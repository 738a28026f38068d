"""Pictures of all displays, made of scikit-learn's digits and integers without training, so that all machines agree.

``python -m tests.plot.pictures`` draws the baselines anew; look at them before you commit them.
"""

import io
from collections import OrderedDict
from functools import cache
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.legend import Legend
from matplotlib.text import Annotation, Text
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from skgmmcnn import (
    InferenceGraph,
    InferenceGraphDisplay,
    InfluenceMapDisplay,
    PathDisplay,
    TrainingDisplay,
    VisualWordDisplay,
    WordMapDisplay,
    WordMaps,
    WordSimilarityDisplay,
)
from skgmmcnn.chain import InferencePaths
from skgmmcnn.dictionary import Vocabulary, count_words
from skgmmcnn.dictionary._representatives import Typical, illustrate
from skgmmcnn.dictionary._words import count_classes
from skgmmcnn.features import FeatureExtractor, NetworkSpec, Pictures
from skgmmcnn.features._images import Images
from skgmmcnn.features._pixels import PixelScale
from skgmmcnn.plot._word_measures import class_cohesion, class_profiles, class_similarity, locality, word_classes

BASELINE = Path(__file__).parent / "baseline"
NAMES = ("nought", "one", "two", "three", "four", "five", "six, which is a good deal longer", "seven", "eight", "nine")
N_WORDS = {"low": 4, "mid": 16, "top": 6, "code": 5}
_SIZES = {"low": 8, "mid": 4, "top": 2, "code": 1}


def _fields():
    """Return the fields of four layers, one on the other: a convolution, two poolings, and all of it."""
    layers = {"low": nn.Conv2d(1, 1, 3, 1, 1), "mid": nn.MaxPool2d(2), "top": nn.MaxPool2d(4, 2, 1)}
    network = nn.Sequential(OrderedDict(**layers, last=nn.Conv2d(1, 1, 2), flatten=nn.Flatten()))
    extractor = FeatureExtractor(network, [*layers, "last"], preprocess=None)
    fields = extractor.fit(torch.zeros(1, 1, 8, 8)).spec_.receptive_fields
    return {(upper.replace("last", "code"), lower): field for (upper, lower), field in fields.items()}


def _words_of(pixels):
    """Return words of the images (n, 8, 8) with whole numbers from 0 to 16, by layer."""
    quarters = pixels.reshape(-1, 4, 2, 4, 2) > 7
    halves = pixels.reshape(-1, 2, 4, 2, 4).sum((2, 4))
    code = 8 * quarters[:, :, 0, :, 0] + 4 * quarters[:, :, 0, :, 1]
    return {
        "low": np.minimum(pixels // 4, 3),
        "mid": code + 2 * quarters[:, :, 1, :, 0] + quarters[:, :, 1, :, 1],
        "top": np.minimum(halves // 20, 5),
        "code": np.minimum(pixels.sum((1, 2)) // 80, 4)[:, None, None],
    }


@cache
def words():
    """Return the words of 100 digits; the decisions are what the digits are."""
    data, labels = load_digits(return_X_y=True)
    pixels, labels = data[:100].astype(int).reshape(-1, 8, 8), labels[:100]
    word_maps = {layer: each.astype(np.uint8) for layer, each in _words_of(pixels).items()}
    shapes = {layer: (3, size, size) for layer, size in _SIZES.items()}
    spec = NetworkSpec(tuple(shapes), shapes, (1, 8, 8), _fields(), 10, NAMES)
    images = Images((pixels[:, None] / 16).astype(np.float32), None, None)
    pictures = Pictures(images, PixelScale(np.zeros(1, np.float32), np.ones(1, np.float32)), (1, 8, 8))
    representatives, statistics = {}, {}
    for layer, each in word_maps.items():
        typical, ones = Typical(N_WORDS[layer], 9), torch.ones(each.size)
        typical.add(0, each.reshape(100, -1), ones, ones)
        representatives[layer] = illustrate(typical, layer, spec, pictures)
        statistics[layer] = count_classes(each, labels, N_WORDS[layer], 10)
    names = {("mid", 0): "dark", ("top", 5): "a name of many letters"}
    vocabulary = Vocabulary(N_WORDS, "drawn", representatives, statistics, names, NAMES)
    return WordMaps(word_maps, labels, spec, vocabulary, pictures)


@cache
def estimator():
    return InferenceGraph(n_nodes=3, evidence="counts", random_state=0).fit(words())


def _graph_of_an_image():
    return InferenceGraphDisplay.from_estimator(estimator(), words(), image=11)


def _graph_of_a_class():
    return InferenceGraphDisplay.from_estimator(estimator(), words(), target=6, edge_maps=True)


def _graph_of_influence():
    """Return the graph of an image with numbers as a network would give them, for and against."""
    graph = estimator().explain(words()[11])[0]
    nats = {key: number * (-1) ** (number % 4 == 3) for number, key in enumerate(graph)}
    for number, (key, node) in enumerate(graph.nodes.items()):
        node.update(influence=nats[key], share=nats[key] / 20, effect=nats[key], probability_without=0.9 / (1 + number))
        node.update(decision_without=number % 2, class_without=NAMES[number % 10])
    for tail, _, edge in graph.edges(data=True):
        edge.clear()
        edge.update(flow=nats[tail], share=0.2, effect=nats[tail])
    graph.graph |= {"evidence": "influence", "probability": 0.9, "decision": 1, "held": False}
    graph.graph |= {"runner_up_name": NAMES[6], "runner_up_probability": 0.04}
    influence = {layer: each[11:12] + 0.5 for layer, each in words().words.items()}
    return InferenceGraphDisplay(graph, words()[11], labels=np.array([3]), influence=influence).plot()


def _influence_maps():
    digits = words()[[6, 11, 3]]
    maps = {layer: digits.words[layer] - digits.words[layer].mean((1, 2), keepdims=True) for layer in ("low", "mid")}
    return InfluenceMapDisplay(
        digits, maps, titles=[f"{NAMES[6]} rather than {NAMES[4]}", *NAMES[:2]], labels=np.array([6, 4, 3])
    ).plot()


def _paths():
    digits = words()
    counts = {layer: count_words(digits.words[layer], N_WORDS[layer]) for layer in ("low", "mid", "top")}
    paths = np.column_stack([each.argmax(1) for each in counts.values()])
    tables = tuple(digits.vocabulary.statistics[layer].classes for layer in counts)
    ones = np.ones(paths.shape)
    sizes = tuple(N_WORDS[layer] for layer in counts)
    chain = InferencePaths(tuple(counts), sizes, paths, -ones, ones, ones[:, 0], digits.decisions, tables)
    return PathDisplay(chain, [6, 4], digits.vocabulary, image=11, true_label=4, picture=digits.pictures[11]).plot()


def _similarity():
    digits = words()
    layers = digits.layers[:3]
    classes = {layer: word_classes(digits.vocabulary.statistics[layer]) for layer in layers}
    profiles = {layer: class_profiles(digits, layer) for layer in layers}
    table = np.block([[class_similarity(one, other) for other in profiles.values()] for one in profiles.values()])
    cohesion = {
        layer: class_cohesion(class_similarity(profile, profile), classes[layer], 50, random_state=0)
        for layer, profile in profiles.items()
    }
    spread = {layer: locality(digits.words[layer], N_WORDS[layer]) for layer in layers}
    return WordSimilarityDisplay(
        similarity=table, classes=classes, by_class=cohesion, by_mean=cohesion, spread=spread
    ).plot()


def _training():
    bounds = {f"block{i}.conv": [-50.0 * i, *(-2.0 * i - 1 / np.arange(1, 4 * i))] for i in range(1, 5)}
    return TrainingDisplay(bounds, unit="location", retrained=True).plot()


def _visual_words():
    chosen = [("mid", 0), ("top", 5), ("low", 3), ("code", 2), ("mid", 9)]
    return VisualWordDisplay(words().vocabulary, chosen).plot()


def _word_maps():
    return WordMapDisplay(words()[6], {"low": [0, 3], "mid": [0, 15, 5, 10], "top": [0, 1, 2, 5], "code": [3]}).plot()


DISPLAYS = {
    "graph_of_an_image": _graph_of_an_image,
    "graph_of_a_class": _graph_of_a_class,
    "graph_of_influence": _graph_of_influence,
    "influence_maps": _influence_maps,
    "paths": _paths,
    "similarity": _similarity,
    "training": _training,
    "visual_words": _visual_words,
    "word_maps": _word_maps,
}


def rendered(display, dpi=50, finer=4):
    """Return a display as an array (height, width, 3), without what depends on fonts, which differ everywhere.

    Versions of matplotlib round to different pixels; so it is drawn finer, and each few pixels are averaged.
    """
    for part in (*display.figure_.findobj(Text), *display.figure_.findobj(Legend)):
        if isinstance(part, Annotation):
            part.set_text("")  # the arrow remains
        else:
            part.set_visible(False)
    file = io.BytesIO()
    display.figure_.savefig(file, format="png", dpi=finer * dpi)
    return np.asarray(Image.open(file).convert("RGB").reduce(finer))


def draw(name):
    """Return the named display as an array, under the usual settings."""
    with mpl.rc_context(mpl.rcParamsDefault):
        mpl.use("Agg")
        picture = rendered(DISPLAYS[name]())
        plt.close("all")
        return picture


def difference(one, other, side=6):
    """Return the largest difference of two pictures, in levels of 255, where each is blurred to squares of `side`.

    Lines that run half a pixel beside each other, as other versions draw them, hardly count; a missing patch does.
    """
    if np.abs(np.subtract(one.shape, other.shape)).max() > 1:
        return np.inf
    height, width = (min(sizes) // side * side for sizes in zip(one.shape[:2], other.shape[:2], strict=True))
    apart = one[:height, :width].astype(float) - other[:height, :width]
    return np.abs(apart.reshape(height // side, side, width // side, side, 3).mean((1, 3))).max()


if __name__ == "__main__":
    for name in DISPLAYS:
        Image.fromarray(draw(name)).save(BASELINE / f"{name}.png", optimize=True)
