"""From flags to options: every flag that was given replaces its field in the options that hold otherwise."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from msgspec import structs

from comfyload.app.run.options import parse_notes
from comfyload.app.run.servers import by_env, servers_given, servers_in
from comfyload.app.run.sharing import parse_instant, parse_shard
from comfyload.errors import UsageError
from comfyload.load.grammar import parse_arrivals, parse_order, parse_rate, parse_stages
from comfyload.record.codec import encode
from comfyload.record.flag import OptionFlag, flags_of
from comfyload.record.fleet import is_fleet
from comfyload.record.journal import RECORDS, parts
from comfyload.record.options import RunOptions, WorkflowChoice
from comfyload.record.plan import Closed, Load, Open, Plan, Replay, Stage
from comfyload.record.run import RunReader
from comfyload.text_files import decode_log, read_bytes

ARRIVALS = ("rate", "stages", "replay")
JOBS = 12
"""Of a run whose length is not given."""
USERS = ("concurrency", "think", "ramp_up")


def options_of(values: Mapping[str, Any], base: RunOptions) -> RunOptions:
    """The base with the flags put over it: texts, numbers and seconds by their names in Python.

    None, False and an empty list stand for a flag that was not given.

    Raises:
        UsageError: flags contradict each other, or one is invalid.
    """
    flags = flags_of(type(base))
    values = _one_of_servers(values)
    given = {name: value for name, value in values.items() if value is not None and value is not False and value != []}
    options, plan = dict[str, Any](), dict[str, Any]()
    for name, value in given.items():
        if flags[name].path[:2] != ("plan", "load"):
            (plan if flags[name].path[0] == "plan" else options).update(_fields(flags[name], value))
    load = _load(flags, given, base.plan.load)
    found = structs.replace(base, **options, plan=structs.replace(base.plan, **plan, load=load))
    parse_notes(found.notes)
    _check(found, ordered="order" in given)
    return found


def ended(plan: Plan, jobs: int, *, budget: bool = False) -> Plan:
    """The plan with so many jobs, if it is a load of users without an end; `budget`: whatever its load is.

    Raises:
        UsageError: it is a rate without an end.
    """
    if plan.jobs is not None or plan.duration_s is not None:
        return plan
    if budget:
        return structs.replace(plan, jobs=jobs)
    if isinstance(plan.load, Open) and plan.load.stages[-1].seconds is None:
        raise UsageError("the load has no end", "give --jobs N or --duration TIME")
    return structs.replace(plan, jobs=jobs) if isinstance(plan.load, Closed) else plan


def parse_workflow(text: str) -> WorkflowChoice:
    """FILE, then perhaps @SERVER, then perhaps =WEIGHT; a file of that very name is taken as it is if it is there.

    Raises:
        UsageError: the weight is zero.
    """
    if _there(text):
        return WorkflowChoice(file=text)
    file, equals, weight = text.rpartition("=")
    if not equals or not re.fullmatch(r"\d+(\.\d+)?", weight):
        file, weight = text, "1"
    if float(weight) == 0:
        raise UsageError(f"--workflow {text}: a weight of zero", "leave the workflow out instead")
    before, _, server = file.rpartition("@")
    if not before or not server or "/" in server or _there(file):
        return WorkflowChoice(file=file, weight=float(weight))
    return WorkflowChoice(file=before, server=server, weight=float(weight))


def _there(name: str) -> bool:
    return os.path.exists(name)  # noqa: PTH110 - Path.exists raises for a name that no file can have


def _one_of_servers(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The flags without --server, where --servers stands for it and only the environment gave it.

    Raises:
        UsageError: both were given.
    """
    server, file = values.get("server"), values.get("servers")
    if not server or not file:
        return values
    if not by_env([server] if isinstance(server, str) else server):
        raise UsageError("--server and --servers both name servers", "give one of them")
    return {**values, "server": None}


def _fields(flag: OptionFlag, value: Any) -> dict[str, Any]:
    """The fields that a flag sets, with their values."""
    match flag.parameter:
        case "server":
            return servers_given([value] if isinstance(value, str) else value)
        case "servers":
            return servers_in(value)
        case "workflow":
            value = [parse_workflow(text) for text in value]
        case "name":
            value = _checked_name(value)
        case "order":
            order, stickiness = parse_order(value)
            return {"order": order, "stickiness": stickiness}
        case "arrivals":
            gaps, cv = parse_arrivals(value)
            return {"arrivals": gaps, "cv": cv or 1.0}
        case "shard":
            value = parse_shard(value)
        case "start_at":
            value = parse_instant(value)
    if flag.kind == "switch":
        value = not flag.default
    choices = get_args(flag.of) if flag.kind == "text" else ()
    if choices and value not in choices:
        raise UsageError(f"unknown {flag.flag.name} {value!r}", f"choose {' or '.join(choices)}")
    return {flag.path[-1]: value}


def _check(options: RunOptions, *, ordered: bool) -> None:
    if options.drop_broken_outputs and not options.preflight:
        raise UsageError("--drop-broken-outputs needs the preflight, which finds them", "leave --no-preflight out")
    if options.plan.order == "aabb" and any(choice.weight != 1 for choice in options.workflows):
        raise UsageError("--order aabb gives every workflow the same share", "leave out the weights, or --order")
    if ordered and len(options.workflows) < 2:
        raise UsageError("--order needs several workflows", "give --workflow again, or leave --order out")
    named = next((choice for choice in options.workflows if choice.server), None)
    if named is not None and options.dispatch != "pinned":
        raise UsageError(f"{named.file} names the server {named.server}", "give --dispatch pinned")
    if options.servers and options.drop_broken_outputs:
        raise UsageError("--drop-broken-outputs is for one server", "leave it out: jobs go to servers that run them")


def _load(flags: Mapping[str, OptionFlag], given: Mapping[str, Any], base: Load) -> Load:
    """The load that the flags describe, or `base` with the flags of its own kind put over it."""
    shapes = [name for name in ARRIVALS if name in given]
    users = [name for name in USERS if name in given]
    if len(shapes) > 1 or (shapes and users):
        both = " and ".join(flags[name].flag.name for name in [*shapes, *users][:2])
        raise UsageError(f"{both} are two kinds of load", "give one: users (--concurrency) or arrivals (--rate)")
    load = base
    if "rate" in given:
        load = Open(stages=[Stage(per_s=parse_rate(given["rate"]))])
    elif "stages" in given:
        load = Open(stages=parse_stages(given["stages"]))
    elif "replay" in given:
        load = _replay(Path(given["replay"]), given.get("speedup", 1.0), given.get("replay_match"))
    elif users and not isinstance(base, Closed):
        load = Closed()
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if name in ARRIVALS or flags[name].path[:2] != ("plan", "load"):
            continue
        if name in ("speedup", "replay_match") and "replay" not in given:
            raise UsageError(f"{flags[name].flag.name} needs --replay", "see comfyload run --help")
        if not hasattr(load, flags[name].path[-1]):
            needs = "--rate or --stages" if name == "arrivals" else "--rate, --stages or --replay"
            raise UsageError(f"{flags[name].flag.name} needs {needs}", "see comfyload run --help")
        changes |= _fields(flags[name], value)
    return structs.replace(load, **changes)


def _replay(path: Path, speedup: float, match: str | None) -> Replay:
    """The arrivals of a file; a run directory stands for its journal.

    Raises:
        UsageError: it cannot be read, or not as arrivals.
    """
    from comfyload.load.recorded import read_recording

    hint = "give offsets, the folder of one run, or an access log"
    if is_fleet(path):
        return read_recording([encode(line).decode() for line in RunReader(path).lines()], str(path), speedup, match)
    files = parts(path / RECORDS) if path.is_dir() else [path]
    content = b"".join(read_bytes(file, hint=hint) for file in files)
    text = decode_log(content, str(path))
    return read_recording(text.split("\n" if "\n" in text else "\r"), str(path), speedup, match)


def _checked_name(name: str) -> str:
    if not name or name.startswith(".") or not all(c.isalnum() or c in "-_." for c in name):
        raise UsageError(f"invalid --name {name!r}", "use letters, digits, '-', '_' and '.'; a folder gets this name")
    return name
