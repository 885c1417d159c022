"""The files a simulated server holds: named as ComfyUI names them. What a job saved is kept as what it is of, and its
bytes are made when somebody fetches them, so that a long run does not fill the memory.
"""

import posixpath
import random
import time
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

from msgspec import Struct

from comfyload.sim import drawing
from comfyload.sim.catalog import INPUT_IMAGES
from comfyload.sim.frames import UNKNOWN, Frame
from comfyload.sim.reencode import size_of

ROOT = "/comfyui"
KINDS = ("output", "input", "temp")
_LONGEST_NAME = 255
_TEXTS_KEPT = 10_000

Texts = dict[str, Any]  # what a picture holds of its making, by name


class File(Struct, gc=False):
    """`modified` in ms of wall time. Uploaded bytes are its `content`; any other file is drawn: picture `index` of a
    batch like `frame`, by `seed`, with `texts` inside, as (prompt, extra_pnginfo).
    """

    modified: int
    frame: Frame | None
    seed: bytes = b""
    index: int = 0
    texts: tuple[Any, Any] | None = None
    content: bytes | None = None


class SaveRefused(Exception):
    """A prefix that no file can have; `kind` is the type of the error a node raises for it."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def place(kind: str, *parts: str) -> str | None:
    """The path that `parts` make in the folder of `kind`: normalized, "" for the folder itself, None outside it."""
    root = f"{ROOT}/{kind}"
    full = posixpath.normpath(posixpath.join(root, *parts))
    if full == root:
        return ""
    return full.removeprefix(f"{root}/") if full.startswith(f"{root}/") else None


def annotated(name: str) -> tuple[str, str | None]:
    """A name without the `[kind]` that may end it, and that kind. One character between the two goes, too."""
    for kind in KINDS:
        if name.endswith(f"[{kind}]"):
            return name[: -len(kind) - 3], kind
    return name, None


class Files:
    """Output, temp and input files. `output` and `input` outlive a restart, `temp` does not."""

    def __init__(self, rng: random.Random, now: Callable[[], int]) -> None:
        """`now` gives ms of wall time."""
        self._rng = rng
        self._now = now
        self._counters: dict[str, int] = {}
        self._with_texts: deque[File] = deque()  # the files that still have texts, oldest first
        started = time.time_ns() // 1_000_000
        inputs = {name: File(started, UNKNOWN, _digest(name.encode())) for name in INPUT_IMAGES}
        # By kind, so that what a job saved is not walked through to list the inputs.
        self._files: dict[str, dict[str, File]] = {"input": inputs}

    def save(
        self, prefix: str, frame: Frame, seed: bytes, texts: tuple[Any, Any], suffix: str = ".png"
    ) -> list[dict[str, str]]:
        """An output file for each of the batch, as `prefix_00001_.png`; a prefix may name a subfolder. A latent's file
        holds all of the batch.

        Raises:
            SaveRefused: no file can be named so.
        """
        size = (0, 0) if suffix == ".latent" else (frame.width, frame.height)
        prefix = _filled(prefix, *size, self._now())
        subfolder, stem = posixpath.split(posixpath.normpath(prefix))
        folder = place("output", subfolder)
        if folder is None:
            raise SaveRefused("Exception", "**** ERROR: Saving image outside the output folder is not allowed.\n")
        if "\0" in prefix:
            raise SaveRefused("ValueError", "embedded null byte\n")
        count = 1 if suffix == ".latent" else frame.batch
        try:
            longest = max(len(part.encode()) for part in [*folder.split("/"), f"{stem}_00001_{suffix}"])
        except UnicodeEncodeError as error:
            raise SaveRefused("UnicodeEncodeError", f"{error}\n") from error
        if longest > _LONGEST_NAME:
            raise SaveRefused("OSError", f"[Errno 36] File name too long: '{ROOT}/output/{folder}'\n")
        key = f"{folder}/{stem}"
        last = self._counters.get(key, 0)
        # A prefix that is not the file's name does not find the earlier files, and they are written over.
        finds = len(posixpath.basename(prefix)) == len(stem) and "%batch_num%" not in stem
        first = last + 1 if finds else 1
        self._counters[key] = max(last, first + count - 1)
        names = [f"{stem.replace('%batch_num%', str(n))}_{first + n:05}_{suffix}" for n in range(count)]
        return self._write("output", folder, subfolder, names, frame, seed, texts)

    def preview(self, frame: Frame, seed: bytes, texts: tuple[Any, Any]) -> list[dict[str, str]]:
        """A temp file for each of the batch, as `ComfyUI_temp_abcde_00001_.png`."""
        letters = "".join(self._rng.choices("abcdefghijklmnopqrstupvxyz", k=5))
        names = [f"ComfyUI_temp_{letters}_{n + 1:05}_.png" for n in range(frame.batch)]
        return self._write("temp", "", "", names, frame, seed, texts)

    def free_name(self, kind: str, folder: str, name: str, content: bytes) -> tuple[str, bool]:
        """The name under which `content` can be stored, another one if it is taken by other bytes; and whether it is
        there already.
        """
        stem, ending = posixpath.splitext(name)
        stored, index = name, 0
        while (taken := self.read(kind, posixpath.join(folder, stored))) not in (None, content):
            index += 1
            stored = f"{stem} ({index}){ending}"
        return stored, taken is not None

    def put(self, kind: str, folder: str, name: str, content: bytes) -> None:
        """Store uploaded bytes.

        Raises:
            ValueError: the name leads to a folder that is not there.
        """
        files, path = self._of(kind), posixpath.join(folder, name)
        within = posixpath.dirname(path)
        if "/" in name and not any(found.startswith(f"{within}/") for found in files):
            raise ValueError(within)
        size = size_of(content)
        frame = None if size is None else Frame(*size)
        files[path] = File(self._now(), frame, _digest(content), content=content)

    def find(self, kind: str, path: str) -> File | None:
        return self._of(kind).get(path)

    def named(self, name: str) -> File | None:
        """The file that a node's widget names: an input, unless `[kind]` ends the name."""
        bare, kind = annotated(name)
        kind = kind or "input"
        path = place(kind, bare)
        return None if path is None else self.find(kind, path)

    def holds(self, name: str) -> bool:
        """Whether a widget's name leads to a file, or to a folder of them, which is there, too."""
        bare, kind = annotated(name)
        return place(kind or "input", bare) == "" or self.named(name) is not None

    def read(self, kind: str, path: str) -> bytes | None:
        """A file's bytes."""
        found = self._of(kind).get(path)
        if found is None:
            return None
        if found.content is not None or found.frame is None:
            return found.content
        prompt, extra = found.texts or (None, None)
        texts = {} if found.texts is None else {"prompt": prompt, **(extra if isinstance(extra, dict) else {})}
        draw = drawing.latent if path.endswith(".latent") else drawing.png
        return draw(found.frame, found.seed + found.index.to_bytes(4), texts)

    def inputs(self) -> list[str]:
        """The names LoadImage offers."""
        return sorted(path for path in self._of("input") if "/" not in path)

    def newest(self, kind: str) -> list[str]:
        """The names in the folder itself, the last written first."""
        return [path for path in reversed(self._of(kind)) if "/" not in path and not path.startswith(".")]

    def wipe_temp(self) -> None:
        self._of("temp").clear()

    def _of(self, kind: str) -> dict[str, File]:
        return self._files.setdefault(kind, {})

    def _write(
        self,
        kind: str,
        folder: str,
        subfolder: str,
        names: list[str],
        frame: Frame,
        seed: bytes,
        texts: tuple[Any, Any],
    ) -> list[dict[str, str]]:
        now = self._now()
        for index, name in enumerate(names):
            file = self._of(kind)[posixpath.join(folder, name)] = File(now, frame, seed, index, texts)
            self._with_texts.append(file)
            if len(self._with_texts) > _TEXTS_KEPT:
                self._with_texts.popleft().texts = None
        return [{"filename": name, "subfolder": subfolder, "type": kind} for name in names]


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def _filled(prefix: str, width: int, height: int, now: int) -> str:
    """The prefix with the size and the local time in place of their `%names%`."""
    if "%" not in prefix:
        return prefix
    local = time.localtime(now / 1000)
    values = {
        "width": str(width),
        "height": str(height),
        "year": str(local.tm_year),
        "month": f"{local.tm_mon:02}",
        "day": f"{local.tm_mday:02}",
        "hour": f"{local.tm_hour:02}",
        "minute": f"{local.tm_min:02}",
        "second": f"{local.tm_sec:02}",
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix
