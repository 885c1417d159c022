"""The how-to on an application's rows is true: its code writes what it shows."""

from __future__ import annotations

import asyncio
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "how-to" / "log-your-application.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", PAGE, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(code) for _, code in found]


def test_the_code_writes_the_row_that_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_METRICS_LOG", str(tmp_path / "m.ndjson"))

    async def submit(page: int) -> str:
        return "1a2b3c4d-0000-4000-8000-000000000001"

    async def wait_for(prompt_id: str) -> str:
        return prompt_id

    names: dict[str, Any] = {"submit": submit, "wait_for": wait_for}
    stage, events = blocks("python")
    exec(stage, names)
    asyncio.run(names["render"](1))
    exec(events, names)
    first, uploaded, failed = [json.loads(line) for line in (tmp_path / "m.ndjson").read_text().splitlines()]
    (shown,) = map(json.loads, blocks("json"))
    for row in (first, shown):
        del row["duration_ms"], row["timestamp"]
    assert first == shown
    assert (uploaded["status"], failed["status"]) == ("ok", "error")
