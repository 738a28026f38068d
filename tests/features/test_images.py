"""Images read and preprocessed here, or in other processes."""

import pickle
import subprocess
import sys

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, Subset, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import ToTensor

from skgmmcnn import FeatureExtractor

from .small import SMALL, TO_TENSOR, extractor, small_network


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
    with pytest.raises(ValueError, match=r"fails on an image of shape \(3, 8, 8\).*too small"):
        extractor(network, preprocess=None).fit(np.zeros((4, 3, 8, 8), np.float32))


def test_progress(network, folder, capsys):
    extractor(network, verbose=1).fit_transform(folder).compute()
    assert "7/7" in capsys.readouterr().err
    extractor(network).fit_transform(folder).compute()
    assert not capsys.readouterr().err


QUIET = """
import sys
from skgmmcnn import FeatureExtractor
from skgmmcnn.datasets import load_digits_network
digits = load_digits_network()
FeatureExtractor(digits.network, ["conv3"]).fit_transform(digits.images[:3]).compute()
assert "tqdm.auto" not in sys.modules
"""


def test_bars_of_notebooks_are_imported_only_to_be_shown():
    """Without ipywidgets the import gives a warning."""
    subprocess.run([sys.executable, "-c", QUIET], check=True)


def test_hash_of_a_data_set_is_that_of_its_content(network, folder):
    maps = [extractor(network).fit_transform(ImageFolder(folder)) for _ in range(2)]
    assert joblib.hash(maps[0]) == joblib.hash(maps[1])


class Brighter(Subset):
    """A subset with a transformation of its own."""

    def __init__(self, data, rows, factor):
        super().__init__(data, rows)
        self.factor = factor

    def __getitem__(self, i):
        return self.factor * super().__getitem__(i)[0]

    def __getitems__(self, rows):
        return [self[i] for i in rows]


def test_images_of_subsets_are_those_of_the_data_set_unless_they_are_transformed(network):
    data = TensorDataset(torch.rand(4, 3, 12, 12))

    def hashes(subset):
        return extractor(network, preprocess=None).fit_transform(subset)._source.images.hashes()

    whole = hashes(data)
    for rows in ([1, 2], torch.tensor([1, 2]), np.array([1, 2])):
        assert hashes(Subset(data, rows)) == whole[1:3]
    first, second = (hashes(Brighter(data, [1, 2], factor)) for factor in (0.5, 0.7))
    assert len({*whole, *first, *second}) == 8
    assert hashes(Subset(Brighter(data, [1, 2], 0.5), [1])) == first[1:]


class Rows(Dataset):
    """Items as a function makes them."""

    def __init__(self, make, n=4):
        self.make, self.n = make, n

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.make(i)


IMAGE = torch.rand(3, 12, 12)


def _fails_on_2(i):
    if i == 2:
        raise KeyError("gone")
    return IMAGE, 0


def _broken_on_2(image):
    if image.getpixel((0, 0))[0] == 2:
        raise ZeroDivisionError("by zero")
    return ToTensor()(image)


def test_errors_of_data_sets_and_preprocessing_carry_number_and_type(network, tmp_path):
    message, rows = "Image 2: the data set fails on its item 2: KeyError: 'gone'", Rows(_fails_on_2)
    with pytest.raises(ValueError, match=rf"{message}.*on_error='skip'"):
        extractor(network, preprocess=None).fit(rows)
    skipping = extractor(network, preprocess=None, on_error="skip")
    with pytest.warns(UserWarning, match=f"1 of 4 images.*image 2: {message}"):
        maps = skipping.fit(rows).transform(Rows(lambda i: IMAGE))
    assert len(maps) == 4
    for i in range(4):
        Image.new("RGB", (12, 12), (i, i, i)).save(tmp_path / f"{i}.png")
    for n_jobs in (None, 2):
        with pytest.raises(ValueError, match=r"preprocess failed on image 2 \('.*2\.png'\), a PIL image: ZeroDivision"):
            extractor(network, preprocess=_broken_on_2, n_jobs=n_jobs).fit(tmp_path).transform(tmp_path).compute()


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"image": IMAGE, "meta": torch.ones(2)}, "is a dict instead of an image: .* Entry 'image' is an image"),
        ({"label": 3}, "is a dict instead of an image: a PIL image"),
        ((3, IMAGE), "is a tuple instead of an image: .* Entry 1 is an image"),
        ("file.png", "is a str instead"),
        (None, "is a NoneType instead"),
        (np.array(["a"]), "is a ndarray instead"),
        (7, "is a int instead"),
    ],
)
def test_items_that_are_no_images_are_refused(network, item, message):
    with pytest.raises(TypeError, match=f"Item 0 of the data set {message}"):
        extractor(network, preprocess=None, on_error="skip").fit(Rows(lambda i: item))


def test_every_error_of_reading_can_be_skipped(network, tmp_path, monkeypatch):
    Image.new("RGB", (12, 12)).save(tmp_path / "good.png")
    Image.new("RGB", (99, 99)).save(tmp_path / "bomb.png")
    Image.fromarray(np.ones((12, 12), np.float32)).save(tmp_path / "range.tif")
    header = (tmp_path / "good.png").read_bytes()
    (tmp_path / "header.png").write_bytes(header[:20] + b"\xff" * 8 + header[28:])
    (tmp_path / "empty.png").write_bytes(b"")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match=r"bomb\.png' cannot be read as an image: DecompressionBombError"):
        extractor(network).fit(tmp_path)
    with pytest.warns(UserWarning, match="4 of 5 images cannot be read"):
        assert len(extractor(network, on_error="skip").fit_transform(tmp_path)) == 1


def test_preprocessing_that_refuses_plain_images(network, folder):
    def find(image):
        if image.getextrema()[0][0] == image.getextrema()[0][1]:
            raise LookupError("there is nothing in this image")
        return SMALL(image)

    assert extractor(network, preprocess=find).fit_transform(folder).pictures()[0].shape == (12, 12, 3)


def test_images_with_nan_can_be_skipped(network):
    X = np.random.default_rng(0).random((5, 3, 12, 12), dtype=np.float32)
    X[3, 0, 0, 0] = np.nan
    with pytest.warns(UserWarning, match="1 of 5 images .* Image 3 contains NaN"):
        assert len(extractor(network, preprocess=None, on_error="skip").fit_transform(X)) == 4


def test_a_subset_is_pickled_alone(network):
    images = np.random.default_rng(0).random((200, 3, 12, 12), dtype=np.float32)
    maps = extractor(network, preprocess=None).fit_transform(images)
    for whole in (maps, maps.compute(), maps[::2]):
        part = whole[[7, 3]]
        again = pickle.loads(pickle.dumps(part))
        np.testing.assert_array_equal(again.outputs, part.outputs)
        np.testing.assert_array_equal(again.pictures()[1], part.pictures()[1])
        sizes = [len(pickle.dumps(each)) - len(pickle.dumps(maps[:0])) for each in (part, whole)]
        assert sizes[0] < sizes[1] / 20


def test_mixed_sizes_are_allowed_where_preprocessing_makes_them_equal(rng):
    images = [Image.fromarray(rng.integers(0, 256, (h, 12, 3), dtype=np.uint8)) for h in (10, 14)]
    resize = transforms.Compose([transforms.Resize((8, 8)), TO_TENSOR])
    assert FeatureExtractor(small_network(), ["0"], preprocess=resize).fit_transform(images).outputs.shape == (2, 4)
    with pytest.raises(ValueError, match=r"Image 1 has shape \(3, 14, 12\).*\(3, 10, 12\) is expected"):
        FeatureExtractor(small_network(), ["0"], preprocess=TO_TENSOR).fit_transform(images).compute()


def test_preprocessing_in_place_leaves_the_callers_images_alone(rng):
    images = torch.from_numpy(rng.random((3, 3, 8, 8), dtype=np.float32))
    before = images.clone()
    maps = FeatureExtractor(small_network(), ["0"], preprocess=lambda x: x.sub_(0.5)).fit_transform(images)
    first = maps.outputs
    np.testing.assert_array_equal(maps.outputs, first)
    assert torch.equal(images, before)
    needing_gradients = images.requires_grad_()
    assert FeatureExtractor(small_network(), ["0"]).fit_transform(needing_gradients).outputs.shape == (3, 4)


def test_random_preprocessing_gives_a_warning(pixels):
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
