"""What a command leaves: a file, JSON, or a page."""

from pathlib import Path

import typer

from comfyload.errors import UsageError
from comfyload.record.atomic import check_target, is_stdout, write_whole
from comfyload.record.codec import encode_pretty
from comfyload.report.console import Screen, print_json
from comfyload.report.page import Chart, Page
from comfyload.report.render.terminal import render
from comfyload.visible import visible_lines


def check_writable(flag: str, path: Path | None, *, json_: bool = False) -> None:
    """Refuse a file that cannot be written, before the work starts; its folder is made. `json_`: JSON goes to stdout.

    Raises:
        UsageError: it is a directory, or lies where nothing can be written.
    """
    if path is None:
        return
    if json_ and is_stdout(path):
        raise UsageError(f"{flag} {path} and --json both go to standard output", "leave one of them out")
    check_target(flag, path)


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Print a text; what a terminal would take for a command is made visible."""
    typer.echo(visible_lines(text), err=err, nl=nl)


def for_people(*files: Path | None) -> Screen:
    """Where tables go: standard output, or standard error if one of the files is standard output."""
    return Screen(stderr=any(is_stdout(file) for file in files))


def write_json(file: Path | None, document: object) -> None:
    """Write the document where a file is given."""
    if file is not None:
        write_whole(file, encode_pretty(document) + b"\n")


def write_chart(file: Path | None, chart: Chart) -> None:
    """Draw the chart where a file is given."""
    if file is not None:
        from comfyload.report.charts.chart import png

        write_whole(file, png(chart))


def show_page(
    page: Page, console: Screen, document: object | None = None, *, quiet: bool = False, all_: bool = False
) -> None:
    """Print the document as JSON if there is one, else the page, else nothing."""
    if document is not None:
        print_json(document)
    elif not quiet:
        render(page, console, all=all_)
