"""Networks are built, shared and pickled with the weights that they run with."""

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
from torch import nn
from torchvision import transforms

from skgmmcnn import FeatureExtractor

from .small import READY, TO_TENSOR, small_network


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
        assert maps.spec.class_names[1] == "goldfish"
        results.append(maps.outputs)
        assert maps.pictures()[0].shape == (224, 224, 3)
        middle = entry.transforms()(image[0]) * torch.tensor([[[0.229]], [[0.224]], [[0.225]]])
        middle = (middle + torch.tensor([[[0.485]], [[0.456]], [[0.406]]])) * 255
        np.testing.assert_allclose(maps.pictures()[0], middle.permute(1, 2, 0), atol=1)
    assert all(np.array_equal(results[0], result) for result in results)


def test_files_that_hold_more_than_tensors_are_refused(tmp_path):
    torch.save(small_network(), tmp_path / "network.pth")
    with pytest.raises(ValueError, match="other objects than tensors"):
        FeatureExtractor(small_network, ["4"], weights=tmp_path / "network.pth").fit(READY)
    torch.save({"nothing": torch.ones(1)}, tmp_path / "state.pth")
    with pytest.raises(ValueError, match="do not fit Sequential"):
        FeatureExtractor(small_network, ["4"], weights=tmp_path / "state.pth").fit(READY)


def test_a_network_from_a_factory_is_left_alone(pixels):
    network = small_network().train()
    extractor = FeatureExtractor(lambda: network, ["4"], preprocess=TO_TENSOR).fit(pixels)
    assert extractor.network_ is not network
    assert network.training
    assert network[0].weight.requires_grad


def test_child_called_module_loads_its_own_state(tmp_path):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = small_network()

        def forward(self, x):
            return self.module(x)

    torch.save(Wrapper().state_dict(), tmp_path / "state.pth")
    FeatureExtractor(Wrapper, ["module.4"], weights=tmp_path / "state.pth").fit(READY)
