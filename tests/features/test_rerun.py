"""Reruns of the part of a network above an edited layer."""

import copy
import warnings
from collections import OrderedDict, deque

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.profiler import ProfilerActivity, profile

from skgmmcnn import FeatureExtractor
from skgmmcnn.features import maps_of_arrays, maps_of_changed_network


class Residual(nn.Module):
    """Skips past its inner layers, works in place, joins two branches, and asks for the size of its batch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True))
        self.inner = nn.Conv2d(8, 8, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1)
        self.after_right = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.inner(x)
        y += x
        y = self.act(y)
        x.add_(1)  # in place on what lies beside the inner layer
        y = y * x.mean((1, 2, 3), keepdim=True)
        joined = torch.cat([self.left(y), self.after_right(self.right(y)).relu_()], 1)
        return self.head(joined.mean((2, 3)).view(joined.size(0), -1))


class Branching(Residual):
    """Whose flow depends on values."""

    def forward(self, x):
        if x.sum() > 1e9:
            return x
        return super().forward(x)


def naive(network, images, edits):
    """The whole network with hooks that change what the layers return."""

    def hooked(change):
        return lambda module, inputs, result: change(result.clone())

    handles = [network.get_submodule(name).register_forward_hook(hooked(edit)) for name, edit in edits.items()]
    try:
        with torch.no_grad():
            return network(images)
    finally:
        for handle in handles:
            handle.remove()


def silence(channel):
    def change(maps):
        maps = maps.clone()
        maps[:, channel] = 0.5
        maps[:, :, 1] *= 2
        return maps

    return change


def extract(network, layers, images, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return FeatureExtractor(network, layers, preprocess=None, device="cpu", **options).fit(images)


@pytest.mark.parametrize("kind", [Residual, Branching])
@pytest.mark.parametrize(
    ("lowest", "changed"),
    [
        ("stem", ["stem"]),
        ("stem", []),
        ("stem", ["inner", "after_right"]),
        ("inner", ["inner"]),
        ("left", ["left", "right"]),
        ("left", ["right", "after_right"]),
        ("right", ["after_right"]),
    ],
)
def test_a_rerun_equals_the_whole_network_with_hooks(kind, lowest, changed):
    torch.manual_seed(0)
    network, images = kind().eval(), torch.randn(6, 3, 9, 9)
    edits = {layer: silence(place) for place, layer in enumerate(changed)}
    layers = ["stem", "inner", "left", "right", "after_right"]
    maps = extract(network, layers, images, batch_size=4).transform(images)
    parts = list(maps.rerun(lambda part: part))
    expected = naive(network, images, edits)
    for _ in range(2):  # what is kept between runs stays as it was
        found = torch.cat([part.run(edits).outputs for part in parts])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert [part.original.start for part in parts] == [0, 4]
    np.testing.assert_array_equal(
        np.concatenate([part.run(edits).decisions for part in parts]), expected.argmax(1).numpy()
    )
    again = parts[0].run({})
    torch.testing.assert_close(again.outputs, parts[0].original.outputs)
    for layer, values in again.activations.items():
        torch.testing.assert_close(values, parts[0].original.activations[layer])


@pytest.mark.parametrize(
    ("model", "layers"),
    [
        ("resnet18", ["layer2.0.conv1", "layer3", "layer4.0.bn1"]),
        ("densenet121", ["features.denseblock2.denselayer2.conv1", "features.transition2"]),
        ("shufflenet_v2_x0_5", ["stage2.1.branch2", "stage3"]),
        ("squeezenet1_1", ["features.4.squeeze", "features.7"]),
        ("vit_b_16", ["encoder.layers.encoder_layer_3"]),
    ],
)
def test_reruns_of_known_families(model, layers):
    size = 224 if model.startswith("vit") else 64
    network, images = torchvision.models.get_model(model, weights=None).eval(), torch.randn(2, 3, size, size)
    if model.startswith("vit"):
        nn.init.normal_(network.heads.head.weight)  # torchvision starts with zeros
    maps = extract(network, layers, images).transform(images)
    lowest = maps.layers[0]
    (part,) = maps.rerun(lambda part: part)
    torch.testing.assert_close(part.run({}).outputs, part.original.outputs)

    def change(values):  # a class token stays as it is
        values = values.clone()
        values[:, ::2, -1] = 3
        return values

    def on_tokens(values):
        tokens = values.transpose(1, 2)
        tokens[:, :, 1:] = change(tokens[:, :, 1:].unflatten(2, (14, 14))).flatten(2)
        return values

    expected = naive(network, images, {lowest: on_tokens if model.startswith("vit") else change})
    torch.testing.assert_close(part.run({lowest: change}).outputs, expected, atol=1e-4, rtol=1e-4)
    assert (part.run({lowest: change}).outputs - part.original.outputs).abs().max() > 1e-5


class ReadsWhatWasChanged(nn.Module):
    """The head reads a value that another layer has changed in place before the layer that is edited."""

    def __init__(self):
        super().__init__()
        self.first, self.act = nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(inplace=True)
        self.second, self.head = nn.Conv2d(5, 5, 1), nn.Linear(5, 4)

    def forward(self, x):
        y = self.first(x)
        z = self.second(self.act(y))
        return self.head((y + z).mean((2, 3)))


@pytest.mark.parametrize("layer", ["act", "second"])
def test_what_is_changed_in_place_below(layer):
    torch.manual_seed(0)
    network, images = ReadsWhatWasChanged().eval(), torch.randn(3, 3, 6, 6)
    (part,) = extract(network, [layer], images).transform(images).rerun(lambda part: part)
    torch.testing.assert_close(part.run({layer: lambda maps: maps}).outputs, part.original.outputs)
    if layer == "second":
        expected = naive(network, images, {layer: silence(0)})
        torch.testing.assert_close(part.run({layer: silence(0)}).outputs, expected)


def test_an_edit_keeps_the_shape():
    images = torch.randn(2, 3, 6, 6)
    (part,) = extract(ReadsWhatWasChanged().eval(), ["second"], images).transform(images).rerun(lambda part: part)
    with pytest.raises(ValueError, match=r"must return a map of shape \(2, 5, 6, 6\); it returned \(2, 1, 6, 6\)"):
        part.run({"second": lambda maps: maps[:, :1]})


class Doubled(torch.autograd.Function):
    """An operation that torch does not report."""

    @staticmethod
    def forward(context, values):
        return torch.from_numpy(2 * values.numpy())

    @staticmethod
    def backward(context, gradient):
        return 2 * gradient


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        self.skipped = self.first(x)
        return self.second(self.skipped)


def fails(module, x):
    try:
        module(x)
    except RuntimeError:
        return True
    return False


class Unrecorded(nn.Module):
    """The part above `middle` reads a value of the part below that is not handed over by a call."""

    def __init__(self, give):
        super().__init__()
        self.encoder, self.middle, self.head, self.give = Encoder(), nn.Conv2d(8, 8, 1), nn.Linear(8, 4), give

    def forward(self, x):
        x = self.encoder(x)
        beside = self.give(self.encoder, x)
        return self.head((self.middle(x) + beside).mean((2, 3)))


@pytest.mark.parametrize(
    "give",
    [
        lambda encoder, x: encoder.skipped,
        lambda encoder, x: Doubled.apply(x),
        lambda encoder, x: 3 * x,
        lambda encoder, x: x.chunk(2, 1)[1].repeat(1, 2, 1, 1),
        lambda encoder, x: float(x.mean()) if x.sum() < 1e9 else 0,
        lambda encoder, x: x if fails(encoder, x) else 0,
    ],
    ids=["attribute", "function", "product", "chunks", "number", "exception"],
)
def test_values_that_pass_the_edited_layer(give):
    torch.manual_seed(0)
    network, images = Unrecorded(give).eval(), torch.randn(6, 3, 6, 6)
    extractor = extract(network, ["middle"], images)
    for batch in (images, images.flip(0)):
        (part,) = extractor.transform(batch).rerun(lambda part: part)
        next(extractor.transform(images[:3]).batches())  # another run of the network in between
        expected = naive(network, batch, {"middle": silence(2)})
        torch.testing.assert_close(part.run({"middle": silence(2)}).outputs, expected)


class Writer(nn.Module):
    """Keeps a value where another submodule reads it."""

    def __init__(self, kept):
        super().__init__()
        self.conv, self.kept = nn.Conv2d(3, 8, 3, padding=1), kept

    def forward(self, x):
        x = self.conv(x)
        self.kept.append(2 * x)
        return x


class Reader(nn.Module):
    def __init__(self, kept):
        super().__init__()
        self.conv, self.kept = nn.Conv2d(8, 8, 1), kept

    def forward(self, x):
        return self.conv(x + self.kept[-1])


@pytest.mark.parametrize("layers", [["middle"], ["writer.conv", "middle"], ["middle", "reader.conv"]])
def test_values_that_one_submodule_keeps_for_another(layers):
    torch.manual_seed(0)
    kept = deque(maxlen=1)
    parts = {"writer": Writer(kept), "middle": nn.Conv2d(8, 8, 1), "reader": Reader(kept)}
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": nn.Linear(8, 4)}
    network, images = nn.Sequential(OrderedDict(parts | head)).eval(), torch.randn(6, 3, 6, 6)
    extractor = extract(network, layers, images)
    (part,) = extractor.transform(images).rerun(lambda part: part)
    next(extractor.transform(images.flip(0)).batches())  # another run of the network in between
    expected = naive(network, images, {"middle": silence(2)})
    torch.testing.assert_close(part.run({"middle": silence(2)}).outputs, expected)


@pytest.mark.parametrize("kind", [Residual, Branching])
def test_nothing_below_the_edited_layer_runs_again(kind):
    network, images = kind().eval(), torch.randn(2, 3, 9, 9)
    maps = extract(network, ["stem", "right"], images).transform(images)
    (part,) = maps.rerun(lambda part: part)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        part.run({"right": silence(0)})
    n_calls = {event.key: event.count for event in profiled.key_averages()}
    assert n_calls["aten::conv2d"] == 1  # after_right


def test_gradients_reach_a_layer():
    torch.manual_seed(0)
    network, images = Residual().eval(), torch.randn(3, 3, 9, 9)
    maps = extract(network, ["inner", "left"], images).transform(images)
    (part,) = maps.rerun(lambda part: part)
    leaf = part.original.activations["inner"].clone().requires_grad_()
    (found,) = torch.autograd.grad(part.run({"inner": lambda _: leaf}).outputs[:, 2].sum(), leaf)
    step = torch.zeros_like(leaf)
    step[1, 4, 3, 3] = 1e-2
    with torch.no_grad():
        ends = [part.run({"inner": lambda _, sign=sign: leaf + sign * step}).outputs[1, 2] for sign in (1, -1)]
    assert found[1, 4, 3, 3].item() == pytest.approx((ends[0] - ends[1]).item() / 2e-2, rel=0.05, abs=1e-4)


def test_held_and_stored_maps_know_their_network(tmp_path):
    torch.manual_seed(0)
    network, images = Residual().eval(), torch.randn(6, 3, 9, 9)
    maps = extract(network, ["inner"], images).transform(images)
    edits = {"inner": silence(1)}
    (expected,) = (part.run(edits).outputs for part in maps.rerun(lambda part: part))
    for other in (maps.compute()[[4, 1]].compute(), maps.store(tmp_path)[[4, 1]]):
        (found,) = (part.run(edits).outputs for part in other.rerun(lambda part: part))
        torch.testing.assert_close(found, expected[[4, 1]])


@pytest.mark.parametrize("kind", [Residual, Branching])
def test_maps_of_a_changed_network(kind, tmp_path):
    torch.manual_seed(0)
    network, other, images = kind().eval(), kind().eval(), torch.randn(6, 3, 9, 9)
    extractor = extract(network, ["inner", "left"], images, batch_size=4)
    maps, before = extractor.transform(images), copy.deepcopy(network.state_dict())
    seen = []

    def change(copied, batch):
        assert not copied.training
        assert not any(weights.requires_grad for weights in copied.parameters())
        seen.append(batch)
        copied.load_state_dict(other.state_dict())
        copied.train()

    expected = torch.cat([part.outputs for part in extract(other, ["inner"], images).transform(images).batches()])
    for held in (maps, maps.compute(), maps.store(tmp_path)):
        changed = maps_of_changed_network(held[[5, 2]], change)
        torch.testing.assert_close(seen[-1], images[[5, 2]])
        (batch,) = changed.batches()
        torch.testing.assert_close(batch.outputs, expected[[5, 2]])
        assert changed.layers == maps.layers
        (part,) = changed.compute().rerun(lambda part: part)
        torch.testing.assert_close(part.run({}).outputs, expected[[5, 2]])
    for one in (network, extractor.network_):
        assert all(torch.equal(values, before[name]) for name, values in one.state_dict().items())
        assert not one.training


def test_the_network_stays_as_it_was_after_an_error():
    torch.manual_seed(0)
    network, images = Branching().eval(), torch.randn(2, 3, 9, 9)
    extractor = extract(network, ["inner"], images)
    (part,) = extractor.transform(images).rerun(lambda part: part)

    def fail(maps):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        part.run({"inner": fail})
    for one in (network, extractor.network_):
        assert not any(module._forward_hooks for module in one.modules())
    torch.testing.assert_close(part.run({}).outputs, part.original.outputs)


def test_bad_layers():
    maps = FeatureExtractor(Residual().eval(), ["inner", "left"], preprocess=None).fit_transform(
        torch.randn(2, 3, 9, 9)
    )
    (part,) = maps.rerun(lambda part: part)
    for asked in (lambda: part.run({"stem": silence(0)}), lambda: part.map_of("stem", {})):
        with pytest.raises(ValueError, match="Layer 'stem' cannot be edited or read"):
            asked()
    with pytest.raises(ValueError, match="made from arrays"):
        next(maps_of_arrays({"dense": np.zeros((3, 2), np.float32)}).rerun(lambda part: part))
