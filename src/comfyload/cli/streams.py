"""What is printed goes into any code page: where a letter is missing there, plain ones stand in its place."""

import io
import os
import sys
from contextlib import suppress
from typing import Any

import typer

from comfyload.words import PLAIN

_CRASHES_OR_ESCAPES = frozenset({"strict", "surrogateescape", "backslashreplace"})
"""Python's defaults for such a letter: an exception, or `\\u2501` in a sentence."""


def fit_streams() -> None:
    """Let standard output and error accept every letter, whatever their encoding; the user's own setting stays.

    Output to a closed stream is discarded. So is output to a standard error that cannot be written: a full disk or a
    closed pipe does not end a run.
    """
    _open_closed()
    if isinstance(sys.stderr, io.TextIOWrapper):
        old = sys.stderr
        sys.stderr = io.TextIOWrapper(_Forgiving(old), old.encoding, old.errors, write_through=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _CRASHES_OR_ESCAPES:
            stream.reconfigure(errors=PLAIN)


class _Forgiving(io.RawIOBase):
    """Standard error, of which no write fails."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream  # which would be closed if nobody held it
        buffer = stream.buffer
        self._raw: Any = buffer.raw if isinstance(buffer, io.BufferedWriter) else buffer

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        return bool(self._raw.isatty())

    def write(self, data: Any) -> int:
        with suppress(OSError):
            self._raw.write(data)
        return len(data)


def _open_closed() -> None:
    """Whatever is opened next would take the number of a closed stream, and be written into as if it were that."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def echo_toml(text: str) -> None:
    """Print a TOML document so that it can be read again from whatever it is redirected into."""
    if not (sys.stdout.encoding or "ascii").lower().startswith("utf"):
        text = "".join(letter if letter.isascii() else f"\\U{ord(letter):08x}" for letter in text)
    typer.echo(text, nl=False)
