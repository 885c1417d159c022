"""`comfyload resume`, `again`, `cleanup` and `show`: commands on a run directory."""

from pathlib import Path
from typing import Annotated

import typer

from comfyload import clock
from comfyload.cli.flags import Json, Output, Quiet
from comfyload.cli.output import check_writable, echo
from comfyload.cli.progress import viewer_for
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.record.flag import Flag
from comfyload.words import count

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")]
AGAIN = ("server", "servers", "header", "ca_file")
"""Flags for what a run directory does not hold."""
GIVE_AGAIN = {
    "server": "The server, if its address has changed; of several each as NAME=URL, if its secret is not kept.",
    "header": "Give the run's headers again; a run does not keep them. Repeatable.",
    "workflow": "The workflow, if its file has moved; as many times as in the run.",
}


@with_flags
def resume(
    run: Run,
    given: Annotated[Given, Takes(names=(*AGAIN, "workflow", "max_jobs", "max_time"), env=False, help=GIVE_AGAIN)],
    output: Output = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Finish a run whose process died. Jobs that are still on the server are followed; no job is sent twice.

    [bold]Example[/bold]: comfyload resume runs/20261123T120000Z-book -o load.json
    """
    from comfyload.app.run.resume import resume as finish

    check_writable("--output", output, json_=json_)
    if not clock.run(finish(run, given.options(), viewer_for(quiet=quiet or json_))) and not (quiet or json_):
        echo("The run is complete already.", err=True)

    from comfyload.app.summary import report_run

    raise typer.Exit(report_run(run, output=output, quiet=quiet, as_json=json_))


@with_flags
def again(
    run: Run,
    given: Annotated[Given, Takes(names=(*AGAIN, "workflow"), env=False, help=GIVE_AGAIN)],
    job: Annotated[list[int] | None, Flag("--job", "N", "Send this job, by its index. Repeatable.", many=True)] = None,
    output: Output = None,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Send jobs of a run once more, as a run of its own next to it: the same workflows, seeds and values.

    Without --job, all that failed, were lost or timed out, and have not ended well in such a run since.

    [bold]Example[/bold]: comfyload again runs/20261123T120000Z-book --job 3
    """
    from comfyload.app.run.again import again as send_again
    from comfyload.app.run.again import needing_attention

    check_writable("--output", output, json_=json_)
    jobs = sorted(set(job)) if job else needing_attention(run)
    path = clock.run(send_again(run, jobs, given.options(), viewer_for(quiet=quiet or json_)))

    from comfyload.app.summary import report_run

    raise typer.Exit(report_run(path, output=output, quiet=quiet, as_json=json_))


@with_flags
def cleanup(run: Run, given: Annotated[Given, Takes(names=AGAIN, env=False, help=GIVE_AGAIN)]) -> None:
    """Remove the jobs of an aborted run from the server. Only prompts of this run are touched, each by its id.

    [bold]Example[/bold]: comfyload cleanup runs/20261123T120000Z-book
    """
    from comfyload.app.run.resume import cleanup as delete

    found = clock.run(delete(run, given.options()))
    echo(
        f"{count(found.looked_up, 'job')} without an end: {found.deleted} deleted from the queue, "
        f"{found.stopped} stopped, {len(found.still_there)} still on the server."
    )
    for prompt_id in found.still_there:
        echo(f"still there: {prompt_id}")
    for name in found.unreachable:
        echo(f"{name} does not answer, and may have some of them")
    if found.damage is not None:
        lines = f"{found.damage.lines} lines, the first is line {found.damage.first}, " if found.damage.lines else ""
        echo(f"The journal cannot be read: {lines}{found.damage.why}. Jobs may be unknown.")
    raise typer.Exit(3 if found.still_there or found.unreachable or found.damage is not None else 0)


@with_flags
def show(
    run: Run,
    job: Annotated[int | None, Flag("--job", "N", "Print one job, by its index, with its nodes.")] = None,
    output: Output = None,
    salvage: Annotated[bool, Flag("--salvage", "", "Leave out damaged lines, and count them.")] = False,
    all_: Annotated[bool, Flag("--all", "", "Show every number; with --json the whole page in words.")] = False,
    json_: Annotated[bool, Flag("--json", "", "Print the summary, or the job's record, as JSON.")] = False,
) -> None:
    """Print a run, one of its jobs, or a row for each run in a folder, from their files.

    A damaged line is an error. With --salvage the other lines are read; a run without some of its records is invalid.

    [bold]Example[/bold]: comfyload show runs/20261123T120000Z-book --job 3
    """
    from comfyload.app.locate import runs_in
    from comfyload.app.show import show_folder, show_job
    from comfyload.app.summary import report_run

    check_writable("--output", output, json_=json_)
    if job is None and runs_in(run):
        show_folder(run, as_json=json_)
        return
    if job is None:
        raise typer.Exit(report_run(run, output=output, quiet=False, as_json=json_, salvage=salvage, all=all_))
    show_job(run, job, as_json=json_, salvage=salvage)
