"""`comfyload checklist`: its flags."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import structs

from comfyload.cli.flags import DEFAULT_ARCHIVE, Archive, GateFlags, Quiet, Strict, echo
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.record.options import RunOptions, WorkflowChoice
from comfyload.record.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from comfyload.app.checklist import Round
    from comfyload.cli.progress import NoProgress

__all__ = ["checklist"]


TAKES = Takes(
    names=(
        "server", "workflow", "jobs", "timeout", "set", "metrics_log", "note", "comfyui_dir", "no_telemetry", "scrape",
        "header", "ca_file", "insecure", "max_jobs", "max_time",
    ),
    base=RunOptions(plan=Plan(jobs=12, timeout_s=420.0)),
    required=("server",),
    help={
        "workflow": "Workflows in API format. \\[default: the samples book_small, book_medium and book_large]",
        "jobs": "Counted jobs of each run.",
    },
)  # fmt: skip


@with_flags
def checklist(
    given: Annotated[Given, TAKES],
    gating: GateFlags,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the baseline. \\[default: the date alone]")
    ] = None,
    archive: Archive = DEFAULT_ARCHIVE,
    strict: Strict = False,
    quiet: Quiet = False,
) -> None:
    """Walk the whole checklist: look at the server, run each workflow at 1, 2 and 4 in flight, keep a baseline, judge.

    It ends with the archive, its README and page, and a verdict for each gate and run.

    [bold]Example[/bold]: comfyload checklist --server http://127.0.0.1:8188 --name rtx5060ti
    """
    from comfyload import clock
    from comfyload.app import checklist as steps
    from comfyload.app.doctor import doctor, exit_code
    from comfyload.cli.doctor import show_checks
    from comfyload.record.archive import check_free
    from comfyload.record.atomic import check_folder

    options = given.options()
    check_free(archive, name)  # before an hour of load, not after it
    check_folder("--archive", archive)
    if not options.workflows:
        choices = [WorkflowChoice(file=file) for file in steps.default_workflows()]
        options = structs.replace(options, workflows=choices)
    workflows = [choice.file for choice in options.workflows]
    checks = clock.run(doctor(options))
    if not quiet:
        show_checks(checks, as_json=False)
    if (code := exit_code(checks)) != 0:
        raise typer.Exit(code)
    paths = clock.run(steps.run_rounds(options, steps.rounds(workflows), viewers(len(workflows), quiet=quiet)))

    from comfyload.app.locate import default_log, find
    from comfyload.cli.baseline import keep

    log = default_log(None if options.metrics_log is None else Path(options.metrics_log))
    found = find(",".join(map(str, paths)), archive)
    raise typer.Exit(keep(archive, name, found, gating.read(), log, quiet=quiet, strict=strict))


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
