"""Files that a user names: plain ones are replaced as a whole, everything else is written through."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from comfyload.cli.output import check_writable
from comfyload.errors import UsageError
from comfyload.record.atomic import check_folder, check_target, is_stdout, write_whole, written_aside

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="devices, pipes and links are other things there")


def test_a_plain_file_is_replaced_as_a_whole_and_keeps_its_permissions(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    file.write_text("old", encoding="utf-8")
    file.chmod(0o600)
    before = file.stat().st_ino
    write_whole(file, b"new")
    assert file.read_bytes() == b"new"
    assert file.stat().st_ino != before
    if sys.platform != "win32":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_what_goes_wrong_leaves_the_old_content_and_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    file.write_text("old", encoding="utf-8")
    with pytest.raises(ZeroDivisionError), written_aside(file) as aside:
        aside.write_bytes(b"half")
        raise ZeroDivisionError
    with pytest.raises(UsageError, match="cannot write"), written_aside(file):
        raise OSError(28, "No space left on device")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_longest_name_that_a_folder_takes_is_written(tmp_path: Path) -> None:
    file = tmp_path / ("x" * 255)
    check_target("--output", file)
    write_whole(file, b"new")
    assert file.read_bytes() == b"new"


@POSIX
@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_one_and_its_file_is_written(there: bool, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "target.json", tmp_path / "link.json"
    if there:
        target.touch()
    link.symlink_to("real/target.json")
    check_target("--output", link)
    write_whole(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert list((tmp_path / "real").iterdir()) == [target]


@POSIX
def test_a_pipe_is_written_through(tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", list[bytes]()
    os.mkfifo(pipe)
    check_target("--output", pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    write_whole(pipe, b"new")
    reader.join(10)
    assert got == [b"new"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@POSIX
def test_a_device_is_written_through(tmp_path: Path) -> None:
    node = tmp_path / "null"
    try:
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        node = Path("/dev/null")
    check_target("--output", node)
    write_whole(node, b"new")
    assert stat.S_ISCHR(node.stat().st_mode)


@POSIX
def test_an_open_descriptor_is_written_where_it_stands() -> None:
    readable, writable = os.pipe()
    write_whole(Path(f"/dev/fd/{writable}"), b"new")
    os.write(writable, b"er")
    os.close(writable)
    assert os.read(readable, 100) == b"newer"
    os.close(readable)


@POSIX
@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_standard_output_is_not_begun_anew(name: str, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from comfyload.record.atomic import write_whole\n"
        f"print('before'); write_whole(Path({name!r}), b'new\\n'); print('after')"
    )
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text(encoding="utf-8") == "before\nnew\nafter\n"
    assert is_stdout(Path(name))
    with pytest.raises(UsageError, match="both go to standard output"):
        check_writable("--output", Path(name), json_=True)


@POSIX
def test_a_reader_that_has_gone_is_no_error_of_the_file() -> None:
    readable, writable = os.pipe()
    os.close(readable)
    with pytest.raises(BrokenPipeError):
        write_whole(Path(f"/dev/fd/{writable}"), b"new")
    os.close(writable)


@POSIX
def test_what_cannot_be_written_is_found_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as plug:
        plug.bind(str(tmp_path / "plug"))
        with pytest.raises(UsageError, match="is a socket"):
            check_target("--output", tmp_path / "plug")
        assert (tmp_path / "plug").is_socket()
    with pytest.raises(UsageError, match="is a directory"):
        check_target("--output", tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError):
        check_target("--output", tmp_path / "loop" / "out.json")
    with pytest.raises(UsageError):
        check_target("--output", Path("/proc/none/out.json"))
    with pytest.raises(UsageError, match="nothing can be written in /proc"):
        check_folder("--archive", Path("/proc/none/archive"))
    check_folder("--archive", tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    (tmp_path / "read-only").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="permission denied"):
        check_target("--output", tmp_path / "read-only")
