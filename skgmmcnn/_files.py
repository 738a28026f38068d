"""Atomic replacement of files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

_DRAFT = ".skgmmcnn"
_MOST_SECONDS = 86_400  # age of drafts that killed processes have left


def replace(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Replace the file at `path` by what `write` writes to a temporary file, once that is complete."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.parent)!r} to save in.")
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file"
        raise ValueError(f"{str(path)!r} is {what}; give the path of a file.")
    try:
        remove_drafts(path.parent)
        with whole(path) as file:
            write(file)
    except OSError as error:
        raise OSError(error.errno, f"The file cannot be written: {error.strerror}", str(path)) from error


@contextmanager
def whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that takes the place of the file at `path` once it is complete."""
    draft = path.with_name(f".{uuid4().hex}{_DRAFT}")
    try:
        with open(draft, "xb") as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def remove_drafts(folder: Path) -> None:
    """Remove temporary files of processes that were killed."""
    for draft in folder.glob(f".*{_DRAFT}"):
        with suppress(OSError):
            if time.time() - draft.stat().st_mtime > _MOST_SECONDS:
                draft.unlink()
