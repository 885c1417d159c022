"""Commands as typer has them, but for `<bool>` behind a switch, paragraphs that do not fit, and what loads slowly."""

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption


class Command(TyperCommand):
    """A command whose switches have no type in its help."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _ours(super().get_params(ctx))


class HelpGroup(TyperGroup):
    """A group of commands whose switches have no type in its help."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _ours(super().get_params(ctx))


def flowing(text: str) -> str:
    """A docstring whose paragraphs are one line each, so that a terminal's width alone breaks them."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))


def _ours(params: list[Any]) -> list[Any]:
    for param in params:
        if isinstance(param, TyperOption) and param.is_flag:
            param.metavar = ""
        if hasattr(param, "type_descriptor") and "process_value" not in vars(param):
            param.process_value = partial(_taken, param, param.process_value)
    return params


def _taken(param: Any, check: Any, ctx: Any, value: Any) -> Any:
    """What typer's `check` makes of a value. Its check loads pydantic, so it gets only what is odd or may be wrong."""
    of, parser, taken = param.type_descriptor.annotation, param.type_descriptor.parameter_info.parser, None
    texts = value if isinstance(value, list | tuple) else [value]
    plain = all(isinstance(one, str) and one.isascii() for one in texts)
    if parser and value is not None:
        taken = parser(value)
    elif of is Path and value is not None and (os.access(value, os.R_OK) or not os.access(value, os.F_OK)):
        taken = Path(value) if str(value).isascii() else None
    elif of in (int, float) and plain and re.fullmatch("[0-9]{1,15}", value):
        taken = of(value) if (param.min or 0) <= of(value) <= (param.max or 1e15) else None
    elif type(value) is of or (of == list[str] and value):
        taken = value if plain or of not in (str, list[str]) else None
    if value is None and not param.required:
        taken = () if param.multiple or param.nargs == -1 else None
    elif taken is None:
        return check(ctx, value)
    return taken if param.callback is None else param.callback(ctx, param, taken)
