"""`comfyload checklist`: its flags."""

from __future__ import annotations

from typing import Annotated

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
    server_url,
)
from comfyload.cli.gating import say_what_failed

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
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs", "-n", min=1, metavar="N", help="Counted jobs of each run; with 20 or more a p95 is known."
        ),
    ] = 20,
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
    """Run the whole checklist: check the server, run each workflow with 1, 2 and 4 jobs in flight, keep a baseline.

    It ends with a table of the results, what they mean in short, the baseline's page, and the next commands.

    [bold]Example[/bold]: comfyload checklist --server http://127.0.0.1:8188 --name rtx5060ti
    """
    from comfyload import clock
    from comfyload.app import checklist as steps
    from comfyload.app.doctor import doctor, exit_code
    from comfyload.app.run.options import RunOptions, WorkflowChoice, parse_notes
    from comfyload.cli.checklist_screen import ChecklistProgress, show_results
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
        known = [check for check in checks if (check.name, check.status) != ("cost", "unknown")]
        show_checks(known, as_json=False)
    if (code := exit_code(checks)) != 0:
        raise typer.Exit(code)
    planned = steps.rounds(workflows)
    pace = steps.Pace(planned, jobs)
    pace.expect(workflows, checks)
    screen = ChecklistProgress(planned, pace, jobs, quiet=quiet)
    results = clock.run(steps.run_rounds(options, planned, screen.viewer, screen.ended))

    from comfyload.app.baseline import Keeping, save_baseline
    from comfyload.app.check import gate_set
    from comfyload.app.locate import Target, default_log
    from comfyload.judge.gates.gate import exit_code as code_of

    rules = gate_set(gate or [], gates, expect or [], independent=independent_failures)
    found = Target(name=name or "", results=results)
    kept, verdicts = save_baseline(archive, name, found, Keeping(gates=rules, log=default_log(metrics_log)))
    if quiet:
        say_what_failed(verdicts, strict=strict)
    else:
        show_results(found, verdicts, kept, server=server, workflows=workflows)
    raise typer.Exit(code_of(verdicts, all(run.summary.valid for run in found.runs), strict=strict))
