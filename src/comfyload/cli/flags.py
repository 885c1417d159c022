"""The flags that several commands share: one spelling, one help text each."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comfyload.errors import UsageError
from comfyload.record.atomic import check_target, is_stdout
from comfyload.visible import visible_lines

if TYPE_CHECKING:
    from comfyload.report.console import Screen

__all__ = [
    "DEFAULT_ARCHIVE",
    "JUDGE",
    "LOAD",
    "RESULT",
    "SERVER",
    "WORK",
    "Accept",
    "AllRows",
    "Archive",
    "CaFile",
    "ComfyUIDir",
    "Expect",
    "FailIf",
    "FailIfs",
    "Gate",
    "GatesFile",
    "GithubSummary",
    "Header",
    "Insecure",
    "Json",
    "Junit",
    "MaxJobs",
    "MaxTime",
    "MetricsLog",
    "NoTelemetry",
    "Note",
    "Quiet",
    "Scrape",
    "ServerUrl",
    "Set",
    "Strict",
    "check_writable",
    "echo",
    "for_people",
    "server_url",
]

LOAD = "Load"
WORK = "What each job runs"
SERVER = "Server"
RESULT = "What is kept"
JUDGE = "Judgement"

ServerUrl = Annotated[
    str,
    typer.Option(
        "--server",
        metavar="URL",
        help="The ComfyUI server, with its base path if it has one.",
        envvar="COMFYLOAD_SERVER",
    ),
]
Header = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Send a header on HTTP and WebSocket; NAME=env:VAR reads a secret. Repeatable.",
        rich_help_panel=SERVER,
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", metavar="PEM", help="Trust this certificate authority.", rich_help_panel=SERVER),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Do not check the server's certificate.", rich_help_panel=SERVER)
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NODE.INPUT=VALUE",
        help="Set an input for all jobs; NODE is an id or a title. A seed that is set is not varied. Repeatable.",
        rich_help_panel=WORK,
    ),
]
ComfyUIDir = Annotated[
    str | None,
    typer.Option(
        "--comfyui-dir",
        metavar="DIR",
        help="ComfyUI's own folder, for its commit and its nodes'. \\[default: that of the process on the port]",
        rich_help_panel=RESULT,
    ),
]
Note = Annotated[
    list[str] | None,
    typer.Option(
        "--note",
        metavar="KEY=TEXT",
        help="What no program can see, such as the enclosure's name. Repeatable.",
        rich_help_panel=RESULT,
    ),
]
NoTelemetry = Annotated[
    bool,
    typer.Option(
        "--no-telemetry",
        help="Read nothing beside the jobs: no GPU, machine, probe or log.",
        rich_help_panel=RESULT,
    ),
]
Scrape = Annotated[
    list[str] | None,
    typer.Option(
        "--scrape",
        metavar="URL",
        help="Read a Prometheus endpoint, such as the DCGM exporter's, during the run. Repeatable.",
        rich_help_panel=RESULT,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.", rich_help_panel=RESULT)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
AllRows = Annotated[bool, typer.Option("--all", help="Show every row; without it only those that matter most.")]
Archive = Annotated[
    Path,
    typer.Option(metavar="DIR", help="The folder of baselines.", envvar="COMFYLOAD_ARCHIVE", rich_help_panel=RESULT),
]
MaxJobs = Annotated[
    int | None,
    typer.Option(
        "--max-jobs",
        min=1,
        metavar="N",
        help="Send no more than N jobs in all, over all runs of the command, warm-up included.",
        rich_help_panel=SERVER,
    ),
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="TIME",
        help="Send no more jobs once the command has run this long: 30m. Those under way end.",
        rich_help_panel=SERVER,
    ),
]
MetricsLog = Annotated[
    Path | None,
    typer.Option(
        "--metrics-log",
        metavar="FILE",
        help="The instrumentation log (comfyui_metrics.ndjson); rows of the runs' time are looked at, and kept.",
        envvar="COMFYUI_METRICS_LOG",
        rich_help_panel=JUDGE,
    ),
]
Gate = Annotated[
    list[str] | None,
    typer.Option(
        "--gate",
        metavar="RULE",
        help="'p95_latency_s <= 30', 'images_per_minute >= 0.95 * baseline'. Repeatable; replaces the defaults.",
        rich_help_panel=JUDGE,
    ),
]
GatesFile = Annotated[
    Path | None,
    typer.Option("--gates", metavar="FILE", help="Gates and expected errors from a TOML file.", rich_help_panel=JUDGE),
]
Expect = Annotated[
    list[str] | None,
    typer.Option(
        "--expect",
        metavar="REGEX",
        help="An error whose text matches this is expected. Repeatable.",
        rich_help_panel=JUDGE,
    ),
]
Independent = Annotated[
    bool,
    typer.Option(
        "--independent-failures",
        help="Judge a success rate as if failures came one at a time, not in bursts: fewer jobs prove it.",
        rich_help_panel=JUDGE,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict", help="What is inside its limit but not proven (PASS*) exits with 3.", rich_help_panel=JUDGE
    ),
]
Accept = Annotated[
    list[str] | None,
    typer.Option("--accept", metavar="KEY", help="Compare although KEY differs. Repeatable.", rich_help_panel=JUDGE),
]


class FailIf(StrEnum):
    """What a comparison must not show."""

    slower = "slower"
    more_failures = "more-failures"


FailIfs = Annotated[
    list[FailIf] | None,
    typer.Option(
        "--fail-if",
        help="Exit with 1 if B is proven to be so, with 3 if it only looks so. Repeatable.",
        rich_help_panel=JUDGE,
    ),
]
Junit = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE", help="Write the verdicts as JUnit XML.", rich_help_panel=RESULT),
]
GithubSummary = Annotated[
    bool,
    typer.Option(
        "--github-summary", help="Append the verdicts to $GITHUB_STEP_SUMMARY as Markdown.", rich_help_panel=RESULT
    ),
]

DEFAULT_ARCHIVE = Path("infra/observability/baselines")
"""Where the checklist keeps them, seen from the root of a project."""


def server_url(server: str) -> str:
    """`:8188` is this machine."""
    return f"127.0.0.1{server}" if server.startswith(":") and server[1:].isdigit() else server


def check_writable(flag: str, path: Path, *, json_: bool = False) -> None:
    """Before an hour of load, not after it; the folder is made. `json_`: standard output is taken.

    Raises:
        UsageError: it is a directory, or lies where nothing can be written.
    """
    if json_ and is_stdout(path):
        raise UsageError(f"{flag} {path} and --json both go to standard output", "leave one of them out")
    check_target(flag, path)


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print words as they are, but for what a terminal would obey."""
    typer.echo(visible_lines(text), err=err, nl=nl)


def for_people(*files: Path | None) -> Screen:
    """Where tables go: standard output, unless one of the files asked for goes there."""
    from comfyload.report.console import Screen

    return Screen(stderr=any(is_stdout(file) for file in files))
