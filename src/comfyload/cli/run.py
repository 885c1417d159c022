"""`comfyload run`: its flags, and what is made of them."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct, structs

from comfyload import clock
from comfyload.app.gate_flags import UNTIL_PROVEN, GateFlags
from comfyload.app.run.given import JOBS, ended
from comfyload.cli.baseline import show_kept
from comfyload.cli.flags import DEFAULT_ARCHIVE, Archive, Output, Quiet, Strict
from comfyload.cli.gating import say_what_failed
from comfyload.cli.output import check_writable, echo, for_people
from comfyload.cli.progress import viewer_for
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.cli.streams import echo_toml
from comfyload.cli.ui import open_page
from comfyload.errors import INTERRUPTED, ComfyloadError, UsageError
from comfyload.judge.gates.grammar import GateSet
from comfyload.judge.gates.sequential import BUDGET_JOBS
from comfyload.record.archive import check_free
from comfyload.record.atomic import check_folder, is_stdout, write_whole
from comfyload.record.flag import RESULT, Flag
from comfyload.record.options import RunOptions
from comfyload.report.console import print_json
from comfyload.report.render.terminal import render

if TYPE_CHECKING:
    from comfyload.judge.summary import Measured

    Limits = tuple[GateSet, list[Measured]]


class ResultFlags(Struct, frozen=True, kw_only=True):
    """What becomes of the run's result, and how it is shown."""

    output: Output = None
    save: Annotated[str | None, Flag("--save", "NAME", "Keep the run as a baseline of this name.", RESULT)] = None
    archive: Archive = DEFAULT_ARCHIVE
    strict: Strict = False
    quiet: Quiet = False
    json_: Annotated[bool, Flag("--json", "", "Print the summary as JSON instead of the table.", RESULT)] = False

    @property
    def silent(self) -> bool:
        """Whether neither progress nor tables are shown."""
        return self.quiet or self.json_

    def check(self) -> None:
        """Before the run, not after it.

        Raises:
            UsageError: the name is taken, or a file or the archive cannot be written.
        """
        check_writable("--output", self.output, json_=self.json_)
        if self.save is not None:
            check_free(self.archive, self.save)
            check_folder("--archive", self.archive)


@with_flags
def run(
    given: Annotated[Given, Takes()],
    gating: GateFlags,
    ending: ResultFlags,
    plan_file: Annotated[
        Path | None, Flag("--plan", "FILE", "Read the options from a TOML plan; flags override it.")
    ] = None,
    save_plan: Annotated[
        Path | None, Flag("--save-plan", "FILE", "Write the options as a TOML plan (- prints it); submit nothing.")
    ] = None,
    dry_run: Annotated[bool, Flag("--dry-run", "", "Show plan, schedule and prompts; submit nothing.")] = False,
    ui: Annotated[bool, Flag("--ui", "", "Open the dashboard, in a process of its own.", RESULT)] = False,
    until_proven: Annotated[bool, UNTIL_PROVEN] = False,
) -> None:
    """Load a server with workflows, and report what happened to every job.

    Every job gets fresh seeds, because ComfyUI answers a repeated graph from its cache. The run is kept in a directory
    (runs/…), and every number can be computed again from it.

    Ctrl-C stops sending and waits for running jobs; a second Ctrl-C cancels this run's jobs on the server.

    [bold]Examples[/bold]

    comfyload run --server http://127.0.0.1:8188 --workflow book.json -n 12 -c 2

    comfyload run --server :8188 --workflow book.json --rate 6/min --duration 30m

    comfyload run --server :8188 --workflow a.json=3 --workflow b.json --jobs 40

    comfyload run --server :8188 --workflow book.json --gate 'p95_latency_s <= 30' --until-proven

    comfyload run --server :8188 --workflow book.json --json | jq .p95_latency_s

    comfyload run --server :8188 --workflow book.json --rate 6/min --save-plan plan.toml
    """
    from comfyload.app.run.launch import run as run_load
    from comfyload.app.run.options import read_plan

    options = given.options(None if plan_file is None else read_plan(plan_file))
    jobs = BUDGET_JOBS if until_proven else JOBS
    options = structs.replace(options, plan=ended(options.plan, jobs, budget=until_proven))
    if save_plan is not None:
        return _save_plan(save_plan, options)
    if dry_run:
        from comfyload.app.run.dry_run import show_dry_run

        return clock.run(show_dry_run(options, as_json=ending.json_))
    ending.check()
    if options.shard is not None:
        _check_unjudged(gating, ending, until_proven=until_proven)
    judged, stop_reason = until_proven or ending.save is not None or gating.given, None
    limits = (
        limits_of(gating, ending.archive) if judged else None
    )  # what is wrong with them is an error before the load
    if until_proven and limits is not None:
        from comfyload.app.run.early_stop import StopRule

        stop_reason = StopRule(limits[0], options.plan.jobs or BUDGET_JOBS, limits[1]).stop_reason
    if ui:
        runs = Path("runs") if options.run_dir is None else Path(options.run_dir).absolute().parent
        echo(f"Dashboard  {open_page(runs, ending.archive, options.server)}", err=True)
    gc.freeze()  # modules stay: the load, which begins without garbage, need not look for it among them
    path = clock.run(run_load(options, viewer_for(quiet=ending.silent), stop_reason))

    limits = limits or limits_of(gating, ending.archive)
    raise typer.Exit(report(path, ending, limits, options.metrics_log, judged=judged))


def _check_unjudged(gating: GateFlags, ending: ResultFlags, *, until_proven: bool) -> None:
    """Raises: UsageError: a verdict is wanted on a shard, which is a part of a run."""
    given = {"--until-proven": until_proven, "--save": ending.save is not None, "--gate": gating.given}
    for flag in (flag for flag, is_given in given.items() if is_given):
        raise UsageError(f"{flag} is about a whole run, and --shard makes a part of one", "judge all shards together")


def _save_plan(file: Path, options: RunOptions) -> None:
    """Write the options as a plan, without what is secret."""
    from comfyload.app.run.options import shareable, to_toml
    from comfyload.comfy.address import parse_headers

    parse_headers([header for header in options.headers if not header.partition("=")[2].startswith("env:")])
    options, missing = shareable(options)
    text = to_toml(options)
    for what in missing:
        echo(f"A plan holds no secrets. Before you run it, give {what}", err=True)
    if str(file) == "-" or is_stdout(file):
        echo_toml(text)
    else:
        check_writable("--save-plan", file)
        write_whole(file, text.encode())
        echo(f"Plan  {file}\nNext  comfyload run --plan {file}")


def limits_of(gating: GateFlags, archive: Path) -> Limits:
    """The gates, and what `* baseline` means in them. Loads numpy and scipy, for which no job needs to wait."""
    from comfyload.app.check import baseline_of

    gates = gating.read()
    return gates, baseline_of(gates, None, archive)


def report(path: Path, ending: ResultFlags, limits: Limits, metrics_log: str | None, *, judged: bool) -> int:
    """Print the run with the verdicts on its gates, and keep it if a name was given; returns the exit code.

    `judged`: the verdicts decide the exit code; the default gates are shown, and do not.
    """
    from comfyload.app.check import check
    from comfyload.app.locate import default_log
    from comfyload.app.summary import end_code, read_run, run_page, write_output
    from comfyload.judge.gates.gate import exit_code
    from comfyload.judge.summary import jsonable

    found = read_run(path)
    if ending.output is not None:
        write_output(ending.output, found.results[0].reader, found.runs[0].summary)
    if ending.json_:
        print_json(jsonable(found.runs[0].summary.summary))
    code = end_code(found)
    judged = judged and code != INTERRUPTED
    if ending.silent and not judged:
        return code
    (gates, baseline), log = limits, default_log(metrics_log)
    try:
        checked = check(found, gates, log=log, baseline=baseline)
    except ComfyloadError:  # such as a log that cannot be read any more
        if not ending.silent:
            render(run_page(found, [], ending.output), for_people(ending.output))
        raise
    if not ending.silent:
        next_: list[str] | None = [] if judged and ending.save is not None else None  # show_kept prints its own
        render(run_page(found, checked.verdicts, ending.output, next_), for_people(ending.output))
    if not judged:
        return code
    if ending.save is not None:
        from comfyload.app.baseline import save_baseline  # loads what draws charts

        kept, _ = save_baseline(ending.archive, ending.save, found, gates, log)
        if not ending.silent:
            show_kept(kept, ending.archive, for_people(ending.output))
    if ending.silent:
        say_what_failed(checked.verdicts, strict=ending.strict)
    return exit_code(checked.verdicts, checked.valid, strict=ending.strict)
