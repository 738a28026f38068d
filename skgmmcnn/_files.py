"""Atomic replacement of files."""

from __future__ import annotations

import os
import stat
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows, which removes and moves no open file
    fcntl = None  # type: ignore[assignment]


def replace(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Replace the file at `path` by what `write` writes to a temporary file, once that is complete."""
    _check_target(path)
    try:
        _sweep(path.parent)
        draft, file = _draft(path.parent)
        try:
            with file:
                write(file)
                file.flush()
                if fcntl is None:
                    file.close()
                draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"The file cannot be written: {error.strerror}", str(path)) from error


def _check_target(path: Path) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {str(path.parent)!r} to save in.") from None
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise ValueError(f"{str(path)!r} is {what}; give the path of a file.")


def _draft(folder: Path) -> tuple[Path, IO[bytes]]:
    """Open a new temporary file, locked while it is open, which distinguishes it from files of killed processes."""
    draft = folder / f".{uuid.uuid4().hex}.skgmmcnn"
    while True:
        file = open(draft, "xb")  # noqa: SIM115 - the caller closes it
        _lock(file, wait=True)
        if draft.exists():  # otherwise another process removed it before it was locked
            return draft, file
        file.close()


def _sweep(folder: Path) -> None:
    """Remove temporary files of processes that have ended."""
    for draft in filter(Path.is_file, folder.glob(".*.skgmmcnn")):
        with suppress(OSError), open(draft, "rb") as file:
            _lock(file, wait=False)
            if fcntl is None:
                file.close()
            draft.unlink()


def _lock(file: IO[bytes], wait: bool) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
