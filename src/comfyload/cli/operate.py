"""`comfyload jobs` and `comfyload servers`: a gateway that runs, from the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comfyload import clock
from comfyload.app.run.servers import server_url
from comfyload.cli.flags import Json
from comfyload.cli.output import echo
from comfyload.cli.signature import with_flags
from comfyload.errors import UsageError
from comfyload.record.flag import Flag
from comfyload.report.console import Screen, print_json
from comfyload.report.page import Page, Value, table
from comfyload.report.render.terminal import render
from comfyload.words import DASH, count

if TYPE_CHECKING:
    from comfyload.app.operate import Operator

TOKEN = "COMFYLOAD_TOKEN"
"""The variable with the token that the gateway demands."""

EVERY = ("all", "--all")
"""In place of a job's id: each that needs attention. `--retry --all` takes the second word as its value."""

GatewayUrl = Annotated[
    str, Flag("--gateway", "URL", "The gateway; its token comes from COMFYLOAD_TOKEN.", env="COMFYLOAD_GATEWAY")
]
HERE = "http://127.0.0.1:8189"


@with_flags
def jobs(
    job: Annotated[str | None, typer.Argument(metavar="[ID]", help="Show this job with its attempts.")] = None,
    failed: Annotated[bool, Flag("--failed", "", "Only jobs that need attention: they failed for good.")] = False,
    retry: Annotated[
        str | None, Flag("--retry", "ID|--all", "Send a job again, or each that needs attention; it gets a new id.")
    ] = None,
    dismiss: Annotated[
        str | None, Flag("--dismiss", "ID|--all", "A job, or each that does, needs no attention any more.")
    ] = None,
    limit: Annotated[int, Flag("--limit", "N", "How many, the newest first.", least=1, most=1000)] = 20,
    gateway: GatewayUrl = HERE,
    json_: Json = False,
) -> None:
    """List the jobs of a gateway, show one with its attempts, or send those again that failed.

    A job that is sent again gets an id of its own; the old one needs no attention any more.

    Exit code 1: a job was refused and still needs attention.

    [bold]Examples[/bold]

    comfyload jobs --failed

    comfyload jobs --retry --all
    """
    if sum(each is not None for each in (job, retry, dismiss)) > 1:
        raise UsageError("an ID, --retry and --dismiss are three things to do", "give one of them")
    operator = _operator(gateway)
    if retry is not None:
        _retry(operator, retry, as_json=json_)
    elif dismiss is not None:
        path = ("jobs", "dismiss") if dismiss in EVERY else ("jobs", dismiss, "dismiss")
        done = clock.run(operator.act(*path))
        print_json(done) if json_ else echo(f"{count(len(done['dismissed']), 'job')} dismissed.")
    elif job is not None:
        found = clock.run(operator.ask("jobs", job))
        print_json(found) if json_ else _show_job(found)
    else:
        query = {"limit": str(limit), **({"attention": "1"} if failed else {})}
        found = clock.run(operator.ask("jobs", query=query))
        print_json(found) if json_ else _show_jobs(found)


class ServerAction(Enum):
    """What is done with a server."""

    drain = "drain"
    resume = "resume"
    join = "join"
    leave = "leave"


@with_flags
def servers(
    action: Annotated[
        ServerAction | None,
        typer.Argument(metavar="[drain|resume|join|leave]", help="What to do with a server; without it, list them."),
    ] = None,
    server: Annotated[
        str | None, typer.Argument(metavar="[NAME|URL]", help="The server's name; of one that joins, its address.")
    ] = None,
    name: Annotated[
        str | None, Flag("--name", "NAME", "What a server that joins is called.", default="gpu1, gpu2, …")
    ] = None,
    gateway: GatewayUrl = HERE,
    json_: Json = False,
) -> None:
    """List the servers behind a gateway and how they differ, or direct one.

    drain: it gets no more jobs, and those that wait there go elsewhere. leave: it is used no more once its
    jobs have ended. The next start of the gateway, and SIGHUP, go by its flags and its file.

    [bold]Examples[/bold]

    comfyload servers

    comfyload servers drain gpu2

    comfyload servers join http://10.0.0.7:8188 --name gpu3
    """
    if (action is None) != (server is None):
        raise UsageError("a server is directed by two words", "such as: comfyload servers drain gpu2")
    if name is not None and action is not ServerAction.join:
        raise UsageError("--name is for a server that joins", "leave it out")
    operator = _operator(gateway)
    if action is None or server is None:
        found = clock.run(operator.ask("servers"))
        print_json(found) if json_ else _show_servers(found)
        return
    if action is ServerAction.join:
        done = clock.run(operator.act("servers", body={"url": server_url(server), "name": name or ""}))
    else:
        done = clock.run(operator.act("servers", server, action.value))
    print_json(done) if json_ else echo(_server_words(done))


def _operator(gateway: str) -> Operator:
    from comfyload.app.operate import Operator

    return Operator(server_url(gateway), os.environ.get(TOKEN, ""))


# --- jobs


def _retry(operator: Operator, job: str, *, as_json: bool) -> None:
    if job in EVERY:
        done = clock.run(operator.act("jobs", "retry"))
    else:
        done = {"sent": [clock.run(operator.act("jobs", job, "retry"))], "refused": []}
    if as_json:
        print_json(done)
    else:
        for each in done["sent"]:
            echo(f"{each['instead_of']} is sent again as {each['id']}")
        for each in done["refused"]:
            echo(f"{each['id']} is not sent again: {each['error']}")
        if not done["sent"] and not done["refused"]:
            echo("No job needs attention.")
        if left := done.get("needing_attention"):
            echo(f"{count(left, 'job needs', 'jobs need')} attention still.")
    if done["refused"]:
        raise typer.Exit(1)


def _show_jobs(found: dict[str, Any]) -> None:
    if not found["jobs"]:
        echo("No jobs.")
        return
    for each in found["jobs"]:  # one line each, whatever the width: an id is to be copied
        why = ": ".join(words for words in (each.get("server"), each.get("error")) if words)
        echo(f"{each['id']}  {_when(each['created_ms'])}  {_state(each):15}  {why}".rstrip())
    needing = found["needing_attention"]
    echo(f"\n{count(len(found['jobs']), 'job')} of {found['total']}.")
    if needing:
        echo(f"{count(needing, 'job needs', 'jobs need')} attention: comfyload jobs --retry --all")


def _show_job(job: dict[str, Any]) -> None:
    echo(f"{job['id']}  {_state(job)}")
    for label, key in (("workflow", "workflow"), ("tenant", "tenant"), ("sent again as", "became"), ("error", "error")):
        if job.get(key):
            echo(f"{label}: {job[key]}")
    for label, key in (("created", "created_ms"), ("began", "started_ms"), ("ended", "ended_ms")):
        if job.get(key):
            echo(f"{label}: {_when(job[key])}")
    rows = [
        [str(number), each.get("server") or DASH, each.get("outcome") or DASH, each.get("error", "")]
        for number, each in enumerate(job["attempts"], 1)
    ]
    if rows:
        render(Page(title="", tables=[table("attempts", (">", "server", "outcome", "~"), rows)]), Screen())


def _state(job: dict[str, Any]) -> str:
    return "needs attention" if job["attention"] else str(job["state"]).replace("_", " ")


def _when(ms: float) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


# --- servers


def _show_servers(found: dict[str, Any]) -> None:
    if not found["servers"]:
        echo("No servers.")
        return
    looks = {"up": "good", "down": "bad", "joining": "doubt"}
    rows = [
        [
            each["name"] + (" (home)" if each["home"] else ""),
            each["url"],
            Value(each["state"], look=looks.get(each["state"], "plain")),  # type: ignore[arg-type]
            str(each.get("jobs", DASH)),
            str(each.get("others", DASH)),
            each.get("comfyui") or DASH,
            each.get("why", ""),
        ]
        for each in found["servers"]
    ]
    columns = ("server", "address", "state", ">jobs", ">others'", "ComfyUI", "~")
    tables = [table("servers", columns, rows)]
    if found["differ"]:
        tables.append(table("differ", ("they differ in", "server", "~"), list(_differences(found["differ"]))))
    render(Page(title="", tables=tables), Screen())


def _differences(found: dict[str, dict[str, Any]]) -> Iterator[list[str]]:
    for what, values in found.items():
        for number, (name, value) in enumerate(values.items()):
            yield ["" if number else what, name, str(value or DASH)]


def _server_words(server: dict[str, Any]) -> str:
    words = {
        "up": "gets jobs",
        "down": "does not work at present",
        "drained": "gets no more jobs",
        "leaving": "leaves as soon as its jobs have ended",
        "joining": "joins as soon as it answers",
    }
    why = f": {server['why']}" if server.get("why") else ""
    return f"{server['name']} ({server['url']}) {words[server['state']]}{why}"
