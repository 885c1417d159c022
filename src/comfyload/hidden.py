"""Remembers secrets where they are read, so that no message and no file shows them by accident."""

import json
from urllib.parse import quote

_LEAST = 4
"""Shortest secret that is hidden: hiding shorter ones would garble every sentence and protect nothing."""

_hidden: set[str] = set()


def hide(*secrets: str) -> None:
    """From now on `without_hidden` removes these from texts, in each form in which a text may quote them."""
    for secret in secrets:
        _hidden.update(form for form in _forms(secret) if len(form) >= _LEAST)


def without_hidden(text: str) -> str:
    """The text with `***` for each secret that was hidden; the longest first, since one may hold another."""
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _forms(secret: str) -> tuple[str, ...]:
    """As it is; in an address; in JSON; as Python quotes it, also as bytes."""
    octets = secret.encode("utf-8", "surrogateescape")
    written = repr(secret)[1:-1], repr(octets)[2:-1], repr(secret.encode("latin-1", "replace"))[2:-1]
    return secret, quote(octets), quote(octets, safe=""), json.dumps(secret)[1:-1], *written
