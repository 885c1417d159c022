"""`comfyload checklist`: its flags."""

from typing import Annotated

import typer
from msgspec import structs

from comfyload import clock
from comfyload.app.gate_flags import GateFlags
from comfyload.cli.doctor import show_checks
from comfyload.cli.flags import DEFAULT_ARCHIVE, Archive, Quiet, Strict
from comfyload.cli.gating import say_what_failed
from comfyload.cli.output import echo
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.record.archive import check_free
from comfyload.record.atomic import check_folder
from comfyload.record.flag import Flag
from comfyload.record.options import RunOptions, WorkflowChoice
from comfyload.record.plan import Plan

TAKES = Takes(
    names=(
        "server", "workflow", "jobs", "timeout", "set", "metrics_log", "note", "comfyui_dir", "no_telemetry", "scrape",
        "header", "ca_file", "insecure", "max_jobs", "max_time",
    ),
    base=RunOptions(plan=Plan(jobs=20, timeout_s=420.0)),
    required=("server",),
    help={
        "workflow": "Workflows in API format. \\[default: the samples book_small, book_medium and book_large]",
        "jobs": "Counted jobs of each run; with 20 or more a p95 is known.",
    },
)  # fmt: skip


@with_flags
def checklist(
    given: Annotated[Given, TAKES],
    gating: GateFlags,
    name: Annotated[str | None, Flag("--name", "NAME", "Name of the baseline.", default="the date alone")] = None,
    archive: Archive = DEFAULT_ARCHIVE,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole checklist: check the server, run each workflow with 1, 2 and 4 jobs in flight, keep a baseline.

    It ends with a table of the results, what they mean in short, the baseline's page, and the next commands.

    [bold]Example[/bold]: comfyload checklist --server http://127.0.0.1:8188 --name rtx5060ti
    """
    from comfyload.app import checklist as steps
    from comfyload.app.doctor import doctor, exit_code
    from comfyload.cli.checklist_screen import ChecklistProgress, show_results

    options, gates = given.options(), gating.read()  # before an hour of load, not after it
    check_free(archive, name)
    check_folder("--archive", archive)
    samples = not options.workflows
    if samples:
        choices = [WorkflowChoice(file=file) for file in steps.default_workflows()]
        options = structs.replace(options, workflows=choices)
    workflows = [choice.file for choice in options.workflows]
    checks = clock.run(doctor(options))
    if not quiet:
        known = [check for check in checks if (check.name, check.status) != ("cost", "unknown")]
        show_checks(known)
    if (code := exit_code(checks)) != 0:
        if samples and code == 2:
            echo("These are the samples. To measure your own workflows, name each with --workflow FILE.", err=True)
        raise typer.Exit(code)
    # A workflow at a time: its models stay loaded.
    planned = [steps.Round(workflow=file, concurrency=c) for file in workflows for c in steps.CONCURRENCY]
    jobs = options.plan.jobs or 0
    pace = steps.TimeLeft(planned, jobs)
    pace.expect(workflows, checks)
    screen = ChecklistProgress(planned, pace, jobs, quiet=quiet)
    results = clock.run(steps.run_rounds(options, planned, screen.viewer, screen.ended))

    from comfyload.app.baseline import save_baseline
    from comfyload.app.locate import Target, default_log
    from comfyload.judge.gates.gate import exit_code as code_of

    log = default_log(options.metrics_log)
    found = Target(name=name or "", results=results)
    kept, verdicts = save_baseline(archive, name, found, gates, log)
    if quiet:
        say_what_failed(verdicts, strict=strict)
    else:
        show_results(found, verdicts, kept, server=options.server, workflows=workflows)
    raise typer.Exit(code_of(verdicts, all(run.summary.valid for run in found.runs), strict=strict))
