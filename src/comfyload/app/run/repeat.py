"""The command that repeats a run, from what its manifest keeps of the one that made it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from comfyload.app.run.options import RunOptions
from comfyload.record.plan import Closed, Load, Open, Replay, Stage

__all__ = ["command"]


def command(asked: dict[str, Any]) -> list[str]:
    """The words of a command line. The seed is not among them: the same jobs again might come from a cache.

    A seed that was asked for cannot be told from one that was drawn.
    """
    try:
        options = msgspec.convert(asked, RunOptions)
    except msgspec.ValidationError:  # written by another version, or by hand
        return []
    return ["comfyload", "run", *_work(options), *_load(options.plan.load), *_rules(options)]


def _work(options: RunOptions) -> Iterator[str]:
    yield from ("--server", options.server)
    for choice in options.workflows:
        yield from ("--workflow", choice.file if choice.weight == 1 else f"{choice.file}={choice.weight:g}")
    plan = options.plan
    named = {
        "--jobs": plan.jobs,
        "--duration": None if plan.duration_s is None else f"{plan.duration_s:g}s",
        "--warmup": plan.warmup or None,
        "--pages": plan.pages if plan.pages > 1 else None,
        "--timeout": plan.timeout_s,
        "--max-server-queue": plan.max_server_queue,
    }
    for flag, value in named.items():
        if value is not None:
            yield from (flag, f"{value:g}" if isinstance(value, float) else str(value))


def _load(load: Load) -> Iterator[str]:
    if isinstance(load, Closed):
        yield from ("--concurrency", str(load.concurrency))
        for flag, seconds in (("--think", load.think_s), ("--ramp-up", load.ramp_up_s)):
            if seconds:
                yield from (flag, f"{seconds:g}s")
        return
    if isinstance(load, Replay):
        yield from ("--replay", load.source, "--speedup", f"{load.speedup:g}")
        if load.match is not None:
            yield from ("--replay-match", load.match)
    else:
        yield from _open(load)
    if load.max_in_flight is not None:
        yield from ("--max-in-flight", str(load.max_in_flight), "--on-full", load.on_full)


def _open(load: Open) -> Iterator[str]:
    first = load.stages[0]
    if len(load.stages) == 1 and first.seconds is None and first.to_per_s is None:
        yield from ("--rate", _rate(first.per_s))
    else:
        yield from ("--stages", ",".join(map(_stage, load.stages)))
    yield from ("--arrivals", f"gamma:{load.cv:g}" if load.arrivals == "gamma" else load.arrivals)


def _stage(stage: Stage) -> str:
    to = "" if stage.to_per_s is None else f"..{_rate(stage.to_per_s)}"
    return f"{stage.seconds or 0:g}s@{_rate(stage.per_s)}{to}"


def _rate(per_s: float) -> str:
    return f"{60 * per_s:.12g}/min"


def _rules(options: RunOptions) -> Iterator[str]:
    plan = options.plan
    if plan.order != "random":
        yield from ("--order", f"sticky:{plan.stickiness:g}" if plan.order == "sticky" else plan.order)
    for flag, asked in (
        ("--no-drain", not plan.drain),
        ("--as-is", plan.as_is),
        ("--fetch", plan.fetch),
        ("--keep-prefix", options.keep_prefix),
        ("--no-telemetry", not options.telemetry),
    ):
        if asked:
            yield flag
    caps = {"--max-jobs": options.max_jobs, "--max-time": options.max_time_s}
    for flag, cap in caps.items():
        if cap is not None:
            yield from (flag, f"{cap:g}")
    repeated = {
        "--set": options.settings,
        "--header": options.headers,
        "--upload": options.uploads,
        "--scrape": options.scrape,
    }
    for flag, values in repeated.items():
        for value in values:
            yield from (flag, value)
    if options.retry is not None:
        yield from ("--retry", options.retry)
    if options.data is not None:
        yield from ("--data", options.data)
    if options.metrics_log is not None:
        yield from ("--metrics-log", options.metrics_log)
