"""`comfyload logs`: the instrumentation log for people."""

from pathlib import Path
from typing import Annotated

import typer

from comfyload.app.logs import LogQuery, print_log
from comfyload.app.run.servers import server_url
from comfyload.cli.signature import with_flags
from comfyload.errors import UsageError
from comfyload.record.flag import Flag
from comfyload.report.console import Screen
from comfyload.report.logs import Printer


@with_flags
def logs(
    query: LogQuery,
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

    if file is not None and server is not None:
        raise UsageError("--server names a log, and so does FILE", "leave one of them out")
    if file is not None:
        place = locate(file, follow=follow)
    else:
        place = search(None if server is None else server_url(server), follow=follow)
    printer = Printer(Screen(), as_json=json_)
    if place.found:
        printer.say(f"{place.path}: {place.found}")
    print_log(place, query, printer, follow=follow)
