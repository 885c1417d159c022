"""The examples of docs/how-to/retry-from-python.md run, in order, as one program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from comfyload.record.policy import Policy
from comfyload.retry.policy import RULES
from comfyload.sim import Server
from tests.docs.pages import ROOT
from tests.support.servers import in_thread

PAGE = (ROOT / "docs" / "how-to" / "retry-from-python.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    with in_thread(Server) as (first, _), in_thread(Server) as (second, _):
        yield [first, second]


def test_the_examples_do_what_they_say(
    servers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"^<!-- run -->\n```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) == PAGE.count("```python") == 6
    program = "\n".join(blocks)
    for port, url in zip(("8188", "8189"), servers, strict=True):
        program = program.replace(f"http://127.0.0.1:{port}", url)
    monkeypatch.chdir(tmp_path)
    exec(compile(program, "retry-from-python.md", "exec"), {"__name__": "page"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "completed" and lines[1].startswith("output/hello_00001_.png ") and lines[1].endswith("bytes")
    assert lines[2] == "['output/blue_00001_.png']"
    assert lines[3] == "failed validation"
    assert lines[4].startswith("1.colour: node 1 (EmptyImage) has no such input (did you mean color?")
    assert lines[5:8] == ["timed_out timeout", "8 completed", "2 servers"]
    assert [line for line in lines[8:] if "before it" not in line] == ["SimSleep", "SaveImage"]


def test_the_page_names_every_field_and_class() -> None:
    fields = set(Policy.__struct_fields__) - {"format", "explanations", "scores", "inputs", "cancel", "lookup"}
    assert not [name for name in (fields - {"admission"}) | set(RULES) if f"`{name}`" not in PAGE]
