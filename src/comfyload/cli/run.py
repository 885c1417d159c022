"""`comfyload run`: its flags, its end, its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from comfyload.errors import UsageError

__all__ = ["run"]

SERVER = "Server"
WORK = "What each job runs"
RESULT = "What is kept"


def run(
    server: Annotated[
        str,
        typer.Option(
            metavar="URL", help="The ComfyUI server, with its base path if it has one.", envvar="COMFYLOAD_SERVER"
        ),
    ],
    workflow: Annotated[Path, typer.Option(metavar="FILE", help="A workflow in API format; - reads standard input.")],
    jobs: Annotated[int, typer.Option("--jobs", "-n", min=1, help="Jobs to run and count.")] = 12,
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency", "-c", min=1, help="Jobs in flight. One server runs one at a time: 2 keep it busy."
        ),
    ] = 1,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.001, help="Give a job up after this long, and cancel it on the server."),
    ] = None,
    warmup: Annotated[int, typer.Option(min=0, metavar="N", help="Jobs run first, recorded but not counted.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write summary, statistics and jobs as one JSON object."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NODE.INPUT=VALUE",
            help="Override an input; NODE is an id or a title. Repeatable.",
            rich_help_panel=WORK,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, help="Seed of the run: the same seed gives the same jobs. Default: a new one.", rich_help_panel=WORK
        ),
    ] = None,
    as_is: Annotated[
        bool,
        typer.Option(
            "--as-is",
            help="Submit the graph unchanged: repeats are served from the server's cache.",
            rich_help_panel=WORK,
        ),
    ] = False,
    keep_prefix: Annotated[
        bool,
        typer.Option(
            "--keep-prefix",
            help="Save outputs where the graph says, not in a folder of this run's own.",
            rich_help_panel=WORK,
        ),
    ] = False,
    fetch: Annotated[
        bool,
        typer.Option(
            "--fetch", help="Download every output and check that it is whole; nothing is kept.", rich_help_panel=WORK
        ),
    ] = False,
    header: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Send a header on HTTP and WebSocket; NAME=env:VAR reads a secret. Repeatable.",
            rich_help_panel=SERVER,
        ),
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="PEM", help="Trust this certificate authority.", rich_help_panel=SERVER),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Do not check the server's certificate.", rich_help_panel=SERVER)
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Name of the run. Default: the workflow's.", rich_help_panel=RESULT)
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            "--run-dir", metavar="DIR", help="The run directory. Default: runs/<utc>-<name>.", rich_help_panel=RESULT
        ),
    ] = None,
    keep_workflow: Annotated[
        bool,
        typer.Option(
            "--keep-workflow", help="Keep the graph itself in the manifest, not only its hash.", rich_help_panel=RESULT
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no table.", rich_help_panel=RESULT)
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON instead of the table.", rich_help_panel=RESULT)
    ] = False,
) -> None:
    """Run a workflow N times, follow every job to its end, and report what happened.

    Every job gets fresh seeds, because ComfyUI answers a repeated graph from its cache. The run is kept in a directory
    (runs/…) from which every number can be made again.

    Ctrl-C sends no more jobs and waits for those under way; a second one cancels what is ours on the server.

    [bold]Examples[/bold]

    comfyload run --server http://127.0.0.1:8188 --workflow book_medium.json --jobs 12 --concurrency 2 --warmup 1

    comfyload run --server https://gpu.example/comfy/ --header Authorization=env:TOKEN --workflow g.json -n 60 -o r.json

    comfyload run --server :8188 --workflow g.json --set "KSampler.steps=20" --timeout 420 --json | jq .p95_latency_s
    """
    from comfyload import clock
    from comfyload.app.run import RunOptions
    from comfyload.app.run import run as run_load
    from comfyload.cli.progress import viewer_for

    if output is not None:
        _check_writable(output)
    options = RunOptions(
        server=f"127.0.0.1{server}" if server.startswith(":") and server[1:].isdigit() else server,
        workflow=workflow,
        jobs=jobs,
        concurrency=concurrency,
        timeout_s=timeout,
        warmup=warmup,
        as_is=as_is,
        settings=set_ or [],
        keep_prefix=keep_prefix,
        keep_workflow=keep_workflow,
        fetch=fetch,
        headers=header or [],
        seed=seed,
        name=_checked_name(name),
        run_dir=run_dir,
        ca_file=str(ca_file) if ca_file else None,
        insecure=insecure,
    )
    path = clock.run(run_load(options, viewer_for(quiet=quiet or json_)))

    from comfyload.app.summary import report_run

    raise typer.Exit(report_run(path, output=output, quiet=quiet, as_json=json_))


def _check_writable(path: Path) -> None:
    """Before an hour of load, not after it."""
    if path.is_dir():
        raise UsageError(f"--output {path} is a directory", "name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"--output {path}: {error.strerror or error}", "name a file in a folder you can write"
        ) from None


def _checked_name(name: str | None) -> str | None:
    if name is not None and (not name or name.startswith(".") or not all(c.isalnum() or c in "-_." for c in name)):
        raise UsageError(f"--name {name!r} would not do as a folder's name", "use letters, digits, '-', '_' and '.'")
    return name
