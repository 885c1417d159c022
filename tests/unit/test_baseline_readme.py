"""The README of a baseline: one screen, a row a run, one picture, and no markup but its own."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from comfyload.judge.gates.gate import judge
from comfyload.judge.gates.grammar import DEFAULT_GATES, GateSet, parse_gate
from comfyload.record.archive import Contents, KeptRun
from comfyload.record.model import Fact
from comfyload.record.plan import Closed
from comfyload.report.baseline import pictures, render_readme
from comfyload.report.overview import Shown, overview
from tests.unit.chart_runs import EVIL, hostile, shown
from tests.unit.judge_runs import FACTS, manifest, one_by_one, planned, served

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


def _readme(kept: Contents, runs: list[Shown], title: str = "x", **given: Any) -> str:
    return render_readme(kept, overview(title, runs, environment=kept.environment, notes=kept.notes, **given), runs)


def test_it_has_every_part_in_order() -> None:
    one = _plain()
    text = _readme(_kept("book"), [one], "book", verdicts=judge(GATES, one.measured))
    parts = ("# Baseline book\n", "**VALID.**", "images/min", "![Latency of each job, by phase](", "## Verdicts\n",
             "## What was found\n", "## Machine\n", "Repeat it", "Files")  # fmt: skip
    places = [text.index(part) for part in parts]
    assert places == sorted(places) and places[0] == 0
    assert "- The server was busy" in text and "```sh\ncomfyload run -n 30\n```" in text
    assert "| gpu.0.vram\\_bytes | 24.0 GiB | nvml |" in text and "| comfyui.commit | 8a6bb8c | git |" in text


def test_a_note_fills_the_row_that_the_program_could_not() -> None:
    unknown = {
        "enclosure": Fact(source="sysfs shows no Thunderbolt bus"),
        "host.cpu": Fact(value="Ryzen", source="proc"),
    }
    text = _readme(_kept("book", environment=unknown), [_plain()])
    assert (
        "| enclosure | Razer Core X | you |" in text and "sysfs" not in text and "| host.cpu | Ryzen | proc |" in text
    )


def test_of_several_runs_it_is_one_screen_with_a_row_a_run() -> None:
    runs = [_at(users, name) for name in ("small", "large") for users in (1, 2, 4)]
    kept = _kept(*(f"{name}_c{users}" for name in ("small", "large") for users in (1, 2, 4)))
    verdicts = [verdict for run in runs for verdict in judge(GATES, run.measured)]
    text = _readme(kept, runs, verdicts=verdicts)
    rows = [line for line in text.splitlines() if line.startswith(("| small |", "| large |"))]
    assert len(rows) == 6 and rows[0].startswith("| small | 1 | 5.94<br>")
    assert text.index("| small |") < text.index("](concurrency.png)") < text.index("## Verdicts")
    assert "180 of 180 jobs completed · 1 in flight saturates the server" in text
    seen, _, folded = text.partition("<details>")
    assert seen.count("](") == 3 and folded.count(".png)") == 2  # the chart, the page twice
    assert len(seen.splitlines()) < 60
    assert len([line for line in seen.splitlines() if line.startswith("- ")]) <= 6


def _at(users: int, name: str) -> Shown:
    """A serial server and `users` who each send their next job when the last has ended."""
    seconds = [10.0 + 0.1 * (i % 3) for i in range(30)]
    due = [0.0] * users + list(accumulate(seconds))[: 30 - users]
    workflow = structs.replace(FACTS, name=name, sha256=name.ljust(64, "0"))
    plan = structs.replace(planned(Closed(concurrency=users), 30), name=name, workflows=[workflow])
    return shown(plan, [structs.replace(one, workflow=name) for one in served(due, seconds)])


def test_too_few_jobs_for_a_p95_are_explained_once() -> None:
    few = [shown(manifest(12, name=name), list(one_by_one([10.0 + i % 3 for i in range(12)]))) for name in ("a", "b")]
    text = _readme(_kept("a", "b"), few)
    assert text.count("≤ 12.0 s") == 2 and text.count("a p95 needs 20 jobs") == 1


def test_an_invalid_run_is_named_before_the_results() -> None:
    text = _readme(_kept("book", "other"), [hostile(), _plain()])
    assert text.index("**INVALID.** Do not use the numbers of ") < text.index("| run |")
    assert "| execution\\_error RuntimeError | 1 | KSampler |" in text


def test_strangers_text_is_escaped_everywhere_but_in_the_command() -> None:
    kept = _kept(EVIL, notes={EVIL: "a | b"}, command=[f"comfyload run --workflow '{EVIL}' ```"])
    text = _readme(kept, [hostile()], f"{EVIL} *bold* [link](http://x)")
    before, _, after = text.partition("<details><summary>Repeat it</summary>")
    command, _, files = after.partition("</details>")
    assert "<script" not in before + files and "&lt;script&gt;" in before
    assert "\\*bold\\* \\[link\\](http://x)" in before and "a \\| b" in before
    assert command.strip().startswith("````sh\n") and command.strip().endswith("\n````")


def test_pictures_are_named_after_their_run_and_kind() -> None:
    one, kept = _plain(), _kept("book")
    drawn = pictures(kept, overview("x", [one]), [one])
    assert list(drawn) == ["book_latency.png", "book_nodes.png"]
    text = _readme(kept, [one])
    assert all(f"]({name})" in text for name in drawn)


def test_a_line_break_in_a_command_adds_no_command() -> None:
    text = _readme(_kept("book", command=["comfyload run\nrm -rf x"]), [_plain()])
    assert "comfyload run rm -rf x" in text


@pytest.mark.parametrize("log", [None, "comfyui_metrics.ndjson"])
def test_files_are_listed(log: str | None) -> None:
    text = _readme(_kept("book", log=log), [_plain()])
    assert "[load\\_book.json](load_book.json)" in text and "[report.html](report.html)" in text
    assert ("comfyui_metrics.ndjson" in text) == (log is not None)
    assert not Path("load_book.json").exists()
