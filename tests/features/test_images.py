"""Images from folders, data sets and broken files, read here or in other processes."""

import pickle

import joblib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Resize, ToTensor

from skgmmcnn import FeatureExtractor, LayerDictionary
from skgmmcnn.features._image_files import normalise, read

from .small import TO_TENSOR, activations, as_files, in_memory, small_network

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
    with pytest.raises(ValueError, match="contains no image files"):
        extractor(network).fit(folder / "empty")
    with pytest.raises(ValueError, match="which is not a folder"):
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

    with pytest.raises(ValueError, match="Stream is iterable only"):
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
    with pytest.raises(ValueError, match=r"fails on an image of shape \(3, 8, 8\).*too small"):
        extractor(network, preprocess=None).fit(np.zeros((4, 3, 8, 8), np.float32))


def test_progress(network, folder, capsys):
    extractor(network, verbose=1).fit_transform(folder).compute()
    assert "7/7" in capsys.readouterr().err
    extractor(network).fit_transform(folder).compute()
    assert not capsys.readouterr().err


def test_hash_of_a_data_set_is_that_of_its_content(network, folder):
    maps = [extractor(network).fit_transform(ImageFolder(folder)) for _ in range(2)]
    assert joblib.hash(maps[0]) == joblib.hash(maps[1])


def grey_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))


GREY = Compose([Resize((12, 12)), lambda image: torch.from_numpy(np.asarray(image, np.float32))[None] / 255])


@pytest.mark.parametrize("suffix", ["png", "tif", "big.tif", "pgm"])
def test_sixteen_bits_are_scaled(tmp_path, rng, suffix):
    pixels = rng.integers(0, 256, (12, 12), dtype=np.uint8)
    sixteen = (pixels * np.uint16(257)).astype(">u2" if "big" in suffix else "<u2")
    (tmp_path / "8").mkdir()
    Image.fromarray(pixels).save(tmp_path / "8" / "a.png")
    Image.fromarray(sixteen).save(tmp_path / f"a.{suffix}")
    maps = [
        extractor(grey_network(), preprocess=GREY).fit_transform([file])
        for file in (tmp_path / "8" / "a.png", tmp_path / f"a.{suffix}", Image.open(tmp_path / f"a.{suffix}"))
    ]
    for other in maps[1:]:
        np.testing.assert_allclose(other.outputs, maps[0].outputs, atol=1e-6)


def test_a_tiff_of_twelve_bits_is_scaled(tmp_path):
    Image.fromarray(np.full((12, 12), 4095, np.uint16)).save(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as image:
        image.tag_v2[258] = (12,)
        assert normalise(image, "L").getextrema() == (255, 255)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_unknown_range_are_refused(network, tmp_path, dtype):
    Image.fromarray(np.ones((12, 12), dtype)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"a\.tif' cannot be read.*32-bit numbers of unknown range.*8 or 16 bits"):
        extractor(network).fit(tmp_path)


def test_palettes_keep_their_colours(tmp_path):
    image = Image.new("P", (12, 12), 1)
    image.putpalette([255, 0, 0, 0, 128, 255])
    for transparency in ({}, {"transparency": b"\x00\x80"}, {"transparency": 0}):
        image.save(tmp_path / "a.png", **transparency)
        assert read(tmp_path / "a.png", "RGB").getpixel((0, 0)) == (0, 128, 255)
        assert read(tmp_path / "a.png", None).getpixel((0, 0))[:3] == (0, 128, 255)


def test_what_pil_cannot_convert_is_named(network):
    images = [Image.new("RGB", (12, 12)), Image.new("La", (12, 12))]
    with pytest.raises(ValueError, match=r"Image 1 cannot be read: ValueError: conversion from La"):
        extractor(network).fit_transform(images).compute()
    for mode in ("L", "RGB", None):
        assert normalise(Image.new("LAB", (12, 12)), mode).mode == (mode or "RGB")


def test_what_systems_hide_in_folders_is_no_image(network, folder):
    expected = extractor(network).fit_transform(folder).shape
    for name in ("._a.png", ".ipynb_checkpoints/b.png", "__MACOSX/._b.png", "__MACOSX/c.png", "cats/.hidden/d.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")
    (folder / "a.png").mkdir()
    (folder / "dead.png").symlink_to(folder / "nowhere.png")
    assert extractor(network).fit_transform(folder).shape == expected


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


def test_missing_files_can_be_skipped(network, folder):
    files = [*sorted(folder.rglob("*.png")), folder / "gone.png"]
    with pytest.raises(FileNotFoundError, match=r"gone\.png' \(1 of 8 missing; .*on_error='skip'"):
        extractor(network).fit(files)
    with pytest.warns(UserWarning, match="1 of 8 images .* FileNotFoundError"):
        assert len(extractor(network, on_error="skip").fit_transform(files)) == 7


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


def test_preprocessing_in_place_leaves_the_callers_images_alone(rng):
    images = torch.from_numpy(rng.random((3, 3, 8, 8), dtype=np.float32))
    before = images.clone()
    maps = FeatureExtractor(small_network(), ["0"], preprocess=lambda x: x.sub_(0.5)).fit_transform(images)
    first = maps.outputs
    np.testing.assert_array_equal(maps.outputs, first)
    assert torch.equal(images, before)
    needing_gradients = images.requires_grad_()
    assert FeatureExtractor(small_network(), ["0"]).fit_transform(needing_gradients).outputs.shape == (3, 4)


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
