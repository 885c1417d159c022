"""What is printed goes into any code page: where a letter is missing there, plain ones stand in its place."""

from __future__ import annotations

import codecs
import io
import sys

__all__ = ["echo_toml", "fit_streams"]

_FIT = "comfyload.fit"
_CRASHES_OR_ESCAPES = frozenset({"strict", "surrogateescape", "backslashreplace"})
"""How Python treats such a letter unless it is told otherwise: an exception, or `\\u2501` in a sentence."""


def fit_streams() -> None:
    """Let standard output and error take every letter, whatever their encoding; what the user has set stays."""
    codecs.register_error(_FIT, _fit)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in _CRASHES_OR_ESCAPES:
            stream.reconfigure(errors=_FIT)


def echo_toml(text: str) -> None:
    """Print a TOML document so that it can be read again from whatever it is redirected into."""
    import typer

    if not (sys.stdout.encoding or "ascii").lower().startswith("utf"):
        text = "".join(letter if letter.isascii() else f"\\U{ord(letter):08x}" for letter in text)
    typer.echo(text, nl=False)


def _fit(error: UnicodeError) -> tuple[str | bytes, int]:
    import unicodedata

    from comfyload.report.text import ascii_only

    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    plain = unicodedata.normalize("NFKD", ascii_only(missing))
    letters = (letter for letter in plain if not unicodedata.combining(letter))
    return "".join(letter if letter.isascii() else "?" for letter in letters), error.end
