"""Maps are computed when they are read, and errors name the image."""

import copy
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from skgmmcnn import FeatureExtractor

from .small import READY, TO_TENSOR, activations, as_files, small_network, with_nan


def test_rows_can_be_chosen(pixels):
    maps = FeatureExtractor(small_network(), ["4"], preprocess=TO_TENSOR).fit_transform(pixels)
    for subset in (maps[[5, 2]], maps[np.array([5, 2]), ...], maps[[1, 2, 5]][[2, 1]], maps.compute()[[5, 2]]):
        assert len(subset) == 2
        np.testing.assert_allclose(activations(subset, "4"), activations(maps, "4")[[5, 2]], atol=1e-6)
        np.testing.assert_array_equal(subset.pictures()[0], pixels[5])
    assert maps[np.arange(7) % 2 == 0].shape == (4,)
    assert maps[1:3].shape == (2,)


@pytest.fixture
def wide():
    return np.random.default_rng(0).random((64, 3, 96, 96), dtype=np.float32)


def allocated(work, *arguments):
    """Return the most bytes that Python and numpy allocate at once."""
    tracemalloc.start()
    try:
        work(*arguments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_rows_of_images_are_not_copied_before_they_are_read(wide, tmp_path):
    np.save(tmp_path / "wide.npy", wide)
    X = np.load(tmp_path / "wide.npy", mmap_mode="r")
    extractor = FeatureExtractor(small_network(), ["6"], batch_size=4, device="cpu").fit(X[:2])
    maps = extractor.transform(X)
    for rows in (np.arange(64)[::-1], np.arange(64) % 2 == 0, slice(0, 64, 2)):
        assert allocated(lambda rows=rows: maps[rows][1:][::-1]) < X.nbytes / 100
        np.testing.assert_allclose(maps[rows][1:][::-1].outputs, maps.outputs[rows][1:][::-1], atol=1e-6)
    assert allocated(maps.store, tmp_path) < X.nbytes / 3


def test_rows_of_activations_in_memory_are_not_copied_before_they_are_read(wide):
    maps = FeatureExtractor(small_network(), ["0"], batch_size=8, device="cpu").fit_transform(wide).compute()
    rows = np.arange(64)[::-1]
    assert allocated(lambda: maps[rows][:40][[3, 5]]) < wide.nbytes / 100
    part = maps[rows][:40][[3, 5]]
    np.testing.assert_array_equal(activations(part, "0"), activations(maps, "0")[[60, 58]])
    assert len(pickle.dumps(part)) < wide.nbytes / 4
    np.testing.assert_array_equal(activations(pickle.loads(pickle.dumps(part)), "0"), activations(part, "0"))


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


def test_maps_stay_what_they_were_when_the_extractor_is_fitted_again(pixels):
    extractor = FeatureExtractor(small_network(), ["4"], preprocess=TO_TENSOR)
    maps = extractor.fit_transform(pixels)
    before = maps.outputs
    torch.manual_seed(9)
    extractor.set_params(model=nn.Sequential(*[copy.deepcopy(m) for m in small_network()[:8]], nn.Linear(6, 9)))
    extractor.fit(pixels)
    np.testing.assert_array_equal(maps.outputs, before)


def test_maps_without_images_raise_errors(tmp_path):
    maps = FeatureExtractor(small_network(), ["4"]).fit_transform(READY)
    for ask in (lambda none: none.compute(), lambda none: none.outputs):
        with pytest.raises(ValueError, match="These FeatureMaps contain no images"):
            ask(maps[[]])
    with pytest.raises(ValueError, match="The folder of a store is ''"):
        maps.store("")
