"""Files of several servers under one roof: each server's folder has a mark, and uploads are kept here."""

from __future__ import annotations

import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from comfyload.record.atomic import replace_file

MARK = "@"
"""Before a server's name, as the first folder of a file that it holds: `@gpu2/portraits`."""

MOST_NAME = 1000

_ANNOTATED = re.compile(r"^(?P<path>.*?)(?: \[(?P<kind>output|input|temp)\])?$", re.DOTALL)


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
                return output | {"subfolder": posixpath.join(MARK + server, folder) if folder else MARK + server}
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

    def upload_in(self, query: dict[str, str]) -> str | None:
        """The upload that a `/view` asks for."""
        filename = query.get("filename", "")
        path, kind = _parted(filename)
        if path.startswith("/") or ".." in path:
            return None
        path = posixpath.join(query.get("subfolder", ""), posixpath.basename(path))
        name = named(path, kind if filename.endswith("]") else query.get("type", "output"))
        return name if name in self._index else None

    def inputs_elsewhere(self, graph: dict[str, Any]) -> set[str]:
        """What a graph names of a server's own files, with its mark: `@gpu2/portraits/x.png [output]`."""
        return {value for value in _texts(graph) if value.startswith(MARK) and self.untagged(value)[0] is not None}

    # --- uploads

    def keep(self, name: str, content: bytes) -> None:
        """Keep a file under that name."""
        digest = _digest(content)
        if self._index.get(name) == digest:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        replace_file(self._folder / digest, content)
        self._index[name] = digest
        replace_file(self._folder / "index.json", json.dumps(self._index).encode())

    def named_in(self, graph: dict[str, Any]) -> tuple[str, ...]:
        """The files that a graph names and that must be brought to its server."""
        uploads = {named(*_parted(text)) for text in _texts(graph)} & self._index.keys()
        return tuple(sorted(uploads | self.inputs_elsewhere(graph)))

    @property
    def listed(self) -> list[str]:
        """The uploads outside folders, as the lists of input files show them."""
        return sorted(name for name in self._index if "/" not in name and _parted(name)[1] == "input")

    def content(self, name: str) -> bytes | None:
        digest = self._index.get(name)
        try:
            return None if digest is None else (self._folder / digest).read_bytes()
        except OSError:
            return None

    def digest(self, name: str) -> str | None:
        return self._index.get(name)

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


def parts_of(name: str) -> tuple[str, str, str]:
    """The folder, the name and the kind of a file as a graph names it."""
    path, kind = _parted(name)
    return *posixpath.split(path), kind


def _parted(name: str) -> tuple[str, str]:
    found = _ANNOTATED.match(name)
    return (found["path"], found["kind"] or "input") if found is not None else (name, "input")


def named(path: str, kind: str) -> str:
    """How a graph names a file of that kind."""
    path = posixpath.normpath(path)
    return path if kind == "input" else f"{path} [{kind}]"


def _texts(graph: dict[str, Any]) -> Iterator[str]:
    """The inputs that may be names of files: short, and of one line."""
    for body in graph.values():
        inputs = body.get("inputs") if isinstance(body, dict) else None
        for value in inputs.values() if isinstance(inputs, dict) else ():
            if isinstance(value, str) and len(value) < MOST_NAME and "\n" not in value:
                yield value


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
