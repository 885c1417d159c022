"""The commands in a page: taken out of its scripts, and parsed by our own command line without being run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from comfyload.cli import app_of

app = app_of()

__all__ = ["commands", "parsed"]

_VARIABLE = re.compile(r"\$\w+|\$\{\w+\}")
_ENDS = re.compile(r"^(\|\||&&|[|;&]|[0-9]?[<>]+|#.*)")


def commands(script: str) -> Iterator[list[str]]:
    """The words after `comfyload` of each line that begins with it, up to what the shell takes for itself.

    A variable of the shell is 1, which is a number and a text. The script is for bash or for PowerShell.
    """
    for line in re.sub(r"[\\`]\n", " ", script).splitlines():
        words = (
            shlex.split(_VARIABLE.sub("1", line.strip().removeprefix("run: ")), comments=True)
            if "comfyload " in line
            else []
        )
        if words[:1] == ["comfyload"] and words[1:] != ["--version"]:
            ends = [place for place, word in enumerate(words) if _ENDS.match(word)]
            yield words[1 : ends[0] if ends else None]


def parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command's name and its flags as it would get them; raises what the command line raises of a wrong one."""
    command: Any = get_command(app)
    named = ["comfyload"]
    while hasattr(command, "resolve_command"):
        context = command.make_context(named[-1], list(words), resilient_parsing=False)
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
        named.append(name)
    return " ".join(named[1:]), command.make_context(named[-1], list(words)).params
