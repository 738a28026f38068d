"""Images from folders, data sets and broken files, read here or in other processes."""

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Resize, ToTensor

from skgmmcnn import FeatureExtractor

SMALL = Compose([Resize((12, 12)), ToTensor()])


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))


@pytest.fixture
def folder(tmp_path, rng):
    """Seven files in two subfolders, among them grey and transparent ones, and one that is no image."""
    for number in range(7):
        place = tmp_path / ("cats" if number % 2 else "dogs")
        place.mkdir(exist_ok=True)
        shape = (14, 15) if number == 3 else (14, 15, 4) if number == 4 else (14, 15, 3)
        Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(place / f"{number}.png")
    (tmp_path / "cats" / "notes.txt").write_text("no image", encoding="utf-8")
    return tmp_path


def extractor(network, **settings):
    return FeatureExtractor(network, ["0"], **{"preprocess": SMALL, "batch_size": 3, "device": "cpu", **settings})


def test_a_folder_is_its_files(network, folder):
    files = [folder / "cats" / f"{n}.png" for n in (1, 3, 5)] + [folder / "dogs" / f"{n}.png" for n in (0, 2, 4, 6)]
    expected = extractor(network).fit_transform(files).outputs
    for X in (folder, str(folder)):
        np.testing.assert_allclose(extractor(network).fit_transform(X).outputs, expected, rtol=1e-4, atol=1e-6)
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no image files"):
        extractor(network).fit(folder / "empty")
    with pytest.raises(ValueError, match="which is no folder"):
        extractor(network).fit(str(files[0]))


def test_data_sets(network, folder):
    expected = extractor(network).fit_transform(folder)
    for data in (ImageFolder(folder), ImageFolder(folder, transform=SMALL)):
        maps = extractor(network, preprocess=None if data.transform else SMALL).fit_transform(data)
        np.testing.assert_allclose(maps.outputs, expected.outputs, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(maps[[5, 2]].outputs, expected.outputs[[5, 2]], rtol=1e-4, atol=1e-6)
        assert maps.pictures()[3].shape == (12, 12, 3)
    tensors = TensorDataset(torch.rand(5, 3, 12, 12), torch.arange(5))
    maps = extractor(network, preprocess=None).fit_transform(tensors)
    np.testing.assert_allclose(
        maps.outputs, extractor(network, preprocess=None).fit_transform(tensors.tensors[0]).outputs
    )


def test_data_sets_that_cannot_be_indexed(network):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(())

    class Empty(Dataset):
        def __len__(self):
            return 0

    with pytest.raises(ValueError, match="Stream yields images once"):
        extractor(network).fit(Stream())
    with pytest.raises(ValueError, match="no images"):
        extractor(network).fit(Empty())


def test_other_processes_read_the_same(network, folder):
    arrays = np.random.default_rng(0).integers(0, 255, (10, 12, 12, 3), dtype=np.uint8)
    for X in (folder, arrays, ImageFolder(folder), (arrays / 255).astype(np.float32).transpose(0, 3, 1, 2)):
        settings = {"preprocess": None} if isinstance(X, np.ndarray) and X.dtype == np.float32 else {}
        alone = extractor(network, **settings).fit_transform(X)
        together = extractor(network, n_jobs=2, **settings).fit_transform(X)
        np.testing.assert_allclose(together.outputs, alone.outputs, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            together[[6, 1, 4, 2, 0]].outputs, alone.outputs[[6, 1, 4, 2, 0]], rtol=1e-4, atol=1e-6
        )


def test_a_broken_file_names_itself(network, folder):
    broken = folder / "dogs" / "2.png"
    broken.write_bytes(broken.read_bytes()[:200])
    for n_jobs in (None, 2):
        with pytest.raises(ValueError, match=r"dogs.2\.png' cannot be read as an image"):
            extractor(network, n_jobs=n_jobs).fit(folder).transform(folder).compute()


def test_broken_files_can_be_skipped(network, folder):
    expected = extractor(network).fit_transform(folder).outputs
    broken = folder / "dogs" / "2.png"
    broken.write_bytes(broken.read_bytes()[:200])
    skipping = extractor(network, on_error="skip")
    with pytest.warns(UserWarning, match=r"1 of 7 images cannot be read and are skipped: image 4: .*2\.png"):
        maps = skipping.fit_transform(folder)
    assert maps.shape == (6,)
    np.testing.assert_allclose(maps.outputs, np.delete(expected, 4, axis=0), rtol=1e-4, atol=1e-6)
    for file in folder.rglob("*.png"):
        file.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="None of the 7 images can be read"):
        skipping.fit(folder)


def test_one_broken_file_among_a_thousand(network, tmp_path):
    picture = Image.fromarray(np.full((12, 12, 3), 99, np.uint8))
    for number in range(1000):
        picture.save(tmp_path / f"{number:04}.jpg")
    (tmp_path / "0777.jpg").write_bytes(b"\xff\xd8 broken")
    with pytest.warns(UserWarning, match="image 777"):
        maps = extractor(network, on_error="skip", n_jobs=2, batch_size=100).fit_transform(tmp_path)
    assert maps.shape == (999,)


def test_images_too_small_for_the_network(network):
    network[0] = nn.Conv2d(3, 4, 11)
    with pytest.raises(ValueError, match=r"cannot take an image of shape \(3, 8, 8\).*too small"):
        extractor(network, preprocess=None).fit(np.zeros((4, 3, 8, 8), np.float32))


def test_progress(network, folder, capsys):
    extractor(network, verbose=1).fit_transform(folder).compute()
    assert "7/7" in capsys.readouterr().err
    extractor(network).fit_transform(folder).compute()
    assert not capsys.readouterr().err


def test_hash_of_a_data_set_is_that_of_its_content(network, folder):
    maps = [extractor(network).fit_transform(ImageFolder(folder)) for _ in range(2)]
    assert joblib.hash(maps[0]) == joblib.hash(maps[1])
