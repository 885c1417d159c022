"""The command that repeats a run, from the options that its manifest keeps."""

from collections.abc import Callable, Iterator
from typing import Any

from comfyload.load.grammar import duration_text, rate_text
from comfyload.record.flag import OptionFlag, flags_of
from comfyload.record.gateway_options import ServerTable
from comfyload.record.options import RunOptions
from comfyload.record.plan import Load, Open, Plan, Stage


def command(options: RunOptions) -> list[str]:
    """The words of a command line; empty where the options name no server, say more of several than flags can, or are
    those of a shard, which alone is no run.

    The seed is left out: the same jobs again might come from a cache.
    """
    plain = all(one == ServerTable(name=one.name, url=one.url) for one in options.servers)
    if not options.server or not plain or options.shard is not None:
        return []
    flags = [flag for flag in flags_of(type(options)).values() if flag.flag.repeat]
    return ["comfyload", "run", *(word for flag in flags for word in _words(flag, options))]


def texts_of(flag: OptionFlag, options: RunOptions) -> list[str]:
    """What is written after the flag, as often as it is given; nothing where its value is the default.

    A switch that is set has one text, which is empty.
    """
    spell = _SPELLED.get(flag.parameter)
    value = flag.value(options)
    if spell is not None:
        return spell(flag.holder(options))
    if value == flag.default:
        return []
    if flag.kind == "switch":
        return [""]
    return list(value) if flag.kind == "texts" else [text_of(flag, value)]


def _words(flag: OptionFlag, options: RunOptions) -> Iterator[str]:
    for text in texts_of(flag, options):
        yield from (flag.flag.name,) if flag.kind == "switch" else (flag.flag.name, text)


def text_of(flag: OptionFlag, value: str | float) -> str:
    """A value as its flag reads it."""
    if isinstance(value, str):
        return value
    return duration_text(value) if flag.kind == "duration" else f"{value:.12g}"


def _servers(options: RunOptions) -> list[str]:
    return [f"{one.name}={one.url}" if one.name else one.url for one in options.servers] or [options.server]


def _workflows(options: RunOptions) -> list[str]:
    return [
        f"{one.file}{f'@{one.server}' if one.server else ''}{'' if one.weight == 1 else f'={one.weight:g}'}"
        for one in options.workflows
    ]


def _rate(load: Load) -> list[str]:
    return [rate_text(load.stages[0].per_s)] if isinstance(load, Open) and _steady(load) else []


def _stages(load: Load) -> list[str]:
    return [",".join(map(_stage, load.stages))] if isinstance(load, Open) and not _steady(load) else []


def _steady(load: Open) -> bool:
    """Whether the load is one rate without an end."""
    first = load.stages[0]
    return len(load.stages) == 1 and first.seconds is None and first.to_per_s is None


def _stage(stage: Stage) -> str:
    to = "" if stage.to_per_s is None else f"..{rate_text(stage.to_per_s)}"
    return f"{duration_text(stage.seconds or 0)}@{rate_text(stage.per_s)}{to}"


def _arrivals(load: Load) -> list[str]:
    if not isinstance(load, Open) or load.arrivals == "poisson":
        return []
    return [f"gamma:{load.cv:g}" if load.arrivals == "gamma" else load.arrivals]


def _order(plan: Plan) -> list[str]:
    if plan.order == "random":
        return []
    return [f"sticky:{plan.stickiness:g}" if plan.order == "sticky" else plan.order]


_SPELLED: dict[str, Callable[[Any], list[str]]] = {
    "server": _servers,
    "servers": lambda _: [],
    "workflow": _workflows,
    "rate": _rate,
    "stages": _stages,
    "arrivals": _arrivals,
    "order": _order,
}
"""Flags whose text is made of more than their field: of the struct that holds it."""
