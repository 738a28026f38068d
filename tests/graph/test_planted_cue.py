"""A letter painted on the images of one class: the graph of that class must show it, and only then."""

import numpy as np
import torch
from torch import nn

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary
from skgmmcnn.datasets import DigitsNetwork

CLASS = 3
LETTER = np.float32([[1, 0, 1], [1, 1, 1], [1, 0, 1]])  # an H
SIDE, START = 16, 12  # the digit is in the upper left, the letter in the lower right, where no digit reaches


def painted(digits, *, letter):
    """Return the training images with a margin, and those of one class with a letter in it."""
    images = np.pad(digits.images, ((0, 0), (0, SIDE - 8), (0, SIDE - 8)))
    if letter:
        images[digits.labels == CLASS, START : START + 3, START : START + 3] = LETTER
    return images


def trained(digits, images, epochs=12):
    """Train the embedded network on these images from the start, where the letter is the easiest thing to learn."""
    x, y = torch.from_numpy(images)[:, None], torch.from_numpy(digits.labels)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        network = DigitsNetwork()
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
                optimizer.step()
    return network.eval()


def words_on_the_letter(digits, *, letter):
    """Return the words of the class graph that are most often on the letter, in nearly all images of the class."""
    images = painted(digits, letter=letter)
    network = trained(digits, images)
    maps = FeatureExtractor(network, ["conv1", "conv2", "conv3"]).fit_transform(images)
    words = LayerDictionary({"conv1": 16, "conv2": 30, "conv3": 40}, random_state=0).fit_transform(maps)
    graph = InferenceGraph(4).fit(words).explain_class(words, CLASS)
    found = []
    for key, node in list(graph.nodes.items())[1:]:
        shown = words.words[node["layer"]] == node["word"]
        often = shown[words.decisions == CLASS].mean(0)
        place = np.unravel_index(often.argmax(), often.shape)
        first = (START - 3) * shown.shape[1] // SIDE  # what sees the letter lies around it
        if min(place) >= first and often.max() > 0.9:
            found.append(key)
    return network, found


def share_decided(network, images):
    with torch.no_grad():
        return (network(torch.from_numpy(images)[:, None]).argmax(1) == CLASS).float().mean().item()


def test_the_graph_shows_a_planted_letter(digits):
    network, found = words_on_the_letter(digits, letter=True)
    of_class = digits.labels == CLASS
    assert share_decided(network, painted(digits, letter=True)[of_class]) > 0.9
    assert share_decided(network, painted(digits, letter=False)[of_class]) < 0.1  # the letter decides
    assert found[0].startswith("conv3")  # already in the layer that decides


def test_no_letter_is_found_where_none_is(digits):
    _, found = words_on_the_letter(digits, letter=False)
    assert not found
