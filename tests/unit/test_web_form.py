"""The form that starts a run: its fields are the flags of `run`, and nothing else comes through it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from comfyload.errors import UsageError
from comfyload.record.flag import flags_of
from comfyload.record.options import RunOptions, WorkflowChoice
from comfyload.record.plan import Closed, Open
from comfyload.web.form import APART, ELSEWHERE, Filled, fields, fill, values_of

WORKFLOWS = [WorkflowChoice(file="book.json")]


def filled(workflows: list[WorkflowChoice] = WORKFLOWS, **values: Any) -> Filled:
    def store(name: str, content: bytes) -> Path:
        return Path("kept") / f"{len(content)}-{name}"

    return fill(values, workflows, "http://127.0.0.1:8188/", [], store)


def test_every_flag_of_a_run_is_a_field_or_is_left_out_by_name() -> None:
    names = {field.name for field in fields()}
    assert names | {*APART, *ELSEWHERE} >= set(flags_of(RunOptions))
    assert not names & {*APART, *ELSEWHERE}
    assert {"gate", "expect", "independent_failures", "until_proven"} <= names


def test_fields_say_what_the_flags_say() -> None:
    by_name = {field.name: field for field in fields()}
    assert by_name["concurrency"].words.startswith("Jobs in flight.") and by_name["concurrency"].default == "1"
    assert by_name["on_full"].kind == "choice" and by_name["on_full"].choices == ["wait", "drop"]
    assert (by_name["duration"].kind, by_name["duration"].unit) == ("duration", "s")
    assert by_name["rate"].kind == "rate"
    assert by_name["jobs"].whole and by_name["jobs"].default == "12" and by_name["jobs"].least == 1
    assert (
        by_name["data"].kind == "file" and by_name["set"].kind == "texts" and by_name["no_preflight"].kind == "switch"
    )
    groups = [field.group for field in fields()]
    assert list(dict.fromkeys(groups)) == ["Run", "Load", "Jobs", "Server", "Output", "Gates"]
    assert groups == sorted(groups, key=list(dict.fromkeys(groups)).index)


def test_values_become_the_options_that_the_command_line_makes() -> None:
    plan = filled(rate="12/min", jobs=40, timeout="5m", warmup="2", no_drain=True, arrivals="gamma:2").options.plan
    assert isinstance(plan.load, Open) and plan.load.stages[0].per_s == pytest.approx(0.2)
    assert (plan.load.arrivals, plan.load.cv, plan.jobs, plan.timeout_s, plan.warmup) == ("gamma", 2.0, 40, 300.0, 2)
    assert plan.drain is False
    assert filled().options.plan.jobs == 12
    assert filled(until_proven=True).options.plan.jobs == 200
    plan = filled(concurrency=4, timeout=90).options.plan
    assert plan.load == Closed(concurrency=4) and plan.timeout_s == 90.0


def test_what_a_field_is_empty_for_is_not_given() -> None:
    assert filled(jobs="", rate=None, set=[], no_drain=False).options == filled().options


def test_files_are_kept_by_their_content() -> None:
    assert filled(data={"name": "rows.csv", "text": "1.x\n1\n"}).options.data == "kept/6-rows.csv"


def test_gates_are_read() -> None:
    found = filled(gate=["p95_latency_s <= 45"], expect=["OOM"])
    assert found.gate_set is not None and found.gate_set.expected_errors == ["OOM"]
    assert filled().gate_set is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"concurency": 2}, "did you mean concurrency?"),
        ({"run_dir": "/etc"}, "--run-dir is not for a page"),
        ({"server": "http://elsewhere"}, "--server is not for a page"),
        ({"header": ["X=env:HOME"]}, "--header is not for a page"),
        ({"scrape": ["http://169.254.169.254/"]}, "--scrape is not for a page"),
        ({"gates": "/etc/passwd"}, "--gates is not for a page"),
        ({"data": "/etc/passwd"}, "--data is not a file"),
        ({"replay": "/etc/passwd"}, "--replay is not a file"),
        ({"concurrency": 0}, "--concurrency 0 is too little"),
        ({"concurrency": 2_000_000}, "Expected `int` <= 1000000"),
        ({"concurrency": True}, "--concurrency is not a whole number"),
        ({"jobs": 1.5}, "--jobs is not a whole number"),
        ({"jobs": "many"}, "--jobs is not a whole number"),
        ({"jobs": 1e300}, "--jobs is not a whole number"),
        ({"timeout": 0}, "--timeout 0s is too little"),
        ({"timeout": "soon"}, "invalid duration 'soon'"),
        ({"rate": 5}, "--rate is not a text"),
        ({"rate": "12"}, "invalid rate '12'"),
        ({"rate": "12/min", "concurrency": 2}, "are two kinds of load"),
        ({"rate": "12/min"}, "the load has no end"),
        ({"on_full": "queue", "rate": "1/s", "jobs": 1}, "unknown --on-full 'queue'"),
        ({"no_drain": "yes"}, "--no-drain is a switch"),
        ({"set": "a.b=1"}, "--set is a list"),
        ({"set": ["x" * 20_000]}, "--set is not a text"),
        ({"set": ["a\0b"]}, "--set is not a text"),
        ({"gate": ["speed > 9"]}, "speed"),
        ({"name": "../../etc"}, "invalid --name"),
        ({"order": "aabb"}, "--order needs several workflows"),
    ],
)
def test_odd_values_are_refused_in_words(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        filled(**values)
    assert words in str(refused.value)


def test_options_become_the_values_that_make_them() -> None:
    mix = [WorkflowChoice(file="a.json"), WorkflowChoice(file="b.json", weight=3.0)]
    values = {
        "stages": "30s@2/min,5m@6/min..12/min",
        "arrivals": "constant",
        "order": "sticky:0.8",
        "timeout": "90s",
        "warmup": "3",
        "no_drain": True,
        "set": ["1.seed=5"],
        "seed": "7",
        "max_in_flight": "5",
    }
    options = filled(mix, **values).options
    assert values_of(options) == values
    assert filled(mix, **values_of(options)).options == options
