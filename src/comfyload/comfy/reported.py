"""What output nodes reported in a history entry: files, and other things.

A file is an object with a `filename`, or under a few keys a bare string: Preview3D reports its model as
`"result": ["3d/x.glb", camera, background]`. `null` does not count.
"""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from comfyload.comfy.wire.history import HistoryEntry
from comfyload.record.kinds import BARE, kind_of
from comfyload.record.model import Output

File = tuple[str, str, str]
"""Name, subfolder and type, as `/view` takes them."""

_IN_TEMP = re.compile(r"(preview3d_advanced|preview_splat|preview_pointcloud)_[0-9a-f]{32}\.\w+")
"""Names of files that three nodes of ComfyUI write to `temp` and report without their type."""
_ANNOTATED = re.compile(r"(?P<path>.+?) \[(?P<type>input|output|temp)\]")
_LONGEST = 500
MOST_FILES = 5000
"""Files of one job, and things that its nodes reported, that are kept by name. All are counted."""

LONGEST_NAME = 4096
"""Letters of a file's name that are kept: no system has longer ones."""


def outputs_of(entry: HistoryEntry) -> list[Output]:
    """What each output node reported. `animated` marks the node's pictures as moving, and is not an output."""
    found: list[Output] = []
    left = MOST_FILES
    for node, reported in entry.outputs.items():
        for key, items in reported.items():
            if len(found) >= MOST_FILES:
                return found
            if key == "animated" or items is None:
                continue
            things = [item for item in _listed(items) if item is not None and (item != "" or key not in BARE)]
            files = [f"{type_}/{f'{folder}/' if folder else ''}{name}" for name, folder, type_ in _files(key, things)]
            count = len(files) if key in BARE and files else len(things)
            moves = bool(files) and any(_listed(reported.get("animated")))
            node, key, files = node[:_LONGEST], key[:_LONGEST], [name[:LONGEST_NAME] for name in files[:left]]
            left -= len(files)
            found.append(Output(node=node, kind=key, count=count, files=files, animated=moves))
    return found


def files_of(entry: HistoryEntry) -> list[File]:
    """(filename, subfolder, type) of every file reported, each once; of the first `MOST_FILES`."""
    reported = (pair for node in entry.outputs.values() for pair in node.items() if pair[0] != "animated")
    files = (file for key, items in reported for file in _files(key, _listed(items)))
    return list(dict.fromkeys(islice(files, MOST_FILES)))


def _files(key: str, items: list[Any]) -> Iterator[File]:
    for item in items:
        if isinstance(item, dict) and isinstance(item.get("filename"), str) and item["filename"]:
            subfolder = item.get("subfolder")
            yield item["filename"], subfolder if isinstance(subfolder, str) else "", str(item.get("type") or "output")
        elif isinstance(item, str) and key in BARE and (file := _named(item)) is not None:
            yield file


def _named(text: str) -> File | None:
    """The file that a bare string names; None: it is a text, or a path that the server does not serve."""
    annotated = _ANNOTATED.fullmatch(text)
    path, type_ = (annotated["path"], annotated["type"]) if annotated else (text, "output")
    absolute, kind = path.startswith(("/", "\\")) or path[1:2] == ":" or "://" in path, kind_of(path, "")
    strange = len(path) > _LONGEST or "\n" in path or ".." in re.split(r"[/\\]", path)
    if absolute or strange or kind not in ("image", "video", "audio", "3d"):
        return None
    cut = max(path.rfind("/"), path.rfind("\\"))
    folder, name = path[: max(cut, 0)].replace("\\", "/"), path[cut + 1 :]
    if annotated is None and kind == "image" and f"{folder}/".startswith("temp/"):  # where Preview3D puts a background
        return name, folder[5:], "temp"
    return name, folder, "temp" if not folder and annotated is None and _IN_TEMP.fullmatch(name) else type_


def _listed(items: Any) -> list[Any]:
    return items if isinstance(items, list) else [items]
