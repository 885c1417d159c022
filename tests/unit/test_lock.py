"""One process at a time in a run directory."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from comfyload.errors import RunFilesError
from comfyload.record import lock
from comfyload.record.lock import alone_in, is_taken

HOLD = "import sys; from pathlib import Path; from comfyload.record.lock import alone_in, is_taken\n" + (
    "with alone_in(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


def test_the_second_is_told_who_is_at_work(tmp_path: Path) -> None:
    with alone_in(tmp_path / "run") as unlocked:
        assert unlocked is None
        with pytest.raises(RunFilesError) as caught, alone_in(tmp_path / "run"):
            pass
    said = str(caught.value)
    assert f"is in use: process {os.getpid()} on {socket.gethostname()} has been at work in it since 20" in said
    assert caught.value.exit_code == 2
    assert list((tmp_path / "run").iterdir()) == []
    with alone_in(tmp_path / "run") as unlocked:
        assert unlocked is None


def test_the_lock_dies_with_its_holder(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(RunFilesError, match=f"process {process.pid} on"), alone_in(tmp_path):
            pass
        process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        process.wait(10)
    assert (tmp_path / ".lock").exists()
    with alone_in(tmp_path) as unlocked:
        assert unlocked is None


def test_a_lock_whose_holder_has_no_name_is_one(tmp_path: Path) -> None:
    with alone_in(tmp_path):
        (tmp_path / ".lock").write_bytes(b"")
        with pytest.raises(RunFilesError, match="another process is at work in it"), alone_in(tmp_path):
            pass


def test_a_file_removed_meanwhile_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last holder removed it after we had opened it: whoever comes next would lock another file."""
    plain, times = lock._lock, list[int]()

    def removed_before(descriptor: int) -> None:
        plain(descriptor)
        if not times:
            times.append(1)
            (tmp_path / ".lock").unlink()

    monkeypatch.setattr(lock, "_lock", removed_before)
    with alone_in(tmp_path), pytest.raises(RunFilesError), alone_in(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_one_goes_on_and_is_told(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock, "_lock", none)
    with alone_in(tmp_path) as unlocked:
        assert unlocked is not None
        assert os.strerror(number).lower() in unlocked


def test_a_directory_that_cannot_be_written_is_not_locked(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with alone_in(tmp_path / "file") as unlocked:
        assert unlocked is not None


def test_whether_a_directory_is_in_use_is_told_without_taking_it(tmp_path: Path) -> None:
    assert not is_taken(tmp_path)
    (tmp_path / ".lock").write_text("left by a process that was killed")
    assert not is_taken(tmp_path)
    with alone_in(tmp_path):
        assert is_taken(tmp_path) and is_taken(tmp_path)
    assert not is_taken(tmp_path) and not is_taken(tmp_path / "missing")
