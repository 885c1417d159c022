"""Runs `comfyload` in a process of its own, without loading it anew each time.

Of the second that a command takes, most is Python reading numpy and scipy. So one process reads them once, and each
command is a fork of it: another process all the same, with files, folder, environment and signals of its own. Where
there is no fork, it is started as usual.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

COMMAND = [sys.executable, "-m", "comfyload"]
_READ = (
    "comfyload.app.run.launch, comfyload.app.summary, comfyload.cli.run, comfyload.app.check, comfyload.report.of_run"
)
_FORKS = sys.platform == "linux"


def call(
    *words: str, cwd: Path, timeout: float = 60, env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run `comfyload WORDS` to its end; what it printed is text."""
    if not _FORKS or options:
        usual: dict[str, Any] = {"capture_output": True, "text": True, "check": False, **options}
        return subprocess.run([*COMMAND, *words], cwd=cwd, timeout=timeout, env=env, **usual)
    command = Forked(list(words), cwd, env)
    out, err = command.communicate(timeout)
    return subprocess.CompletedProcess(list(words), command.wait(), out, err)


def start(folder: Path, *words: str) -> subprocess.Popen[str] | Forked:
    """Begin `comfyload run WORDS` in the folder; of a `Popen`, what `Forked` has."""
    if _FORKS:
        return Forked(["run", *words], folder)
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, "run", *words], cwd=folder, stdout=pipe, stderr=pipe, text=True)


@contextlib.contextmanager
def serving(*words: str) -> Iterator[str]:
    """Keep `comfyload WORDS` going; yields the first line that it prints."""
    if _FORKS:
        command = Forked(list(words), Path.cwd())
        try:
            yield command.first_line()
        finally:
            command.terminate()
            command.communicate(30)
        return
    with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


class Forked:
    """A command under way, as `subprocess.Popen` has it; what it prints is kept in files without a name."""

    def __init__(self, words: list[str], cwd: Path, env: dict[str, str] | None = None) -> None:
        self.args = words
        self.returncode: int | None = None
        self._lock = threading.Lock()
        self._said = [tempfile.TemporaryFile() for _ in ("stdout", "stderr")]  # noqa: SIM115 - as long as this lives
        self._channel = socket.socket(socket.AF_UNIX)
        self._channel.connect(_address())
        order = {"words": words, "cwd": str(cwd), "env": dict(os.environ if env is None else env)}
        body = json.dumps(order).encode()
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device
            files = [nothing.fileno(), *(file.fileno() for file in self._said)]
            socket.send_fds(self._channel, [struct.pack("I", len(body))], files)
        self._channel.sendall(body)
        (self.pid,) = struct.unpack("i", self._received(4))

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or the number of the signal that ended it, negative.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """
        with self._lock:  # a test may wait in two threads
            if self.returncode is None:
                self._channel.settimeout(timeout)
                try:
                    (self.returncode,) = struct.unpack("i", self._received(4))
                except TimeoutError:
                    raise subprocess.TimeoutExpired(self.args, timeout or 0.0) from None
                self._channel.close()
            return self.returncode

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.001)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed, once it has ended. One that goes on for longer is killed.

        Raises:
            subprocess.TimeoutExpired: it was.
        """
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.send_signal(signal.SIGKILL)
            self.wait()
            raise
        for file in self._said:
            file.seek(0)
        out, err = (file.read().decode().replace("\r\n", "\n") for file in self._said)
        for file in self._said:
            file.close()
        return out, err

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def first_line(self) -> str:
        """The first line on standard output, as soon as it is there."""
        while self.poll() is None:
            said = os.pread(self._said[0].fileno(), 1 << 16, 0).decode()
            if "\n" in said:
                return said.partition("\n")[0]
            time.sleep(0.005)
        raise ChildProcessError(f"comfyload {' '.join(self.args)} ended with {self.returncode}")

    def _received(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            part = self._channel.recv(size - len(received))
            if not part:
                raise ChildProcessError("the process that forks commands is gone")
            received += part
        return received


def _address() -> str:
    """Where the process that forks listens; it is started with the first command, and ends with this process."""
    if not _servers:
        folder = tempfile.TemporaryDirectory(prefix="comfyload-")
        path = str(Path(folder.name) / "commands")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(64)
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "tests.support.commands", str(listener.fileno())]
        process = subprocess.Popen(command, pass_fds=[listener.fileno()], env=environ, cwd=Path(__file__).parents[2])
        listener.close()
        atexit.register(folder.cleanup)
        atexit.register(process.wait)
        atexit.register(process.terminate)
        _servers.append(path)
    return _servers[0]


_servers: list[str] = []


# --- the process that forks


def _serve(listener: socket.socket) -> dict[str, Any]:
    """Fork for each command that is asked for; returns only in a command's own process, with what was asked."""
    while True:
        channel, _ = listener.accept()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            listener.close()
            return _begin(channel)
        channel.close()


def _begin(channel: socket.socket) -> dict[str, Any]:
    """Fork once more: the first tells how the second ended."""
    head, files, _, _ = socket.recv_fds(channel, 4, 3)
    body = b""
    while len(body) < struct.unpack("I", head)[0]:
        body += channel.recv(1 << 16)
    pid = os.fork()
    if pid:
        for file in files:
            os.close(file)
        _watch(channel, pid)
    channel.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    return dict(json.loads(body))


def _watch(channel: socket.socket, pid: int) -> NoReturn:
    with contextlib.suppress(BrokenPipeError):
        channel.sendall(struct.pack("i", pid))
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(BrokenPipeError):
        channel.sendall(struct.pack("i", os.waitstatus_to_exitcode(status)))
    os._exit(0)


def _become(order: dict[str, Any]) -> None:
    """Be as a process is that was started so."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.path[0] = order["cwd"]
    sys.argv = ["comfyload", *order["words"]]
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        usual = "backslashreplace" if name == "stderr" else "strict"
        stream = open(number, mode, encoding=encoding or "utf-8", errors=errors or usual, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


if __name__ == "__main__":
    for module in _READ.split(", "):
        __import__(module)
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))
    from comfyload.cli import main

    main()
