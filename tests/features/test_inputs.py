"""Input of all kinds, and what is no input."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from skgmmcnn import FeatureExtractor, LayerDictionary

from .small import TO_TENSOR, activations, as_files, extractor, in_memory, small_network

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


def test_data_sets_that_cannot_be_indexed(network):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    class Empty(Dataset):
        def __len__(self):
            return 0

    with pytest.raises(ValueError, match="Stream is iterable only"):
        extractor(network).fit(Stream())
    with pytest.raises(ValueError, match="no images"):
        extractor(network).fit(Empty())


def test_containers_are_no_images(network, folder):
    maps = extractor(network).fit_transform(folder)
    words = LayerDictionary(2).fit_transform(maps)
    for container in (maps, words):
        with pytest.raises(TypeError, match=f"X is {type(container).__name__}, the output of a transformer"):
            extractor(network).fit(container)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (5, ValueError, "X is 5; give images"),
        ("", ValueError, "empty path"),
        (["a.png", 5], TypeError, "item 1 is a int"),
        ([np.zeros((3, 4, 4)), np.zeros((3, 5, 5))], ValueError, "arrays of different shapes"),
        ({"images": 3}, TypeError, "X is a dict"),
        (np.ma.masked_less(np.zeros((2, 3, 12, 12)), 1), TypeError, "masked array; fill the masked"),
        (torch.zeros(2, 3, 12, 12, dtype=torch.complex64), ValueError, "real numbers"),
        (None, ValueError, "real numbers, image paths"),
        (torch.zeros(2, 3, 12, 12).to_sparse(), ValueError, r"give a dense one: X\.to_dense\(\)"),
        (np.zeros((2, 3, 12, 12), np.uint16), ValueError, "X contains uint16 values, and there is no preprocessing"),
        (torch.zeros(2, 3, 12, 12, dtype=torch.int64), ValueError, "X contains int64 values"),
    ],
)
def test_what_is_no_image_is_refused(network, X, error, message):
    with pytest.raises(error, match=message):
        extractor(network, preprocess=None).fit(X)


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
