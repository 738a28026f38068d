import copy
import gc
import pickle

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms

from skgmmcnn import FeatureExtractor, FeatureMaps, LayerDictionary

TO_TENSOR = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)])


def small_network(channels=3, outputs=4):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Conv2d(5, 6, 3, 2),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, outputs),
    )


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (7, 9, 10, 3), dtype=np.uint8)


def activations(maps, layer):
    return np.concatenate([batch.activations[layer].numpy() for batch in maps.batches()])


def in_memory(pixels):
    return torch.stack([TO_TENSOR(Image.fromarray(image)) for image in pixels])


def as_files(pixels, folder):
    files = []
    for i, image in enumerate(pixels):
        files.append(folder / f"{i}.png")
        Image.fromarray(image).save(files[-1])
    return files


INPUTS = {
    "channels_last": lambda pixels, folder: pixels,
    "channels_first": lambda pixels, folder: np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)),
    "tensor": lambda pixels, folder: torch.from_numpy(pixels),
    "read_only": lambda pixels, folder: np.frombuffer(pixels.tobytes(), np.uint8).reshape(pixels.shape),
    "pil": lambda pixels, folder: [Image.fromarray(image) for image in pixels],
    "paths": as_files,
    "strings": lambda pixels, folder: [str(file) for file in as_files(pixels, folder)],
    "array_of_strings": lambda pixels, folder: np.array([str(file) for file in as_files(pixels, folder)]),
}


@pytest.mark.parametrize("form", INPUTS)
def test_every_form_of_images_gives_what_the_network_computes(form, pixels, tmp_path):
    network = small_network().eval()
    maps = FeatureExtractor(network, ["0", "4"], preprocess=TO_TENSOR, batch_size=3).fit_transform(
        INPUTS[form](pixels, tmp_path)
    )
    batch = in_memory(pixels)
    with torch.no_grad():
        first = network[0](batch)
        outputs = network(batch)
    np.testing.assert_allclose(activations(maps, "0"), first, atol=1e-6)
    np.testing.assert_allclose(maps.outputs, outputs, atol=1e-6)
    assert maps.shapes == {"0": (5, 9, 10), "4": (6, 4, 4)}
    assert maps.shape == (7,)
    np.testing.assert_array_equal(maps.pictures()[2], pixels[2])


def test_grey_images_and_vectors(rng):
    grey = rng.random((4, 8, 8), dtype=np.float32)
    maps = FeatureExtractor(small_network(1), ["0"], preprocess=None).fit_transform(grey)
    with_axis = FeatureExtractor(small_network(1), ["0"], preprocess=None).fit_transform(grey[:, None])
    np.testing.assert_array_equal(activations(maps, "0"), activations(with_axis, "0"))
    mlp = nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 1))
    maps = FeatureExtractor(mlp, ["1"]).fit_transform(rng.random((6, 8)))
    assert maps.shapes == {"1": (5, 1, 1)}
    assert maps.spec.n_outputs == 2
    (batch,) = maps.batches()
    np.testing.assert_array_equal(batch.decisions, batch.outputs[:, 0].numpy() > 0)


def test_grey_bytes_become_colour_where_the_network_takes_colour(rng):
    grey = rng.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=3)
    extractor = FeatureExtractor(small_network(), ["0"], preprocess=TO_TENSOR)
    np.testing.assert_array_equal(
        activations(extractor.fit_transform(grey), "0"), activations(extractor.fit_transform(colour), "0")
    )


def test_mixed_sizes_are_allowed_where_preprocessing_makes_them_equal(rng):
    images = [Image.fromarray(rng.integers(0, 256, (h, 12, 3), dtype=np.uint8)) for h in (10, 14)]
    resize = transforms.Compose([transforms.Resize((8, 8)), TO_TENSOR])
    assert FeatureExtractor(small_network(), ["0"], preprocess=resize).fit_transform(images).outputs.shape == (2, 4)
    with pytest.raises(ValueError, match=r"Image 1 has shape \(3, 14, 12\).*\(3, 10, 12\) is expected"):
        FeatureExtractor(small_network(), ["0"], preprocess=TO_TENSOR).fit_transform(images).compute()


def test_rows_can_be_chosen(pixels):
    maps = FeatureExtractor(small_network(), ["4"], preprocess=TO_TENSOR).fit_transform(pixels)
    for subset in (maps[[5, 2]], maps[np.array([5, 2]), ...], maps[[1, 2, 5]][[2, 1]], maps.compute()[[5, 2]]):
        assert len(subset) == 2
        np.testing.assert_allclose(activations(subset, "4"), activations(maps, "4")[[5, 2]], atol=1e-6)
        np.testing.assert_array_equal(subset.pictures()[0], pixels[5])
    assert maps[np.arange(7) % 2 == 0].shape == (4,)
    assert maps[1:3].shape == (2,)


def test_capture_comes_before_operations_in_place():
    network = small_network().eval()
    image = torch.randn(1, 3, 9, 9)
    maps = FeatureExtractor(network, ["1", "2"], preprocess=None).fit_transform(image)
    before = network[1](network[0](image)).detach().numpy()
    assert (before < 0).any()
    np.testing.assert_allclose(activations(maps, "1"), before, atol=1e-6)
    np.testing.assert_allclose(activations(maps, "2"), before.clip(0), atol=1e-6)


def test_the_callers_network_is_left_alone(pixels):
    network = small_network().train()
    network[0].weight.grad = torch.ones_like(network[0].weight)
    network[3].eval()
    seen = []
    network[0].register_forward_hook(lambda *args: seen.append(1))
    state = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    needs = [parameter.requires_grad for parameter in network.parameters()]
    extractor = FeatureExtractor(network, ["4"], preprocess=TO_TENSOR).fit(pixels)
    extractor.transform(pixels).compute()
    assert modes == [module.training for module in network.modules()]
    assert needs == [parameter.requires_grad for parameter in network.parameters()]
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert torch.equal(network[0].weight.grad, torch.ones_like(network[0].weight))
    assert [len(module._forward_hooks) for module in network.modules()].count(1) == 1
    assert not seen
    network.eval()
    with torch.no_grad():
        outputs = network(in_memory(pixels))
    np.testing.assert_allclose(extractor.transform(pixels).outputs, outputs, atol=1e-6)


def test_layers_may_be_operations_and_calls_of_shared_modules():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 3, 3)
            self.act = nn.ReLU()
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            x = self.act(self.conv2(self.act(self.conv1(x))))
            return self.head((x + 1).mean((2, 3)))

    image = torch.rand(1, 1, 6, 6)
    extractor = FeatureExtractor(Shared(), ["add", "act_1", "act_0"], preprocess=None).fit(image)
    assert extractor.spec_.layers == ("act_0", "act_1", "add")
    assert extractor.spec_.shapes["act_0"] == (3, 6, 6)
    with pytest.raises(ValueError, match=r"'act' runs 2 times.*'act_0' is the first, 'act_1' the second"):
        FeatureExtractor(Shared(), ["act"], preprocess=None).fit(image)


def test_clones_share_the_network_and_other_networks_do_not(pixels):
    network = small_network()
    extractor = FeatureExtractor(network, ["4"], preprocess=TO_TENSOR).fit(pixels)
    other = clone(extractor).fit(pixels)
    assert other.model is network
    assert other.network_ is extractor.network_ is not network
    with torch.no_grad():
        network[0].weight.add_(1)
    assert clone(extractor).fit(pixels).network_ is not extractor.network_
    extractor = clone(extractor).fit(pixels)
    network[2] = nn.Tanh()
    assert clone(extractor).fit(pixels).network_ is not extractor.network_


def test_pickle_keeps_the_network_once_and_gives_the_same(pixels):
    network = small_network()
    network.tied = nn.Linear(6, 4)
    network.tied.weight = network[8].weight
    network.register_buffer("extra", torch.ones(3, dtype=torch.bfloat16))
    for model in (network[:9], network[:9].train()):
        extractor = FeatureExtractor(model, ["4"], preprocess=TO_TENSOR).fit(pixels)
        loaded = pickle.loads(pickle.dumps(extractor))
        np.testing.assert_array_equal(loaded.transform(pixels).outputs, extractor.transform(pixels).outputs)
        assert loaded.model is loaded.network_
    with_extras = pickle.loads(pickle.dumps(FeatureExtractor(network, ["4"]))).model
    assert with_extras.tied.weight is with_extras[8].weight
    assert torch.equal(with_extras.extra, network.extra)
    assert with_extras[0].weight.requires_grad


def test_random_weights_are_the_same_each_time(pixels):
    def outputs():
        extractor = FeatureExtractor("squeezenet1_1", ["features.0"], preprocess=transforms.Compose([TO_TENSOR, big]))
        return extractor.fit_transform(pixels[:2]).outputs

    big = transforms.Resize((40, 40))
    before = torch.random.get_rng_state()
    np.testing.assert_array_equal(outputs(), outputs())
    assert torch.equal(torch.random.get_rng_state(), before)


class Elsewhere:
    """A path of a kind of its own."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(suffix, pixels, tmp_path):
    torch.manual_seed(5)
    source = small_network()
    with torch.no_grad():
        source[0].weight.mul_(2)
    file = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{key}": value for key, value in source.state_dict().items()}}, file)
    else:
        save_file(source.state_dict(), file)
    expected = FeatureExtractor(source, ["4"], preprocess=TO_TENSOR).fit_transform(pixels).outputs
    for weights in (file, str(file), Elsewhere(file)):
        extractor = FeatureExtractor(small_network, ["4"], weights=weights, preprocess=TO_TENSOR)
        np.testing.assert_array_equal(extractor.fit_transform(pixels).outputs, expected)


def test_pickles_refer_to_weights_of_a_file(pixels, tmp_path):
    torch.manual_seed(5)
    file = tmp_path / "weights.pth"
    torch.save(small_network().state_dict(), file)

    extractor = FeatureExtractor(small_network, ["4"], weights=file, preprocess=TO_TENSOR).fit(pixels)
    referring = pickle.dumps(extractor)
    weight = extractor.network_[0].bias.detach().numpy().tobytes()  # which lies in memory in one way alone
    assert weight not in referring
    loaded = pickle.loads(referring)
    assert loaded.network_ is extractor.network_
    expected = extractor.transform(pixels).outputs
    del extractor, loaded
    gc.collect()
    np.testing.assert_array_equal(pickle.loads(referring).transform(pixels).outputs, expected)
    torch.save({name: tensor + 1 for name, tensor in small_network().state_dict().items()}, file)
    with pytest.raises(ValueError, match=r"weights.pth' have changed since this object was saved.*SHA-256"):
        pickle.loads(referring)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights file .*weights.pth"):
        pickle.loads(referring)


def test_pickles_refer_to_published_weights(rng, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), file)
    image = [Image.fromarray(rng.integers(0, 256, (260, 300, 3), dtype=np.uint8))]
    extractor = FeatureExtractor("squeezenet1_1", ["features.12"], weights="DEFAULT").fit(image)
    pickled = pickle.dumps(extractor)
    assert len(pickled) < 10**5
    np.testing.assert_array_equal(pickle.loads(pickled).transform(image).outputs, extractor.transform(image).outputs)


class Viewing(nn.Module):
    """Views a map as a vector, which a map with its channels last refuses."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 7 * 8, 3)

    def forward(self, x):
        x = self.conv(x)
        return self.head(x.view(x.shape[0], -1))


def test_channels_last_where_the_network_can(pixels):
    viewing, plain = (
        FeatureExtractor(network, preprocess=TO_TENSOR, layers=[layer]).fit(pixels)
        for network, layer in ((Viewing(), "conv"), (small_network(), "0"))
    )
    assert viewing.network_.conv.weight.is_contiguous()
    assert plain.network_[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not plain.network_[0].weight.is_contiguous()
    for extractor in (viewing, plain):
        network = copy.deepcopy(extractor.network_).to(memory_format=torch.contiguous_format)
        X = torch.stack([TO_TENSOR(Image.fromarray(image)) for image in pixels])
        np.testing.assert_allclose(extractor.transform(pixels).outputs, network(X).detach(), rtol=1e-4, atol=1e-6)
        loaded = pickle.loads(pickle.dumps(extractor)).network_
        assert [p.stride() for p in loaded.parameters()] == [p.stride() for p in extractor.network_.parameters()]


def test_reduced_precision(digits):
    networks = digits.network, copy.deepcopy(digits.network).bfloat16()
    extractors = [FeatureExtractor(network, ["conv2", "conv3"]) for network in networks]
    exact, reduced = (extractor.fit_transform(digits.images[:300]) for extractor in extractors)
    for first, second in zip(exact.batches(), reduced.batches(), strict=True):
        for layer, values in first.activations.items():
            assert second.activations[layer].dtype == torch.float32
            assert not torch.equal(values, second.activations[layer])
            assert (values - second.activations[layer]).abs().max() < 0.03 * values.abs().max()
    dictionary = LayerDictionary(20, random_state=0).fit(exact)
    reduced._source.spec = exact.spec  # whose words else are those of another network
    for layer, words in dictionary.predict(exact).items():
        assert (words != dictionary.predict(reduced)[layer]).mean() < 0.03


def test_torchvision_weights_from_the_hub_folder_bring_preprocessing_and_names(rng, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = torchvision.models.SqueezeNet1_1_Weights.DEFAULT
    torch.manual_seed(1)
    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    file = tmp_path / "hub" / "checkpoints" / entry.url.rsplit("/", 1)[1]
    file.parent.mkdir(parents=True)
    torch.save(state, file)
    image = [Image.fromarray(rng.integers(0, 256, (260, 300, 3), dtype=np.uint8))]
    results = []
    for weights in ("DEFAULT", "IMAGENET1K_V1", "SqueezeNet1_1_Weights.IMAGENET1K_V1", entry, file):
        maps = FeatureExtractor("squeezenet1_1", ["features.12"], weights=weights).fit_transform(image)
        assert maps.shapes["features.12"] == (512, 13, 13)
        assert maps.class_names[1] == "goldfish"
        results.append(maps.outputs)
        assert maps.pictures()[0].shape == (224, 224, 3)
        middle = entry.transforms()(image[0]) * torch.tensor([[[0.229]], [[0.224]], [[0.225]]])
        middle = (middle + torch.tensor([[[0.485]], [[0.456]], [[0.406]]])) * 255
        np.testing.assert_allclose(maps.pictures()[0], middle.permute(1, 2, 0), atol=1)
    assert all(np.array_equal(results[0], result) for result in results)


def test_memory_shortage_halves_the_batch_and_says_so_once(pixels):
    network = nn.Sequential(ShortOfMemory(), *small_network())
    extractor = FeatureExtractor(network, ["5"], preprocess=TO_TENSOR, batch_size=7).fit(pixels)
    with pytest.warns(UserWarning, match="ran out of memory with batch_size=7") as caught:
        outputs = extractor.transform(pixels).outputs
    assert len(caught) == 1
    expected = FeatureExtractor(small_network(), ["4"], preprocess=TO_TENSOR).fit_transform(pixels).outputs
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


class ShortOfMemory(nn.Identity):
    """An operation that fails on more than two images."""

    def forward(self, x):
        if isinstance(x, torch.Tensor) and len(x) > 2:
            raise torch.OutOfMemoryError
        return x


ShortOfMemory.__module__ = "torch.nn.short"  # tracing does not look into torch's own modules


def with_nan(X, place):
    X = np.array(X, dtype=np.float32)
    X[place, 0, 0, 0] = np.nan
    return X


READY = np.zeros((4, 3, 9, 9), np.float32)
BAD = {
    "unknown layer": (dict(layers=["layr"]), READY, "no layer 'layr'. Near names"),
    "no layers": (dict(layers=[]), READY, "at least one layer"),
    "same tensor twice": (dict(layers=["4", "4_0"]), READY, "'4' and '4_0' are the same tensor"),
    "channels": ({}, np.zeros((4, 5, 9, 9), np.float32), "no axis of 3 channels"),
    "channels said": (dict(layout="channels_first"), np.zeros((4, 5, 9, 3), np.float32), "takes 3 channels; X has 5"),
    "both layouts": ({}, np.zeros((4, 3, 9, 3), np.float32), "channels first or last.*layout='channels_first'"),
    "grey": ({}, np.zeros((4, 9, 9), np.float32), "grey images.*takes 3 channels"),
    "vectors": ({}, np.zeros((4, 9), np.float32), "takes images of 3 channels"),
    "five axes": ({}, np.zeros((4, 1, 3, 9, 9), np.float32), "got shape"),
    "no images": ({}, np.zeros((0, 3, 9, 9), np.float32), "no images"),
    "not numbers": ({}, np.zeros((4, 3, 9, 9), complex), "array of complex128"),
    "bytes": ({}, READY.astype(np.uint8), "uint8 values, and there is no preprocessing.*preprocess="),
    "pil without preprocessing": ({}, [Image.new("RGB", (9, 9))], "Image 0 is a PIL image.*preprocess="),
    "NaN first": ({}, with_nan(READY, 0), "Image 0 contains NaN"),
    "failing": (dict(preprocess=lambda x: x.nothing), READY.astype(np.uint8), "preprocess failed on image 0, a PIL"),
    "no tensor": (dict(preprocess=lambda x: x), READY.astype(np.uint8), "must return a float tensor"),
    "one image": ({}, np.zeros((20, 30, 3), np.uint8), r"\(20, 30, 3\) looks like one colour image.*X\[None\]"),
    "one picture": ({}, Image.new("RGB", (9, 9)), r"one PIL image; give a list of images: \[image\]"),
    "letters of a path": ({}, list("photographs"), "split into letters, 'photographs': cross-validation needs a list"),
    "batches": ({}, DataLoader(TensorDataset(torch.zeros(4, 3, 9, 9))), "its data set, X.dataset"),
    "missing folder": (dict(model="resnet50", weights="DEFAULT"), "nowhere", "'nowhere', which is not a folder; give"),
    "missing file": ({}, ["nowhere.png"], "no image file 'nowhere.png'"),
    "missing weights": (dict(weights="nowhere.pth"), READY, "no weights file 'nowhere.pth'"),
    "named weights": (dict(weights="DEFAULT"), READY, "needs a torchvision name as model"),
    "unknown model": (dict(model="resnet51"), READY, "no classification model 'resnet51'. Near names: resnet5"),
    "unknown weights": (dict(model="resnet50", weights="V9"), READY, "no weights 'V9': use one of 'DEFAULT', 'IMAGE"),
    "factory": (dict(model=lambda: 3), READY, "factory returned a int"),
    "class names": (dict(class_names=["a", "b"]), READY, "2 names, but the network has 4 outputs"),
    "batch size": (dict(batch_size=0), READY, "'batch_size' parameter"),
    "no gpu": (dict(device="cuda:0"), READY, "finds no GPU"),
    "no decision": (dict(model=small_network()[:6], layers=["4"]), READY, "not scores .1, C..*decision=callable"),
    "decision names": (
        dict(model=small_network()[:6], layers=["4"], decision=lambda out: out.flatten(1).argmax(1)),
        READY,
        "pass class_names",
    ),
    "wrong decision": (dict(decision=lambda out: out), READY, "must return 1 output numbers"),
    "decision out of range": (dict(decision=lambda out: out.argmax(1) + 4), READY, "outputs 0 to 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    if case == "no gpu" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    parameters, X, message = BAD[case]
    extractor = FeatureExtractor(**{"model": small_network(), "layers": ["4"], **parameters})
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        extractor.fit(X)


NAMES = ["cat", "dog", "dog", "cow"]


@pytest.mark.parametrize(
    ("names", "y", "message"),
    [
        (NAMES, [0, 1, 2], "one label per image"),
        (NAMES, [0, 1, 2, 4], "no output 4"),
        (NAMES, ["cat", "dog", "cow", "cow"], "Several outputs are named 'dog'"),
        (NAMES, ["cat", "cat", "cow", "pig"], "no class 'pig'"),
        (NAMES, [0.5, 1, 2, 3], "got 0.5"),
        (None, ["cat"] * 4, "outputs have no names"),
    ],
)
def test_bad_labels_are_named(names, y, message):
    with pytest.raises(ValueError, match=message):
        FeatureExtractor(small_network(), ["4"], class_names=names).fit(READY, y)


def test_labels_are_encoded():
    extractor = FeatureExtractor(small_network(), ["4"], class_names=NAMES).fit(READY)
    np.testing.assert_array_equal(extractor.spec_.encode(["cow", "cat"], 2), [3, 0])


def test_trouble_behind_the_first_image_is_named(tmp_path, pixels):
    extractor = FeatureExtractor(small_network(), ["4"]).fit(READY)
    with pytest.raises(ValueError, match="Image 2 contains NaN"):
        extractor.transform(with_nan(READY, 2)).compute()
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\).*\(3, 9, 9\) is expected"):
        extractor.transform(READY[:, :, :8, :8])
    files = as_files(pixels, tmp_path)
    files[3].write_text("not an image", encoding="utf-8")
    maps = FeatureExtractor(small_network(), ["4"], preprocess=TO_TENSOR).fit_transform(files)
    with pytest.raises(ValueError, match=r"3.png' cannot be read as an image"):
        maps.compute()
    network = small_network()
    with torch.no_grad():
        network[4].weight.fill_(3e38)
        network[0].bias.fill_(0)
        network[1].bias.fill_(0)
    X = READY.copy()
    X[1] = 9
    with pytest.raises(ValueError, match=r"returns NaN or infinity for image 1, first in layer '4'"):
        FeatureExtractor(network, ["0", "4"]).fit_transform(X).compute()


def test_files_that_hold_more_than_tensors_are_refused(tmp_path):
    torch.save(small_network(), tmp_path / "network.pth")
    with pytest.raises(ValueError, match="other objects than tensors"):
        FeatureExtractor(small_network, ["4"], weights=tmp_path / "network.pth").fit(READY)
    torch.save({"nothing": torch.ones(1)}, tmp_path / "state.pth")
    with pytest.raises(ValueError, match="do not fit Sequential"):
        FeatureExtractor(small_network, ["4"], weights=tmp_path / "state.pth").fit(READY)


def test_network_of_doubles():
    maps = FeatureExtractor(small_network().double(), ["4"]).fit_transform(READY)
    assert next(maps.batches()).activations["4"].dtype == torch.float32


def test_decision_by_callable():
    network = small_network()[:6]
    extractor = FeatureExtractor(
        network, ["4"], decision=lambda out: out.mean((2, 3)).argmax(1), class_names=list("abcdef")
    )
    maps = extractor.fit_transform(READY)
    assert maps.spec.n_outputs == 6
    assert isinstance(maps, FeatureMaps)


def test_a_network_from_a_factory_is_left_alone(pixels):
    network = small_network().train()
    extractor = FeatureExtractor(lambda: network, ["4"], preprocess=TO_TENSOR).fit(pixels)
    assert extractor.network_ is not network
    assert network.training
    assert network[0].weight.requires_grad


def test_capture_is_what_the_layer_returned_after_its_own_work_in_place():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x):
            y = self.conv(x)
            torch.relu_(y)
            return y

    network = nn.Sequential(Block(), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    image = torch.randn(2, 3, 6, 6)
    maps = FeatureExtractor(network, ["0"], preprocess=None).fit_transform(image)
    with torch.no_grad():
        expected = network[0](image)
    np.testing.assert_allclose(activations(maps, "0"), expected, atol=1e-6)


def test_maps_stay_what_they_were_when_the_extractor_is_fitted_again(pixels):
    extractor = FeatureExtractor(small_network(), ["4"], preprocess=TO_TENSOR)
    maps = extractor.fit_transform(pixels)
    before = maps.outputs
    torch.manual_seed(9)
    extractor.set_params(model=nn.Sequential(*[copy.deepcopy(m) for m in small_network()[:8]], nn.Linear(6, 9)))
    extractor.fit(pixels)
    np.testing.assert_array_equal(maps.outputs, before)


def test_failed_fit_loses_nothing(pixels):
    extractor = FeatureExtractor(small_network(), ["4"], preprocess=TO_TENSOR)
    with pytest.raises(ValueError, match="no layer"):
        extractor.set_params(layers=["nine"]).fit(pixels)
    with pytest.raises(NotFittedError):
        extractor.transform(pixels)
    extractor.set_params(layers=["4"]).fit(pixels)
    expected = extractor.transform(pixels).outputs
    with pytest.raises(ValueError, match="one label per image"):
        extractor.set_params(model=small_network(outputs=7)).fit(pixels, [1])
    np.testing.assert_array_equal(extractor.transform(pixels).outputs, expected)


def test_preprocessing_in_place_leaves_the_callers_images_alone(rng):
    images = torch.from_numpy(rng.random((3, 3, 8, 8), dtype=np.float32))
    before = images.clone()
    maps = FeatureExtractor(small_network(), ["0"], preprocess=lambda x: x.sub_(0.5)).fit_transform(images)
    first = maps.outputs
    np.testing.assert_array_equal(maps.outputs, first)
    assert torch.equal(images, before)
    needing_gradients = images.requires_grad_()
    assert FeatureExtractor(small_network(), ["0"]).fit_transform(needing_gradients).outputs.shape == (3, 4)


def test_outputs_other_than_scores():
    class Detector(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

        def forward(self, x):
            scores = self.head(self.conv(x).mean((2, 3)))
            return {"scores": scores, "boxes": scores * 2}

    maps = FeatureExtractor(
        Detector(), ["conv"], decision=lambda out: out["scores"].argmax(1), class_names=["a", "b", "c"]
    ).fit_transform(READY)
    with pytest.raises(ValueError, match=r"not return a tensor of scores \(n, C\)"):
        _ = maps.outputs
    assert len(maps.compute()[[1, 2]]) == 2
    with pytest.raises(ValueError, match="returns a dict for one image"):
        FeatureExtractor(Detector(), ["conv"]).fit(READY)


def test_reserved_layer_names():
    network = nn.Sequential()
    network.add_module("decision", nn.Conv2d(3, 2, 3))
    network.add_module("rest", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    with pytest.raises(ValueError, match="name 'decision' is reserved"):
        FeatureExtractor(network, ["decision"]).fit(READY)


def test_child_called_module_loads_its_own_state(tmp_path):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = small_network()

        def forward(self, x):
            return self.module(x)

    torch.save(Wrapper().state_dict(), tmp_path / "state.pth")
    FeatureExtractor(Wrapper, ["module.4"], weights=tmp_path / "state.pth").fit(READY)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({0: "cat", 1: "dog", 2: "cow", 3: "hen"}, None),
        ({3: "hen", 1: "dog", 0: "cat", 2: "cow"}, None),
        (
            {1: "cat", 2: "dog", 3: "cow", 4: "hen"},
            r"dict with keys \[1, 2, 3, 4\]; they must be the outputs 0",
        ),
        ({"cat": 0, "dog": 1, "cow": 2, "hen": 3}, "they must be the outputs 0 to 3"),
        ({"cat", "dog", "cow", "hen"}, "class_names is a set; give a list with one name per output"),
    ],
)
def test_class_names_are_in_the_order_of_outputs(names, message):
    extractor = FeatureExtractor(small_network(), ["4"], class_names=names)
    if message is None:
        assert extractor.fit(READY).spec_.class_names == ("cat", "dog", "cow", "hen")
    else:
        with pytest.raises((TypeError, ValueError), match=message):
            extractor.fit(READY)


def test_score_is_the_networks_own_accuracy():
    extractor = FeatureExtractor(small_network(), ["4"], class_names=["cat", "dog", "cow", "hen"]).fit(READY)
    decided = np.concatenate([batch.decisions for batch in extractor.transform(READY).batches()])
    labels = decided.copy()
    labels[0] = (labels[0] + 1) % 4
    assert extractor.score(READY, decided) == 1
    names = [extractor.spec_.class_name(label) for label in labels]
    assert extractor.score(READY, names) == pytest.approx(1 - 1 / len(READY))


@pytest.mark.parametrize("labels", [[None], [{}], [0.5], [np.nan]])
def test_labels_that_are_none(labels):
    with pytest.raises(ValueError, match="y must contain output numbers or class names; got"):
        FeatureExtractor(small_network(), ["4"]).fit(READY, labels * len(READY))


def test_random_preprocessing_is_told(pixels):
    flipping = transforms.Compose([transforms.RandomHorizontalFlip(), TO_TENSOR])

    class Flipped(torch.utils.data.Dataset):
        def __len__(self):
            return 7

        def __getitem__(self, i):
            return flipping(Image.fromarray(pixels[i])), 0

    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="^preprocess returns different values for the same image each time"):
        FeatureExtractor(small_network(), ["4"], preprocess=flipping).fit(pixels)
    with pytest.warns(UserWarning, match="^The data set returns different values for the same image each time"):
        FeatureExtractor(small_network(), ["4"], preprocess=None).fit(Flipped())


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"device": "gpu"}, ValueError, "Unknown device='gpu'; use 'auto'"),
        ({"layers": [2]}, TypeError, "names of layers, as returned by list_layers; got 2"),
        ({"layers": [None]}, TypeError, "names of layers, as returned by list_layers; got None"),
        ({"n_jobs": -100}, ValueError, "n_jobs=-100: give a number of processes"),
        ({"n_jobs": 0}, ValueError, "n_jobs=0: give a number of processes"),
        ({"store": ""}, ValueError, "The folder of a store is ''"),
        ({"batch_size": True}, ValueError, "'batch_size' parameter .* Got True"),
    ],
)
def test_parameters_that_are_mistakes(parameters, error, message):
    with pytest.raises(error, match=message):
        FeatureExtractor(small_network(), **{"layers": ["4"]} | parameters).fit(READY)


def test_no_images_are_told(tmp_path):
    maps = FeatureExtractor(small_network(), ["4"]).fit_transform(READY)
    for ask in (lambda none: none.compute(), lambda none: none.outputs):
        with pytest.raises(ValueError, match="These FeatureMaps contain no images"):
            ask(maps[[]])
    with pytest.raises(ValueError, match="The folder of a store is ''"):
        maps.store("")


def test_one_layer_by_its_name(digits):
    one, listed = (FeatureExtractor(digits.network, layers).fit(digits.images[:4]) for layers in ("conv3", ["conv3"]))
    assert one.spec_.layers == listed.spec_.layers == ("conv3",)
