"""The README of a baseline: all of its parts, each number with its interval and n, and no markup but its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from comfyload.judge.gates.gate import judge
from comfyload.judge.gates.grammar import DEFAULT_GATES, GateSet, parse_gate
from comfyload.record.archive import Contents, KeptRun
from comfyload.record.model import Fact
from comfyload.report.baseline import pictures, render_readme
from comfyload.report.html import Shown
from tests.unit.chart_runs import EVIL, hostile, shown
from tests.unit.judge_runs import manifest, one_by_one

GATES = GateSet(gates=[parse_gate(text) for text in DEFAULT_GATES])


def _kept(*names: str, **changes: object) -> Contents:
    runs = [
        KeptRun(folder=f"runs/{name}", output=f"load_{name}.json", run_id=f"id-{name}", name=name, load="1 in flight")
        for name in names
    ]
    facts = {
        "gpu.0.model": Fact(value="NVIDIA L4", source="nvml"),
        "gpu.0.vram_bytes": Fact(value=24 * 2**30, source="nvml"),
        "comfyui.commit": Fact(value="8a6bb8c", source="git"),
        "custom_nodes.rgthree": Fact(source="server names it; its version is not told"),
    }
    base = {"environment": facts, "notes": {"enclosure": "Razer Core X"}, "command": ["comfyload run -n 30"]}
    return Contents(runs=runs, **{**base, **changes})  # type: ignore[arg-type]


def _plain() -> Shown:
    return shown(manifest(30), list(one_by_one([10.0 + i % 3 for i in range(30)])))


def test_it_has_every_part_in_order() -> None:
    one = _plain()
    text = render_readme(_kept("book"), [one], verdicts=judge(GATES, one.measured), observations=["It was busy."])
    parts = ("Results", "Acceptance", "Observations", "Hardware", "ComfyUI and custom nodes", "How the load was made")
    places = [text.index(f"## {part}\n") for part in (*parts, "Pictures", "Repeat it", "Files")]
    assert places == sorted(places) and text.startswith("# Baseline book\n")
    assert "**VALID.**" in text[: places[0]] and "Gates: **PASS\\***" in text[: places[0]]
    assert "NVIDIA L4" in text and "24.0 GiB" in text and "enclosure: Razer Core X" in text
    assert (
        "| comfyui.commit | 8a6bb8c | git |" in text and "| custom\\_nodes.rgthree | unknown | server names it" in text
    )
    assert "- It was busy." in text and "```sh\ncomfyload run -n 30\n```" in text


def test_each_number_has_its_interval_and_n() -> None:
    text = render_readme(_kept("book"), [_plain()])
    row = next(line for line in text.splitlines() if line.startswith("| book | 1 in flight | 30 of 30 |"))
    cells = row.strip("| ").split(" | ")[3:]
    assert len(cells) == 6 and all(cell.endswith("<br>n = 30") for cell in cells)
    assert cells[0] == "100 %<br>88.4 – 100 %<br>n = 30"


def test_a_withheld_number_says_why_in_its_place() -> None:
    few = shown(manifest(12), list(one_by_one([10.0 + i % 3 for i in range(12)])))
    assert "–<br>withheld: 12 completed jobs; a p95 needs 20<br>n = 12" in render_readme(_kept("book"), [few])


def test_an_invalid_run_is_named_before_the_results() -> None:
    text = render_readme(_kept("book"), [hostile()])
    assert text.index("**NOT VALID:**") < text.index("## Results")
    assert "| execution\\_error: RuntimeError | 1 | KSampler |" in text


def test_strangers_text_is_escaped_everywhere_but_in_the_command() -> None:
    kept = _kept(EVIL, notes={EVIL: "a | b"}, command=[f"comfyload run --workflow '{EVIL}' ```"])
    text = render_readme(kept, [hostile()], observations=[f"{EVIL} *bold* [link](http://x)"])
    before, _, after = text.partition("## Repeat it")
    command, _, files = after.partition("## Files")
    assert "<script" not in before + files and "&lt;script&gt;" in before
    assert "\\*bold\\* \\[link\\](http://x)" in before and "a \\| b" in before
    assert command.strip().startswith("````sh\n") and command.strip().endswith("\n````")


def test_pictures_are_named_after_their_run_and_kind() -> None:
    one, kept = _plain(), _kept("book")
    drawn = pictures(kept, [one])
    assert list(drawn) == [f"book_{name}.png" for name in ("latency", "distribution", "flow", "nodes")]
    text = render_readme(kept, [one])
    assert all(f"]({name})" in text for name in drawn)
    assert "**GPU over time**: not drawn, this run recorded no GPU telemetry." in text


def test_a_line_break_in_a_command_adds_no_command() -> None:
    text = render_readme(_kept("book", command=["comfyload run\nrm -rf x"]), [_plain()])
    assert "comfyload run rm -rf x" in text


@pytest.mark.parametrize("log", [None, "comfyui_metrics.ndjson"])
def test_files_are_listed(log: str | None) -> None:
    text = render_readme(_kept("book", log=log), [_plain()])
    assert "[load\\_book.json](load_book.json)" in text and "[report.html](report.html)" in text
    assert ("comfyui_metrics.ndjson" in text) == (log is not None)
    assert not Path("load_book.json").exists()
