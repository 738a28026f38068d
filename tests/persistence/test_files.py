"""A pipeline that was saved explains as it did; what cannot be read is refused."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import save_file
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from torch import nn
from torchvision import transforms
from torchvision.models import SqueezeNet1_1_Weights, resnet18

from skgmmcnn import (
    DiagonalGaussianMixture,
    FeatureExtractor,
    InferenceGraph,
    LayerDictionary,
    load,
    save,
    to_text,
)
from skgmmcnn.datasets import DigitsNetwork
from skgmmcnn.mixture._emissions import Parameters
from skgmmcnn.persistence import _values
from skgmmcnn.persistence._files import _checksum
from skgmmcnn.persistence._networks import ALL_KINDS
from skgmmcnn.persistence._values import Packer, Unpacker


@pytest.fixture(scope="module")
def pipe(digits):
    return Pipeline(
        [
            ("features", FeatureExtractor(digits.network, ["conv2", "conv3"], class_names=digits.class_names)),
            ("words", LayerDictionary(8, random_state=0, word_names={("conv3", 2): "<b>\n'loop\" é"})),
            ("graph", InferenceGraph(n_nodes=2)),
        ]
    ).fit(digits.images[:200])


@pytest.fixture
def file(pipe, tmp_path):
    save(pipe, tmp_path / "pipe.safetensors")
    return tmp_path / "pipe.safetensors"


def explain(pipe, images):
    words = pipe[:-1].transform(images)
    return [to_text(graph) for graph in [*pipe[-1].explain(words), pipe[-1].explain_class(words, words.decisions[0])]]


def packed(estimator):
    pack = Packer(ALL_KINDS, embed=True)
    return pack(estimator), {name: tensor.numpy() for name, tensor in pack.arrays.items()}


def test_same_explanations_in_a_new_process(pipe, file, digits, tmp_path):
    np.save(tmp_path / "images.npy", digits.test_images[:20])
    script = (
        "import sys, json, numpy as np\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "from skgmmcnn import load\n"
        "from skgmmcnn.datasets import DigitsNetwork\n"
        "from tests.persistence.test_files import explain\n"
        f"pipe = load({str(file)!r}, model=DigitsNetwork)\n"
        f"print(json.dumps(explain(pipe, np.load({str(tmp_path / 'images.npy')!r}))))\n"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == explain(pipe, digits.test_images[:20])


def test_everything_comes_back(pipe, file, digits):
    again = load(file, model=DigitsNetwork())
    assert explain(again, digits.test_images[:20]) == explain(pipe, digits.test_images[:20])
    for name in ("words", "graph"):
        assert vars(again[name]).keys() == vars(pipe[name]).keys()
        (first, arrays), (second, others) = packed(again[name]), packed(pipe[name])
        assert first == second
        assert joblib.hash(arrays) == joblib.hash(others)
    assert again["words"].lower_bounds_ == pipe["words"].lower_bounds_
    assert again["words"].vocabulary_.class_names == tuple(digits.class_names)
    found, expected = (p["words"].vocabulary_.representatives["conv3"] for p in (again, pipe))
    np.testing.assert_array_equal(found.patches, expected.patches)
    assert again["features"].spec_.fingerprint == pipe["features"].spec_.fingerprint
    assert again["features"].model is again["features"].network_


def test_training_goes_on(digits, tmp_path):
    maps = FeatureExtractor(digits.network, ["conv2", "conv3"]).fit_transform(digits.images[:200])
    pipe = make_pipeline(LayerDictionary(6, random_state=0), InferenceGraph())
    words = pipe[0].partial_fit(maps[:80]).transform(maps)
    pipe[1].partial_fit(words[:50])
    save(pipe, tmp_path / "pipe")
    again = load(tmp_path / "pipe")
    for part in (pipe, again):
        part[0].partial_fit(maps[80:])
        part[1].partial_fit(words[50:])
    assert again[0].vocabulary_.fingerprint == pipe[0].vocabulary_.fingerprint
    np.testing.assert_array_equal(
        again[1].transition_counts_["conv3", "conv2"], pipe[1].transition_counts_["conv3", "conv2"]
    )
    assert again[0].n_iter_ == 2


@pytest.mark.parametrize("embed", [True, False])
def test_weights_lie_in_memory_as_they_did(embed, digits, tmp_path):
    """Convolutions of another memory layout round otherwise."""
    plain = copy.deepcopy(digits.network)
    with torch.no_grad():
        plain.conv3[0].weight *= 1.01  # equal networks are shared, whatever their layout
    network = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    pipe = make_pipeline(FeatureExtractor(network, ["conv3"]), LayerDictionary(4), InferenceGraph())
    save(pipe.fit(digits.images[:50]), tmp_path / "pipe", embed=embed)
    again = load(tmp_path / "pipe", model=plain)
    first, second = pipe[0].network_, again[0].network_
    assert first.conv3[0].weight.stride() == second.conv3[0].weight.stride() == (144, 1, 48, 16)
    assert first.conv1[0].weight.stride() == second.conv1[0].weight.stride() == (9, 1, 3, 1)  # of one channel
    assert not any(weight.requires_grad for weight in second.parameters())
    found, expected = (part[0].transform(digits.images).compute() for part in (again, pipe))
    for first, second in zip(expected.batches(), found.batches(), strict=True):
        assert torch.equal(first.activations["conv3"], second.activations["conv3"])


def test_weights_lie_as_the_network_runs(digits, tmp_path):
    """The user's own network is left channels first, while its copy runs channels last."""
    network = copy.deepcopy(digits.network)
    with torch.no_grad():
        network.conv3[0].weight *= 1.02
    extractor = FeatureExtractor(network, ["conv3"], device="cpu").fit(digits.images[:20])
    save(extractor, tmp_path / "one")
    again = load(tmp_path / "one", model=network)
    first, second = (part.network_.conv3[0].weight.stride() for part in (extractor, again))
    assert first == second != network.conv3[0].weight.stride()


def test_weights_of_half_precision(digits, tmp_path):
    network = copy.deepcopy(digits.network).bfloat16()
    pipe = make_pipeline(FeatureExtractor(network, ["conv3"]), LayerDictionary(4), InferenceGraph())
    save(pipe.fit(digits.images[:50]), tmp_path / "pipe")
    again = load(tmp_path / "pipe", model=DigitsNetwork)
    assert explain(again, digits.images[:5]) == explain(pipe, digits.images[:5])


def test_folders_are_not_saved(pipe, tmp_path):
    """A cache contains pickles and a store is written to, so a file must not name one."""
    cached = copy.deepcopy(pipe).set_params(memory=str(tmp_path / "cache"), features__store=tmp_path / "store")
    save(cached, tmp_path / "pipe")
    again = load(tmp_path / "pipe", model=DigitsNetwork)
    assert again.memory is again["features"].store is None
    assert cached.memory == str(tmp_path / "cache")
    assert cached["features"].store == tmp_path / "store"
    document, arrays = opened(tmp_path / "pipe")
    document["estimator"]["estimator"][1]["memory"] = str(tmp_path / "cache")
    forge(tmp_path / "pipe", document, arrays)
    assert load(tmp_path / "pipe", model=DigitsNetwork).memory is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("store", "/tmp", "it refers to a store"),
        ("weights", "a.pth", "it refers to a file of weights"),
        ("weights", {"text": "a.pth"}, "it refers to a file of weights"),
        ("transform", 5, "an attribute 'transform' of a .*, which is not allowed"),
        ("__sklearn_is_fitted__", 5, "an attribute '__sklearn_is_fitted__'"),
    ],
)
def test_attributes_that_are_not_allowed(name, value, message, file, tmp_path):
    document, arrays = opened(file)
    _, extractor = document["estimator"]["estimator"][1]["steps"][0]["tuple"]
    extractor["estimator"][1][name] = value
    forge(tmp_path / "forged", document, arrays)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "forged", model=DigitsNetwork)


def test_fully_connected_layers(rng, tmp_path):
    rows = rng.normal(size=(200, 6)).astype(np.float32)
    network = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2))
    extractor = FeatureExtractor(network, ["1", "3"], preprocess=None)
    pipe = make_pipeline(extractor, LayerDictionary(4, random_state=0), InferenceGraph()).fit(rows)
    save(pipe, tmp_path / "pipe")
    assert explain(load(tmp_path / "pipe", model=network), rows[:9]) == explain(pipe, rows[:9])


def test_networks_that_branch_on_values(digits, tmp_path):
    pipe = make_pipeline(
        FeatureExtractor(Branching(), ["conv2", "conv3"]), LayerDictionary(4, random_state=0), InferenceGraph()
    ).fit(digits.images[:60])
    save(pipe, tmp_path / "pipe")
    again = load(tmp_path / "pipe", model=Branching)
    assert explain(again, digits.images[:9]) == explain(pipe, digits.images[:9])


class Branching(DigitsNetwork):
    """Branches on a value."""

    def forward(self, x):
        return super().forward(x if x.mean() > 0 else -x)


def test_single_estimators(rng, tmp_path):
    rows = rng.normal(size=(60, 3))
    for estimator in (DiagonalGaussianMixture(3, random_state=np.random.RandomState(0)), LayerDictionary(4)):
        save(estimator.fit(rows), tmp_path / "one")
        np.testing.assert_array_equal(load(tmp_path / "one").predict(rows), estimator.predict(rows))


def test_a_network_of_torchvision_is_built_by_name(rng, tmp_path):
    images = rng.integers(0, 256, (6, 40, 40, 3), dtype=np.uint8)
    preprocess = transforms.Compose(
        [transforms.Resize(32), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.2] * 3)]
    )
    extractor = FeatureExtractor("resnet18", ["layer3", "layer4"], preprocess=preprocess)
    pipe = make_pipeline(extractor, LayerDictionary(2, random_state=0), InferenceGraph()).fit(images)
    save(pipe, tmp_path / "pipe")
    again = load(tmp_path / "pipe")
    assert explain(again, images) == explain(pipe, images)
    assert again[0].model == "resnet18"
    with pytest.raises(ValueError, match="random weights, which are saved only with embed=True"):
        save(pipe, tmp_path / "pipe", embed=False)
    assert explain(load(tmp_path / "pipe"), images) == explain(pipe, images)  # what was there is still whole

    with pytest.raises(ValueError, match="it needs no preprocess: its own is saved"):
        load(tmp_path / "pipe", preprocess=preprocess)


@pytest.mark.parametrize("suffix", [".pkl", ".joblib", ".pth", ".html"])
def test_suffixes_of_other_formats_are_refused(pipe, tmp_path, suffix):
    with pytest.raises(ValueError, match=rf"\{suffix}' has the suffix of another format"):
        save(pipe, tmp_path / f"pipe{suffix}")
    assert not list(tmp_path.iterdir())


def test_weights_in_a_file_of_their_own(rng, tmp_path):
    images = rng.random((6, 3, 32, 32)).astype(np.float32)
    torch.save(resnet18().state_dict(), tmp_path / "weights.pth")
    extractor = FeatureExtractor("resnet18", ["layer4"], weights=tmp_path / "weights.pth", preprocess=None)
    pipe = make_pipeline(extractor, LayerDictionary(2, random_state=0), InferenceGraph()).fit(images)
    save(pipe, tmp_path / "pipe", embed=False)
    assert (tmp_path / "pipe").stat().st_size < 1e6
    with pytest.raises(ValueError, match=r"needs yours for weights \(.*weights\.pth\): load\(path, weights=\.\.\."):
        load(tmp_path / "pipe")
    again = load(tmp_path / "pipe", weights=tmp_path / "weights.pth")
    assert explain(again, images) == explain(pipe, images)
    assert again[0].weights == tmp_path / "weights.pth"
    save(pipe, tmp_path / "whole")
    torch.save(resnet18().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"weights of SHA-256 .* other weights"):
        load(tmp_path / "pipe", weights=tmp_path / "weights.pth")
    whole = load(tmp_path / "whole")
    assert whole[0].weights is None
    assert explain(whole.fit(images), images) == explain(pipe, images)  # the weights that it holds, not the file's


def test_weights_that_the_user_keeps(pipe, digits, tmp_path):
    save(pipe, tmp_path / "pipe", embed=False)
    assert explain(load(tmp_path / "pipe", model=digits.network), digits.images[:3]) == explain(pipe, digits.images[:3])
    with pytest.raises(ValueError, match="other weights"):
        load(tmp_path / "pipe", model=DigitsNetwork)


# The folder's own reader leaves its tables open.
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_preprocessing_of_torchvision_weights(data, tmp_path):
    paths, _, _ = data.imagenet()
    preprocess = SqueezeNet1_1_Weights.DEFAULT.transforms()
    extractor = FeatureExtractor(data.squeezenet(), ["features.12"], preprocess=preprocess)
    pipe = make_pipeline(extractor, LayerDictionary(4, random_state=0), InferenceGraph()).fit(paths[:8])
    save(pipe, tmp_path / "pipe")
    again = load(tmp_path / "pipe", model=data.squeezenet)
    assert explain(again, paths[:4]) == explain(pipe, paths[:4])


def halve(image):
    return transforms.functional.to_tensor(image)[:, ::2, ::2]


def least(outputs):
    return outputs.argmin(1)


class OtherForward(DigitsNetwork):
    """The same weights, put to another use."""

    def forward(self, x):
        return super().forward(1 - x)


OtherForward.__qualname__ = "DigitsNetwork"


@pytest.mark.filterwarnings("ignore:Counts know little")
def test_functions_of_the_user(digits, tmp_path):
    images = (digits.images[:50] * 255).astype(np.uint8).repeat(2, 1).repeat(2, 2)
    extractor = FeatureExtractor(
        lambda: digits.network, ["conv3"], preprocess=halve, decision=least, class_names=digits.class_names
    )
    pipe = make_pipeline(extractor, LayerDictionary(4, random_state=0), InferenceGraph(evidence="counts")).fit(images)
    save(pipe, tmp_path / "pipe")
    with pytest.raises(
        ValueError, match=r"needs yours for .*preprocess \(.*test_files\.halve\).*load\(path, .*decision=\.\.\."
    ):
        load(tmp_path / "pipe", model=DigitsNetwork)
    again = load(tmp_path / "pipe", model=DigitsNetwork, preprocess=halve, decision=least)
    assert explain(again, images) == explain(pipe, images)
    assert again[0].preprocess is again[0].preprocess_ is halve


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": nn.Sequential(nn.Linear(3, 3))}, r"(?s)do not fit the model: .*Missing key"),
        ({"model": OtherForward}, "the code of the network has changed"),
        ({}, r"contains no code and needs yours for model \(skgmmcnn\.datasets\.DigitsNetwork"),
        ({"model": DigitsNetwork, "preprocess": halve}, "needs no preprocess"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(file, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(file, **arguments)


class MyGraph(InferenceGraph):
    """A class of the user's."""


def test_what_is_not_ours_is_refused(words, tmp_path):
    with pytest.raises(TypeError, match=r"Pipeline.steps is a .*MyGraph, which save does not support"):
        save(make_pipeline(MyGraph()).fit(words), tmp_path / "pipe")
    with pytest.raises(TypeError, match="LogisticRegression"):
        save(LogisticRegression().fit([[0], [1]], [0, 1]), tmp_path / "pipe")
    with pytest.raises(NotFittedError):
        save(InferenceGraph(), tmp_path / "pipe")
    assert not list(tmp_path.iterdir())


def opened(file):
    """Return the document and the arrays of a file."""
    with safetensors.safe_open(file, framework="pt") as held:
        return json.loads(held.metadata()["skgmmcnn"]), {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118


def forge(file, document, arrays=None, **metadata):
    """Write a file with a checksum that is right."""
    text = document if isinstance(document, str) else json.dumps(document)
    about, arrays = {"skgmmcnn": text, "version": "1"} | metadata, arrays or {}
    save_file(arrays, file, about | {"sha256": _checksum(about, arrays)})


@pytest.mark.parametrize(
    "estimator",
    [
        {"estimator": ["Popen", {"args": "touch /tmp/x"}]},
        {"record": ["Images", {}]},
        {"transform": ["Lambda", {}]},
        {"eval": "1"},
        {"dtype": "load"},
        {"record": ["Parameters", {"nothing": 1}]},
        {"record": ["Recipe", {"model": "resnet18", "weights": "a.pth", "fingerprint": "", "channels_last": False}]},
        {"path": "/etc/passwd"},
    ],
)
def test_foreign_classes_are_never_made(estimator, tmp_path):
    forge(tmp_path / "forged", {"needs": {}, "networks": {}, "estimator": estimator})
    with pytest.raises(ValueError, match=r"another version of|does not know"):
        load(tmp_path / "forged")


UNREADABLE = {
    "nothing": (lambda path: None, FileNotFoundError, "There is no file"),
    "a folder": (lambda path: path.mkdir(), ValueError, "it is a folder, or not a regular file"),
    "a pickle": (lambda path: joblib.dump([1, 2], path), ValueError, r"damaged, or was not written by skgmmcnn\.save"),
    "arrays": (lambda path: save_file({"a": torch.zeros(3)}, path), ValueError, "contains arrays, but no estimator"),
    "later": (lambda path: forge(path, {}, version="2"), ValueError, "version 2, and this skgmmcnn reads version 1"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_files_that_cannot_be_loaded(kind, tmp_path):
    write, error, message = UNREADABLE[kind]
    write(tmp_path / "file")
    with pytest.raises(error, match=message):
        load(tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nothing/pipe", FileNotFoundError, r"There is no folder .*nothing' to save in"),
        (".", ValueError, "is a folder; give the path of a file"),
        ("a" * 300, OSError, r"File name too long: .*/aaa"),
    ],
)
def test_files_that_cannot_be_saved(name, error, message, pipe, tmp_path):
    with pytest.raises(error, match=message):
        save(pipe, tmp_path / name)


def test_damage_is_found(file, tmp_path, rng):
    whole = file.read_bytes()
    for place in [*range(0, 60), *rng.integers(0, len(whole), 60)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        (tmp_path / "damaged").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"damaged|was not written by|has version"):
            load(tmp_path / "damaged", model=DigitsNetwork)
    for length in rng.integers(0, len(whole), 10):
        (tmp_path / "damaged").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="damaged"):
            load(tmp_path / "damaged", model=DigitsNetwork)


def test_the_file_is_plain_safetensors(file):
    with safetensors.safe_open(file, framework="pt") as opened:
        assert json.loads(opened.metadata()["skgmmcnn"])["estimator"]["estimator"][0] == "Pipeline"
        assert len(list(opened.keys())) > 20


def test_time_is_linear_in_records(monkeypatch):
    """Classes are listed once for a file, not for each of its 80,000 receptive fields."""
    calls, original = [], _values.allowed_classes
    monkeypatch.setattr(_values, "allowed_classes", lambda: calls.append(1) or original())
    fields = {i: Parameters(i, i) for i in range(50)}
    pack = Packer(ALL_KINDS, embed=True)
    again = Unpacker(ALL_KINDS, pack.arrays, {}, {})(pack(fields))
    assert again == fields
    assert len(calls) == 1
