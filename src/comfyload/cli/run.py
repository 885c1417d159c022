"""`comfyload run` and `comfyload plan`: their flags, which are the same, and what is made of them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from comfyload.errors import UsageError

if TYPE_CHECKING:
    from comfyload.app.options import RunOptions
    from comfyload.record.plan import Load, Plan

__all__ = ["plan", "run"]

LOAD = "Load"
WORK = "What each job runs"
SERVER = "Server"
RESULT = "What is kept"


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
            help="An arrival that finds no place waits, its due time kept, or is dropped. \\[default: wait]",
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
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NODE.INPUT=VALUE",
            help="Override an input; NODE is an id or a title. Repeatable.",
            rich_help_panel=WORK,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="CSV or JSON lines with columns NODE.INPUT: a row for each job.", rich_help_panel=WORK
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
    upload: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Put an input image on the server first. Repeatable.", rich_help_panel=WORK),
    ] = None,
    no_preflight: Annotated[
        bool,
        typer.Option("--no-preflight", help="Submit even what the server would refuse.", rich_help_panel=SERVER),
    ] = False,
    allow_shared: Annotated[
        bool,
        typer.Option(
            "--allow-shared",
            help="Run although others use the server; their work is then in the numbers.",
            rich_help_panel=SERVER,
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
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no table.", rich_help_panel=RESULT)
    ] = False,
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

    comfyload run --server :8188 --workflow a.json=3 --workflow b.json --order aabb

    comfyload run --server :8188 --workflow book.json --json | jq .p95_latency_s
    """
    flags = dict(locals())
    from comfyload import clock
    from comfyload.app.dry_run import show_dry_run
    from comfyload.app.run import run as run_load
    from comfyload.app.summary import report_run
    from comfyload.cli.progress import viewer_for

    options = options_of(flags)
    if dry_run:
        clock.run(show_dry_run(options))
        return
    if output is not None:
        _check_writable(output)
    path = clock.run(run_load(options, viewer_for(quiet=quiet or json_)))
    raise typer.Exit(report_run(path, output=output, quiet=quiet, as_json=json_))


def plan(**flags: Any) -> None:
    """Write the flags of `comfyload run` as a plan file, in TOML.

    [bold]Example[/bold]

    comfyload plan --from-flags --server :8188 --workflow book.json --rate 6/min -o plan.toml
    """
    from comfyload.app.options import to_toml

    text = to_toml(options_of(flags))
    output = flags["output"]
    if output is None:
        typer.echo(text, nl=False)
    else:
        _check_writable(output)
        output.write_text(text, encoding="utf-8")


def _takes_the_flags_of_run() -> None:
    """Give `plan` the flags of `run`, less those that are about running."""
    hints = get_type_hints(run, include_extras=True)
    hints["from_flags"] = Annotated[bool, typer.Option("--from-flags", help="Of the other flags; it does so anyway.")]
    kept = {
        name: p for name, p in inspect.signature(run).parameters.items() if name not in ("dry_run", "quiet", "json_")
    }
    defaults = {"from_flags": False, **{name: parameter.default for name, parameter in kept.items()}}
    plan.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
            for name, default in defaults.items()
        ]
    )
    plan.__annotations__ = {name: hints[name] for name in defaults}


_takes_the_flags_of_run()


def options_of(flags: dict[str, Any]) -> RunOptions:
    """The options of a plan file, if one is named, with every flag that was given put over them.

    Raises:
        UsageError: flags contradict each other, or one is not written as it must be.
    """
    from msgspec import structs

    from comfyload.app.options import RunOptions, WorkflowChoice, read_plan

    base = read_plan(flags["plan_file"]) if flags["plan_file"] is not None else RunOptions()
    server: str | None = flags["server"]
    changes: dict[str, Any] = {
        "server": f"127.0.0.1{server}" if server and re.fullmatch(r":\d+", server) else server,
        "workflows": [WorkflowChoice(file=f, weight=w) for f, w in map(_weighted, flags["workflow"] or [])],
        "settings": flags["set_"],
        "data": _text(flags["data"]),
        "headers": flags["header"],
        "uploads": flags["upload"],
        "allow_shared": flags["allow_shared"],
        "ca_file": _text(flags["ca_file"]),
        "name": _checked_name(flags["name"]),
        "run_dir": _text(flags["run_dir"]),
        **{name: flags[name] for name in ("keep_prefix", "keep_workflow", "insecure")},
    }
    options = structs.replace(base, **{name: value for name, value in changes.items() if value})
    if flags["no_preflight"]:
        options = structs.replace(options, preflight=False)
    return structs.replace(options, plan=_plan_of(flags, options.plan, given=flags["plan_file"] is not None))


def _plan_of(flags: dict[str, Any], base: Plan, *, given: bool) -> Plan:
    """The plan with the flags put over it; `given`: it comes from a file, and not every limit must be named anew."""
    from msgspec import structs

    from comfyload.load.grammar import parse_duration
    from comfyload.record.plan import Closed, Open

    load = _load_of(flags, base.load)
    order, stickiness = _order(flags["order"])
    changes: dict[str, Any] = {
        "load": load,
        "jobs": flags["jobs"],
        "duration_s": parse_duration(flags["duration"]) if flags["duration"] else None,
        "warmup": flags["warmup"],
        "pages": flags["pages"],
        "timeout_s": flags["timeout"],
        "drain": False if flags["no_drain"] else None,
        "as_is": flags["as_is"] or None,
        "fetch": flags["fetch"] or None,
        "seed": flags["seed"],
        "order": order,
        "stickiness": stickiness,
    }
    plan = structs.replace(base, **{name: value for name, value in changes.items() if value is not None})
    if plan.jobs is None and plan.duration_s is None:
        if isinstance(plan.load, Closed) and not given:
            return structs.replace(plan, jobs=12)
        if isinstance(plan.load, Closed) or (isinstance(plan.load, Open) and plan.load.stages[-1].seconds is None):
            raise UsageError("the load has no end", "give --jobs N or --duration TIME")
    return plan


def _load_of(flags: dict[str, Any], base: Load) -> Load:
    """The load the flags describe, or `base` with the flags of its own kind put over it."""
    from msgspec import structs

    from comfyload.load.grammar import parse_arrivals, parse_duration, parse_rate, parse_stages
    from comfyload.load.recorded import read_offsets
    from comfyload.record.plan import Closed, Open, Replay, Stage

    shapes = [name for name in ("rate", "stages", "replay") if flags[name] is not None]
    closed = [name for name in ("concurrency", "think", "ramp_up") if flags[name] is not None]
    if len(shapes) > 1 or (shapes and closed):
        both = " and ".join(f"--{name.replace('_', '-')}" for name in [*shapes, *closed][:2])
        raise UsageError(f"{both} are two kinds of load", "give one: users (--concurrency) or arrivals (--rate)")
    places = {name: flags[name] for name in ("max_in_flight", "on_full") if flags[name] is not None}
    if places.get("on_full", "wait") not in ("wait", "drop"):
        raise UsageError(f"--on-full {places['on_full']!r} is unknown", "choose wait or drop")
    load = base
    if flags["rate"] is not None:
        load = Open(stages=[Stage(per_s=parse_rate(flags["rate"]))])
    elif flags["stages"] is not None:
        load = Open(stages=parse_stages(flags["stages"]))
    elif flags["replay"] is not None:
        source, speedup = _recorded(flags["replay"]), flags["speedup"] or 1.0
        offsets = read_offsets(source.read_text(encoding="utf-8").splitlines(), str(flags["replay"]), speedup)
        load = Replay(offsets_s=offsets, source=str(flags["replay"]), speedup=speedup)
    elif closed and not isinstance(load, Closed):
        load = Closed()
    if isinstance(load, Closed):
        _refuse(flags, ("arrivals", "max_in_flight", "on_full", "speedup"), "needs --rate, --stages or --replay")
        changes = {
            "concurrency": flags["concurrency"],
            "think_s": parse_duration(flags["think"]) if flags["think"] else None,
            "ramp_up_s": parse_duration(flags["ramp_up"]) if flags["ramp_up"] else None,
        }
        return structs.replace(load, **{name: value for name, value in changes.items() if value is not None})
    if isinstance(load, Open) and flags["arrivals"] is not None:
        kind, cv = parse_arrivals(flags["arrivals"])
        load = structs.replace(load, arrivals=kind, cv=cv or 1.0)
    elif flags["arrivals"] is not None:
        raise UsageError("--arrivals does not go with --replay", "the recording says when arrivals are due")
    return structs.replace(load, **places)


def _refuse(flags: dict[str, Any], names: tuple[str, ...], why: str) -> None:
    for name in names:
        if flags[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} {why}", "see comfyload run --help")


def _recorded(path: Path) -> Path:
    """The file of a replay: a run directory stands for its journal."""
    found = path / "records.ndjson" if path.is_dir() else path
    if not found.is_file():
        raise UsageError(f"cannot read {path}", "give offsets, a run directory, or an access log")
    return found


def _order(text: str | None) -> tuple[str | None, float | None]:
    if text is None or text in ("random", "aabb"):
        return text, None
    kind, _, share = text.partition(":")
    if kind == "sticky" and re.fullmatch(r"0?\.\d+|0|1|1\.0+", share or "0.9"):
        return "sticky", float(share or 0.9)
    raise UsageError(f"--order {text!r} is unknown", "choose random, aabb, or sticky:P with P from 0 to 1")


def _weighted(text: str) -> tuple[str, float]:
    """A file and its weight; a file whose name ends in =NUMBER is taken as it is if it is there."""
    file, equals, weight = text.rpartition("=")
    if equals and re.fullmatch(r"\d+(\.\d+)?", weight) and not Path(text).exists():
        if float(weight) == 0:
            raise UsageError(f"--workflow {text}: a weight of zero", "leave the workflow out instead")
        return file, float(weight)
    return text, 1.0


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


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
