"""The command line: flags in, exit code out. What is slow to import is imported by the command that needs it."""

import errno
import sys
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
from comfyload.cli.help import Command, HelpGroup, flowing
from comfyload.cli.judge import check, compare, trend
from comfyload.cli.logs import logs
from comfyload.cli.probe import probe
from comfyload.cli.report import export, report
from comfyload.cli.run import run
from comfyload.cli.sim import demo, sim
from comfyload.cli.streams import fit_streams
from comfyload.errors import INTERRUPTED, READER_GONE, ComfyloadError, OwnFault, UsageError
from comfyload.hidden import without_hidden
from comfyload.visible import shortened, visible

NO_FILES = (errno.EMFILE, errno.ENFILE)
DISK_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
EXIT_CODES = (
    "Exit codes: 0 ok · 1 a gate failed · 2 usage or bad input · 3 undecided · 4 server unreachable · "
    "5 run invalid or nothing measured · 70 an error in comfyload · 130 interrupted."
)

app = typer.Typer(
    name="comfyload",
    cls=HelpGroup,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=EXIT_CODES,
)
PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Measure": (run, checklist, ab, doctor, resume, cleanup),
    "Judge": (show, logs, check, compare, trend),
    "Advise": (saturate, capacity, policy, faults),
    "Reports and baselines": (report, export),
    "Without a server": (demo, sim),
}
WITHOUT_ARGUMENTS = (faults, logs, trend, demo, sim)

for panel, verbs in PANELS.items():
    for verb in verbs:
        epilog = EXIT_CODES if verb is run else None
        app.command(no_args_is_help=verb not in WITHOUT_ARGUMENTS, rich_help_panel=panel, epilog=epilog)(verb)
app.add_typer(baseline, rich_help_panel="Reports and baselines")
app.add_typer(probe, rich_help_panel="On the server")
for group in (app, baseline, probe):
    for command in group.registered_commands:
        command.cls = Command
        command.help = flowing(command.callback.__doc__ or "")


@app.command(hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def plan() -> None:
    """Use `comfyload run --save-plan plan.toml` instead."""
    raise UsageError("comfyload plan is now a flag of comfyload run", "comfyload run … --save-plan plan.toml")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"comfyload {version('comfyload')}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Load-test a ComfyUI server.

    Start with [bold]comfyload demo[/bold], which needs no server, then:

    comfyload run --server http://127.0.0.1:8188 --workflow book_medium.json --jobs 12 --concurrency 2
    """


def main() -> None:
    """Run the command line; each of our errors is one line with a hint, and its exit code."""
    fit_streams()
    try:
        app()
    except ComfyloadError as error:
        _say(_reported(error) if isinstance(error, OwnFault) else error)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, BrokenPipeError) as error:
        _say_notes(error)
        sys.exit(INTERRUPTED if isinstance(error, KeyboardInterrupt) else READER_GONE)
    except SystemExit as leaving:
        sys.exit(_code(leaving))
    except Exception as error:  # noqa: BLE001 - an error in comfyload, unless the machine lacks something
        ours = _of_this_machine(error) or _reported(OwnFault(error))
        _say(ours, error)
        sys.exit(ours.exit_code)


def _code(leaving: SystemExit) -> int | str | None:
    """Where typer itself leaves with 1, which says that a gate failed, what the shell says of such an end.

    That is where a reader has gone (`--help | head`), and where a question got no answer (^D, ^C).
    """
    cause = leaving.__context__
    if isinstance(cause, BrokenPipeError):
        return READER_GONE
    return INTERRUPTED if isinstance(cause, typer.Abort) else leaving.code


def _of_this_machine(error: Exception) -> UsageError | None:
    """What the machine lacks; None: the error has another cause."""
    if not isinstance(error, OSError):
        return None
    if error.errno in NO_FILES:
        return UsageError("this process may open no more files", "raise the limit: ulimit -n 1024")
    if error.errno in DISK_FULL:
        return UsageError(f"cannot write: {(error.strerror or 'the disk is full').lower()}", "make room")
    if error.filename is not None:
        return UsageError(f"{error.filename}: {(error.strerror or str(error)).lower()}", "look at what is there")
    return None


def _reported(fault: OwnFault) -> OwnFault:
    """The fault with the file that has its traceback for a hint."""
    from comfyload.cli.crash import write_crash

    kept = "what was measured is kept; " if fault.run is not None else ""
    file = write_crash(fault)
    fault.hint = f"{kept}please report it with {file}" if file else f"{kept}please report it"
    return fault


def _say(error: ComfyloadError, noted: BaseException | None = None) -> None:
    """One line, and as the last thing what is still to be done: the notes of `noted`, or else of the error."""
    from rich.text import Text

    from comfyload.report.console import Screen

    message, hint = shortened(without_hidden(error.message)), without_hidden(error.hint)
    line = Text.assemble(("error: ", "bold red"), message if error.lines else visible(message))
    if hint:
        line.append(f" — {visible(hint)}", style="dim")
    Screen(stderr=True, soft_wrap=True, highlight=False).print(line)
    _say_notes(noted or error)


def _say_notes(error: BaseException) -> None:
    for note in getattr(error, "__notes__", []):
        print(visible(without_hidden(note)), file=sys.stderr)  # noqa: T201 - no terminal's width must cut a command in two
