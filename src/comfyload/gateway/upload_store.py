"""Input files that are kept here, within bounds: the one that was used least recently goes first, and never one that is
held.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from comfyload.errors import RunFilesError, file_errors
from comfyload.record.atomic import replace_file

OF_NAME = 4096
"""Bytes that a name counts as, apart from its content: of many small files the names are what takes room."""

_INDEX = "index.json"
_CONTENT = re.compile(r"[0-9a-f]{64}")
_LEFT_OVER = re.compile(rf"\.(?:{_CONTENT.pattern}|{re.escape(_INDEX)})\.\d+\.tmp")


class UploadStore:
    """Contents in `folder`, each once, in a file that is called by its digest and was modified when it was last used;
    and an index of their names.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._held = Counter[str]()
        self._digests: dict[str, str] = {}
        """By name, the one that was used last at the end."""
        self._sizes: dict[str, int] = {}
        """By digest."""
        self._read()

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._digests)

    def __contains__(self, name: str) -> bool:
        return name in self._digests

    def digest(self, name: str) -> str | None:
        return self._digests.get(name)

    def content(self, name: str) -> bytes | None:
        digest = self._digests.get(name)
        if digest is None:
            return None
        self._use(name)
        try:
            return (self._folder / digest).read_bytes()
        except OSError:
            return None

    def keep(self, name: str, content: bytes) -> None:
        """Keep a file under that name, in place of one that has it.

        Raises:
            RunFilesError: it cannot be written, or those that are held leave no room for it.
        """
        digest = digest_of(content)
        if self._digests.get(name) == digest:
            self._use(name)
            return
        digests = {each: found for each, found in self._digests.items() if each != name} | {name: digest}
        sizes = self._sizes | {digest: len(content)}
        self._shrink(digests, sizes, name)
        with file_errors(f"cannot keep an upload in {self._folder}", "is the disk full, or the folder not ours?"):
            self._folder.mkdir(parents=True, exist_ok=True)
            if digest not in self._sizes:
                replace_file(self._folder / digest, content)
            replace_file(self._folder / _INDEX, json.dumps(digests).encode())
        gone = self._sizes.keys() - sizes.keys()
        self._digests, self._sizes = digests, sizes
        for each in gone:
            self._remove(each)

    def hold(self, names: Iterable[str]) -> None:
        """Let none of them go until it was released as often as it was held; one that is not there yet can be held."""
        for name in names:
            self._held[name] += 1
            if name in self._digests:
                self._use(name)

    def release(self, names: Iterable[str]) -> None:
        self._held -= Counter(names)

    def _use(self, name: str) -> None:
        digest = self._digests[name] = self._digests.pop(name)
        with suppress(OSError):  # the next process will know less of what was used when
            os.utime(self._folder / digest)

    def _shrink(self, digests: dict[str, str], sizes: dict[str, int], newest: str) -> None:
        """Take out what must go for the newest.

        Raises:
            RunFilesError: that is not enough.
        """
        names = Counter(digests.values())
        for digest in sizes.keys() - names.keys():
            del sizes[digest]
        more = _bytes(digests, sizes) - self._most_bytes
        for name in list(digests):
            if more <= 0:
                return
            if name == newest or name in self._held:
                continue
            digest = digests.pop(name)
            names[digest] -= 1
            more -= OF_NAME if names[digest] else OF_NAME + sizes.pop(digest)
        if more > 0:
            text = f"the uploads that jobs need take all the room, {self._most_bytes / 1e9:g} GB"
            raise RunFilesError(text, "try again when jobs have ended, or give the gateway a larger --uploads-gb")

    def _read(self) -> None:
        """Read what an earlier process kept, and remove what it left."""
        try:
            files = list(self._folder.iterdir())
            index = (self._folder / _INDEX).read_bytes() if (self._folder / _INDEX).exists() else b"{}"
        except OSError:
            return
        digests = _names_in(index)
        used: dict[str, int] = {}
        wanted = set(digests.values())
        for file in files:
            if file.name in wanted and _CONTENT.fullmatch(file.name):
                found = file.stat()
                self._sizes[file.name], used[file.name] = found.st_size, found.st_mtime_ns
            elif _CONTENT.fullmatch(file.name) or _LEFT_OVER.fullmatch(file.name):
                self._remove(file.name)
        there = [(name, digest) for name, digest in digests.items() if digest in used]
        self._digests = dict(sorted(there, key=lambda each: used[each[1]]))

    def _remove(self, file: str) -> None:
        with suppress(OSError):  # the next process tries again
            (self._folder / file).unlink()


def _names_in(index: bytes) -> dict[str, str]:
    """The digests by name; none if it is damaged."""
    try:
        found = json.loads(index)
    except (ValueError, RecursionError):
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {name: digest for name, digest in pairs if isinstance(digest, str)}


def _bytes(digests: Mapping[str, str], sizes: Mapping[str, int]) -> int:
    return sum(sizes.values()) + OF_NAME * len(digests)


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
