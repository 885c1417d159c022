"""What the page keeps on the server: the user's files and settings, in memory, and the replies to calls for them."""

import json
import mimetypes
import posixpath
import re
import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from comfyload.comfy.wire.calls import Reply
from comfyload.sim.reply import SERVER_ERROR, empty, json_reply, text

_ROOT = "/user/default"
_SETTINGS = "comfy.settings.json"
_SYSTEM = "__"  # how the names of a server's own users begin
_RUNS = ("html", "javascript", "ecmascript", "xml", "css", "rfc822")  # in the type of what a browser could run


class _File(Struct, frozen=True):
    data: bytes
    modified: int  # wall time, ms

    def facts(self, path: str) -> dict[str, Any]:
        return {"path": path, "size": len(self.data), "modified": self.modified, "created": self.modified}


class UserData:
    """The files of the one user by path, and the folders, which are made when something in them is requested.

    `used`: whether anything was ever requested.
    """

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._folders = {""}
        self._users = {"default": "default"}
        self.used = False

    def users(self) -> Reply:
        return json_reply({"storage": "server", "migrated": self.used})

    def add_user(self, body: dict[str, Any]) -> Reply:
        name = body["username"]
        if name in self._users.values():
            return json_reply({"error": "Duplicate username."}, 400)
        name = name.strip()
        if not name:
            return json_reply({"error": "username not provided"}, 400)
        if name.startswith(_SYSTEM):
            return json_reply({"error": "System User prefix not allowed"}, 400)
        user_id = f"{re.sub('[^a-zA-Z0-9-_]+', '-', name)}_{uuid.uuid4()}"
        self._users[user_id] = name
        return json_reply(user_id)

    def settings(self) -> Any:
        self._path(_SETTINGS)
        found = self._files.get(_SETTINGS)
        with suppress(ValueError):
            return {} if found is None else json.loads(found.data)
        return {}

    def save_settings(self, new: dict[str, Any], now: int) -> Reply:
        self._files[_SETTINGS] = _File(json.dumps({**self.settings(), **new}, indent=4).encode(), now)
        return empty(200)

    def listing(self, query: dict[str, str]) -> Reply:
        """The files of the folder `dir`: names, facts or split names."""
        folder = query.get("dir", "")
        if not folder:
            return text(400, "Directory not provided")
        path = self._path(folder)
        if path is None:
            return text(403, "Invalid directory")
        if path not in self._folders:
            return json_reply([]) if path in self._files else text(404, "Directory not found")
        deep, full, split = (query.get(name, "").lower() == "true" for name in ("recurse", "full_info", "split"))
        names = [name for name in self._below(path, self._files) if deep or "/" not in name]
        names = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
        if full:
            return json_reply([self._files[posixpath.join(path, name)].facts(name) for name in names])
        return json_reply([[name, *name.split("/")] for name in names] if split else names)

    def tree(self, query: dict[str, str]) -> Reply:
        """All folders, then all files below `path`."""
        path = self._path(unquote(query.get("path", "")), make=False)
        if path is None:
            return text(400, "Invalid path requested")
        if path in self._files:
            return text(400, "Requested path is not a directory")
        if path not in self._folders:
            return text(404, "Requested path not found")
        rows: list[dict[str, Any]] = []
        for kind, found in (("directory", self._folders), ("file", self._files)):
            paths = [posixpath.join(path, name) for name in self._below(path, found)]
            rows += [
                {"name": posixpath.basename(one), "path": one, "type": kind}
                for one in sorted(paths, key=lambda one: posixpath.basename(one).lower())
            ]
        for row in rows:
            if row["type"] == "file":
                file = self._files[row["path"]]
                row |= {"size": len(file.data), "modified": file.modified / 1000}
        return json_reply(rows)

    def read(self, name: str) -> Reply:
        path = self._path(name)
        if path is None:
            return empty(403)
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
        headers = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
        if path == "user.css":
            headers["Content-Disposition"] = "inline"
        elif any(word in kind for word in _RUNS):
            kind = "application/octet-stream"
        if path in self._folders:
            return Reply(status=403, body=b"", content_type=kind, headers=headers)
        found = self._files.get(path)
        return empty(404) if found is None else Reply(status=200, body=found.data, content_type=kind, headers=headers)

    def write(self, name: str, query: dict[str, str], data: bytes, now: int) -> Reply:
        path = self._path(name)
        if path is None:
            return empty(403)
        if self._kept(path, query):
            return text(409, "File already exists")
        if path in self._folders or posixpath.dirname(path) not in self._folders:
            return empty(400)
        self._files[path] = _File(data, now)
        return self._saved(path, query)

    def delete(self, name: str) -> Reply:
        path = self._path(name)
        if path is None:
            return empty(403)
        if path in self._folders:
            return SERVER_ERROR
        return empty(204) if self._files.pop(path, None) is not None else empty(404)

    def move(self, name: str, to: str, query: dict[str, str]) -> Reply:
        """A file or a folder; into `to` if that is a folder."""
        source = self._path(name)
        if source is None:
            return empty(403)
        if source not in self._files and source not in self._folders:
            return empty(404)
        target = self._path(to)
        if target is None:
            return empty(403)
        if self._kept(target, query):
            return text(409, "File already exists")
        place = posixpath.join(target, posixpath.basename(source)) if target in self._folders else target
        if source in self._files:
            self._files[place] = self._files.pop(source)
            return self._saved(target, query)
        if place == source or place.startswith(source + "/") or not source:
            return SERVER_ERROR
        self._folders.add(place)
        self._folders -= {source}
        for below in list(self._below(source, self._folders)):
            self._folders -= {posixpath.join(source, below)}
            self._folders.add(posixpath.join(place, below))
        for below in list(self._below(source, self._files)):
            self._files[posixpath.join(place, below)] = self._files.pop(posixpath.join(source, below))
        return self._saved(target, query)

    def _saved(self, path: str, query: dict[str, str]) -> Reply:
        full = query.get("full_info", "false").lower() == "true"
        return json_reply(self._files[path].facts(path) if full else path)

    def _kept(self, path: str, query: dict[str, str]) -> bool:
        """Whether something is there that must not be overwritten."""
        return query.get("overwrite") == "false" and (path in self._files or path in self._folders)

    def _path(self, name: str, *, make: bool = True) -> str | None:
        """`name`'s path below the user's folder, whose own folder is there from now on; None for one outside.

        Raises:
            ValueError: a file is where a folder of it would be.
        """
        self.used |= make
        path = posixpath.normpath(posixpath.join(_ROOT, unquote(name)))
        if path != _ROOT and not path.startswith(_ROOT + "/"):
            return None
        path = path.removeprefix(_ROOT).lstrip("/")
        folder = posixpath.dirname(path)
        while make and folder not in self._folders and folder not in self._files:
            self._folders.add(folder)
            folder = posixpath.dirname(folder)
            if folder in self._files:
                raise ValueError(f"{folder} is a file")
        return path

    def _below(self, folder: str, paths: Iterable[str]) -> list[str]:
        start = folder + "/" if folder else ""
        return [path.removeprefix(start) for path in paths if path and path.startswith(start) and path != folder]
