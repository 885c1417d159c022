"""`comfyload plan`: the flags of `comfyload run`, and the plan file that is made of them."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, get_type_hints

import typer

from comfyload.cli.flags import check_writable
from comfyload.cli.options import options_of
from comfyload.cli.run import run
from comfyload.cli.streams import echo_toml

__all__ = ["plan"]

NOT_PLANNED = (
    "dry_run",
    "quiet",
    "json_",
    "save",
    "archive",
    "gate",
    "gates",
    "expect",
    "independent_failures",
    "until_proven",
    "strict",
)
"""Flags that are about running and judging; a plan says what is sent."""


def plan(**flags: Any) -> None:
    """Write the flags of `comfyload run` as a plan file, in TOML.

    [bold]Example[/bold]

    comfyload plan --from-flags --server :8188 --workflow book.json --rate 6/min -o plan.toml
    """
    from comfyload.app.run.options import shareable, to_toml
    from comfyload.cli.flags import echo
    from comfyload.comfy.address import parse_headers
    from comfyload.record.atomic import write_whole

    options = options_of(flags)
    parse_headers([header for header in options.headers if not header.partition("=")[2].startswith("env:")])
    options, anew = shareable(options)
    text = to_toml(options)
    for what in anew:
        echo(f"A plan holds nothing secret. Give anew {what}", err=True)
    output = flags["output"]
    if output is None:
        echo_toml(text)
    else:
        check_writable("--output", output)
        write_whole(output, text.encode())


def _takes_the_flags_of_run() -> None:
    """Give `plan` the flags of `run`, less those that are about running."""
    hints = get_type_hints(run, include_extras=True)
    hints["from_flags"] = Annotated[bool, typer.Option("--from-flags", help="Of the other flags; it does so anyway.")]
    kept = {name: p for name, p in inspect.signature(run).parameters.items() if name not in NOT_PLANNED}
    defaults = {"from_flags": False, **{name: parameter.default for name, parameter in kept.items()}}
    plan.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
            for name, default in defaults.items()
        ]
    )
    plan.__annotations__ = {name: hints[name] for name in defaults}


_takes_the_flags_of_run()
