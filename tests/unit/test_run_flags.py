"""Flags come from the metadata of fields: help, parsing, plan file, the command that repeats a run, the reference."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from msgspec import structs
from typer.testing import CliRunner

from comfyload.app.run.given import ended, options_of
from comfyload.app.run.options import read_plan, to_toml
from comfyload.app.run.repeat import command
from comfyload.cli import app_of
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.errors import UsageError
from comfyload.record.flag import LOAD, Flag, flags_of
from comfyload.record.options import RunOptions, WorkflowChoice
from comfyload.record.plan import Closed, Load, Open, Plan, Stage
from tests.docs.commands import parsed
from tests.docs.pages import generator

app = app_of()


class DummyOptions(RunOptions, frozen=True, kw_only=True):
    """The options of a run, and one more."""

    dummy_s: Annotated[float | None, Flag("--dummy-pause", "TIME", "Wait this long for nothing.", LOAD)] = None


def test_a_flag_of_the_metadata_is_in_help_parsing_plan_file_repeat_and_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[RunOptions] = []

    @with_flags
    def dummy(given: Annotated[Given, Takes(base=DummyOptions())]) -> None:
        """Try a flag."""
        found.append(given.options())

    tool = typer.Typer()
    tool.command()(dummy)
    help_ = CliRunner().invoke(tool, ["--help"], terminal_width=200).stdout
    assert "--dummy-pause" in help_ and "Wait this long for nothing." in help_
    done = CliRunner().invoke(tool, ["--server", "s", "--dummy-pause", "1h30m"])
    assert done.exit_code == 0, done.output
    assert found == [DummyOptions(server="s", dummy_s=5400.0)]
    (tmp_path / "plan.toml").write_text(to_toml(found[0]))
    assert "dummy_s = 5400.0" in (tmp_path / "plan.toml").read_text()
    assert read_plan(tmp_path / "plan.toml", DummyOptions) == found[0]
    assert command(found[0]) == ["comfyload", "run", "--server", "s", "--dummy-pause", "90m"]
    page = generator()
    monkeypatch.setattr(sys.modules["tools.reference.commands"], "commands", lambda: [("dummy", dummy)])
    row = "| `--dummy-pause` `TIME` | Wait this long for nothing. |"
    assert row in page.pages()["cli.md"]


STAGES = [Stage(per_s=1 / 30, seconds=30.0), Stage(per_s=0.1, to_per_s=0.2, seconds=4000.5)]
LOADS: list[Load] = [
    Closed(concurrency=3, think_s=0.25, ramp_up_s=90.0),
    Open(stages=[Stage(per_s=0.1)], max_in_flight=4, on_full="drop"),
    Open(stages=STAGES, arrivals="gamma", cv=0.5),
    Open(stages=STAGES, arrivals="constant"),
]


@pytest.mark.parametrize("load", LOADS)
def test_the_command_that_repeats_a_run_makes_the_same_options(load: Load) -> None:
    plan = Plan(
        load=load,
        jobs=9,
        duration_s=1e-5,
        warmup=2,
        pages=3,
        timeout_s=420.0,
        max_server_queue=5,
        drain=False,
        as_is=True,
        fetch=True,
        order="sticky",
        stickiness=0.25,
    )
    wanted = RunOptions(
        server="http://gpu:8188",
        workflows=[WorkflowChoice(file="a b.json"), WorkflowChoice(file="c.json", weight=2.5)],
        plan=plan,
        settings=["1.x=2"],
        data="rows.csv",
        uploads=["cat.png"],
        keep_prefix=True,
        keep_workflow=True,
        allow_shared=True,
        headers=["A=env:B"],
        ca_file="ca.pem",
        insecure=True,
        name="monday",
        comfyui_dir="/srv/comfy",
        notes=["enclosure=Razer Core X"],
        policy="retry.json",
        telemetry=False,
        scrape=["http://dcgm:9400/metrics"],
        metrics_log="m.ndjson",
        max_jobs=50,
        max_time_s=3600.0,
    )
    for options in (
        wanted,
        structs.replace(wanted, preflight=False, policy=None),
        structs.replace(wanted, drop_broken_outputs=True),
        structs.replace(wanted, plan=structs.replace(plan, order="aabb", stickiness=0.0), workflows=_pair()),
    ):
        assert options_of(_parsed(command(options)), RunOptions()) == options
    assert command(RunOptions()) == [], "a manifest that keeps no options"


def _pair() -> list[WorkflowChoice]:
    return [WorkflowChoice(file="a.json"), WorkflowChoice(file="b.json")]


def _parsed(words: list[str]) -> dict[str, Any]:
    name, values = parsed(words[1:])
    assert name == "run"
    return {name: values[name] for name in flags_of(RunOptions)}


def test_a_flag_of_every_field_of_a_run_is_in_its_help() -> None:
    flags = flags_of(RunOptions)
    fields = {flag.path[-1] for flag in flags.values()}
    assert set(RunOptions.__struct_fields__) - fields == {"plan"}
    assert set(Plan.__struct_fields__) - fields == {"load", "stickiness"}, "--order says how sticky"
    shown = CliRunner().invoke(app, ["run", "--help"], terminal_width=200).stdout
    assert [flag.flag.name for flag in flags.values() if flag.flag.name not in shown] == []


@pytest.mark.parametrize(
    "words",
    [
        "run --timeout 5x",
        "run --duration 5x",
        "run --think 5x",
        "run --ramp-up 5x",
        "run --max-time 5x",
        "checklist --server s --timeout 5x",
        "saturate --server s --workflow w --p95 5x",
        "ab --workflow w --timeout 5x",
        "capacity runs/x --p95 5x",
        "policy runs/x --deadline 5x",
        "faults --job-time 5x",
        "faults --deadline 5x",
        "resume runs/x --max-time 5x",
        "check runs/x --gate p95_latency_s<=5x",
    ],
)
def test_every_duration_is_refused_with_the_same_words(words: str) -> None:
    error = CliRunner().invoke(app, words.split()).exception
    assert isinstance(error, UsageError), error
    assert error.message.endswith("invalid duration '5x'") and error.hint == "write 45, 45s or 5m"


def test_a_duration_of_nothing_is_no_timeout() -> None:
    for flag in ("--timeout", "--max-time"):
        error = CliRunner().invoke(app, ["run", flag, "0s"]).exception
        assert isinstance(error, UsageError) and error.message == f"{flag} 0s is too short"


def test_values_of_a_plan_file_stay_unless_a_flag_replaces_them() -> None:
    base = RunOptions(server="s", plan=Plan(warmup=2, jobs=5, timeout_s=9.0, load=Closed(concurrency=4, think_s=1.0)))
    values = dict.fromkeys(flags_of(RunOptions))
    assert options_of(values, base) == base
    changed = options_of({**values, "warmup": 0, "concurrency": 2, "no_telemetry": True}, base)
    plan = structs.replace(base.plan, warmup=0, load=Closed(concurrency=2, think_s=1.0))
    assert changed == structs.replace(base, plan=plan, telemetry=False)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"rate": "6/min", "concurrency": 2}, "--rate and --concurrency are two kinds of load"),
        ({"rate": "6/min", "stages": "1m@1/s"}, "--rate and --stages are two kinds of load"),
        ({"max_in_flight": 2}, "--max-in-flight needs --rate, --stages or --replay"),
        ({"arrivals": "constant"}, "--arrivals needs --rate or --stages"),
        ({"speedup": 2.0}, "--speedup needs --replay"),
        ({"rate": "6/min", "on_full": "queue"}, "unknown --on-full 'queue'"),
        ({"order": "random"}, "--order needs several workflows"),
        ({"order": "zigzag"}, "unknown --order 'zigzag'"),
        ({"name": "../x"}, "invalid --name '../x'"),
        ({"note": ["enclosure"]}, "--note 'enclosure'"),
        ({"drop_broken_outputs": True, "no_preflight": True}, "--drop-broken-outputs needs the preflight"),
        ({"order": "aabb", "workflow": ["a=2", "b"]}, "--order aabb gives every workflow the same share"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        options_of(values, RunOptions())
    assert words in caught.value.message


def test_a_load_without_an_end_gets_jobs_or_is_refused() -> None:
    assert ended(Plan(), 12).jobs == 12
    assert ended(Plan(duration_s=5.0), 12).jobs is None
    assert ended(Plan(load=Open(stages=STAGES)), 12).jobs is None
    forever = Plan(load=Open(stages=[Stage(per_s=1.0)]))
    assert ended(forever, 200, budget=True).jobs == 200
    with pytest.raises(UsageError, match="no end"):
        ended(forever, 12)


def test_earlier_names_of_the_policy_still_work(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('retry = "old.json"\n')
    assert read_plan(tmp_path / "plan.toml").policy == "old.json"
    text = to_toml(RunOptions(policy="new.json"))
    (tmp_path / "plan.toml").write_text(text)
    assert text == 'policy = "new.json"\n'
    assert read_plan(tmp_path / "plan.toml").policy == "new.json"
    done = CliRunner().invoke(app, ["run", "--server", "s", "--retry", "r.json", "--save-plan", "-"])
    assert done.exit_code == 0, done.output
    assert 'policy = "r.json"' in done.stdout
    assert done.stderr == "note: --retry is now called --policy\n"


def test_a_saved_plan_holds_no_secret_and_is_what_the_flags_say(tmp_path: Path) -> None:
    file = tmp_path / "plans" / "plan.toml"
    words = ["run", "--server", "http://me:pw@gpu:8188", "--workflow", "w.json", "--header", "Token=abc", "-n", "5"]
    done = CliRunner().invoke(app, [*words, "--timeout", "5m", "--save-plan", str(file)])
    assert done.exit_code == 0, done.output
    assert "Token" in done.stderr and "abc" not in done.stderr
    text = file.read_text()
    assert "pw" not in text and "abc" not in text
    plan = read_plan(file)
    assert (plan.plan.jobs, plan.plan.timeout_s, plan.headers) == (5, 300.0, ["Token=env:TOKEN"])


def test_the_plan_command_answers_with_the_flag() -> None:
    error = CliRunner().invoke(app, ["plan", "--from-flags", "--server", "s", "-o", "plan.toml"]).exception
    assert isinstance(error, UsageError) and error.exit_code == 2
    assert "--save-plan plan.toml" in (error.hint or "")


def test_no_command_has_more_than_twelve_parameters_of_its_own() -> None:
    functions = [
        info.callback for group in _groups() for info in group.registered_commands if info.callback is not None
    ]
    own = {function.__name__: len(inspect.signature(inspect.unwrap(function)).parameters) for function in functions}
    assert {name: count for name, count in own.items() if count > 12 and name != "logs"} == {}


def test_no_switch_has_a_type_in_its_help() -> None:
    for words in (["run"], ["baseline", "save"], ["probe", "install"], []):
        assert "<bool>" not in CliRunner().invoke(app, [*words, "--help"]).stdout


def _groups() -> list[typer.Typer]:
    return [app, *(info.typer_instance for info in app.registered_groups if info.typer_instance is not None)]
