"""Displays look as they did, but for fonts."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from skgmmcnn import InferenceGraphDisplay, WordMapDisplay
from skgmmcnn.plot import _drawing
from tests.plot import pictures
from tests.plot.readable import assert_readable

TOLERANCE = 18  # matplotlib 3.8 and 3.11 differ by up to 13


@pytest.mark.parametrize("name", pictures.DISPLAYS)
def test_picture_is_as_it_was(name, tmp_path):
    """Where a change is meant, run ``python -m tests.plot.pictures`` and look at the new baselines."""
    picture = pictures.draw(name)
    Image.fromarray(picture).save(tmp_path / f"{name}.png")
    expected = np.asarray(Image.open(pictures.BASELINE / f"{name}.png"))
    largest = pictures.difference(picture, expected)
    assert largest < TOLERANCE, f"differs by {largest:.0f} of 255; see {tmp_path / name}.png"


@pytest.mark.parametrize("name", pictures.DISPLAYS)
def test_all_can_be_read(name):
    assert_readable(pictures.DISPLAYS[name]().figure_)
    plt.close("all")


def _no_patch(display, box, image, **style):
    return box if image.shape[0] == 3 else _DRAW_IMAGE(display, box, image, **style)


_DRAW_IMAGE = _drawing.Drawing._draw_image


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("visual_words", lambda patch: patch.setattr(_drawing, "MARK", "none")),
        ("visual_words", lambda patch: patch.setattr(_drawing.Drawing, "_draw_image", _no_patch)),
        ("visual_words", lambda patch: patch.setattr("skgmmcnn.plot._visual_word._LONGEST", 5)),
        (
            "graph_of_an_image",
            lambda patch: patch.setattr("skgmmcnn.plot._inference_graph.highlight", lambda image, places: image),
        ),
        ("graph_of_an_image", lambda patch: patch.setattr(InferenceGraphDisplay, "_draw_edges", lambda self, boxes: 0)),
        ("graph_of_a_class", lambda patch: patch.setattr(InferenceGraphDisplay, "_draw_map", lambda *parts: 0)),
        ("graph_of_influence", lambda patch: patch.setattr(_drawing, "AGAINST", _drawing.INK)),
        ("influence_maps", lambda patch: patch.setattr("skgmmcnn.plot._influence_map.PALETTE", _drawing.PALETTE[::-1])),
        ("word_maps", lambda patch: patch.setattr(_drawing, "PALETTE", _drawing.PALETTE[::-1])),
        ("word_maps", lambda patch: patch.setattr(WordMapDisplay, "_outline", lambda *parts: None)),
        ("paths", lambda patch: patch.setattr("skgmmcnn.plot._paths._WIDEST", 8.0)),
        ("similarity", lambda patch: patch.setattr("skgmmcnn.plot._word_similarity._OTHER", (0.0, 0.6, 0.3))),
        ("training", lambda patch: patch.setattr("skgmmcnn.plot._training.INK", (0.8, 0.3, 0.0))),
    ],
)
def test_a_change_is_seen(name, change, monkeypatch):
    change(monkeypatch)
    expected = np.asarray(Image.open(pictures.BASELINE / f"{name}.png"))
    assert pictures.difference(pictures.draw(name), expected) >= TOLERANCE
