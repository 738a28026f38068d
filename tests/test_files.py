"""Files are replaced completely or not at all."""

import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from skgmmcnn._files import replace


def test_threads_that_write_to_one_path(tmp_path):
    def write(number):
        replace(tmp_path / "file", lambda file: file.write(bytes([number]) * 100_000))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(80)))
    written = (tmp_path / "file").read_bytes()
    assert len(written) == 100_000
    assert len(set(written)) == 1
    assert os.listdir(tmp_path) == ["file"]


KILLED = """
import os, signal, sys
from pathlib import Path
from skgmmcnn._files import replace
replace(Path(sys.argv[1]), lambda file: (file.write(b"half"), os.kill(os.getpid(), signal.SIGKILL)))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no such signal")
def test_drafts_of_killed_processes_are_removed(tmp_path):
    (tmp_path / "file").write_bytes(b"before")

    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "file"], check=False)
    assert (tmp_path / "file").read_bytes() == b"before"
    (draft,) = tmp_path.glob(".*")
    replace(tmp_path / "file", lambda file: file.write(b"after"))
    assert draft.exists()  # it could be that of a process still writing
    os.utime(draft, (1, 1))
    replace(tmp_path / "file", lambda file: file.write(b"after"))
    assert (tmp_path / "file").read_bytes() == b"after"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="there is no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_permissions_follow_the_umask(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        replace(tmp_path / "file", lambda file: file.write(b"x"))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_only_regular_files_are_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValueError, match="pipe' is not a regular file"):
        replace(tmp_path / "pipe", lambda file: file.write(b"x"))


def test_a_failure_keeps_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(OSError, match=r"The file cannot be written: No space left.*file'"):
        replace(tmp_path / "file", lambda file: _full())
    assert (tmp_path / "file").read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["file"]


def _full():
    raise OSError(28, "No space left on device", "/some/draft")
