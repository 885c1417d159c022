"""`comfyload logs`: the instrumentation log for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["logs"]

ROWS = "Which rows"


def logs(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="The log, or a run directory for the run's own. \\[default: $COMFYUI_METRICS_LOG, else "
            "infra/observability/comfyui_metrics.ndjson]",
        ),
    ] = None,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Go on with what comes, also when the log is rotated. Ctrl-C ends it."),
    ] = False,
    errors: Annotated[bool, typer.Option("--errors", help="Only errors.", rich_help_panel=ROWS)] = False,
    event: Annotated[
        list[str] | None,
        typer.Option(metavar="GLOB", help="Only these events, such as 'prompt.*'. Repeatable.", rich_help_panel=ROWS),
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="ID", help="Only prompts whose id begins so.", rich_help_panel=ROWS)
    ] = None,
    node: Annotated[str | None, typer.Option(metavar="ID", help="Only this node.", rich_help_panel=ROWS)] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="From 10m, 2h or 3d ago, or an instant in ISO 8601.", rich_help_panel=ROWS),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="WHEN", help="Up to then, written the same way.", rich_help_panel=ROWS)
    ] = None,
    last: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Only the last N rows, or prompts. \\[default: all; with --follow and without --since 10]",
            rich_help_panel=ROWS,
        ),
    ] = None,
    samples: Annotated[
        bool,
        typer.Option("--samples", help="Readings of GPU and process too: two rows a second.", rich_help_panel=ROWS),
    ] = False,
    rotated: Annotated[
        bool | None,
        typer.Option(
            "--rotated/--no-rotated",
            help="Older files, FILE.1 and so on, too. \\[default: as far back as --since asks]",
            rich_help_panel=ROWS,
        ),
    ] = None,
    by_prompt: Annotated[
        bool, typer.Option("--by-prompt", help="A line for each prompt, with what the application wrote of it.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Rows as JSON, one a line, as they were written.")] = False,
) -> None:
    """Show the instrumentation log: rows of the probe in ComfyUI and of applications, in the order of their times.

    On a terminal in columns, in a pipe each row on one line with its day. Times are local.

    [bold]Examples[/bold]

    comfyload logs --follow

    comfyload logs --errors --since 2h

    comfyload logs runs/20261123T120000Z-book --by-prompt
    """
    from comfyload.app.logs import LogQuery, instant, locate, print_log
    from comfyload.report.console import Screen
    from comfyload.report.logs import Printer

    query = LogQuery(
        errors=errors,
        events=event or [],
        prompt=prompt,
        node=node,
        since=None if since is None else instant("--since", since),
        until=None if until is None else instant("--until", until),
        last=last,
        samples=samples,
        older=rotated,
        follow=follow,
        by_prompt=by_prompt,
    )
    print_log(locate(file, follow=follow), query, Printer(Screen(), as_json=json_))
