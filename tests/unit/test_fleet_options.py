"""How several servers are given: by flags, a file, a plan and the environment; and what of them is kept."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from yarl import URL

from comfyload.app.run.given import options_of, parse_workflow
from comfyload.app.run.options import read_plan, shareable, to_toml
from comfyload.app.run.repeat import command
from comfyload.app.run.servers import connect_all, resolved, tables_again, without_secrets
from comfyload.comfy.address import redacted
from comfyload.errors import UsageError
from comfyload.record.gateway_options import ServerTable
from comfyload.record.options import RunOptions, WorkflowChoice

FILE = """
[[server]]
name = "gpu1"
url = "http://10.0.0.1:8188"
weight = 2.0
tags = ["sdxl"]

[[server]]
url = "https://10.0.0.2:8188"
headers = { Authorization = "env:GPU2" }
"""


def given(base: RunOptions = RunOptions(), **values: Any) -> RunOptions:  # noqa: B008 - frozen
    return options_of(values, base)


def test_one_server_is_as_it_was() -> None:
    one = given(server=[":8188"])
    assert (one.server, one.servers) == ("127.0.0.1:8188", [])
    assert given(server=["gpu1=http://a:1"]) == given(server=["http://a:1"])
    assert command(one)[:4] == ["comfyload", "run", "--server", "127.0.0.1:8188"]
    assert "servers" not in to_toml(one) and "dispatch" not in to_toml(one)


def test_several_servers_have_names_of_their_own() -> None:
    several = given(server=[":8188", "big=http://b:1", "http://c/?token=x=y"])
    assert [(one.name, one.url) for one in several.servers] == [
        ("", "127.0.0.1:8188"),
        ("big", "http://b:1"),
        ("", "http://c/?token=x=y"),
    ]
    assert several.server == "127.0.0.1:8188"

    async def names() -> list[str]:
        async with connect_all(several) as found:
            return [one.name for one in found]

    assert asyncio.run(names()) == ["gpu1", "big", "gpu2"]


def test_a_file_of_servers_is_the_gateways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "servers.toml").write_text(FILE)
    found = given(servers=str(tmp_path / "servers.toml"), dispatch="affinity")
    assert [one.url for one in found.servers] == ["http://10.0.0.1:8188", "https://10.0.0.2:8188"]
    assert (found.servers[0].weight, found.servers[0].tags, found.dispatch) == (2.0, ["sdxl"], "affinity")
    monkeypatch.setenv("GPU2", "secret-of-gpu2")

    async def headers() -> list[list[str]]:
        async with connect_all(structs.replace(found, headers=["X-Team=a"])) as connected:
            return [one.headers for one in connected]

    assert asyncio.run(headers()) == [["X-Team"], ["Authorization", "X-Team"]]
    monkeypatch.delenv("GPU2")
    with pytest.raises(UsageError, match="the environment has no GPU2"):
        asyncio.run(headers())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no server"),
        ("[[server]]\nurl = 'a'\nwieght = 1", "wieght"),
        ("[[server]]\nurl='a'\nweight=0", "weight"),
    ],
)
def test_a_file_that_is_wrong_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "servers.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        given(servers=str(tmp_path / "servers.toml"))


def test_flags_and_file_contradict_each_other_but_the_environment_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "servers.toml").write_text(FILE)
    with pytest.raises(UsageError, match="--server and --servers"):
        given(server=["a"], servers=str(tmp_path / "servers.toml"))
    monkeypatch.setenv("COMFYLOAD_SERVER", "http://a")
    assert len(given(server=["http://a"], servers=str(tmp_path / "servers.toml")).servers) == 2


def test_a_plan_holds_the_servers_and_one_with_a_single_server_reads_as_before(tmp_path: Path) -> None:
    (tmp_path / "servers.toml").write_text(FILE)
    (tmp_path / "plan.toml").write_text('server = "http://a:1"\n')
    old = read_plan(tmp_path / "plan.toml")
    assert (old.server, old.servers, old.dispatch) == ("http://a:1", [], "least-backlog")
    new = given(servers=str(tmp_path / "servers.toml"), dispatch="pinned", workflow=["a.json@sdxl=2"])
    (tmp_path / "plan.toml").write_text(to_toml(new))
    assert read_plan(tmp_path / "plan.toml") == new
    over = given(new, server=["http://b:1"])
    assert (over.server, over.servers) == ("http://b:1", [])


def test_two_servers_at_one_address_are_refused() -> None:
    async def connect(options: RunOptions) -> None:
        async with connect_all(options):
            pass

    with pytest.raises(UsageError, match="once more"):
        asyncio.run(connect(given(server=["http://a:1", "http://a:1/"])))
    with pytest.raises(UsageError, match="two servers have the address"):
        asyncio.run(connect(given(server=["http://u:one@a:1", "http://u:two@a:1"])))


@pytest.mark.parametrize(
    ("text", "file", "server", "weight"),
    [
        ("a.json", "a.json", "", 1.0),
        ("a.json@gpu1", "a.json", "gpu1", 1.0),
        ("a.json@gpu1=2.5", "a.json", "gpu1", 2.5),
        ("a.json=3", "a.json", "", 3.0),
        ("me@host/a.json", "me@host/a.json", "", 1.0),
        ("@gpu1", "@gpu1", "", 1.0),
    ],
)
def test_a_workflow_may_name_its_server(text: str, file: str, server: str, weight: float) -> None:
    assert parse_workflow(text) == WorkflowChoice(file=file, server=server, weight=weight)


def test_a_file_whose_name_has_an_at_sign_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a@b.json").write_text("{}")
    assert parse_workflow(f"{tmp_path}/a@b.json").server == ""
    assert parse_workflow(f"{tmp_path}/a@b.json=2") == WorkflowChoice(file=f"{tmp_path}/a@b.json", weight=2.0)


def test_a_workflow_that_names_a_server_needs_pinned() -> None:
    with pytest.raises(UsageError, match=r"a\.json names the server gpu1"):
        given(server=["a", "b"], workflow=["a.json@gpu1"])
    with pytest.raises(UsageError, match="unknown --dispatch"):
        given(server=["a", "b"], dispatch="fastest")


# --- what is kept


def test_secrets_are_in_neither_plan_nor_manifest() -> None:
    tables = [
        ServerTable(name="a", url="http://me:secret@a:1", headers={"X-Key": "secret", "Y-Key": "env:Y"}),
        ServerTable(name="b", url="http://b:1"),
    ]
    plan, anew = shareable(RunOptions(server="http://me:secret@a:1", servers=tables))
    assert "secret" not in to_toml(plan) and len(anew) == 2

    async def kept() -> list[ServerTable]:
        public = [structs.replace(tables[0], headers={}), tables[1]]
        async with connect_all(RunOptions(servers=public)) as found:
            return without_secrets(tables, found)

    manifest = asyncio.run(kept())
    assert "secret" not in repr(manifest) and manifest[0].headers == {"Y-Key": "env:Y"}


def test_a_resumed_run_keeps_its_servers_and_takes_their_secrets_again() -> None:
    kept = [
        ServerTable(name="a", url=redacted(URL("http://a:1/?token=secret")), weight=2.0),
        ServerTable(name="b", url="http://b:1/"),
    ]
    with pytest.raises(UsageError, match="held a secret"):
        tables_again(kept, RunOptions())
    both = given(server=["a=http://a:1/?token=secret", "b=http://b:1"])
    assert [(one.url, one.weight) for one in tables_again(kept, both)] == [
        ("http://a:1/?token=secret", 2.0),
        ("http://b:1", 1.0),
    ]
    for wrong, message in (
        (given(server=["http://c:1"]), "the run has 2 servers: a, b"),
        (given(server=["a=http://a:1/?token=x", "c=http://b:1"]), "the run has 2 servers: a, b"),
        (given(server=["a=http://a:1/?token=x", "b=http://elsewhere:1"]), "records name it by that address"),
    ):
        with pytest.raises(UsageError, match=message):
            tables_again(kept, wrong)
    with pytest.raises(UsageError, match="the run has one server"):
        tables_again([], both)


def test_the_command_that_repeats_a_run_names_every_server_or_is_left_out() -> None:
    several = given(server=["a=http://a:1", "b=http://b:1"], workflow=["x.json@a"], dispatch="pinned")
    words = command(several)
    assert words[2:] == [
        "--server", "a=http://a:1", "--server", "b=http://b:1", "--workflow", "x.json@a", "--dispatch", "pinned",
    ]  # fmt: skip
    weighed = structs.replace(several, servers=[structs.replace(several.servers[0], weight=2.0), several.servers[1]])
    assert command(weighed) == []


# --- names with several addresses


def test_every_address_of_a_name_is_a_server_that_is_still_called_by_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, 8188)) for address in ("10.0.0.1", "10.0.0.2", "10.0.0.1")]

    async def find(options: RunOptions) -> RunOptions:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        return await resolved(options)

    found = asyncio.run(find(RunOptions(server="http://pool:8188/x/", resolve_all=True)))
    assert [one.url for one in found.servers] == ["http://10.0.0.1:8188/x/", "http://10.0.0.2:8188/x/"]
    assert all(one.headers == {"Host": "pool:8188"} for one in found.servers) and not found.resolve_all
    named = asyncio.run(find(RunOptions(servers=[ServerTable(name="pool", url="http://pool:8188")], resolve_all=True)))
    assert [one.name for one in named.servers] == ["pool-1", "pool-2"]
    with pytest.raises(UsageError, match="the certificate of pool"):
        asyncio.run(find(RunOptions(server="https://pool", resolve_all=True)))
    plain = RunOptions(server="http://10.0.0.9:1", resolve_all=True)
    assert [one.url for one in asyncio.run(find(plain)).servers] == ["http://10.0.0.9:1"]


def test_a_name_without_an_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror(-2, "Name or service not known")

    async def find() -> RunOptions:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        return await resolved(RunOptions(server="http://nowhere:1", resolve_all=True))

    with pytest.raises(UsageError, match="nowhere has no address: Name or service not known"):
        asyncio.run(find())
