"""Receptive fields of networks of torchvision against NaN in single, random locations."""

import warnings

import numpy as np
import pytest
import torch
import torchvision

from skgmmcnn.features._captured import CapturedNetwork
from skgmmcnn.features._layers import choose_layers

# Small members, and image sizes as small as they stand: 64 pixels, and an odd number where strides leave rows unread.
FAMILIES = {
    "alexnet": 95,
    "vgg11_bn": 64,
    "resnet18": 75,
    "resnext50_32x4d": 64,
    "densenet121": 64,
    "inception_v3": 107,
    "googlenet": 70,
    "squeezenet1_1": 97,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 75,
    "efficientnet_b0": 64,
    "regnet_y_400mf": 75,
    "convnext_tiny": 64,
    "mnasnet0_5": 64,
    "shufflenet_v2_x0_5": 75,
    "vit_b_32": 224,
    "swin_t": 64,
}


def build(name):
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    torch.manual_seed(0)
    return torchvision.models.get_model(name, weights=None, **extra).eval()


def gates_of(network):
    """Submodules whose results only rescale: those of squeeze-and-excitation."""
    kinds = (torchvision.ops.SqueezeExcitation,)
    return [path for path, module in network.named_modules() if isinstance(module, kinds)]


class Probe:
    """Runs the whole network with NaN in one location of a layer, while gates pass their clean factors."""

    def __init__(self, network, captured, image):
        self.network, self.forms, self.image = network, captured._forms, image
        self.scales = {}
        for path in gates_of(network):
            network.get_submodule(path).register_forward_hook(self.hold(path))

    def hold(self, path):
        def hook(module, args, result):
            (x,) = args
            if path not in self.scales:
                self.scales[path] = module._scale(x)
            return x * self.scales[path]

        return hook

    def reached(self, upper, lower, place):
        """Return which locations (H, W) of `upper` become NaN with `place` of `lower`."""
        kept = {}

        def spoil(tensor):
            tensor = tensor.clone()
            self.forms[lower].as_map(tensor)[0, :, place[0], place[1]] = torch.nan
            return tensor

        def keep(module, args, result):
            kept[upper] = self.forms[upper].as_map(result.clone())

        handles = [self.network.get_submodule(upper).register_forward_hook(keep)]
        image = self.image.clone()
        if lower == "input":
            image[0, :, place[0], place[1]] = torch.nan
        else:
            spoiler = self.network.get_submodule(lower).register_forward_hook(lambda m, a, result: spoil(result))
            handles.append(spoiler)
        with torch.no_grad():
            self.network(image)
        for handle in handles:
            handle.remove()
        return kept[upper][0].isnan().any(0).numpy()


def seen_from(field, place):
    """Return which upper locations have `place` in their windows (H, W)."""
    rows, columns = (
        (span[0] <= at) & (at < span[1]) for span, at in zip((field.rows, field.columns), place, strict=True)
    )
    return rows[:, None] & columns[None]


@pytest.mark.parametrize("name", FAMILIES)
def test_fields_equal_probe(name):
    network, size = build(name), FAMILIES[name]
    image = torch.rand(1, 3, size, size)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        watched = CapturedNetwork(network)
        captured, fields = watched.select(choose_layers(watched.survey(image), network), image)
        network(image)
    probe = Probe(network, captured, image)
    with torch.no_grad():
        network(image)  # notes the gates
    layers = ["input", *captured.layers]
    pairs = [*zip(layers[1:], layers[:-1], strict=True), (layers[-1], layers[1]), (layers[-1], "input")]
    rng = np.random.default_rng(0)
    assert len(captured.layers) >= 2
    for upper, lower in dict.fromkeys(pairs):
        field = fields[upper, lower]
        for _ in range(3):
            place = tuple(int(rng.integers(n)) for n in field.shape)
            reached, predicted = probe.reached(upper, lower, place), seen_from(field, place)
            assert not (reached & ~predicted).any(), (upper, lower, place)
            # Holes of a field lie inside its hull: whole rows and columns must agree at its ends.
            assert_hulls_agree(reached, predicted)


def assert_hulls_agree(reached, predicted):
    for axis in (0, 1):
        found, expected = np.flatnonzero(reached.any(axis)), np.flatnonzero(predicted.any(axis))
        assert len(found) == len(expected) == 0 or (found[0], found[-1]) == (expected[0], expected[-1])
