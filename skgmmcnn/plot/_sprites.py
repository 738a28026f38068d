"""Encoding of images and of the patches of words for a page."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from ..dictionary import Representatives

SPRITE = 3  # patches a side
_PLACES = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (1, 2), (2, 0), (2, 1), (2, 2))  # the best four form a square
_SMALL = 32  # pictures below are shown with hard pixels
_GAP = 2


def encode(picture: np.ndarray) -> str:
    """Return an image (height, width, 3 or 4) as a data URI: PNG for large pixels and few colours, else WebP."""
    image = Image.fromarray(picture)
    file = io.BytesIO()
    if image.getcolors(256):
        image.save(file, "PNG", optimize=True)
        kind = "png"
    else:
        image.save(file, "WEBP", quality=82, method=4)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def encode_picture(picture: np.ndarray, largest: int = 448) -> str:
    """Return an image (height, width, 3) as a data URI, with at most `largest` pixels a side."""
    image = Image.fromarray(_magnified(picture, 160))
    image.thumbnail((largest, largest), Image.Resampling.LANCZOS)
    return encode(np.asarray(image))


def encode_patches(representatives: Representatives, word: int) -> tuple[str | None, list[tuple[float, float]]]:
    """Return a word's patches as one square of 3 x 3, and the locations to ring on it, in units of patches.

    The best patch is at the upper left, the best four in the upper left square.  None without patches.
    """
    if representatives.patches is None:
        return None, []
    sheet, marks = None, []
    for i, (row, column) in enumerate(_PLACES[: representatives.images.shape[1]]):
        if representatives.images[word, i] < 0:
            continue
        patch = _magnified(representatives.patches[word, i], 48)
        height, width = patch.shape[:2]
        cell = max(height, width) + 2 * _GAP
        if sheet is None:
            sheet = np.zeros((SPRITE * cell, SPRITE * cell, 4), dtype=np.uint8)
        top, left = row * cell + (cell - height) // 2, column * cell + (cell - width) // 2
        sheet[top : top + height, left : left + width] = np.dstack([patch, np.full((height, width), 255, np.uint8)])
        if representatives.whole:
            down, along = representatives.marks[word, i].tolist()
            marks.append((round((left + along * width) / cell, 3), round((top + down * height) / cell, 3)))
    return (None if sheet is None else encode(sheet)), marks


def _magnified(picture: np.ndarray, side: int) -> np.ndarray:
    """Return a small picture with its pixels repeated, to about `side` pixels; others as they are."""
    largest = max(picture.shape[:2])
    times = max(1, side // largest) if largest < _SMALL else 1
    return np.ascontiguousarray(picture.repeat(times, axis=0).repeat(times, axis=1))
