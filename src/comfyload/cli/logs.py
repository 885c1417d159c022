"""`comfyload logs`: the instrumentation log for people."""

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from msgspec import Struct, structs

from comfyload.cli.signature import with_flags
from comfyload.record.flag import Flag

ROWS = "Which rows"


def _instant(text: str, flag: str) -> datetime:
    from comfyload.app.logs import instant

    return instant(flag, text)


class RowFlags(Struct, frozen=True, kw_only=True):
    """Which rows to show: the fields of a `LogQuery`."""

    errors: Annotated[bool, Flag("--errors", "", "Only errors.", ROWS)] = False
    events: Annotated[
        list[str] | None, Flag("--event", "GLOB", "Only these events, such as 'prompt.*'. Repeatable.", ROWS)
    ] = None
    prompt: Annotated[str | None, Flag("--prompt", "ID", "Only prompts whose id begins with this.", ROWS)] = None
    node: Annotated[str | None, Flag("--node", "ID", "Only this node.", ROWS)] = None
    since: Annotated[
        datetime | None,
        typer.Option(
            metavar="WHEN",
            help="From 10m, 2h or 3d ago, or an instant in ISO 8601.",
            rich_help_panel=ROWS,
            parser=partial(_instant, flag="--since"),
        ),
    ] = None
    until: Annotated[
        datetime | None,
        typer.Option(
            metavar="WHEN",
            help="Up to this time, written as for --since.",
            rich_help_panel=ROWS,
            parser=partial(_instant, flag="--until"),
        ),
    ] = None
    last: Annotated[
        int | None,
        Flag(
            "--last", "N", "Only the last N rows.", ROWS, least=1, default="all; with --follow and without --since 10"
        ),
    ] = None
    samples: Annotated[bool, Flag("--samples", "", "Also readings of GPU and process, two rows a second.", ROWS)] = (
        False
    )
    older: Annotated[
        bool | None,
        Flag(
            "--rotated/--no-rotated",
            "",
            "Also older files: FILE.1 and so on.",
            ROWS,
            default="as far back as --since needs",
        ),
    ] = None


@with_flags
def logs(
    rows: RowFlags,
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="The log, or a run directory for the run's own. \\[default: $COMFYUI_METRICS_LOG, else "
            "infra/observability/comfyui_metrics.ndjson, else the log of the last run]",
        ),
    ] = None,
    server: Annotated[str | None, Flag("--server", "URL", "The log of this server's probe, on this machine.")] = None,
    follow: Annotated[
        bool, Flag("--follow", "", "Show new rows as they come, through rotations too. Ctrl-C ends it.", short="-f")
    ] = False,
    json_: Annotated[bool, Flag("--json", "", "Print the rows as they were written, in JSON.")] = False,
) -> None:
    """Show the instrumentation log: rows of the probe in ComfyUI and of applications, in order of time.

    Each row is one line; times are local. In a pipe every line has its date.

    [bold]Examples[/bold]

    comfyload logs --follow

    comfyload logs --errors --since 2h

    comfyload logs runs/20261123T120000Z-book --prompt 1a2b
    """
    from comfyload.app.log_place import locate, search
    from comfyload.app.logs import LogQuery, print_log
    from comfyload.cli.options import server_url
    from comfyload.errors import UsageError
    from comfyload.report.console import Screen
    from comfyload.report.logs import Printer

    if file is not None and server is not None:
        raise UsageError("--server names a log, and so does FILE", "leave one of them out")
    if file is not None:
        place = locate(file, follow=follow)
    else:
        place = search(None if server is None else server_url(server), follow=follow)
    printer = Printer(Screen(), as_json=json_)
    if place.found:
        printer.say(f"{place.path}: {place.found}")
    print_log(place, LogQuery(**structs.asdict(rows), follow=follow), printer)
