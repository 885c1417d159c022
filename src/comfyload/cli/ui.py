"""`comfyload ui`: the dashboard, one page over the files of runs."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from comfyload import clock
from comfyload.app.run.servers import server_url
from comfyload.cli.flags import DEFAULT_ARCHIVE, Archive
from comfyload.cli.operate import TOKEN
from comfyload.cli.signature import with_flags
from comfyload.errors import UsageError
from comfyload.record.flag import SERVER, Flag
from comfyload.record.gateway_options import ACCESS

RUNS = Path("runs")
QUIT_AFTER = "5m"
"""Of a dashboard that a run opens."""


@with_flags
def ui(
    runs: Annotated[Path, Flag("--runs", "DIR", "The folder of runs.")] = RUNS,
    archive: Archive = DEFAULT_ARCHIVE,
    server: Annotated[
        list[str] | None,
        Flag(
            "--server",
            "[NAME=]URL",
            "A server or gateway that the page may use. Repeatable.",
            SERVER,
            env="COMFYLOAD_SERVER",
            many=True,
        ),
    ] = None,
    host: Annotated[str, Flag("--host", "HOST", "The address to listen on.", ACCESS)] = "127.0.0.1",
    port: Annotated[int, Flag("--port", "", "Port; 0 takes a free one.", ACCESS, least=0, most=65535)] = 8288,
    allow_host: Annotated[
        list[str] | None,
        Flag("--allow-host", "NAME", "A name by which the page is called. Repeatable.", ACCESS, many=True),
    ] = None,
    quit_after: Annotated[
        float | None, Flag("--quit-after", "TIME", "End when no tab has been open for so long.", least=1.0)
    ] = None,
) -> None:
    """Serve a page that shows runs, past ones and those that go on, whoever started them, from their files.

    Whoever reaches another address than loopback must know a token: that in COMFYLOAD_TOKEN, or else one that is made
    and printed. If COMFYLOAD_TOKEN is set, it is demanded on loopback too.

    [bold]Example[/bold]: comfyload ui --runs runs --server http://127.0.0.1:8188
    """
    from comfyload.app.gateway_config import checked_token, servers_of
    from comfyload.app.gateway_options import is_loopback
    from comfyload.web.server import DashboardOptions, serve_dashboard

    known, made = os.environ.get(TOKEN, ""), ""
    token = checked_token(known, TOKEN) if known else None
    if token is None and not is_loopback(host):
        token = made = secrets.token_urlsafe(32)
    options = DashboardOptions(
        runs=runs,
        archive=archive,
        servers=servers_of([server_url(each) for each in server or []]),
        gateway_token=known,
        host=host,
        port=port,
        hosts=allow_host or [],
        token=token,
        quit_after_s=quit_after,
    )

    def say(url: str) -> None:
        typer.echo(url)
        if made:
            typer.echo(f"token: {made}", err=True)

    clock.run(serve_dashboard(options, say))


def open_page(runs: Path, archive: Path, server: str) -> str:
    """Begin `comfyload ui` in a process of its own, with the lowest claim on the machine, and open its page where there
    is a screen; its address. It ends some minutes after its last tab was closed.

    It is waited for, so that a load that begins next is not measured while another program loads. `server` goes by the
    environment, as it may hold a secret.

    Raises:
        UsageError: it does not begin.
    """
    import subprocess
    import webbrowser

    import psutil

    words = ["ui", "--runs", str(runs), "--archive", str(archive), "--port", "0", "--quit-after", QUIT_AFTER]
    process = subprocess.Popen(
        [sys.executable, "-m", "comfyload", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "COMFYLOAD_SERVER": server},
        text=True,
        start_new_session=sys.platform != "win32",  # Ctrl-C is for the run
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    with contextlib.suppress(psutil.Error, OSError):
        psutil.Process(process.pid).nice(getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 10))
    assert process.stdout is not None
    with process.stdout as output:
        url = output.readline().strip()
    if not url:
        raise UsageError("the dashboard did not begin", "see what it says: comfyload ui")
    has_screen = sys.platform in ("win32", "darwin") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
    if has_screen:  # else a browser of the terminal would take the terminal
        webbrowser.open(url)
    return url
