"""From a command's parameters to its flags: the one place where a signature is made for typer.

A flag is a `Flag` in an annotation, as in the options of a run. Two kinds of parameters stand for several flags:
`Given`, for flags of a run's options, and a struct whose fields are annotated as parameters are.
"""

import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from msgspec import Struct, structs
from typer.models import OptionInfo

from comfyload.app.run.given import options_of
from comfyload.app.run.repeat import text_of
from comfyload.errors import UsageError
from comfyload.judge.columns.ledger import clean
from comfyload.load.grammar import duration_text, parse_duration
from comfyload.record.flag import Kind, OptionFlag, flags_of, flags_on
from comfyload.record.options import RunOptions


class Takes(Struct, frozen=True):
    """Which flags of its options a command takes, by their names in Python; none named: all.

    `base`: what holds where a flag is not given. `env`: whether environment variables stand for flags. `help`: texts
    for flags that mean something more special than their field does.
    """

    names: tuple[str, ...] = ()
    base: RunOptions = RunOptions()
    required: tuple[str, ...] = ()
    env: bool = True
    help: dict[str, str] = {}

    def flags(self) -> list[OptionFlag]:
        known = flags_of(type(self.base))
        names = self.names or tuple(known)
        several = "servers" in names
        return [known[name] if several or name != "server" else _once(known[name]) for name in names]


class Given:
    """The flags of a run's options as they were given: `values` by their names in Python."""

    def __init__(self, takes: Takes, values: dict[str, Any]) -> None:
        self._base = takes.base
        self._values = values
        for flag in takes.flags():
            if flag.flag.old and (value := values.pop(_name_of(flag.flag.old))) is not None:
                sys.stderr.write(f"note: {flag.flag.old} is now called {flag.flag.name}\n")
                values[flag.parameter] = values[flag.parameter] or value

    def options(self, base: RunOptions | None = None) -> RunOptions:
        """The options; `base`: of a plan file, what holds where a flag is not given.

        Raises:
            UsageError: flags contradict each other, or one is invalid.
        """
        return options_of(self._values, self._base if base is None else base)


def _once(flag: OptionFlag) -> OptionFlag:
    """The flag for a command that takes it once."""
    return structs.replace(flag, kind="text", flag=structs.replace(flag.flag, many=False, help=_ONE_SERVER))


def with_flags(command: Callable[..., None]) -> Callable[..., None]:
    """The command as typer needs it: with a parameter for each flag."""
    hints = get_type_hints(command, include_extras=True)
    parts = {
        name: _part(parameter.replace(annotation=hints[name]))
        for name, parameter in inspect.signature(command).parameters.items()
    }

    @functools.wraps(command)
    def flat(**values: Any) -> None:
        command(**{name: make({one.name: values[one.name] for one in flags}) for name, (flags, make) in parts.items()})

    parameters = [one for flags, _ in parts.values() for one in flags]
    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    return flat


def option(flag: OptionFlag, default: str = "", text: str = "", *, env: bool = True, old: bool = False) -> OptionInfo:
    """The flag for typer. `default`: its words; `text`: a help instead of the field's own; `old`: by its old name."""
    known = flag.flag
    default = default or known.default
    help_text = (text or known.help) + (f" \\[default: {default}]" if default else "")
    names = [known.old] if old else [known.name, *([known.short] if known.short else [])]
    number = flag.kind == "number"
    found: OptionInfo = typer.Option(
        *names,
        metavar=known.metavar or None,
        help=help_text,
        envvar=known.env if env else None,
        hidden=old,
        rich_help_panel=known.panel,
        min=flag.least if number else None,
        max=known.most if number else None,
        show_default=flag.kind != "duration",
        parser=_parser(flag),
    )
    return found


def _parser(flag: OptionFlag) -> Callable[[str], Any] | None:
    if flag.kind == "duration":
        return partial(duration, name=flag.flag.name, least=flag.least or 0.0)
    return partial(instant, flag=flag.flag.name) if flag.flag.metavar == "WHEN" else None


def duration(text: str | float, name: str = "", least: float = 0.0) -> float:
    """Seconds of a duration, or of a default that is seconds already; `least`: the shortest that is taken.

    Raises:
        UsageError: it is invalid or too short.
    """
    seconds = parse_duration(text) if isinstance(text, str) else text
    if seconds < least:
        raise UsageError(f"{name} {text} is too short", f"give {duration_text(least)} or more")
    return seconds


def instant(text: str, flag: str) -> datetime:
    """`30s`, `10m`, `2h` or `3d` ago, or an instant in ISO 8601; without an offset it is local time.

    Raises:
        UsageError: the text is neither.
    """
    ago = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?) ?([smhd])", text.strip())
    try:
        if ago:
            unit_s = {"s": 1, "m": 60, "h": 3600, "d": 86400}[ago[2]]
            return datetime.now(UTC) - timedelta(seconds=float(ago[1]) * unit_s)
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        hint = "write 30s, 10m, 2h or 3d, or an instant such as 2026-11-23T14:00"
        raise UsageError(f"invalid {flag} {clean(text, 60)!r}", hint) from None


Part = tuple[list[inspect.Parameter], Callable[[dict[str, Any]], Any]]
"""The flags of a parameter of a command, and what makes the parameter's value of theirs."""


def _part(parameter: inspect.Parameter) -> Part:
    hint = parameter.annotation
    if get_origin(hint) is Annotated and get_args(hint)[0] is Given:
        takes = next(one for one in get_args(hint) if isinstance(one, Takes))
        return list(_of_options(takes)), partial(Given, takes)
    if isinstance(hint, type) and issubclass(hint, Struct):
        return [_plain(one.name, one.default, one.type) for one in structs.fields(hint)], lambda given: hint(**given)
    return [_plain(parameter.name, parameter.default, hint)], lambda given: given[parameter.name]


def _plain(name: str, default: Any, hint: Any) -> inspect.Parameter:
    """A parameter that is one flag, an argument, or typer's own."""
    for flag in flags_on(hint):
        of = get_args(hint)[0]
        numeric = {int, float} & {of, *get_args(of)}
        kind: Kind = "duration" if flag.metavar == "TIME" else "number" if numeric else "text"
        words = duration_text(default) if kind == "duration" and isinstance(default, float) else ""
        known = OptionFlag(flag=flag, path=(), kind=kind, of=of, default=default, least=flag.least)
        hint = Annotated[of, option(known, words)]
    return _keyword(name, default, hint)


def _of_options(takes: Takes) -> Iterator[inspect.Parameter]:
    for flag in takes.flags():
        kind, value = _TYPES.get(flag.kind) or flag.of | None, flag.value(takes.base)
        words = "" if not value or flag.kind in ("switch", "texts") else text_of(flag, value)
        empty: Any = False if flag.kind == "switch" else None
        default = inspect.Parameter.empty if flag.parameter in takes.required else empty
        more = takes.help.get(flag.parameter, "")
        yield _keyword(flag.parameter, default, Annotated[kind, option(flag, words, more, env=takes.env)])
        if flag.flag.old:
            yield _keyword(_name_of(flag.flag.old), empty, Annotated[kind, option(flag, env=False, old=True)])


def _keyword(name: str, default: Any, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, KEYWORD_ONLY, default=default, annotation=annotation)


def _name_of(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


_ONE_SERVER = "The ComfyUI server, with its base path if it has one."
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_TYPES: dict[str, Any] = {"switch": bool, "duration": float | None, "text": str | None, "texts": list[str] | None}
