"""`comfyload run`: its flags, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import Struct, structs

from comfyload.cli.flags import (
    DEFAULT_ARCHIVE,
    Archive,
    GateFlags,
    Output,
    Quiet,
    Strict,
    check_writable,
    echo,
    for_people,
)
from comfyload.cli.gating import say_what_failed
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.cli.streams import echo_toml
from comfyload.errors import INTERRUPTED, ComfyloadError
from comfyload.record.atomic import is_stdout
from comfyload.record.flag import JUDGE, RESULT

if TYPE_CHECKING:
    from comfyload.app.check import Checked
    from comfyload.app.locate import Target
    from comfyload.app.run.early_stop import StopRule
    from comfyload.judge.gates.grammar import GateSet
    from comfyload.record.options import RunOptions

JOBS = 12
"""Jobs of a run whose length is not given."""


class KeepFlags(Struct, frozen=True, kw_only=True):
    """Whether the run becomes a baseline, and where."""

    save: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep the run as a baseline of this name.", rich_help_panel=RESULT),
    ] = None
    archive: Archive = DEFAULT_ARCHIVE

    def check(self) -> None:
        """Before the run, not after it.

        Raises:
            UsageError: the name is taken, or the archive cannot be written.
        """
        from comfyload.record.archive import check_free
        from comfyload.record.atomic import check_folder

        if self.save is not None:
            check_free(self.archive, self.save)
            check_folder("--archive", self.archive)


@with_flags
def run(
    given: Annotated[Given, Takes()],
    gating: GateFlags,
    keeping: KeepFlags,
    output: Output = None,
    plan_file: Annotated[
        Path | None,
        typer.Option("--plan", metavar="FILE", help="Read the options from a TOML plan; flags override it."),
    ] = None,
    save_plan: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the options as a TOML plan (- prints it); submit nothing."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show plan, schedule and prompts; submit nothing.")
    ] = False,
    until_proven: Annotated[
        bool,
        typer.Option(
            "--until-proven",
            help="Run until the gates are decided: at most --jobs (200 if not given), judged up to 4 times.",
            rich_help_panel=JUDGE,
        ),
    ] = False,
    strict: Strict = False,
    quiet: Quiet = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON instead of the table.", rich_help_panel=RESULT)
    ] = False,
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
    from comfyload import clock
    from comfyload.app.run.launch import run as run_load
    from comfyload.app.run.options import read_plan
    from comfyload.cli.options import ended
    from comfyload.cli.progress import viewer_for

    options = given.options(None if plan_file is None else read_plan(plan_file))
    options = structs.replace(
        options, plan=ended(options.plan, _budget() if until_proven else JOBS, budget=until_proven)
    )
    if save_plan is not None:
        return _save_plan(save_plan, options)
    if dry_run:
        from comfyload.app.run.dry_run import show_dry_run

        return clock.run(show_dry_run(options, as_json=json_))
    if output is not None:
        check_writable("--output", output, json_=json_)
    keeping.check()
    proof = _proof(gating.read(), options, keeping.archive) if until_proven else None
    path = clock.run(run_load(options, viewer_for(quiet=quiet or json_), proof))

    after = _After(
        gates=gating.read(),
        judged=until_proven or keeping.save is not None or gating.given,
        keeping=keeping,
        log=None if options.metrics_log is None else Path(options.metrics_log),
        output=output,
        strict=strict,
        quiet=quiet or json_,
        json=json_,
    )
    raise typer.Exit(_report(path, after))  # numpy and scipy: not before the first job has left


def _save_plan(file: Path, options: RunOptions) -> None:
    """Write the options as a plan, without what is secret."""
    from comfyload.app.run.options import shareable, to_toml
    from comfyload.comfy.address import parse_headers
    from comfyload.record.atomic import write_whole

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


def _budget() -> int:
    from comfyload.judge.gates.sequential import BUDGET_JOBS

    return BUDGET_JOBS


def _proof(gates: GateSet, options: RunOptions, archive: Path) -> StopRule:
    """The rule that ends the run, made before it: an invalid gate is an error now, and numpy is loaded before a job."""
    from comfyload.app.check import baseline_of
    from comfyload.app.run.early_stop import StopRule

    return StopRule(gates, options.plan.jobs or _budget(), baseline_of(gates, None, archive))


class _After(Struct, frozen=True, kw_only=True):
    """What to do with a run that has ended. `judged`: the verdicts decide the exit code; the default gates are shown,
    and do not.
    """

    gates: GateSet
    judged: bool
    keeping: KeepFlags
    log: Path | None
    output: Path | None
    strict: bool
    quiet: bool
    json: bool


def _report(path: Path, after: _After) -> int:
    """Print the run with the verdicts on its gates, and keep it if a name was given; returns the exit code."""
    from comfyload.app.summary import end_code, print_run, print_summary, read_run, write_output
    from comfyload.judge.gates.gate import exit_code

    found, keeping = read_run(path), after.keeping
    if after.output is not None:
        write_output(after.output, found.results[0].reader, found.runs[0].summary)
    if after.json:
        print_summary(found)
    code = end_code(found)
    judged = after.judged and code != INTERRUPTED
    if after.quiet and not judged:
        return code
    try:
        checked = _checked(found, after)
    except ComfyloadError:
        if not after.quiet:
            print_run(found, [], after.output)
        raise
    if not after.quiet:
        print_run(found, checked.verdicts, after.output, to_be_kept=judged and keeping.save is not None)
    if not judged:
        return code
    if keeping.save is not None:
        _keep(found, keeping.save, after)
    if after.quiet:
        say_what_failed(checked.verdicts, strict=after.strict)
    return exit_code(checked.verdicts, checked.valid, strict=after.strict)


def _checked(found: Target, after: _After) -> Checked:
    from comfyload.app.check import baseline_of, check
    from comfyload.app.locate import default_log

    baseline = baseline_of(after.gates, None, after.keeping.archive)
    return check(found, after.gates, log=default_log(after.log), baseline=baseline)


def _keep(found: Target, name: str, after: _After) -> None:
    from comfyload.app.baseline import Keeping, save_baseline
    from comfyload.app.locate import default_log
    from comfyload.cli.baseline import show_kept

    archive = after.keeping.archive
    kept, _ = save_baseline(archive, name, found, Keeping(gates=after.gates, log=default_log(after.log), notes={}))
    if not after.quiet:
        show_kept(kept, archive, for_people(after.output))
