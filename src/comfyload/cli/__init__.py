"""The command line: flags in, exit code out. Whatever is heavy is imported by the command that needs it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from comfyload.cli.again import cleanup, resume, show
from comfyload.cli.doctor import doctor
from comfyload.cli.run import plan, run
from comfyload.cli.sim import demo, sim
from comfyload.errors import ComfyloadError

__all__ = ["app", "main"]

EXIT_CODES = (
    "Exit codes: 0 ok · 1 a gate failed · 2 usage or bad input · 3 undecided · 4 server unreachable · "
    "5 run invalid or nothing measured · 130 interrupted."
)

app = typer.Typer(
    name="comfyload",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXIT_CODES,
)
app.command(no_args_is_help=True, epilog=EXIT_CODES)(run)
app.command(no_args_is_help=True)(plan)
for verb in (doctor, show, resume, cleanup):
    app.command(no_args_is_help=True)(verb)
app.command()(sim)
app.command()(demo)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"comfyload {version('comfyload')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Load a ComfyUI server, and say truthfully what happened.

    Start with [bold]comfyload demo[/bold], which needs no server, then:

    comfyload run --server http://127.0.0.1:8188 --workflow book_medium.json --jobs 12 --concurrency 2
    """


def main() -> None:
    """Run the command line; every error of ours is one line with a hint, and its exit code."""
    try:
        app()
    except ComfyloadError as error:
        from rich.console import Console
        from rich.text import Text

        line = Text.assemble(("error: ", "bold red"), error.message)
        if error.hint:
            line.append(f" — {error.hint}", style="dim")
        Console(stderr=True, soft_wrap=True, highlight=False).print(line)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
