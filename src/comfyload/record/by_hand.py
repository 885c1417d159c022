"""Folders of the archive that were made by hand, as section 4 of the checklist describes: without a manifest."""

import json
from pathlib import Path
from typing import Any

from msgspec import Struct

from comfyload.errors import RunFilesError, file_errors
from comfyload.record.codec import within_levels

_MANIFEST, _PAGE, _RUNS = "manifest.json", "report.html", "runs"
_README = "README.md"


class ByHand(Struct, frozen=True, kw_only=True):
    """A folder made by hand.

    `stated`: the `summary` of each `load*.json`; None: it has no readable one. `readme`: None without one.
    """

    path: Path
    stated: dict[str, dict[str, Any] | None]
    readme: Path | None


def is_by_hand(folder: Path) -> bool:
    """Whether comfyload did not make this folder; one of its own without a manifest is damaged."""
    ours = (folder / _PAGE).exists() and (folder / _RUNS).is_dir()
    return not (folder / _MANIFEST).exists() and not ours


def read_by_hand(folder: Path) -> ByHand:
    """The readable contents.

    Raises:
        RunFilesError: the folder cannot be read.
    """
    with file_errors(f"cannot read {folder}"):
        files = sorted(path for path in folder.iterdir() if path.is_file())
    loads = [path for path in files if path.name.startswith("load") and path.suffix == ".json"]
    readme = folder / _README
    return ByHand(
        path=folder, stated={path.name: _summary(path) for path in loads}, readme=readme if readme in files else None
    )


def no_baseline(folder: Path) -> RunFilesError:
    """The error for commands that need records."""
    return RunFilesError(
        f"{folder} was made by hand: it has no {_MANIFEST}, and nothing in it can be verified or made again",
        f"see it with comfyload baseline show {folder.name}; keep a run whole with comfyload baseline save RUN",
    )


def _summary(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    summary = found.get("summary") if isinstance(found, dict) else None
    return summary if isinstance(summary, dict) and within_levels(summary) else None
