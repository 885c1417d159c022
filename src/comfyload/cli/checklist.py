"""`comfyload checklist`: its flags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from comfyload.cli.flags import (
    DEFAULT_ARCHIVE,
    Archive,
    CaFile,
    ComfyUIDir,
    Expect,
    Gate,
    GatesFile,
    Header,
    Independent,
    Insecure,
    MaxJobs,
    MaxTime,
    MetricsLog,
    Note,
    NoTelemetry,
    Quiet,
    Scrape,
    ServerUrl,
    Set,
    Strict,
    echo,
    server_url,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.app.checklist import Round
    from comfyload.cli.progress import NoProgress

__all__ = ["checklist"]


def checklist(
    server: ServerUrl,
    workflow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="Workflows in API format. \\[default: the samples book_small, _medium, _large]"
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the baseline. \\[default: the date alone]")
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-n", min=1, metavar="N", help="Counted jobs of each run.")] = 12,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.001, help="Give a job up after this long.")
    ] = 420.0,
    set_: Set = None,
    gate: Gate = None,
    gates: GatesFile = None,
    expect: Expect = None,
    independent_failures: Independent = False,
    metrics_log: MetricsLog = None,
    strict: Strict = False,
    note: Note = None,
    comfyui_dir: ComfyUIDir = None,
    no_telemetry: NoTelemetry = False,
    scrape: Scrape = None,
    archive: Archive = DEFAULT_ARCHIVE,
    header: Header = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    max_jobs: MaxJobs = None,
    max_time: MaxTime = None,
    quiet: Quiet = False,
) -> None:
    """Walk the whole checklist: look at the server, run each workflow at 1, 2 and 4 in flight, keep a baseline, judge.

    It ends with the archive, its README and page, and a verdict for each gate and run.

    [bold]Example[/bold]: comfyload checklist --server http://127.0.0.1:8188 --name rtx5060ti
    """
    from comfyload import clock
    from comfyload.app import checklist as steps
    from comfyload.app.doctor import doctor, exit_code
    from comfyload.app.run.options import RunOptions, WorkflowChoice, parse_notes
    from comfyload.cli.doctor import show_checks
    from comfyload.cli.options import parse_cap
    from comfyload.record.archive import check_free
    from comfyload.record.atomic import check_folder
    from comfyload.record.plan import Closed, Plan

    parse_notes(note or [])
    check_free(archive, name)  # before an hour of load, not after it
    check_folder("--archive", archive)
    workflows = workflow or steps.default_workflows()
    options = RunOptions(
        server=server_url(server),
        workflows=[WorkflowChoice(file=file) for file in workflows],
        plan=Plan(load=Closed(), jobs=jobs, timeout_s=timeout),
        settings=set_ or [],
        notes=note or [],
        comfyui_dir=comfyui_dir,
        telemetry=not no_telemetry,
        scrape=scrape or [],
        metrics_log=str(metrics_log) if metrics_log else None,
        headers=header or [],
        ca_file=str(ca_file) if ca_file else None,
        insecure=insecure,
        max_jobs=max_jobs,
        max_time_s=parse_cap(max_time),
    )
    checks = clock.run(doctor(options))
    if not quiet:
        show_checks(checks, as_json=False)
    if (code := exit_code(checks)) != 0:
        raise typer.Exit(code)
    paths = clock.run(steps.run_rounds(options, steps.rounds(workflows), viewers(len(workflows), quiet=quiet)))

    from comfyload.app.check import gate_set
    from comfyload.app.locate import default_log, find
    from comfyload.cli.baseline import keep

    asked = gate_set(gate or [], gates, expect or [], independent=independent_failures)
    found = find(",".join(map(str, paths)), archive)
    raise typer.Exit(keep(archive, name, found, asked, default_log(metrics_log), quiet=quiet, strict=strict))


def viewers(workflows: int, *, quiet: bool) -> Callable[[Round, int], NoProgress]:
    """Says which run of how many begins, and gives its progress."""
    from comfyload.app.checklist import CONCURRENCY
    from comfyload.cli.progress import viewer_for

    def viewer(one: Round, number: int) -> NoProgress:
        if not quiet:
            of = workflows * len(CONCURRENCY)
            echo(f"\nRun {number} of {of}: {one.workflow}, {one.concurrency} in flight", err=True)
        return viewer_for(quiet=quiet)

    return viewer
