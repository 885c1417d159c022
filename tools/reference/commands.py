"""The page of the command line."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable, Iterable
from typing import Any

from typer.models import ArgumentInfo, OptionInfo

from comfyload.cli import app_of
from tools.reference.markdown import NOTE, Row, table

app = app_of()


def cli_page() -> str:
    parts = ["# Command line", "", NOTE, _prose(_callback(app.registered_callback))]
    parts += [
        table(("flag", "meaning", "default"), [_version_row(), ("`--help`, `-h`", "Show the help and exit.", "")])
    ]
    parts.append("All commands share the same [exit codes](exit-codes.md).\n")
    for name, function in commands():
        rows = list(_options(function))
        parts += [f"## comfyload {name}\n", _prose(function)]
        parts.append(table(("flag", "meaning", "default"), rows) if rows else "This command has no flags.\n")
    return "\n".join(parts)


def commands() -> Iterable[tuple[str, Callable[..., Any]]]:
    """Every command with its full name; groups come last."""
    groups = [("", app), *((f"{_name_of(group)} ", group.typer_instance) for group in app.registered_groups)]
    for prefix, group in groups:
        for command in group.registered_commands if group else ():
            if command.hidden:
                continue
            function = _callback(command)
            yield f"{prefix}{command.name or function.__name__}", function


def _name_of(group: Any) -> str:
    return str(group.typer_instance.info.name)


def options_of(function: Callable[..., Any]) -> Iterable[tuple[list[str], OptionInfo | ArgumentInfo, Any, Any]]:
    """(flags, option, type, default) of every parameter of a command; an argument has no flags."""
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, option = typing.get_args(hints[name])
        flags = [flag for flag in (option.default, *(option.param_decls or ())) if str(flag).startswith("-")]
        named = [] if isinstance(option, ArgumentInfo) else flags or [f"--{name.replace('_', '-')}"]
        yield named, option, kind, parameter.default


def _options(function: Callable[..., Any]) -> Iterable[Row]:
    for flags, option, kind, default in options_of(function):
        if option.hidden:
            continue
        named = ", ".join(f"`{flag}`" for flag in flags)
        if kind is not bool:
            named = f"{named} `{option.metavar or _kind(kind)}`".strip()
        text, _, words = str(option.help).replace("\\[", "[").partition(" [default: ")
        if option.envvar:
            text += f" Default: the environment variable `{option.envvar}`."
        text += _bounds(option)
        known = words.removesuffix("]") or ("" if default in (None, False) else str(default))
        shown = "**required**" if default is inspect.Parameter.empty else f"`{known}`" if known else ""
        yield named, text, shown


def _version_row() -> Row:
    (flags, option, _, _), *_ = options_of(_callback(app.registered_callback))
    return ", ".join(f"`{flag}`" for flag in flags), str(option.help), ""


def _callback(info: Any) -> Callable[..., Any]:
    function: Callable[..., Any] = info.callback
    return function


def _kind(kind: Any) -> str:
    inner = [part for part in typing.get_args(kind) if part is not type(None)] or [kind]
    return {"int": "N", "float": "X", "str": "TEXT", "Path": "FILE"}.get(getattr(inner[0], "__name__", ""), "VALUE")


def _bounds(option: OptionInfo | ArgumentInfo) -> str:
    if option.min is None:
        return ""
    return f" At least {option.min:g}." if option.max is None else f" From {option.min:g} to {option.max:g}."


def _prose(function: Callable[..., Any]) -> str:
    """A docstring as Markdown, without rich's markup; `comfyload …` lines become code."""
    text = re.sub(r"\[/?bold\]", "", inspect.getdoc(function) or "")
    text = re.sub(r"(?<!\n)Examples?:? (?=comfyload)", "\n\n", text).replace("Example: comfyload", "\n\ncomfyload")
    parts: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        if not paragraph.strip():
            continue
        if paragraph.startswith("comfyload "):
            if parts and parts[-1].endswith("```\n"):
                parts[-1] = parts[-1].removesuffix("```\n") + f"{paragraph}\n```\n"
            else:
                parts.append(f"```bash\n{paragraph}\n```\n")
        elif paragraph.strip() not in ("Example", "Examples"):
            parts.append(f"{paragraph}\n")
    return "\n".join(parts)
