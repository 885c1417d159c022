"""Everything that is printed goes into a file or a pipe in any code page."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from comfyload.app.run.options import read_plan
from comfyload.cli import app_of, main

app = app_of()

PAGES = ["cp1252", "cp850", "cp866", "cp932", "cp874", "cp437", "cp1251", "ascii"]
KEPT = Path(__file__).parents[1] / "data" / "archive_v1"
RUN = KEPT / "2026-11-23-small" / "runs" / "small"


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*words, name))


COMMANDS = list(commands(typer.main.get_command(app)))


def printed(words: list[str], page: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    """Exit code and output of a command whose streams are in a code page."""
    code, said, _ = both_printed(words, page, monkeypatch)
    return code, said


def both_printed(words: list[str], page: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    """The same, and what it printed on standard error."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=page) for _ in "oe")
    monkeypatch.setattr(sys, "argv", ["comfyload", *words])
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit) as left:
        main()
    for stream in (out, err):
        stream.flush()
    assert isinstance(out.buffer, io.BytesIO) and isinstance(err.buffer, io.BytesIO)
    return int(left.value.code or 0), out.buffer.getvalue().decode(page), err.buffer.getvalue().decode(page)


@pytest.mark.parametrize("page", ["cp850", "cp932", "ascii"])
def test_help_is_printed_in_every_code_page(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(COMMANDS) > 20
    for words in COMMANDS:
        code, text = printed([*words, "--help"], page, monkeypatch)
        assert code == 0
        assert "Usage" in text


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    "words",
    [
        ["show", str(RUN)],
        ["show", str(RUN), "--job", "0"],
        ["check", str(RUN)],
        ["compare", str(RUN), str(RUN)],
        ["logs", str(KEPT / "2026-11-23-small" / "comfyui_metrics.ndjson")],
        ["baseline", "list", "--archive", str(KEPT)],
        ["baseline", "show", "small", "--archive", str(KEPT)],
        ["trend", "--archive", str(KEPT)],
    ],
    ids=lambda words: " ".join(word for word in words if "/" not in word and "\\" not in word),
)
def test_results_are_printed_in_every_code_page(page: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, text = printed(words, page, monkeypatch)
    assert code in (0, 1, 3)
    assert text
    assert "\\u" not in text


def test_names_that_a_code_page_lacks_are_replaced_in_words_and_kept_in_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(RUN, run)
    records = (run / "records.ndjson").read_text(encoding="utf-8").replace('"book"', '"Bücher 東京"')
    (run / "records.ndjson").write_text(records, encoding="utf-8")
    _, words = printed(["show", str(run), "--job", "0"], "cp850", monkeypatch)
    assert "Job 0 of Bücher ??" in words
    _, words = printed(["show", str(run), "--job", "0"], "ascii", monkeypatch)
    assert "Job 0 of Bucher ??" in words
    _, text = printed(["show", str(run), "--job", "0", "--json"], "ascii", monkeypatch)
    assert json.loads(text)["workflow"] == "Bücher 東京"


def test_a_plan_that_is_redirected_is_read_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", "--server", ":8188", "--workflow", "Bücher 東京 😀.json", "--note", "case=…", "--save-plan", "-"]
    for page in PAGES:
        code, text = printed(words, page, monkeypatch)
        assert code == 0
        (tmp_path / "plan.toml").write_bytes(text.encode(page))
        plan = read_plan(tmp_path / "plan.toml")
        assert (plan.workflows[0].file, plan.notes) == ("Bücher 東京 😀.json", ["case=…"])


def test_an_error_is_one_line_in_every_code_page(monkeypatch: pytest.MonkeyPatch) -> None:
    for page in PAGES:
        code, _, said = both_printed(["show", "nowhere-東京"], page, monkeypatch)
        assert code == 2
        assert said.startswith("error: ") and said.count("\n") == 1
        assert "Traceback" not in said and "\\u" not in said


def test_what_a_user_has_set_for_missing_letters_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="xmlcharrefreplace")
    monkeypatch.setattr(sys, "argv", ["comfyload", "run", "--help"])
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit):
        main()
    out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    assert b"&#183;" in out.buffer.getvalue()
