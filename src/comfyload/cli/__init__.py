"""The command line: flags in, exit code out. Whatever is heavy is imported by the command that needs it."""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from comfyload.cli.ab import ab
from comfyload.cli.advise import capacity, policy, saturate
from comfyload.cli.again import cleanup, resume, show
from comfyload.cli.baseline import baseline
from comfyload.cli.checklist import checklist
from comfyload.cli.doctor import doctor
from comfyload.cli.faults import faults
from comfyload.cli.judge import check, compare, trend
from comfyload.cli.logs import logs
from comfyload.cli.probe import probe
from comfyload.cli.report import export, report
from comfyload.cli.run import plan, run
from comfyload.cli.sim import demo, sim
from comfyload.cli.streams import fit_streams
from comfyload.errors import ComfyloadError, UsageError
from comfyload.visible import visible

__all__ = ["app", "main"]

NO_FILES = (errno.EMFILE, errno.ENFILE)
DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
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
PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Measure": (run, checklist, ab, doctor, plan, resume, cleanup),
    "Judge": (show, logs, check, compare, trend),
    "Advise": (saturate, capacity, policy, faults),
    "Keep and pass on": (report, export),
    "Without a server": (demo, sim),
}
WITHOUT_ARGUMENTS = (faults, logs, trend, demo, sim)

for panel, verbs in PANELS.items():
    for verb in verbs:
        epilog = EXIT_CODES if verb is run else None
        app.command(no_args_is_help=verb not in WITHOUT_ARGUMENTS, rich_help_panel=panel, epilog=epilog)(verb)
app.add_typer(baseline, rich_help_panel="Keep and pass on")
app.add_typer(probe, rich_help_panel="On the server")


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
    fit_streams()
    try:
        app()
    except ComfyloadError as error:
        _say(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt as error:
        _say_notes(error)
        sys.exit(130)
    except BrokenPipeError as error:
        _say_notes(error)
        sys.exit(141)
    except OSError as error:
        if error.errno in NO_FILES:
            _say(UsageError("this process may open no more files", "raise the limit: ulimit -n 1024"))
        elif error.errno in DISK_FULL:
            _say(UsageError(f"cannot write: {(error.strerror or 'the disk is full').lower()}", "make room"))
        else:
            raise
        _say_notes(error)
        sys.exit(2)
    except Exception as error:
        if not getattr(error, "__notes__", None):
            raise
        traceback.print_exception(error)
        _say_notes(error)  # of a group of errors, Python says them first
        sys.exit(1)


def _say(error: ComfyloadError) -> None:
    from rich.text import Text

    from comfyload.report.medium import Screen

    line = Text.assemble(("error: ", "bold red"), error.message if error.lines else visible(error.message))
    if error.hint:
        line.append(f" — {visible(error.hint)}", style="dim")
    Screen(stderr=True, soft_wrap=True, highlight=False).print(line)
    _say_notes(error)


def _say_notes(error: BaseException) -> None:
    """What is still to be done about it, as the last thing that is said."""
    for note in getattr(error, "__notes__", []):
        print(visible(note), file=sys.stderr)  # noqa: T201 - no terminal's width must cut a command in two
