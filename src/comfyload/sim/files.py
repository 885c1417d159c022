"""The files a simulated server holds: named as ComfyUI names them, and kept in memory."""

import base64
import posixpath
import random
from collections.abc import Iterable

from comfyload.sim.catalog import INPUT_IMAGES

Key = tuple[str, str]  # subfolder, name
IMAGE_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADklEQVR4nGNogAIGyhgAgIQgAQ2AJGEAAAAASUVORK5CYII="
)
"""8x8, grey. One for all jobs: distinct bytes would only fill the memory of a long run."""


class Files:
    """Output, temp and input files. `output` and `input` outlive a restart, `temp` does not."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._counters: dict[tuple[str, str], int] = {}
        # By type, so that what a job saved is not walked through to list the inputs.
        self._bytes: dict[str, dict[Key, bytes]] = {"input": {("", name): IMAGE_PNG for name in INPUT_IMAGES}}

    def save(self, prefix: str, count: int, suffix: str = ".png") -> list[dict[str, str]]:
        """`count` output files as `prefix_00001_.png`; a prefix may name a subfolder."""
        subfolder, stem = posixpath.split(posixpath.normpath(prefix))
        return self._write("output", subfolder, stem, count, suffix)

    def preview(self, count: int) -> list[dict[str, str]]:
        """`count` temp files as `ComfyUI_temp_abcde_00001_.png`."""
        letters = "".join(self._rng.choices("abcdefghijklmnopqrstupvxyz", k=5))
        return self._write("temp", "", f"ComfyUI_temp_{letters}", count, ".png")

    def upload(self, kind: str, subfolder: str, name: str, data: bytes, overwrite: bool) -> str:
        """The name it was stored under: another one if the name is taken by other bytes."""
        stem, dot, ending = name.rpartition(".") if "." in name else (name, "", "")
        stored, index = name, 0
        while not overwrite and self._of(kind).get((subfolder, stored), data) != data:
            index += 1
            stored = f"{stem} ({index}){dot}{ending}"
        self._of(kind)[subfolder, stored] = data
        return stored

    def read(self, kind: str, subfolder: str, name: str) -> bytes | None:
        return self._of(kind).get((subfolder, name))

    def inputs(self) -> Iterable[str]:
        """The names LoadImage offers."""
        return sorted(name for subfolder, name in self._of("input") if not subfolder)

    def paths(self) -> Iterable[str]:
        """The names that LoadImage takes: those of subfolders, too."""
        return {posixpath.join(subfolder, name) for subfolder, name in self._of("input")}

    def newest(self, kind: str) -> list[str]:
        """The names in the folder itself, the last written first."""
        return [name for subfolder, name in reversed(self._of(kind)) if not subfolder and not name.startswith(".")]

    def wipe_temp(self) -> None:
        self._of("temp").clear()

    def _of(self, kind: str) -> dict[Key, bytes]:
        return self._bytes.setdefault(kind, {})

    def _write(self, kind: str, subfolder: str, stem: str, count: int, suffix: str) -> list[dict[str, str]]:
        written = []
        counter = self._counters.get((kind, f"{subfolder}/{stem}"), 0)
        for _ in range(count):
            counter += 1
            name = f"{stem}_{counter:05}_{suffix}"
            self._of(kind)[subfolder, name] = IMAGE_PNG
            written.append({"filename": name, "subfolder": subfolder, "type": kind})
        if kind != "temp":  # five random letters do not come again
            self._counters[kind, f"{subfolder}/{stem}"] = counter
        return written
