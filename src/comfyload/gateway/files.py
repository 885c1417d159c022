"""Files of several servers under one roof: each server's folder has a mark, and uploads are kept here."""

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

    def inputs_elsewhere(self, graph: dict[str, Any]) -> dict[tuple[str, str], tuple[str, str]]:
        """Inputs that name another server's file: by node and input, the server and the name without its mark."""
        found = {}
        for node, body in graph.items():
            inputs = body.get("inputs") if isinstance(body, dict) else None
            for key, value in inputs.items() if isinstance(inputs, dict) else ():
                if isinstance(value, str) and value.startswith(MARK) and "\n" not in value:
                    server, name = self.untagged(value)
                    if server is not None:
                        found[node, key] = server, name
        return found

    # --- uploads

    def store(self, name: str, subfolder: str, content: bytes, *, overwrite: bool) -> str:
        """Keep an input; returns its name: another one if the name is taken by other bytes, as in ComfyUI."""
        stem, dot, ending = name.rpartition(".") if "." in name else (name, "", "")
        stored, number = name, 0
        while not overwrite and self._digest(stored, subfolder) not in (None, _digest(content)):
            number += 1
            stored = f"{stem} ({number}){dot}{ending}"
        self._folder.mkdir(parents=True, exist_ok=True)
        digest = _digest(content)
        replace_file(self._folder / digest, content)
        self._index[posixpath.join(subfolder, stored)] = digest
        replace_file(self._folder / "index.json", json.dumps(self._index).encode())
        return stored

    def named_in(self, graph: dict[str, Any]) -> tuple[str, ...]:
        """The uploads that a graph names."""
        index = self._index
        if not index:
            return ()
        values = (
            _ANNOTATED.match(value)
            for body in graph.values()
            if isinstance(body, dict) and isinstance(body.get("inputs"), dict)
            for value in body["inputs"].values()
            if isinstance(value, str) and len(value) < 1000
        )
        names = {found["path"] for found in values if found is not None and found["kind"] in (None, "input")}
        return tuple(sorted(names & index.keys()))

    def content(self, name: str) -> bytes | None:
        digest = self._index.get(name)
        try:
            return None if digest is None else (self._folder / digest).read_bytes()
        except OSError:
            return None

    def digest(self, name: str) -> str | None:
        return self._index.get(name)

    def _digest(self, name: str, subfolder: str) -> str | None:
        return self._index.get(posixpath.join(subfolder, name))

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


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def renamed(body: bytes, old: str, new: str) -> bytes:
    """A prompt in which an input file is called otherwise."""
    if old == new:
        return body
    message = json.loads(body)
    for node in message["prompt"].values():
        for key, value in node.get("inputs", {}).items():
            if value in (old, f"{old} [input]"):
                node["inputs"][key] = new
    return json.dumps(message).encode("utf-8", "surrogatepass")
