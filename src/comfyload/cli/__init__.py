"""The command line: flags in, exit code out. What is slow to import is imported by the command that needs it."""

import errno
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from comfyload.cli.help import Command, HelpGroup, flowing
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

PANELS = {
    "Measure": (
        "run.run",
        "fleet.fleet",
        "checklist.checklist",
        "ab.ab",
        "doctor.doctor",
        "again.resume",
        "again.again",
        "again.cleanup",
    ),
    "Judge": ("again.show", "logs.logs", "judge.check", "judge.compare", "judge.trend"),
    "Advise": ("advise.saturate", "advise.capacity", "advise.policy", "faults.faults"),
    "Reports and baselines": ("ui.ui", "report.report", "report.export", "baseline.baseline"),
    "In production": ("gateway.gateway", "operate.jobs", "operate.servers"),
    "Without a server": ("sim.demo", "sim.sim"),
    "On the server": ("probe.probe",),
}
"""Module and name of each command, or group of commands."""
WITHOUT_ARGUMENTS = ("faults", "logs", "trend", "ui", "jobs", "servers", "demo", "sim")


def app_of(words: Sequence[str] = ()) -> typer.Typer:
    """The command line with the one command that comes first in the words, else with all, as help needs."""
    made = typer.Typer(
        name="comfyload",
        cls=HelpGroup,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        epilog=EXIT_CODES,
    )
    places = {place.partition(".")[2]: (panel, place) for panel, places in PANELS.items() for place in places}
    named = [places[word] for word in words[:1] if word in places]
    for panel, place in named or places.values():
        module, _, name = place.partition(".")
        verb = getattr(import_module(f"comfyload.cli.{module}"), name)
        if isinstance(verb, typer.Typer):
            made.add_typer(verb, rich_help_panel=panel)
            commands = verb.registered_commands
        else:
            epilog = EXIT_CODES if name == "run" else None
            made.command(no_args_is_help=name not in WITHOUT_ARGUMENTS, rich_help_panel=panel, epilog=epilog)(verb)
            commands = made.registered_commands[-1:]
        for command in commands:
            command.cls = Command
            command.help = flowing(command.callback.__doc__ or "")
    made.callback()(root)
    made.command(hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(plan)
    return made


def plan() -> None:
    """Use `comfyload run --save-plan plan.toml` instead."""
    raise UsageError("comfyload plan is now a flag of comfyload run", "comfyload run … --save-plan plan.toml")


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"comfyload {version('comfyload')}")
        raise typer.Exit


def root(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Load-test a ComfyUI server.

    Start with [bold]comfyload demo[/bold], which needs no server, then:

    comfyload run --server http://127.0.0.1:8188 --workflow book_medium.json --jobs 12 --concurrency 2
    """


def main(app: typer.Typer | None = None) -> None:
    """Run the command line; each of our errors is one line with a hint, and its exit code."""
    fit_streams()
    try:
        (app or app_of(sys.argv[1:]))()
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
