"""Image files, and PIL images of any mode as the 8-bit ones that preprocessing takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from torchvision.datasets.folder import IMG_EXTENSIONS

_LARGE = ("I", "F")  # modes of 32-bit numbers


class UnreadableError(ValueError):
    """One image cannot be had, as it is or as the network takes it."""

    @classmethod
    def because(cls, what: str, error: Exception) -> UnreadableError:
        """Return it with what was tried and why that failed."""
        return cls(f"{what}: {type(error).__name__}: {error}")

    def __str__(self) -> str:
        return f"{self.args[0]} (FeatureExtractor(on_error='skip') leaves out images that cannot be read.)"


def files_in(folder: Path) -> list[Path]:
    """Return the image files in `folder` and its subfolders, sorted by path, without what systems hide there."""
    if not folder.is_dir():
        raise ValueError(
            f"X is the path {str(folder)!r}, which is no folder; give a folder, or a list of image files, also of one."
        )
    files = [file for file in folder.rglob("*") if _is_image(file, folder)]
    if not files:
        raise ValueError(f"The folder {str(folder)!r} holds no image files ({', '.join(IMG_EXTENSIONS)}).")
    return sorted(files, key=lambda file: file.parts)  # in the same order where names of files have no case


def _is_image(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in file.relative_to(folder).parts)
    return file.suffix.lower() in IMG_EXTENSIONS and not hidden and file.is_file()


def check_files(items: Sequence[Any], *, existing: bool) -> None:
    """Refuse lists of files of which some are missing, where they must exist, and paths that are cut into letters."""
    missing = [item for item in items if isinstance(item, Path) and not item.is_file()]
    if missing and all(len(str(item)) == 1 for item in missing):
        raise ValueError(
            f"X is a path cut into letters, {''.join(map(str, missing))!r}: cross-validation needs a list of files, as "
            "sorted(pathlib.Path(folder).rglob('*.jpg')), where a folder has no length."
        )
    if missing and existing:
        raise FileNotFoundError(
            f"There is no image file {str(missing[0])!r} ({len(missing)} of {len(items)} missing; "
            "FeatureExtractor(on_error='skip') leaves them out)."
        )


def read(file: Path, mode: str | None) -> Image.Image:
    """Return the image in a file; whatever PIL raises is one kind of error, with the file's name."""
    try:
        with Image.open(file) as image:
            return usual(image, mode)
    except Exception as error:
        raise UnreadableError.because(f"{str(file)!r} cannot be read as an image", error) from error


def usual(image: Image.Image, mode: str | None) -> Image.Image:
    """Return an image upright, with 8 bits a channel and no palette, in the PIL mode that is asked for."""
    return _converted(ImageOps.exif_transpose(_eight_bits(image)), mode)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16 bits to 8; PIL would cut them off at 255."""
    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if sixteen:
        bits = getattr(image, "tag_v2", {}).get(258, (16,))[0]  # a TIFF may say that only 12 are used
        scaled = np.asarray(image).astype(np.float64) * (255 / (2**bits - 1))
        return Image.fromarray(scaled.round().clip(0, 255).astype(np.uint8))
    if image.mode in _LARGE:
        raise ValueError(
            f"its pixels are 32-bit numbers of unknown range (mode {image.mode!r}); save it with 8 or 16 bits, or give "
            "arrays or a data set that scales it"
        )
    return image


def _converted(image: Image.Image, mode: str | None) -> Image.Image:
    if image.mode == "P":  # whose numbers mean nothing without the palette, some of whose colours may be transparent
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode == "LAB":  # which PIL makes RGB alone of
        image = image.convert("RGB")
    return image.convert(mode or ("L" if image.mode == "1" else image.mode))
