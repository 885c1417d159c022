"""Paths of calls as others may read them: a server, or a proxy before it, may decode, merge and resolve what we do not.

What could be read there as one of our own routes is not passed on: it would be answered for everybody's jobs.
"""

from __future__ import annotations

from urllib.parse import unquote

OWN = frozenset(
    ("prompt", "queue", "history", "interrupt", "free", "jobs", "ws", "view", "object_info", "system_stats")
)
"""The first part of the paths that are answered here and never passed on as they are."""

OWN_UPLOADS = frozenset(("image", "mask"))

OF_EVERYBODY = frozenset(("internal", "assets", "tags", "comfyload"))
"""Those that tell of everybody's files and prompts: not for one tenant of several."""

MOST_CODED = 3
"""How often a path may be percent-encoded."""


def parts_of(raw_path: str) -> list[str] | None:
    """The parts of a path, decoded; None: it has no plain meaning, and is refused."""
    if not raw_path.startswith("/"):
        return None
    path, coded = unquote(raw_path, errors="surrogateescape"), 1
    while "%" in path and (inner := unquote(path, errors="surrogateescape")) != path:
        path, coded = inner, coded + 1
        if coded > MOST_CODED:
            return None
    parts = path.replace("\\", "/").split("/")[1:]
    odd = any(part in (".", "..") for part in parts) or any(letter < " " or letter == "\x7f" for letter in path)
    return None if odd else parts


def plain(parts: list[str]) -> list[str]:
    """What is requested, however often `/api` stands before it and whatever stands between."""
    names = [name for part in parts if (name := part.partition(";")[0].strip())]
    while names[:1] == ["api"]:
        del names[0]
    return names


def is_own(names: list[str]) -> bool:
    """Whether a plain path may be read as one that is answered here."""
    return names[:1] != [] and (names[0] in OWN or (names[0] == "upload" and not OWN_UPLOADS.isdisjoint(names[1:])))
