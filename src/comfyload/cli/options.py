"""From flags to options: a plan file first, if one is named, and every flag that was given put over it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfyload.cli.flags import server_url
from comfyload.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from comfyload.app.run.options import RunOptions, WorkflowChoice
    from comfyload.record.plan import Load, Plan, Replay

__all__ = ["options_of", "parse_cap", "parse_workflows"]


def options_of(flags: dict[str, Any]) -> RunOptions:
    """The options of a plan file, if one is named, with every flag that was given put over them.

    Raises:
        UsageError: flags contradict each other, or one is not written as it must be.
    """
    from msgspec import structs

    from comfyload.app.run.options import RunOptions, parse_notes, read_plan

    base = read_plan(flags["plan_file"]) if flags["plan_file"] is not None else RunOptions()
    server: str | None = flags["server"]
    changes: dict[str, Any] = {
        "server": server_url(server) if server else server,
        "workflows": parse_workflows(flags["workflow"] or []),
        "settings": flags["set_"],
        "data": _text(flags["data"]),
        "headers": flags["header"],
        "uploads": flags["upload"],
        "allow_shared": flags["allow_shared"],
        "ca_file": _text(flags["ca_file"]),
        "name": _checked_name(flags["name"]),
        "notes": flags["note"],
        "comfyui_dir": flags["comfyui_dir"],
        "run_dir": _text(flags["run_dir"]),
        "scrape": flags["scrape"],
        "metrics_log": _text(flags["metrics_log"]),
        "retry": _text(flags["retry"]),
        "max_jobs": flags["max_jobs"],
        "max_time_s": parse_cap(flags["max_time"]),
        **{name: flags[name] for name in ("keep_prefix", "keep_workflow", "insecure", "drop_broken_outputs")},
    }
    options = structs.replace(base, **{name: value for name, value in changes.items() if value})
    parse_notes(options.notes)
    if flags["no_preflight"]:
        options = structs.replace(options, preflight=False)
    if options.drop_broken_outputs and not options.preflight:
        raise UsageError("--drop-broken-outputs needs the preflight, which finds them", "leave --no-preflight out")
    if flags["no_telemetry"]:
        options = structs.replace(options, telemetry=False)
    if flags["order"] == "aabb" and any(choice.weight != 1 for choice in options.workflows):
        raise UsageError("--order aabb gives every workflow the same share", "leave the weights out, or the order")
    if flags["order"] is not None and len(options.workflows) < 2:
        raise UsageError("--order is of several workflows, and there is one", "name another, or leave it out")
    return structs.replace(options, plan=_plan_of(flags, options.plan, given=flags["plan_file"] is not None))


def parse_cap(text: str | None) -> float | None:
    """Seconds of `--max-time`.

    Raises:
        UsageError: it is no duration, or none at all.
    """
    from comfyload.load.grammar import parse_duration

    if text is None:
        return None
    if not (seconds := parse_duration(text)):
        raise UsageError(f"--max-time {text} leaves no time", "give one longer than zero, such as 30m")
    return seconds


def parse_workflows(texts: Sequence[str]) -> list[WorkflowChoice]:
    """Each FILE or FILE=WEIGHT.

    Raises:
        UsageError: a weight is none.
    """
    from comfyload.app.run.options import WorkflowChoice

    return [WorkflowChoice(file=file, weight=weight) for file, weight in map(_weighted, texts)]


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
        "max_server_queue": flags["max_server_queue"],
        "drain": False if flags["no_drain"] else None,
        "as_is": flags["as_is"] or None,
        "fetch": flags["fetch"] or None,
        "seed": flags["seed"],
        "order": order,
        "stickiness": stickiness,
    }
    plan = structs.replace(base, **{name: value for name, value in changes.items() if value is not None})
    if plan.jobs is None and plan.duration_s is None and flags.get("until_proven"):
        from comfyload.judge.gates.sequential import BUDGET_JOBS

        return structs.replace(plan, jobs=BUDGET_JOBS)
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
    from comfyload.record.plan import Closed, Open, Stage

    shapes = [name for name in ("rate", "stages", "replay") if flags[name] is not None]
    closed = [name for name in ("concurrency", "think", "ramp_up") if flags[name] is not None]
    if len(shapes) > 1 or (shapes and closed):
        both = " and ".join(f"--{name.replace('_', '-')}" for name in [*shapes, *closed][:2])
        raise UsageError(f"{both} are two kinds of load", "give one: users (--concurrency) or arrivals (--rate)")
    if flags["replay"] is None:
        _refuse(flags, ("speedup", "replay_match"), "needs --replay")
    places = {name: flags[name] for name in ("max_in_flight", "on_full") if flags[name] is not None}
    if places.get("on_full", "wait") not in ("wait", "drop"):
        raise UsageError(f"--on-full {places['on_full']!r} is unknown", "choose wait or drop")
    load = base
    if flags["rate"] is not None:
        load = Open(stages=[Stage(per_s=parse_rate(flags["rate"]))])
    elif flags["stages"] is not None:
        load = Open(stages=parse_stages(flags["stages"]))
    elif flags["replay"] is not None:
        load = _replay(flags["replay"], flags["speedup"] or 1.0, flags["replay_match"])
    elif closed and not isinstance(load, Closed):
        load = Closed()
    if isinstance(load, Closed):
        _refuse(flags, ("arrivals", "max_in_flight", "on_full"), "needs --rate, --stages or --replay")
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


def _replay(path: Path, speedup: float, match: str | None) -> Replay:
    """The arrivals of a file; a run directory stands for its journal.

    Raises:
        UsageError: it cannot be read, or not as arrivals.
    """
    from comfyload.load.recorded import read_recording
    from comfyload.record.plan import Replay
    from comfyload.text_files import decode_log, read_bytes

    hint = "give offsets, a run directory, or an access log"
    content = read_bytes(path / "records.ndjson" if path.is_dir() else path, hint=hint)
    text = decode_log(content, str(path))
    found = read_recording(text.split("\n" if "\n" in text else "\r"), str(path), speedup, match)
    return Replay(offsets_s=found.offsets_s, source=str(path), speedup=speedup, match=match, read_as=found.read_as)


def _order(text: str | None) -> tuple[str | None, float | None]:
    if text is None or text in ("random", "aabb"):
        return text, None
    kind, _, share = text.partition(":")
    if kind == "sticky" and re.fullmatch(r"0?\.\d+|0|1|1\.0+", share or "0.9"):
        return "sticky", float(share or 0.9)
    raise UsageError(f"--order {text!r} is unknown", "choose random, aabb, or sticky:P with P from 0 to 1")


def _is_there(name: str) -> bool:
    return os.path.exists(name)  # noqa: PTH110 - where Path raises, a name that no file can have is none


def _weighted(text: str) -> tuple[str, float]:
    """A file and its weight; a file whose name ends in =NUMBER is taken as it is if it is there."""
    file, equals, weight = text.rpartition("=")
    if equals and re.fullmatch(r"\d+(\.\d+)?", weight) and not _is_there(text):
        if float(weight) == 0:
            raise UsageError(f"--workflow {text}: a weight of zero", "leave the workflow out instead")
        return file, float(weight)
    return text, 1.0


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _checked_name(name: str | None) -> str | None:
    if name is not None and (not name or name.startswith(".") or not all(c.isalnum() or c in "-_." for c in name)):
        raise UsageError(f"--name {name!r} would not do as a folder's name", "use letters, digits, '-', '_' and '.'")
    return name
