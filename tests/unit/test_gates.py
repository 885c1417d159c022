"""How gates are written: what is understood, what is refused, and that the names are those of the summary."""

from __future__ import annotations

import subprocess
import sys

import pytest

from comfyload.errors import UsageError
from comfyload.judge.gates.grammar import DEFAULT_GATES, expected_patterns, parse_gate, read_gates
from comfyload.judge.numbers import ERRORS, NUMBERS, workflow_numbers
from comfyload.judge.summary import summarise
from comfyload.judge.workflows import WorkflowRow
from tests.unit.judge_runs import manifest, one_by_one


@pytest.mark.parametrize(
    ("text", "metric", "op", "limit", "of_baseline"),
    [
        ("p95_latency_s <= 45", "p95_latency_s", "<=", 45.0, False),
        ("p95_latency_s<=45 s", "p95_latency_s", "<=", 45.0, False),
        ("p95_latency_s <= 1.5 min", "p95_latency_s", "<=", 90.0, False),
        ("p50_acknowledge_s < 250 ms", "p50_acknowledge_s", "<", 0.25, False),
        ("success_rate >= 98 %", "success_rate", ">=", 0.98, False),
        ("success_rate>=0.98", "success_rate", ">=", 0.98, False),
        ("images_per_minute >= 0.95 * baseline", "images_per_minute", ">=", 0.95, True),
        ("images_per_minute >= baseline * 0.95", "images_per_minute", ">=", 0.95, True),
        ("images_per_minute >= baseline", "images_per_minute", ">=", 1.0, True),
        ("max_latency_s < 90 s", "max_latency_s", "<", 90.0, False),
        ("unexpected_errors == 0", "unexpected_errors", "==", 0.0, False),
        ("book_medium.p95_latency_s <= 45", "book_medium.p95_latency_s", "<=", 45.0, False),
        ("my book v1.5.success_rate > 98%", "my book v1.5.success_rate", ">", 0.98, False),
    ],
)
def test_a_gate_is_read(text: str, metric: str, op: str, limit: float, of_baseline: bool) -> None:
    gate = parse_gate(text)
    assert (gate.metric, gate.op, gate.limit, gate.of_baseline) == (metric, op, limit, of_baseline)
    assert gate.workflow + ("." if gate.workflow else "") + gate.name == metric


@pytest.mark.parametrize(
    "text",
    [
        "",
        "p95_latency_s",
        "p95_latency_s <=",
        "p95_latency_s =< 45",
        "p95_latency_s <= 45 <= 50",
        "p95_latency_s <= -1",
        "p95_latency_s <= nan",
        "p95_latency_s <= 9e999",
        "p95_latency_s <= 45 %",
        "p95_latency_s <= 45 hours",
        "p95_latency_s <= 2 * 3",
        "p95_latency_s <= 0 * baseline",
        "p95_latency_s <= 45; import os",
        "p95_latency_s == 45",
        "success_rate >= 98",
        "success_rate >= 98 s",
        "failed <= 3 jobs",
        "failed == baseline",
        "unexpected_errors <= baseline",
        "valid == 1",
        "book.jobs_per_minute >= 1",
    ],
)
def test_anything_else_is_refused_in_one_line_with_a_hint(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_gate(text)
    assert refused.value.hint and "\n" not in str(refused.value) and refused.value.exit_code == 2


def test_an_unknown_number_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean p95_latency_s\?"):
        parse_gate("p95_latncy_s <= 45")
    with pytest.raises(UsageError, match=r"of one workflow \(did you mean success_rate\?\)"):
        parse_gate("small.sucess_rate >= 98 %")


def test_a_gate_on_the_other_side_of_its_limit_does_not_hold() -> None:
    for text, inside, edge in (("failed <= 3", 2, True), ("failed < 3", 2, False), ("images >= 3", 4, True)):
        gate = parse_gate(text)
        assert gate.holds(inside, 3) and gate.holds(3, 3) is edge
        assert not gate.holds(6 - inside, 3)
    assert parse_gate("images > 3").holds(3, 3) is False


def test_gates_name_every_number_of_the_summary_and_no_other() -> None:
    flat = summarise(manifest(12), one_by_one([10.0] * 12)).summary
    assert set(NUMBERS) == set(flat) | {ERRORS}
    rows = summarise(manifest(12), one_by_one([10.0] * 12))
    with_interval = {name for name, number in NUMBERS.items() if number.kind not in ("fact", "errors", "flag")}
    assert with_interval == set(rows.statistics)
    assert set(workflow_numbers()) == set(WorkflowRow.__struct_fields__) - {"after"}


def test_the_defaults_are_gates() -> None:
    assert [parse_gate(text).metric for text in DEFAULT_GATES] == ["success_rate", "p95_latency_s", ERRORS]


def test_gates_come_from_a_file() -> None:
    gates = read_gates('gates = ["p95_latency_s <= 30"]\nexpected_errors = ["Value not in list"]', "gates.toml")
    assert [gate.limit for gate in gates.gates] == [30.0] and gates.expected_errors == ["Value not in list"]
    assert read_gates("", "gates.toml").gates == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('gate = ["failed <= 1"]', "unknown key gate (did you mean gates?)"),
        ("gates = 3", "gates must be a list of texts"),
        ("gates = [1]", "gates must be a list of texts"),
        ("gates = [", "gates.toml: invalid TOML"),
        ('gates = ["failed"]', "invalid gate 'failed'"),
        ('expected_errors = ["("]', "invalid regular expression '('"),
        ('expected_errors = [""]', "matches every error"),
    ],
)
def test_a_file_that_is_not_right_is_refused_by_name(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_gates(text, "gates.toml")
    assert says in str(refused.value) and str(refused.value).startswith("gates.toml")


def test_patterns_are_searched_for() -> None:
    assert [
        bool(pattern.search("RuntimeError: out of memory")) for pattern in expected_patterns(["memory$", "^out"])
    ] == [True, False]


def test_reading_gates_loads_no_numpy_since_jobs_wait_for_it() -> None:
    code = "import comfyload.judge.gates.grammar, comfyload.judge.gates.sequential, sys; print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
