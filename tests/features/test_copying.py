"""Networks that are wrapped, parametrised, hooked or of other forms, and errors for unsupported ones."""

import pickle
import threading
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from torch import nn
from torch.nn.utils import parametrizations, prune

from skgmmcnn import FeatureExtractor, InferenceGraph, LayerDictionary

X = np.random.default_rng(0).random((12, 3, 16, 16), dtype=np.float32)


class Small(nn.Module):
    def __init__(self, n_outputs=2):
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 8, 3, 2, 1)
        self.fc = nn.Linear(8, n_outputs)

    def forward(self, x):
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3)))


def fitted(network, layers=("conv1", "conv2")):
    return FeatureExtractor(network, list(layers), preprocess=None, device="cpu").fit(X)


def outputs(network):
    network.eval()
    with torch.no_grad():
        return network(torch.from_numpy(X)).numpy()


def compiled():
    return torch.compile(Small())


def parallel():
    return nn.DataParallel(Small())


def both():
    return torch.compile(nn.DataParallel(Small()))


def inside():
    network = Small()
    network.conv2 = torch.compile(nn.DataParallel(network.conv2))
    return network


def weight_norm():
    network = Small()
    parametrizations.weight_norm(network.conv2)
    return network


def spectral_norm():
    network = Small().train()
    parametrizations.spectral_norm(network.conv2)
    return network


def old_weight_norm():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = Small()
        nn.utils.weight_norm(network.conv2)
    return network


def pruned():
    network = Small()
    prune.l1_unstructured(network.conv2, "weight", 0.5)
    return network


class Keeper:
    """Keeps what a layer returned, as tools for heat maps do."""

    def __init__(self, network):
        self.kept, self.lock = None, threading.Lock()
        network.conv2.register_forward_hook(self.keep)
        network(torch.from_numpy(X))

    def keep(self, module, args, result):
        self.kept = result


def watched():
    network = Small()
    Keeper(network)
    return network


def caching():
    network = Small()
    network.cache = [network.conv1(torch.from_numpy(X))]
    network.last = network.cache[0] * 2
    return network


FORMS = [compiled, parallel, both, inside, weight_norm, spectral_norm, old_weight_norm, pruned, watched, caching]


@pytest.mark.parametrize("make", FORMS)
def test_networks_in_other_forms_are_what_they_wrap(make):
    network = make()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    extractor = fitted(network)
    assert extractor.spec_.shapes == {"conv1": (6, 8, 8), "conv2": (8, 4, 4)}
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    again = pickle.loads(pickle.dumps(extractor)).transform(X).outputs
    np.testing.assert_array_equal(again, extractor.transform(X).outputs)
    plain = make is compiled or make is both or make is inside
    expected = outputs(Small()) if plain else outputs(network)  # nothing is compiled here
    np.testing.assert_allclose(again, expected, atol=1e-6)


@pytest.mark.parametrize("make", [weight_norm, compiled])
def test_other_forms_in_pipelines(make, tmp_path):
    steps = FeatureExtractor(make(), ["conv1", "conv2"], preprocess=None), LayerDictionary(random_state=0)
    pipe = make_pipeline(*steps, InferenceGraph(), memory=str(tmp_path))
    search = GridSearchCV(pipe, {"layerdictionary__n_components": [2, 3]}, cv=2, n_jobs=2, error_score="raise")
    assert np.isfinite(search.fit(X).best_score_)


def scripted():
    return torch.jit.script(Small().eval())


def traced():
    return torch.jit.trace(Small().eval(), torch.from_numpy(X))


def quantised():
    return torch.ao.quantization.quantize_dynamic(Small().eval(), {nn.Linear})


def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 3))


def locked():
    network = Small()
    network.lock = threading.Lock()
    return network


def failing():
    return lambda: {}["gone"]


def on_no_device():
    return Small().to("meta")


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*deprecated")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (scripted, "The network is TorchScript.*Give the network that was scripted"),
        (traced, "The network is TorchScript.*Give the network that was scripted"),
        (quantised, "Its submodule 'fc' is quantised.*Give the network before quantisation"),
        (lazy, "Its submodule '0' has weights of unknown shape.*run it once"),
        (locked, "Small cannot be copied .*lock.*Remove attributes that are neither weights nor layers"),
        (failing, "called as a function without arguments, and fails: KeyError: 'gone'"),
        (on_no_device, "Small cannot be copied .*meta"),
    ],
)
def test_unsupported_forms_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        fitted(make())


class Wrapped(nn.Module):
    """Hands what a network gets and returns through functions."""

    def __init__(self, give=lambda x: x):
        super().__init__()
        self.network, self.give = Small(), give

    def forward(self, x):
        return self.give(self.network(x))


class TwoInputs(Wrapped):
    def forward(self, x, meta, scale=1):
        return super().forward(x + meta * scale)


def signals():
    return nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(56, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (TwoInputs, r"takes 2 inputs \(x, meta\) instead of one\. Wrap it in a module whose forward\(x\) calls"),
        (signals, r"begins with a Conv1d for signals.* with nn.Conv2d"),
        (lambda: Wrapped(lambda y: {"loss": y.mean(), "logits": y}), "a dict .*forward returns only entry 'logits'"),
        (lambda: Wrapped(lambda y: (y.mean(), y)), "returns a tuple .*forward returns only entry 1"),
        (lambda: Wrapped(lambda y: (y.mean(),)), r"returns a tuple .*pass decision=callable and class_names\.$"),
        (lambda: Wrapped(lambda y: {}["gone"]), r"fails on an image of shape .*KeyError: 'gone'"),
    ],
)
def test_what_networks_take_and_return_is_checked(make, message):
    with pytest.raises(ValueError, match=message):
        fitted(make(), ["0"] if make is signals else ["network.conv1"])


class Branching(nn.Module):
    """Branches on values; one layer returns what `give` makes of a map."""

    def __init__(self, give, take):
        super().__init__()
        self.block, self.unused, self.head, self.take = Giving(give), nn.ReLU(), nn.Linear(6, 2), take

    def forward(self, x):
        if x.sum() > 1e9:
            x = x * 0
        return self.head(self.take(self.block(x)).mean((2, 3)))


class Giving(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.conv, self.give = nn.Conv2d(3, 6, 3), give

    def forward(self, x):
        return self.give(self.conv(x))


@pytest.mark.parametrize(
    ("give", "take"),
    [(lambda y: (y, y.mean()), lambda found: found[0]), (lambda y: {"a": y}, lambda found: found["a"])],
)
def test_layers_that_return_no_tensor_say_so(give, take):
    network = Branching(give, take)
    for layer in ("block", "unused"):
        with pytest.raises(ValueError, match=rf"Layer '{layer}' .* Name a layer inside"):
            fitted(network, [layer])
    assert fitted(network, ["block.conv"]).spec_.shapes == {"block.conv": (6, 14, 14)}
