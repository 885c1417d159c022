"""What a tab may watch, by its name: the table into which every view is put."""

from __future__ import annotations

from pathlib import Path

from comfyload.web.feed import View


class Views:
    """All views of the runs in a folder and of an archive."""

    def __init__(self, runs: Path, archive: Path) -> None:
        self._runs = runs
        self._archive = archive

    def table(self) -> dict[str, View]:
        return {}
