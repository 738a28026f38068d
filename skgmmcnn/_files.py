"""Files that are written beside their place, and put there whole."""

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
    """Put at `path` what `write` writes; what is there stays whole until that is complete."""
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
        raise OSError(error.errno, f"Nothing could be written: {error.strerror}", str(path)) from error


def _check_target(path: Path) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise FileNotFoundError(f"There is no folder {str(path.parent)!r} to save in.") from None
        return
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise ValueError(f"{str(path)!r} is {what}; name a file to write.")


def _draft(folder: Path) -> tuple[Path, IO[bytes]]:
    """Open a new file that is locked as long as it is open, so that it can be told from what a kill has left."""
    draft = folder / f".{uuid.uuid4().hex}.skgmmcnn"
    while True:
        file = open(draft, "xb")  # noqa: SIM115 - the caller closes it
        _lock(file, wait=True)
        if draft.exists():  # else another process swept it before it was locked
            return draft, file
        file.close()


def _sweep(folder: Path) -> None:
    """Remove the drafts of writers that are no more."""
    for draft in filter(Path.is_file, folder.glob(".*.skgmmcnn")):
        with suppress(OSError), open(draft, "rb") as file:
            _lock(file, wait=False)
            if fcntl is None:
                file.close()
            draft.unlink()


def _lock(file: IO[bytes], wait: bool) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
