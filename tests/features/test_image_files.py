"""Image files of all modes, in folders."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import Compose, Resize

from skgmmcnn.features._image_files import normalise, read

from .small import extractor


def grey_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 3))


GREY = Compose([Resize((12, 12)), lambda image: torch.from_numpy(np.asarray(image, np.float32))[None] / 255])


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


def test_what_systems_hide_in_folders_is_no_image(network, folder):
    expected = extractor(network).fit_transform(folder).shape
    for name in ("._a.png", ".ipynb_checkpoints/b.png", "__MACOSX/._b.png", "__MACOSX/c.png", "cats/.hidden/d.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"\0\5\x16\7")
    (folder / "a.png").mkdir()
    (folder / "dead.png").symlink_to(folder / "nowhere.png")
    assert extractor(network).fit_transform(folder).shape == expected


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


def test_missing_files_can_be_skipped(network, folder):
    files = [*sorted(folder.rglob("*.png")), folder / "gone.png"]
    with pytest.raises(FileNotFoundError, match=r"gone\.png' \(1 of 8 missing; .*on_error='skip'"):
        extractor(network).fit(files)
    with pytest.warns(UserWarning, match="1 of 8 images .* FileNotFoundError"):
        assert len(extractor(network, on_error="skip").fit_transform(files)) == 7
