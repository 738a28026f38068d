"""Where in an image the locations of a map are."""

import numpy as np
import pytest
import torch
from torch import nn

from skgmmcnn import FeatureExtractor
from skgmmcnn.plot._cells import cells_of


def cells(network, layers, size=16):
    maps = FeatureExtractor(network, layers).fit_transform(np.zeros((2, 3, size, size), np.float32))
    return maps.spec, {layer: cells_of(maps.spec, layer).rows * size for layer in layers}


def head(channels=3):
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 2)


def test_pooling_divides_evenly():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.MaxPool2d(2), nn.MaxPool2d(2), *head())
    _, edges = cells(network, ["0", "1", "2"])
    np.testing.assert_allclose(edges["0"], np.arange(17))
    np.testing.assert_allclose(edges["1"], np.arange(0, 17, 2))
    np.testing.assert_allclose(edges["2"], np.arange(0, 17, 4))


def test_a_layer_without_padding_looks_at_the_middle():
    """Of 16 pixels a valid 5 x 5 convolution sees 12 places, from 2.5 to 13.5."""
    _, edges = cells(nn.Sequential(nn.Conv2d(3, 3, 5), *head()), ["0"])
    np.testing.assert_allclose(edges["0"], [0, *np.arange(3, 14), 16])


def test_strides_look_to_one_side():
    """A strided 3 x 3 convolution with padding reads pixels 2i - 1 to 2i + 1, and the next one every fourth."""
    strided = [nn.Conv2d(3, 3, 3, stride=2, padding=1) for _ in range(2)]
    _, edges = cells(nn.Sequential(*strided, *head()), ["0", "1"])
    np.testing.assert_allclose(edges["0"], [0, *np.arange(1.5, 15, 2), 16])
    np.testing.assert_allclose(edges["1"], [0, 2.5, 6.5, 10.5, 16])


def test_middles_are_where_a_location_reacts(rng):
    """With equal weights, the gradient of a location has its centre at the middle that its cell is drawn by."""
    network = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(4, 4, 3, stride=2), nn.Conv2d(4, 4, 3), *head(4))
    for part in network[:3]:
        nn.init.constant_(part.weight, 1.0)
    spec, edges = cells(network, ["2"], 20)
    _, height, _ = spec.shapes["2"]
    x = torch.zeros(1, 3, 20, 20, requires_grad=True)
    out = network[:3](x)[0, 0, :, 3]
    centres = []
    for i in range(1, height - 1):  # fields that no border cuts
        (gradient,) = torch.autograd.grad(out[i], x, retain_graph=True)
        weight = gradient[0].sum((0, 2)).numpy()
        centres.append((weight * (np.arange(20) + 0.5)).sum() / weight.sum())
    np.testing.assert_allclose((np.array(centres)[1:] + centres[:-1]) / 2, edges["2"][2:-2], atol=1e-5)


def test_fields_larger_than_the_image_are_followed_through_a_layer_below():
    deep = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(9)))
    network = nn.Sequential(nn.Conv2d(3, 3, 3, stride=2, padding=1), deep, *head())
    _, alone = cells(network, ["1.8"])
    np.testing.assert_allclose(alone["1.8"], np.arange(0, 17, 2))  # every location sees all: equal cells
    _, edges = cells(network, ["0", "1.0", "1.3", "1.6", "1.8"])
    np.testing.assert_allclose(edges["1.8"], edges["0"])


@pytest.mark.parametrize("layer", ["3", "5"])
def test_one_location_has_all(layer):
    network = nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU(), nn.MaxPool2d(2), *head())
    _, edges = cells(network, [layer])
    np.testing.assert_allclose(edges[layer], [0, 16])
