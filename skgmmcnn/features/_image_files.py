"""Image files, and conversion of PIL images of any mode to 8 bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS


class UnreadableError(ValueError):
    """Error for an image that cannot be read or preprocessed."""

    @classmethod
    def because(cls, what: str, error: Exception) -> UnreadableError:
        """Return an error with the failed action and its cause."""
        return cls(f"{what}: {type(error).__name__}: {error}")

    def __str__(self) -> str:
        return f"{self.args[0]} (FeatureExtractor(on_error='skip') leaves out images that cannot be read.)"


def files_in(folder: Path) -> list[Path]:
    """Return the image files in `folder` and its subfolders, sorted by path, without hidden ones."""
    if not folder.is_dir():
        raise ValueError(
            f"X is the path {str(folder)!r}, which is not a folder; give a folder, or a list of image files."
        )
    files = [file for file in folder.rglob("*") if _is_image(file, folder)]
    if not files:
        raise ValueError(f"The folder {str(folder)!r} contains no image files ({', '.join(IMG_EXTENSIONS)}).")
    return sorted(files, key=lambda file: file.parts)  # in the same order on case-insensitive systems


def _is_image(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in file.relative_to(folder).parts)
    return file.suffix.lower() in IMG_EXTENSIONS and not hidden and file.is_file()


def check_files(items: Sequence[Any], *, existing: bool) -> None:
    """Raise an error for missing files, if they must be `existing`, and for paths split into letters."""
    missing = [item for item in items if isinstance(item, Path) and not item.is_file()]
    if missing and all(len(str(item)) == 1 for item in missing):
        raise ValueError(
            f"X is a path split into letters, {''.join(map(str, missing))!r}: cross-validation needs a list of files, "
            "as sorted(pathlib.Path(folder).rglob('*.jpg')), instead of a folder."
        )
    if missing and existing:
        raise FileNotFoundError(
            f"There is no image file {str(missing[0])!r} ({len(missing)} of {len(items)} missing; "
            "FeatureExtractor(on_error='skip') leaves them out)."
        )


def read(file: Path, mode: str | None) -> Image.Image:
    """Return the image in a file; errors of PIL become an UnreadableError with its name."""
    try:
        with Image.open(file) as image:
            return normalise(image, mode)
    except Exception as error:
        raise UnreadableError.because(f"{str(file)!r} cannot be read as an image", error) from error


def normalise(image: Image.Image, mode: str | None) -> Image.Image:
    """Return an image upright, with 8 bits per channel and without palette, in a PIL mode if given."""
    image = ImageOps.exif_transpose(_eight_bits(image))
    if image.mode == "P":  # palette indices; some colours may be transparent
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "LAB":  # PIL converts it only to RGB
        image = image.convert("RGB")
    return image.convert(mode or ("L" if image.mode == "1" else image.mode))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16 bits to 8, which PIL clips at 255."""
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if sixteen:
        bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]  # a TIFF may use only 12 bits
        scaled = np.asarray(image).astype(np.float64) * (255 / (2**bits - 1))
        return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(
            f"its pixels are 32-bit numbers of unknown range (mode {image.mode!r}); save it with 8 or 16 bits, or give "
            "scaled arrays"
        )
    return image
