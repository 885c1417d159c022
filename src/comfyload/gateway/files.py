"""Files of several servers under one roof: each server's folder has a mark, and uploads are kept here."""

from __future__ import annotations

import hashlib
import hmac
import posixpath
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from comfyload.gateway.upload_store import UploadStore, digest_of
from comfyload.record.atomic import replace_file

RESULTS = ("output", "temp")
"""Kinds of files that jobs make."""

MOST_PATH = 1_000
MARK = "@"
"""Before a server's name, as the first folder of a file that it holds: `@gpu2/portraits`."""

_ANNOTATED = re.compile(r"^(?P<path>.*?)(?: \[(?P<kind>output|input|temp)\])?$", re.DOTALL)


class Files:
    """`servers`: the names of all servers; with one alone no name has a mark. `apart`: there are several tenants, and
    none may see another's files.
    """

    def __init__(
        self, folder: Path, servers: Callable[[], Iterable[str]], *, apart: bool = False, most_bytes: int = 10**10
    ) -> None:
        self._folder = folder
        self._uploads = UploadStore(folder, most_bytes)
        self._servers = servers
        self.apart = apart

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

    def full_name(self, query: Mapping[str, str]) -> str:
        """A file as one text: its server, kind, folder and name; however a query names it."""
        server, unmarked = self.view(dict(query))
        found = _ANNOTATED.match(unmarked.get("filename", ""))
        path, kind = (found["path"], found["kind"]) if found is not None else ("", None)
        folder, name = posixpath.split(path)
        folder = posixpath.join(unmarked.get("subfolder", ""), folder).strip("/")
        return "\n".join((server or "", kind or unmarked.get("type") or "output", folder, name))

    def full_names(self, output: Any) -> set[str]:
        """The files in what a node reported, as clients see it."""
        if isinstance(output, dict):
            if isinstance(output.get("filename"), str):
                return {self.full_name({key: text for key, text in output.items() if isinstance(text, str)})}
            output = list(output.values())
        return set().union(*map(self.full_names, output)) if isinstance(output, list) else set()

    def results_in(self, graph: dict[str, Any]) -> set[str]:
        """The files that servers made and that a graph names, as `"x.png [output]"`."""
        named = ((value, _ANNOTATED.match(value)) for value in _texts(graph))
        return {self.full_name({"filename": value}) for value, found in named if found and found["kind"] in RESULTS}

    def place(self, name: str, tenant: str) -> str:
        """Where an upload of the tenant is put on a server: not where another tenant could name it."""
        if not self.apart:
            return name
        folder = hmac.new(self._secret, tenant.encode(), hashlib.sha256).hexdigest()[:32]
        return f"comfyload-{folder}/{name}"

    @property
    def _secret(self) -> bytes:
        path = self._folder / "secret"
        if not path.exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            replace_file(path, secrets.token_bytes(32))
        return path.read_bytes()

    def upload_in(self, query: dict[str, str], tenant: str = "") -> str | None:
        """The upload that a `/view` asks for."""
        filename = query.get("filename", "")
        path, kind = _parted(filename)
        if path.startswith("/") or ".." in path:
            return None
        path = posixpath.join(query.get("subfolder", ""), posixpath.basename(path))
        name = named(path, kind if filename.endswith("]") else query.get("type", "output"))
        return name if self.digest(name, tenant) is not None else None

    def inputs_elsewhere(self, graph: dict[str, Any]) -> set[str]:
        """What a graph names of a server's own files, with its mark: `@gpu2/portraits/x.png [output]`."""
        return {value for value in _texts(graph) if value.startswith(MARK) and self.untagged(value)[0] is not None}

    # --- uploads

    def store(self, name: str, subfolder: str, content: bytes, *, overwrite: bool, tenant: str = "") -> str:
        """Keep an input; returns its name: another one if the name is taken by other bytes, as in ComfyUI.

        Raises:
            RunFilesError: it cannot be written, or there is no room for it.
        """
        stem, dot, ending = name.rpartition(".") if "." in name else (name, "", "")
        stored, number = name, 0
        path = posixpath.join(subfolder, stored)
        while not overwrite and self.digest(path, tenant) not in (None, digest_of(content)):
            number += 1
            stored = f"{stem} ({number}){dot}{ending}"
            path = posixpath.join(subfolder, stored)
        self.keep(path, content, tenant)
        return stored

    def keep(self, name: str, content: bytes, tenant: str = "") -> None:
        """Keep a file under that name.

        Raises:
            RunFilesError: it cannot be written, or there is no room for it.
        """
        self._uploads.keep(self._key(name, tenant), content)

    def named_in(self, graph: dict[str, Any], tenant: str = "") -> tuple[str, ...]:
        """The files that a graph names and that must be brought to its server."""
        names = (named(*_parted(text)) for text in _texts(graph))
        uploads = {name for name in names if self._key(name, tenant) in self._uploads}
        return tuple(sorted(uploads | self.inputs_elsewhere(graph)))

    def hold(self, names: Iterable[str], tenant: str = "") -> None:
        """Keep these until they are released, since a job needs them."""
        self._uploads.hold(self._key(name, tenant) for name in names)

    def release(self, names: Iterable[str], tenant: str = "") -> None:
        self._uploads.release(self._key(name, tenant) for name in names)

    def listed(self, tenant: str = "") -> list[str]:
        """The uploads outside folders, as the lists of input files show them."""
        owner = self._key("", tenant)
        names = (key.removeprefix(owner) for key in self._uploads if key.startswith(owner))
        return sorted(name for name in names if "/" not in name and _parted(name)[1] == "input")

    def content(self, name: str, tenant: str = "") -> bytes | None:
        return self._uploads.content(self._key(name, tenant))

    def digest(self, name: str, tenant: str = "") -> str | None:
        return self._uploads.digest(self._key(name, tenant))

    def _key(self, path: str, tenant: str) -> str:
        return f"{tenant}\n{path}" if self.apart else path


def parts_of(name: str) -> tuple[str, str, str]:
    """The folder, the name and the kind of a file as a graph names it."""
    path, kind = _parted(name)
    return *posixpath.split(path), kind


def parted_name(full: str) -> tuple[str, str, str, str]:
    """The server, kind, folder and name in the full name of a file; all empty for a name that no file has."""
    server, kind, folder, name = full.split("\n") if full.count("\n") == 3 else ("", "", "", "")
    return server, kind, folder, name


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
            if isinstance(value, str) and len(value) < MOST_PATH and "\n" not in value:
                yield value
