"""Files of several servers under one roof: each server's folder has a mark, and what was uploaded is kept here."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from comfyload.record.atomic import replace_file

MARK = "@"
"""Before a server's name, as the first folder of a file that it holds: `@gpu2/portraits`."""

_FILE = re.compile(r"[^\r\n]{1,1000}")
"""What may be the name of a file."""


class Files:
    """`servers`: the names of all servers; with one alone no name has a mark."""

    def __init__(self, folder: Path, servers: Callable[[], Iterable[str]]) -> None:
        self._folder = folder
        self._servers = servers

    @property
    def marked(self) -> bool:
        return sum(1 for _ in self._servers()) > 1

    # --- names

    def tagged(self, output: Any, server: str) -> Any:
        """What a node reported, with the server's mark in each file's folder; the same object if nothing changes."""
        if not self.marked:
            return output
        if isinstance(output, dict):
            if isinstance(output.get("filename"), str) and isinstance(output.get("subfolder", ""), str):
                folder = output.get("subfolder") or ""
                return output | {"subfolder": f"{MARK}{server}/{folder}" if folder else MARK + server}
            return {key: self.tagged(value, server) for key, value in output.items()}
        return [self.tagged(value, server) for value in output] if isinstance(output, list) else output

    def untagged(self, path: str) -> tuple[str | None, str]:
        """The server whose mark is before a path, and the path without it."""
        first, _, rest = path.partition("/")
        name = first.removeprefix(MARK)
        return (name, rest) if first.startswith(MARK) and name in set(self._servers()) else (None, path)

    def view(self, query: dict[str, str]) -> tuple[str | None, dict[str, str]]:
        """The server that a `/view` asks for, and what to ask it: the mark may be in the subfolder or in the name."""
        server, folder = self.untagged(query.get("subfolder", ""))
        if server is not None:
            return server, query | {"subfolder": folder}
        server, name = self.untagged(query.get("filename", ""))
        return server, query | {"filename": name} if server is not None else query

    # --- inputs

    def keep(self, path: str, kind: str, content: bytes) -> str:
        """Keep a file that a client uploaded; its key."""
        key, digest = key_of(path, kind), hashlib.sha256(content).hexdigest()
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._folder / digest, content)
        self._index[key] = digest
        replace_file(self._folder / "index.json", json.dumps(self._index).encode())
        return key

    def __contains__(self, key: str) -> bool:
        return key in self._index

    def digest(self, key: str) -> str | None:
        """The hash of what is kept under that key; None: nothing is."""
        return self._index.get(key)

    def content(self, key: str) -> bytes | None:
        digest = self._index.get(key)
        try:
            return None if digest is None else (self._folder / digest).read_bytes()
        except OSError:
            return None

    def named_in(self, graph: dict[str, Any]) -> tuple[str, ...]:
        """The values of inputs that name an upload, or a file of one of the servers; a text never does."""
        if not self.marked:
            return ()
        return tuple(
            sorted(
                {
                    value
                    for body in graph.values()
                    if isinstance(body, dict) and isinstance(body.get("inputs"), dict)
                    for value in body["inputs"].values()
                    if isinstance(value, str) and _FILE.fullmatch(value) and self._known(value)
                }
            )
        )

    def _known(self, value: str) -> bool:
        path, kind = annotated(value)
        return self.untagged(path)[0] is not None or key_of(path, kind or "input") in self._index

    @property
    def _index(self) -> dict[str, str]:
        found = getattr(self, "_read", None)
        if found is None:
            try:
                found = json.loads((self._folder / "index.json").read_bytes())
            except (OSError, ValueError):
                found = {}
            self._read: dict[str, str] = found
        return self._read


def annotated(name: str) -> tuple[str, str | None]:
    """A file's name without the `[kind]` that may end it, and that kind. One character between the two goes, too."""
    for kind in ("output", "input", "temp"):
        if name.endswith(f"[{kind}]"):
            return name[: -len(kind) - 3], kind
    return name, None


def key_of(path: str, kind: str) -> str:
    """What a file that was uploaded to that folder is kept under."""
    return f"{kind}/{posixpath.normpath(path)}"
