"""Help as typer prints it, but without the `<bool>` behind a switch and with paragraphs that fit the terminal."""

import re
from typing import Any

from typer.core import TyperCommand, TyperGroup, TyperOption


class Command(TyperCommand):
    """A command whose switches have no type in its help."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _bare(super().get_params(ctx))


class HelpGroup(TyperGroup):
    """A group of commands whose switches have no type in its help."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _bare(super().get_params(ctx))


def flowing(text: str) -> str:
    """A docstring whose paragraphs are one line each, so that a terminal's width alone breaks them."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text))


def _bare(params: list[Any]) -> list[Any]:
    for param in params:
        if isinstance(param, TyperOption) and param.is_flag:
            param.metavar = ""
    return params
