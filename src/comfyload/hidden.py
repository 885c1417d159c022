"""What is secret is remembered where it is read, so that no message and no file can tell it by accident."""

from __future__ import annotations

__all__ = ["hide", "without_hidden"]

_LEAST = 4
"""Letters of a secret: hiding shorter ones would spoil every sentence, and keep nobody out."""

_hidden: set[str] = set()


def hide(*secrets: str) -> None:
    """From now on `without_hidden` takes these out of texts."""
    _hidden.update(secret for secret in secrets if len(secret) >= _LEAST)


def without_hidden(text: str) -> str:
    """The text with `***` for each secret that was hidden; the longest first, since one may hold another."""
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
