"""Atomic replacement of files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

_DRAFT = ".skgmmcnn"
_MAX_AGE = 86_400  # seconds after which a draft was left by a killed process


def replace(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Replace the file at `path` by a temporary file that `write` fills, once it is complete."""
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {str(path.parent)!r} to save in.")
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "not a regular file"
        raise ValueError(f"{str(path)!r} is {what}; give the path of a file.")
    try:
        remove_drafts(path.parent)
        with open_draft(path) as file:
            write(file)
    except OSError as error:
        raise OSError(error.errno, f"The file cannot be written: {error.strerror}", str(path)) from error


@contextmanager
def open_draft(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces the file at `path` at the end of the context."""
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
            if time.time() - draft.stat().st_mtime > _MAX_AGE:
                draft.unlink()
