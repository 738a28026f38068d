import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (7, 9, 10, 3), dtype=np.uint8)


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
