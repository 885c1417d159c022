"""`comfyload fleet`: a run made by several generators, and one that goes on followed again."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import structs

from comfyload import clock
from comfyload.app.gate_flags import GateFlags
from comfyload.app.run.given import JOBS, ended
from comfyload.cli.output import echo
from comfyload.cli.progress import viewer_for
from comfyload.cli.run import ResultFlags, limits_of, report
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.record.flag import LOAD, Flag, flags_of
from comfyload.record.options import RunOptions

if TYPE_CHECKING:
    from comfyload.app.fleet.watch import ShardWatch
    from comfyload.cli.run import Limits

fleet = typer.Typer(
    name="fleet",
    no_args_is_help=True,
    help="Make one run with several generators: each sends a part of one schedule.",
    rich_markup_mode="rich",
)


class Where(StrEnum):
    """What starts the shards."""

    here = "here"
    ray = "ray"


_TAKES = Takes(names=tuple(name for name in flags_of(RunOptions) if name != "shard"))
_OF_SHARD = Takes(names=tuple(name for name in flags_of(RunOptions) if name not in ("shard", "run_dir")))


@fleet.command("run", no_args_is_help=True)
@with_flags
def run_fleet(
    given: Annotated[Given, _TAKES],
    gating: GateFlags,
    ending: ResultFlags,
    shards: Annotated[int, Flag("--shards", "N", "How many generators, each a process.", LOAD, least=1, most=1000)],
    start_in: Annotated[
        float | None,
        Flag("--start-in", "TIME", "Begin the load after this time, in which shards load and warm up.", LOAD, least=1),
    ] = None,
    on: Annotated[
        Where, Flag("--on", "here|ray", "Where: on this machine, or on the nodes of a Ray cluster.", LOAD)
    ] = Where.here,
    ray_address: Annotated[
        str,
        Flag("--ray-address", "ADDRESS", "The Ray cluster; auto: the one of this machine.", LOAD, env="RAY_ADDRESS"),
    ] = "auto",
    plan_file: Annotated[
        Path | None, Flag("--plan", "FILE", "Read the options from a TOML plan; flags override it.")
    ] = None,
) -> None:
    """Make one run with several generators, and report it as one.

    Shard i of N sends the arrivals whose number leaves i when divided by N. Nothing passes between the shards: a lost
    one is named, the others go on, and the run is invalid. If this command ends, the shards go on.

    [bold]Example[/bold]: comfyload fleet run --shards 4 --server :8188 --workflow book.json --rate 600/min -n 2000
    """
    from comfyload.app.fleet.begin import begin, settle
    from comfyload.app.run.options import read_plan

    options = given.options(None if plan_file is None else read_plan(plan_file))
    options = structs.replace(options, plan=ended(options.plan, JOBS))
    ending.check()
    judged = ending.save is not None or gating.given
    limits = limits_of(gating, ending.archive) if judged else None
    options, name = clock.run(settle(options, shards))
    if on is Where.ray:
        from comfyload.app.fleet.on_ray import RayNodes

        nodes = RayNodes(ray_address, shards)
        if not ending.silent:
            echo(nodes.words(), err=True)
        if start_in is None and options.start_at is None and not options.plan.warmup:
            start_in = nodes.start_in_s()
        watched = begin(options, name, shards, start_in, hosts=nodes.hosts, ahead_s=nodes.ahead_s, start=nodes.start)
    else:
        watched = begin(options, name, shards, start_in)
    if not ending.silent:
        echo(f"{shards} shards in {watched.path}, from {watched.fleet.start_at}", err=True)
        echo(f"If this ends before they do: comfyload fleet attach {watched.path}", err=True)
    raise typer.Exit(_to_the_end(watched, gating, ending, limits, options.metrics_log, judged=judged))


@fleet.command(no_args_is_help=True)
@with_flags
def shard(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of the fleet, which all shards see.")],
    given: Annotated[Given, _OF_SHARD],
    shards: Annotated[int, Flag("--shards", "N", "How many shards the run has.", LOAD, least=1, most=10_000)],
    index: Annotated[
        int, Flag("--index", "I", "Which one this is, from 0 to N-1.", LOAD, env="JOB_COMPLETION_INDEX", least=0)
    ],
    plan_file: Annotated[
        Path | None, Flag("--plan", "FILE", "Read the options from a TOML plan; flags override it.")
    ] = None,
) -> None:
    """Make one shard of a run, where something else starts the processes, such as a Job of Kubernetes.

    A shard that has begun already, as its run directory shows, is resumed: no job is sent twice. The exit code is 0
    once nothing of the shard is left to do, however its jobs ended; all shards are judged together.

    [bold]Example[/bold]: comfyload fleet shard runs/m --plan plan.toml --shards 4 --index 0 --start-at 2030-01-01T12:00
    """
    from comfyload.app.fleet.one import run_or_resume
    from comfyload.app.run.options import read_plan

    options = given.options(None if plan_file is None else read_plan(plan_file))
    options = structs.replace(options, plan=ended(options.plan, JOBS))
    viewer = viewer_for(quiet=False)
    raise typer.Exit(clock.run(run_or_resume(options, directory, index, shards, viewer)))


@fleet.command(no_args_is_help=True)
@with_flags
def attach(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of the fleet.")],
    gating: GateFlags,
    ending: ResultFlags,
) -> None:
    """Follow a run in shards to its end, and report it. Ctrl-C stops it.

    [bold]Example[/bold]: comfyload fleet attach runs/20261128T140000Z-book
    """
    from comfyload.app.fleet.watch import ShardWatch

    ending.check()
    judged = ending.save is not None or gating.given
    limits = limits_of(gating, ending.archive) if judged else None
    raise typer.Exit(_to_the_end(ShardWatch.again(directory), gating, ending, limits, None, judged=judged))


@fleet.command(no_args_is_help=True)
@with_flags
def join(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A folder with the run directories of all shards.")],
    allow_lost_shards: Annotated[
        bool, Flag("--allow-lost-shards", "", "The run is valid without the jobs of lost shards.")
    ] = False,
) -> None:
    """Read shards that were run by hand as one run, from now on: write the fleet.json next to them.

    [bold]Example[/bold]: comfyload fleet join runs/friday
    """
    from comfyload.app.fleet.join import join as lay_together

    found = lay_together(directory, allow_lost_shards=allow_lost_shards)
    echo(f"{found.manifest.shards} shards in {directory}\nNext  comfyload show {directory}")


def _to_the_end(
    watched: ShardWatch, gating: GateFlags, ending: ResultFlags, limits: Limits | None, log: str | None, *, judged: bool
) -> int:
    """Follow the shards, and print them as one run; returns the exit code."""
    from comfyload.app.fleet.follow import follow

    shows = not ending.silent
    follow(watched, viewer_for(quiet=not shows), shows=shows, warn=lambda words: echo(words, err=True))
    if not ending.silent and (words := watched.skew_words()):
        echo(words, err=True)
    return report(watched.path, ending, limits or limits_of(gating, ending.archive), log, judged=judged)
