"""`comfyload run`: its flags, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comfyload.cli.flags import (
    DEFAULT_ARCHIVE,
    JUDGE,
    LOAD,
    RESULT,
    SERVER,
    WORK,
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
    Set,
    Strict,
    check_writable,
    for_people,
)
from comfyload.cli.gating import say_what_failed
from comfyload.cli.options import options_of
from comfyload.errors import INTERRUPTED, ComfyloadError

if TYPE_CHECKING:
    from comfyload.app.check import Checked
    from comfyload.app.locate import Target
    from comfyload.app.run.early_stop import StopRule
    from comfyload.app.run.options import RunOptions
    from comfyload.judge.gates.grammar import GateSet

__all__ = ["run"]


def run(
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="The ComfyUI server, with its base path if it has one.", envvar="COMFYLOAD_SERVER"
        ),
    ] = None,
    workflow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE[=WEIGHT]", help="A workflow in API format; - reads standard input. Several make a mix."
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-n", min=1, metavar="N", help="Jobs to run and count (books, with --pages). \\[default: 12]"
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            "-c",
            min=1,
            metavar="C",
            help="Jobs in flight. One server runs one at a time: 2 keep it busy. \\[default: 1]",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", min=0.001, help="Give a job up after this long, and cancel it on the server."),
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Jobs run first, recorded but not counted.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write summary, statistics and jobs as one JSON object."),
    ] = None,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="Take everything from a TOML plan; flags override it.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show plan, schedule and prompts; submit nothing.")
    ] = False,
    rate: Annotated[
        str | None,
        typer.Option(metavar="RATE", help="Arrivals that wait for nobody: 10/s, 12/min, 600/h.", rich_help_panel=LOAD),
    ] = None,
    arrivals: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="constant, poisson or gamma:CV. \\[default: poisson]", rich_help_panel=LOAD),
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(
            metavar="STAGES", help="Rates one after the other: 30s@2/min,5m@6/min..12/min.", rich_help_panel=LOAD
        ),
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Arrivals as they were: offsets, a run directory, an access log.", rich_help_panel=LOAD
        ),
    ] = None,
    replay_match: Annotated[
        str | None,
        typer.Option(
            "--replay-match",
            metavar="'METHOD PATH'",
            help="The requests of a log that are arrivals, or a text in its lines. \\[default: POST /prompt]",
            rich_help_panel=LOAD,
        ),
    ] = None,
    speedup: Annotated[
        float | None, typer.Option(min=0.001, metavar="X", help="Replay so many times faster.", rich_help_panel=LOAD)
    ] = None,
    duration: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Stop sending after this long: 15s, 5m, 1h30m.", rich_help_panel=LOAD),
    ] = None,
    max_in_flight: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Places for arrivals of a rate, stages or replay.", rich_help_panel=LOAD),
    ] = None,
    on_full: Annotated[
        str | None,
        typer.Option(
            metavar="wait|drop",
            help="An arrival that finds no place or room waits, its due time kept, or is dropped. \\[default: wait]",
            rich_help_panel=LOAD,
        ),
    ] = None,
    think: Annotated[
        str | None, typer.Option(metavar="TIME", help="Pause of each user between its jobs.", rich_help_panel=LOAD)
    ] = None,
    ramp_up: Annotated[
        str | None,
        typer.Option("--ramp-up", metavar="TIME", help="Start the users evenly over this time.", rich_help_panel=LOAD),
    ] = None,
    no_drain: Annotated[
        bool,
        typer.Option(
            "--no-drain", help="Cut off what has not ended when the last arrival was due.", rich_help_panel=LOAD
        ),
    ] = False,
    order: Annotated[
        str | None,
        typer.Option(
            metavar="ORDER",
            help="Of several workflows: random, sticky:P or aabb (every change, by design).",
            rich_help_panel=WORK,
        ),
    ] = None,
    pages: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Jobs that make one book, due together, with a latency of its own.",
            rich_help_panel=WORK,
        ),
    ] = None,
    set_: Set = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CSV, TSV or JSON with columns NODE.INPUT: a row for each job.", rich_help_panel=WORK
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Seed of the run: the same seed, the same jobs. \\[default: a new one]",
            rich_help_panel=WORK,
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
            help="Save outputs where the graph says; else ComfyUI's own classes save in a folder of this run's own.",
            rich_help_panel=WORK,
        ),
    ] = False,
    fetch: Annotated[
        bool,
        typer.Option(
            "--fetch", help="Download every output and check that it is whole; nothing is kept.", rich_help_panel=WORK
        ),
    ] = False,
    upload: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Put an input image on the server first. Repeatable.", rich_help_panel=WORK),
    ] = None,
    no_preflight: Annotated[
        bool,
        typer.Option("--no-preflight", help="Submit even what the server would refuse.", rich_help_panel=SERVER),
    ] = False,
    drop_broken_outputs: Annotated[
        bool,
        typer.Option(
            "--drop-broken-outputs",
            help="Leave out the outputs that the server would drop, and run the others.",
            rich_help_panel=SERVER,
        ),
    ] = False,
    allow_shared: Annotated[
        bool,
        typer.Option(
            "--allow-shared",
            help="Run although others use the server; their work is then in the numbers.",
            rich_help_panel=SERVER,
        ),
    ] = False,
    max_server_queue: Annotated[
        int | None,
        typer.Option(
            "--max-server-queue",
            min=1,
            metavar="N",
            help="Hold jobs back while the server's queue holds N prompts or more, anybody's; see --on-full.",
            rich_help_panel=SERVER,
        ),
    ] = None,
    max_jobs: MaxJobs = None,
    max_time: MaxTime = None,
    header: Header = None,
    ca_file: CaFile = None,
    insecure: Insecure = False,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the run. \\[default: the workflow's]", rich_help_panel=RESULT),
    ] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            "--run-dir", metavar="DIR", help="The run directory. \\[default: runs/<utc>-<name>]", rich_help_panel=RESULT
        ),
    ] = None,
    keep_workflow: Annotated[
        bool,
        typer.Option(
            "--keep-workflow", help="Keep the graph itself in the manifest, not only its hash.", rich_help_panel=RESULT
        ),
    ] = False,
    note: Note = None,
    comfyui_dir: ComfyUIDir = None,
    no_telemetry: NoTelemetry = False,
    scrape: Scrape = None,
    retry: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Send failed jobs again by this policy (comfyload policy makes one); first attempts are told beside.",
            rich_help_panel=LOAD,
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Keep the run as a baseline of this name.", rich_help_panel=RESULT),
    ] = None,
    archive: Archive = DEFAULT_ARCHIVE,
    gate: Gate = None,
    gates: GatesFile = None,
    expect: Expect = None,
    independent_failures: Independent = False,
    until_proven: Annotated[
        bool,
        typer.Option(
            "--until-proven",
            help="Go on until the gates are decided or --jobs are spent \\[default: 200]; at most 4 looks.",
            rich_help_panel=JUDGE,
        ),
    ] = False,
    metrics_log: MetricsLog = None,
    strict: Strict = False,
    quiet: Quiet = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON instead of the table.", rich_help_panel=RESULT)
    ] = False,
) -> None:
    """Run workflows under a load, follow every job to its end, and report what happened.

    Every job gets fresh seeds, because ComfyUI answers a repeated graph from its cache. The run is kept in a directory
    (runs/…) from which every number can be made again.

    Ctrl-C sends no more jobs and waits for those under way; a second one cancels what is ours on the server.

    [bold]Examples[/bold]

    comfyload run --server http://127.0.0.1:8188 --workflow book.json -n 12 -c 2

    comfyload run --server :8188 --workflow book.json --rate 6/min --duration 30m

    comfyload run --server :8188 --workflow a.json=3 --workflow b.json --jobs 40

    comfyload run --server :8188 --workflow book.json --gate 'p95_latency_s <= 30' --until-proven

    comfyload run --server :8188 --workflow book.json --json | jq .p95_latency_s
    """
    flags = dict(locals())
    from comfyload import clock
    from comfyload.app.run.launch import run as run_load
    from comfyload.cli.progress import viewer_for

    options = options_of(flags)
    if dry_run:
        from comfyload.app.run.dry_run import show_dry_run

        clock.run(show_dry_run(options, as_json=json_))
        return
    if output is not None:
        check_writable("--output", output, json_=json_)
    if save is not None:
        from comfyload.record.archive import check_free
        from comfyload.record.atomic import check_folder

        check_free(archive, save)
        check_folder("--archive", archive)
    proof = _proof(flags, options) if until_proven else None
    path = clock.run(run_load(options, viewer_for(quiet=quiet or json_), proof))

    raise typer.Exit(_report(path, flags))  # numpy and scipy: not before the first job has left


def _proof(flags: dict[str, Any], options: RunOptions) -> StopRule:
    """Made beforehand: a gate that is mistyped shows now, and numpy is loaded before the first job."""
    from comfyload.app.check import baseline_of
    from comfyload.app.run.early_stop import StopRule
    from comfyload.judge.gates.sequential import BUDGET_JOBS

    asked = _asked(flags)
    return StopRule(asked, options.plan.jobs or BUDGET_JOBS, baseline_of(asked, None, flags["archive"]))


def _asked(flags: dict[str, Any]) -> GateSet:
    from comfyload.app.check import gate_set

    independent = flags["independent_failures"]
    return gate_set(flags["gate"] or [], flags["gates"], flags["expect"] or [], independent=independent)


def _report(path: Path, flags: dict[str, Any]) -> int:
    """Print the run with the verdicts on its gates, and keep it if a name was given; returns the exit code.

    The default gates are shown, and change no exit code: only those that were asked for do.
    """
    from comfyload.app.summary import end_code, print_run, print_summary, read_run, write_output
    from comfyload.judge.gates.gate import exit_code

    found, output = read_run(path), flags["output"]
    if output is not None:
        write_output(output, found.results[0].reader, found.runs[0].summary)
    if flags["json_"]:
        print_summary(found)
    code, quiet, strict = end_code(found), flags["quiet"] or flags["json_"], flags["strict"]
    judged = any(flags[name] for name in ("until_proven", "save", "gate", "gates")) and code != INTERRUPTED
    if quiet and not judged:
        return code
    try:
        checked = _checked(found, flags)
    except ComfyloadError:
        if not quiet:
            print_run(found, [], output)
        raise
    if not quiet:
        print_run(found, checked.verdicts, output, to_be_kept=judged and flags["save"] is not None)
    if not judged:
        return code
    if flags["save"] is not None:
        _keep(found, flags)
    if quiet:
        say_what_failed(checked.verdicts, strict=strict)
    return exit_code(checked.verdicts, checked.valid, strict=strict)


def _checked(found: Target, flags: dict[str, Any]) -> Checked:
    from comfyload.app.check import baseline_of, check
    from comfyload.app.locate import default_log

    asked = _asked(flags)
    baseline = baseline_of(asked, None, flags["archive"])
    return check(found, asked, log=default_log(flags["metrics_log"]), baseline=baseline)


def _keep(found: Target, flags: dict[str, Any]) -> None:
    from comfyload.app.baseline import Keeping, save_baseline
    from comfyload.app.locate import default_log
    from comfyload.cli.baseline import show_kept

    keeping = Keeping(gates=_asked(flags), log=default_log(flags["metrics_log"]), notes={})
    kept, _ = save_baseline(flags["archive"], flags["save"], found, keeping)
    if not (flags["quiet"] or flags["json_"]):
        show_kept(kept, flags["archive"], for_people(flags["output"]))
