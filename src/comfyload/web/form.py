"""The form that starts a run: its fields are the flags of `comfyload run`, and what was filled in becomes options."""

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
from msgspec import Struct, structs

from comfyload.app.gate_flags import UNTIL_PROVEN, GateFlags
from comfyload.app.run.given import JOBS, ended, options_of
from comfyload.app.run.repeat import text_of, texts_of
from comfyload.errors import UsageError
from comfyload.judge.gates.grammar import GateSet
from comfyload.judge.gates.sequential import BUDGET_JOBS
from comfyload.load.grammar import duration_text, parse_duration
from comfyload.record.flag import OptionFlag, flags_of
from comfyload.record.options import RunOptions, WorkflowChoice

APART = ("server", "workflow")
"""Given apart from the fields: a server by its name, workflows by their content."""
ELSEWHERE = (
    "run_dir", "servers", "dispatch", "resolve_all", "header", "ca_file", "insecure", "upload", "comfyui_dir", "scrape",
    "metrics_log", "gates",
)  # fmt: skip
"""What names files of this machine, other servers, or secrets: a page does not choose them."""
FILES = ("data", "policy", "replay")
"""Files whose content the page gives."""
MOST_TEXTS = 200
MOST_LETTERS = 10_000
_GROUPS = {None: "Run", "Load": "Load", "Jobs": "Jobs", "Server": "Server", "Output": "Output", "Gates": "Gates"}
_EXAMPLES = {"TIME": "90s, 5m, 1h30m", "RATE": "12/min"}

StoreFile = Callable[[str, bytes], Path]
"""Keeps a file of this name and content; where it is."""


class Field(Struct, frozen=True, kw_only=True):
    """A field of the form. `default`, `example`: in words. `choices`: all values there are, [] if it has any value."""

    name: str
    flag: str
    group: str
    kind: str
    words: str
    default: str
    unit: str
    example: str
    choices: list[str]
    least: float | None
    most: float | None
    whole: bool


class Filled(Struct, frozen=True, kw_only=True):
    """What a form was filled with. `gates`: as they were written, with what belongs to them."""

    options: RunOptions
    gates: GateFlags
    until_proven: bool

    @property
    def gate_set(self) -> GateSet | None:
        """The gates; None: those that apply where none is given."""
        given = self.gates
        return given.read() if given.gate or given.expect or given.independent_failures else None


def known() -> dict[str, OptionFlag]:
    """Every flag that is a field, by its name in Python."""
    proven = OptionFlag(flag=UNTIL_PROVEN, path=(), kind="switch", of=bool, default=False, least=None)
    flags = flags_of(RunOptions) | flags_of(GateFlags) | {"until_proven": proven}
    return {name: flag for name, flag in flags.items() if name not in (*APART, *ELSEWHERE)}


def fields() -> list[Field]:
    """The fields, those of a group together, in the groups' order."""
    groups = list(_GROUPS.values())
    return sorted((_field(name, flag) for name, flag in known().items()), key=lambda field: groups.index(field.group))


def fill(
    values: Mapping[str, Any], workflows: list[WorkflowChoice], server: str, headers: list[str], store: StoreFile
) -> Filled:
    """The options of the values that the fields were filled with.

    Raises:
        UsageError: there is no such field, a value is not one of its kind, or fields contradict each other.
    """
    flags = known()
    read = {name: _read(name, value, flags, store) for name, value in values.items() if value not in (None, "", [])}
    gates = GateFlags(**{name: read.pop(name) for name in GateFlags.__struct_fields__ if name in read})
    until_proven = bool(read.pop("until_proven", False))
    base = RunOptions(server=server, workflows=workflows, headers=headers)
    options = options_of(read, base)
    options = structs.replace(
        options, plan=ended(options.plan, BUDGET_JOBS if until_proven else JOBS, budget=until_proven)
    )
    try:
        msgspec.convert(msgspec.to_builtins(options), RunOptions)  # bounds that only the fields' types have
    except msgspec.ValidationError as error:
        raise UsageError(str(error), "see the field's bounds") from None
    found = Filled(options=options, gates=gates, until_proven=until_proven)
    _ = found.gate_set
    return found


def values_of(options: RunOptions) -> dict[str, Any]:
    """What the fields would be filled with for these options; files by their paths."""
    found: dict[str, Any] = {}
    for name, flag in known().items():
        texts = texts_of(flag, options) if flag.parameter in flags_of(RunOptions) else []
        if texts:
            found[name] = True if flag.kind == "switch" else texts if flag.kind == "texts" else texts[0]
    return found


def _field(name: str, flag: OptionFlag) -> Field:
    known, kind = flag.flag, _kind(name, flag)
    has_default = flag.default is not None and kind not in ("switch", "texts", "file", "rate") and flag.default != []
    return Field(
        name=name,
        flag=known.name,
        group=_GROUPS[known.panel],
        kind=kind,
        words=known.help,
        default=known.default or (text_of(flag, flag.default) if has_default else ""),
        unit={"duration": "s", "rate": "jobs per time"}.get(kind, ""),
        example=_EXAMPLES.get(known.metavar, "" if kind in ("switch", "choice", "file") else known.metavar),
        choices=_choices(flag),
        least=flag.least,
        most=known.most,
        whole=flag.of is int,
    )


def _kind(name: str, flag: OptionFlag) -> str:
    if name in FILES:
        return "file"
    if flag.flag.metavar == "RATE":
        return "rate"
    return "choice" if _choices(flag) else flag.kind


def _choices(flag: OptionFlag) -> list[str]:
    """Where the metavar is the values themselves, there are no others."""
    of = list(get_args(flag.of)) if get_origin(flag.of) is Literal else []
    return of if "|".join(of) == flag.flag.metavar else []


def _read(name: str, value: Any, flags: Mapping[str, OptionFlag], store: StoreFile) -> Any:
    flag = flags.get(name)
    if flag is None:
        raise _unknown(name, flags)
    shown = flag.flag.name
    if name in FILES:
        return str(store(*_file(shown, value)))
    match flag.kind:
        case "switch":
            if not isinstance(value, bool):
                raise UsageError(f"{shown} is a switch", "write true or false")
            return value
        case "texts":
            if not isinstance(value, list) or len(value) > MOST_TEXTS:
                raise UsageError(f"{shown} is a list of at most {MOST_TEXTS} texts", flag.flag.metavar)
            return [_text(shown, text) for text in value]
        case "duration":
            seconds = float(value) if _is_number(value) else parse_duration(_text(shown, value))
            return _bounded(flag, seconds, duration_text(seconds))
        case "number":
            return _number(flag, value)
    return _text(shown, value)


def _number(flag: OptionFlag, value: Any) -> float | int:
    found = value
    if isinstance(value, str):
        try:
            found = float(value) if flag.of is float else int(value)
        except ValueError:
            found = None
    if not _is_number(found) or (flag.of is int and found != int(found)):
        raise UsageError(f"{flag.flag.name} is not a {'whole ' if flag.of is int else ''}number", flag.flag.help)
    found = int(found) if flag.of is int else float(found)
    return _bounded(flag, found, f"{found:.12g}")


def _bounded(flag: OptionFlag, value: float, words: str) -> float:
    least, most = flag.least, flag.flag.most
    if least is not None and value < least:
        raise UsageError(f"{flag.flag.name} {words} is too little", f"give {least:g} or more")
    if most is not None and value > most:
        raise UsageError(f"{flag.flag.name} {words} is too much", f"give {most:g} or less")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


def _text(shown: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MOST_LETTERS or "\0" in value:
        raise UsageError(f"{shown} is not a text", f"write at most {MOST_LETTERS} letters")
    return value


def _file(shown: str, value: Any) -> tuple[str, bytes]:
    if not isinstance(value, dict) or not all(isinstance(value.get(key), str) for key in ("name", "text")):
        raise UsageError(f"{shown} is not a file", 'write {"name": "NAME", "text": "CONTENT"}')
    return value["name"], value["text"].encode("utf-8", "surrogatepass")


def _unknown(name: str, flags: Mapping[str, OptionFlag]) -> UsageError:
    every = flags_of(RunOptions)
    if name in ELSEWHERE or name in APART:
        flag = every[name].flag.name if name in every else f"--{name}"
        return UsageError(f"{flag} is not for a page", "use comfyload run, or configure the dashboard's server")
    near = difflib.get_close_matches(name, flags, 1)
    return UsageError(f"there is no option {name[:60]!r}", f"did you mean {near[0]}?" if near else "")
