"""What single requests are answered: by the simulator, through a gateway and, with COMFYLOAD_LIVE_URL, by real servers.

Each row was seen on ComfyUI 0.33.0. The graphs need no model.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.conformance.deviations import DEVIATIONS
from tests.support.places import KINDS, place

JSON = "application/json; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"  # what the static files say of what is not there
SOME_UUID = "00000000-0000-4000-8000-00000000dead"
BROKEN = "500 Internal Server Error\n\nServer got itself in trouble"
DISABLED = {"error": {"code": "SERVICE_DISABLED", "message": str, "details": {}}}


class Anything:
    """Stands for a body that is not compared."""


@dataclass(frozen=True)
class Row:
    """A request, and what the reply says. In `says` a type stands for any value of it, and a dict for one with at
    least these keys; `headers` of the reply are compared where they are named here. `behind`: what a gateway says
    instead, by which of its deviations."""

    ask: str
    status: int
    says: Any = ""
    kind: str = ""
    body: str | bytes | None = None
    sent: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    behind: tuple[str, Row] | None = None


def refused(ask: str, why: str) -> Row:
    return Row(ask, 400, {"error": why}, JSON)


def not_allowed(ask: str, allow: str) -> Row:
    return Row(ask, 405, "405: Method Not Allowed", TEXT, headers={"Allow": allow})


def missing(ask: str) -> Row:
    return Row(ask, 404, "", BYTES)


def empty(ask: str, status: int = 200, body: str | None = None, sent: dict[str, str] | None = None) -> Row:
    return Row(ask, status, body=body, sent=sent or {})


def given(ask: str, says: Any) -> Row:
    return Row(ask, 200, says, JSON)


def guarded(row: Row, status: int = 403) -> Row:
    """A gateway refuses it, and says why."""
    return replace(row, behind=("guarded", Row(row.ask, status, {"error": str}, JSON, sent=row.sent)))


def ambiguous(row: Row) -> Row:
    """A gateway refuses its path, which others may read otherwise."""
    return replace(row, behind=("guarded", Row(row.ask, 400, "400: Bad Request", TEXT, body=row.body)))


ORDERS = "sort_order must be 'asc' or 'desc'"
KEYS = "sort_by must be 'created_at' or 'execution_duration'"
FOREIGN = {"Origin": "http://evil.example"}
CROSS = {"Sec-Fetch-Site": "cross-site"}
PACKAGE = {"name": "comfyui-frontend-package", "installed": str, "required": str}

ROWS = [
    # The page.
    Row("GET /", 200, Anything, "text/html", headers={"Cache-Control": "no-store, must-revalidate"}),
    Row("GET /api/", 200, Anything, "text/html"),
    Row("HEAD /", 200, "", "text/html"),
    not_allowed("DELETE /", "GET,HEAD"),
    # What the list of jobs is asked with.
    refused("GET /api/jobs?sort_by=bad", KEYS),
    refused("GET /api/jobs?sort_by=", KEYS),
    refused("GET /api/jobs?sort_order=bad", ORDERS),
    refused("GET /api/jobs?sort_by=bad&sort_order=bad&limit=x&offset=x", KEYS),
    refused("GET /api/jobs?limit=abc&offset=abc", "limit must be an integer"),
    refused("GET /api/jobs?limit=0&offset=abc", "limit must be a positive integer"),
    refused("GET /api/jobs?offset=abc", "offset must be an integer"),
    refused("GET /api/jobs?offset=", "offset must be an integer"),
    given("GET /api/jobs?limit=1&offset=-5", {"pagination": {"offset": 0, "limit": 1}}),
    given("GET /api/jobs?limit=1&limit=x", {"pagination": {"limit": 1}}),
    given("GET /api/jobs?sort_by=EXECUTION_DURATION&sort_order=ASC&limit=1", {"jobs": list}),
    given("GET /api/jobs?workflow_id=nobody-has-this", {"jobs": [], "pagination": {"total": 0, "has_more": False}}),
    given("GET /api/jobs?workflow_id=nobody-has-this&offset=7", {"jobs": [], "pagination": {"offset": 7}}),
    Row("GET /api/jobs/cancel", 404, {"error": "Job not found"}, JSON),
    not_allowed("PUT /api/jobs/cancel", "GET,HEAD,POST"),
    # A list where an object belongs.
    empty("POST /queue", body="[]"),
    empty("POST /history", body="[]"),
    empty("POST /queue", body='"x"'),
    *(Row(f"POST /{path}", 500, BROKEN, TEXT, body=body) for path, body in (
        ("queue", '["clear"]'), ("history", '["delete"]'), ("queue", "7"), ("history", "null"), ("interrupt", "[]"),
        ("free", "[]"), ("queue", "not json"), ("settings", "[]"), ("users", "{}"), ("settings/x", "not json"))),
    # Who asks.
    *(guarded(empty(ask, 403, sent=FOREIGN)) for ask in (
        "GET /queue", "GET /", "GET /nothing", "OPTIONS /queue", "GET /ws")),
    *(guarded(empty(ask, 403, sent=CROSS)) for ask in (
        "GET /queue", "POST /prompt", "GET /", "GET /ws", "OPTIONS /prompt")),
    guarded(Row("GET /prompt", 200, {"exec_info": dict}, JSON, sent={"Origin": "null"})),
    Row("GET /prompt", 200, {"exec_info": dict}, JSON, sent={"Sec-Fetch-Site": "same-site"}),
    guarded(Row("GET /prompt", 200, {"exec_info": dict}, JSON, sent={"Origin": "http://127.0.0.1"})),
    guarded(empty("GET /prompt", 403, sent={"Origin": "http://127.0.0.1:1"})),
    guarded(empty("GET /prompt", 403, sent={"Origin": "http://localhost"})),
    guarded(Row("GET /prompt", 200, {"exec_info": dict}, JSON, sent={"Host": "a.example", **FOREIGN}), 421),
    guarded(empty("GET /prompt", 403, sent={"Host": "localhost:7", **FOREIGN})),
    guarded(empty("GET /prompt", 403, sent={"Host": "127.0.0.9", "Origin": "http://127.0.0.1"})),
    # What only the page and its tools ask.
    given("GET /internal/logs", str),
    given("GET /internal/logs/raw", {"entries": list, "size": {"cols": int, "rows": int}}),
    given("GET /internal/folder_paths", {"checkpoints": list, "loras": list, "custom_nodes": list}),
    *(given(f"GET /internal/files/{kind}", list) for kind in ("output", "input", "temp")),
    refused("GET /internal/files/models", "Invalid directory type"),
    *(Row(ask, 404, "404: Not Found", TEXT) for ask in (
        "GET /internal", "GET /internal/", "GET /internal/nothing", "POST /internal/nothing", "GET /internal/files")),
    missing("GET /api/internal/logs"),
    not_allowed("POST /internal/logs", "GET,HEAD"),
    not_allowed("GET /internal/logs/subscribe", "PATCH"),
    empty("PATCH /internal/logs/subscribe", body='{"clientId": "nobody", "enabled": false}'),
    Row("PATCH /internal/logs/subscribe", 500, BROKEN, TEXT, body="{}"),
    given("GET /api/users", {"storage": "server", "migrated": bool}),
    given("GET /api/settings", dict),
    given("GET /settings/nobody-set-this", None),
    *(given(f"GET /api/{name}", dict) for name in ("i18n", "workflow_templates", "global_subgraphs")),
    given("GET /api/node_replacements", dict),
    given("GET /global_subgraphs/nothing", None),
    given("GET /api/experiment/models", list),
    given("GET /experiment/models/checkpoints", list),
    empty("GET /experiment/models/nothing", 404),
    given("GET /extensions", list),
    missing("GET /api/users/x"),
    # The users, of which there is one.
    Row("POST /users", 400, {"error": "Duplicate username."}, JSON, body='{"username": "default"}'),
    Row("POST /users", 400, {"error": "username not provided"}, JSON, body='{"username": " "}'),
    Row("POST /users", 400, {"error": "System User prefix not allowed"}, JSON, body='{"username": "__x"}'),
    # Assets, which are switched off.
    *(Row(ask, 503, DISABLED, JSON) for ask in (
        "GET /api/assets", "POST /api/assets", "GET /api/tags", f"GET /api/assets/{SOME_UUID}",
        f"DELETE /api/assets/{SOME_UUID.upper()}", f"GET /api/assets/{SOME_UUID}/content", "POST /api/assets/from-hash",
        f"POST /api/assets/{SOME_UUID}/tags", "GET /api/assets/tags/refine", "POST /api/assets/seed",
        "GET /api/assets/seed/status", "POST /api/assets/seed/cancel", "POST /api/assets/prune")),
    missing("GET /api/assets/x"),
    missing("GET /tags"),
    not_allowed("DELETE /api/assets", "GET,HEAD,POST"),
    not_allowed("PATCH /api/tags", "GET,HEAD"),
    # Facts of the server.
    given("GET /features", {"extension": {"manager": {"supports_v4": True}}, "node_replacements": True}),
    given("GET /system_stats", {"system": {
        "installed_templates_version": str | None, "required_templates_version": str, "comfy_package_versions": list}}),
    # Paths and methods that lead nowhere.
    *(missing(f"GET /{path}") for path in (
        "nothing", "api", "api/nothing", "history/", "models/", "object_info/", "queue/", "prompt/", "api/jobs/",
        "api/history/", "userdata/", "settings/", "interrupt", "free", "upload/image", "jobs", "api%2Fprompt",
        "history/a/b", "userdata/a/move/b", "experiment/models/", "extensions/nothing.js", "scripts/nothing.js")),
    empty("HEAD /nothing", 404),
    empty("GET /view", 404),
    given("GET /%70rompt", {"exec_info": dict}),
    not_allowed("PUT /prompt", "GET,HEAD,POST"),
    not_allowed("DELETE /api/queue", "GET,HEAD,POST"),
    not_allowed("PUT /interrupt", "GET,HEAD,POST"),
    not_allowed("PATCH /history/x", "GET,HEAD"),
    not_allowed("PUT /userdata/x", "DELETE,GET,HEAD,POST"),
    not_allowed("POST /nothing", "GET,HEAD"),
    not_allowed("PUT /ws", "GET,HEAD"),
    empty("OPTIONS /whatever"),
    *(Row(f"GET /{path}", 400, 'No WebSocket UPGRADE hdr: None\n Can "Upgrade" only to "WebSocket".', TEXT)
      for path in ("ws", "api/ws")),
]  # fmt: skip

KEPT = {"X-Content-Type-Options": "nosniff", "Content-Disposition": "attachment"}
INFO = {"path": "FOLDER/b.json", "size": 7, "modified": int, "created": int}
GRAPH = '{"a":1}'


def kept(ask: str, says: str, kind: str) -> Row:
    return Row(ask, 200, says, kind, headers=KEPT)


# The user's files, one request after the other in FOLDER, a folder of their own.
FILES = [
    Row("GET /userdata", 400, "Directory not provided", TEXT),
    Row("GET /userdata?dir=..", 403, "Invalid directory", TEXT),
    Row("GET /userdata?dir=/etc", 403, "Invalid directory", TEXT),
    Row("GET /api/userdata?dir=FOLDER&recurse=true&split=false&full_info=true", 404, "Directory not found", TEXT),
    Row("GET /api/v2/userdata?path=FOLDER", 404, "Requested path not found", TEXT),
    Row("GET /v2/userdata?path=..", 400, "Invalid path requested", TEXT),
    empty("GET /api/userdata/FOLDER%2Fa.json", 404),
    given("GET /userdata?dir=FOLDER", []),  # made by the question for a file in it
    Row("POST /api/userdata/FOLDER%2Fa.json", 200, "FOLDER/a.json", JSON, body=GRAPH),
    Row("POST /userdata/FOLDER%2Fa.json?overwrite=false", 409, "File already exists", TEXT, body="x"),
    Row("POST /userdata/FOLDER%2Fa.json?overwrite=true", 200, "FOLDER/a.json", JSON, body=GRAPH),
    Row("POST /userdata/FOLDER%2Fb.json?overwrite=false&full_info=true", 200, INFO, JSON, body=GRAPH),
    kept("GET /userdata/FOLDER%2Fa.json", GRAPH, "application/json"),
    kept("HEAD /userdata/FOLDER%2Fa.json", "", "application/json"),
    kept("GET /userdata/FOLDER%252Fa.json", GRAPH, "application/json"),
    Row("GET /userdata/FOLDER", 403, "", BYTES, headers=KEPT),
    empty("POST /userdata/FOLDER", 400, body="x"),
    Row("POST /userdata/FOLDER?overwrite=false", 409, "File already exists", TEXT, body="x"),
    empty("POST /userdata/FOLDER%2Fa.json%2Fx", 400, body="x"),
    Row("DELETE /userdata/FOLDER", 500, BROKEN, TEXT),
    ambiguous(Row("GET /userdata/.", 403, "", BYTES, headers=KEPT)),
    *(ambiguous(empty(f"{how} /userdata/{name}", 403))
      for how in ("GET", "POST", "DELETE") for name in ("..%2Fx", "%252e%252e%2Fx")),
    replace(empty("POST /userdata/%2F", 403, body="x"), behind=("guarded", empty("POST /userdata/%2F", 404, body="x"))),
    ambiguous(empty("POST /userdata/FOLDER%2Fa.json/move/..%2Fx", 403)),
    empty("POST /userdata/FOLDER%2Fgone/move/FOLDER%2Fx", 404),
    given("GET /userdata?dir=FOLDER", ["a.json", "b.json"]),
    given("GET /userdata?dir=FOLDER&split=true", [["a.json", "a.json"], ["b.json", "b.json"]]),
    given("GET /userdata?dir=FOLDER%2Fa.json", []),
    Row("GET /v2/userdata?path=FOLDER%2Fa.json", 400, "Requested path is not a directory", TEXT),
    Row("POST /userdata/FOLDER%2Fa.json/move/FOLDER%2Fb.json?overwrite=false", 409, "File already exists", TEXT),
    Row("POST /api/userdata/FOLDER%2Fa.json/move/FOLDER%2Fc.json", 200, "FOLDER/c.json", JSON),
    Row("POST /userdata/FOLDER%2Fb.json/move/FOLDER%2Fdeep%2Fd.json?full_info=true", 200,
        {"path": "FOLDER/deep/d.json", "size": 7}, JSON),
    Row("POST /userdata/FOLDER%2Fc.json/move/FOLDER%2Fdeep", 200, "FOLDER/deep", JSON),
    Row("POST /userdata/FOLDER%2Fdeep/move/FOLDER%2Fdeeper", 200, "FOLDER/deeper", JSON),
    given("GET /userdata?dir=FOLDER", []),
    given("GET /userdata?dir=FOLDER&recurse=TRUE", ["deeper/c.json", "deeper/d.json"]),
    given("GET /userdata?dir=FOLDER&recurse=true&split=true",
          [["deeper/c.json", "deeper", "c.json"], ["deeper/d.json", "deeper", "d.json"]]),
    Row("POST /userdata/FOLDER%2F.hidden", 200, "FOLDER/.hidden", JSON, body="x"),
    given("GET /userdata?dir=FOLDER", []),
    given("GET /v2/userdata?path=FOLDER", [
        {"name": "deeper", "path": "FOLDER/deeper", "type": "directory"},
        {"name": ".hidden", "path": "FOLDER/.hidden", "type": "file", "size": 1, "modified": float},
        {"name": "c.json", "path": "FOLDER/deeper/c.json", "type": "file", "size": 7, "modified": float},
        {"name": "d.json", "path": "FOLDER/deeper/d.json", "type": "file", "size": 7, "modified": float}]),
    Row("POST /userdata/FOLDER%2Fx.html", 200, "FOLDER/x.html", JSON, body="<b>"),
    kept("GET /userdata/FOLDER%2Fx.html", "<b>", BYTES),
    Row("POST /userdata/FOLDER%2Fx.txt", 200, "FOLDER/x.txt", JSON, body="hi"),
    kept("GET /userdata/FOLDER%2Fx.txt", "hi", "text/plain"),
    Row("POST /userdata/FOLDER%2Fplain", 200, "FOLDER/plain", JSON, body="hi"),
    kept("GET /userdata/FOLDER%2Fplain", "hi", BYTES),
    *(empty(f"DELETE /userdata/FOLDER%2F{name}", 204) for name in (
        ".hidden", "x.html", "x.txt", "plain", "deeper%2Fc.json", "deeper%2Fd.json")),
    empty("DELETE /userdata/FOLDER%2Fx.html", 404),
    empty("POST /settings", body='{"Comfyload.Test": "FOLDER"}'),
    given("GET /settings/Comfyload.Test", "FOLDER"),
    empty("POST /api/settings/Comfyload.Test", body='{"b": null}'),
    given("GET /settings", {"Comfyload.Test": {"b": None}}),
    given("GET /api/users", {"migrated": True}),
    Row("GET /userdata/comfy.settings.json", 200, Anything, "application/json", headers=KEPT),
]  # fmt: skip


Talk = Callable[[aiohttp.ClientSession, str], Awaitable[None]]


class On:
    """Holds a talk with the server. `gateway`: whether it is one."""

    def __init__(self, url: str, gateway: bool) -> None:
        self._url = url
        self.gateway = gateway

    def __call__(self, talk: Talk) -> None:
        async def main() -> None:
            async with aiohttp.ClientSession(skip_auto_headers={"Content-Type"}) as session:
                await talk(session, self._url.rstrip("/"))

        asyncio.run(main())

    def rows(self, rows: list[Row]) -> list[Row]:
        """What it is asked, and what it must say."""
        assert {row.behind[0] for row in rows if row.behind is not None} <= DEVIATIONS.keys()
        return [row.behind[1] if self.gateway and row.behind is not None else row for row in rows]


@pytest.fixture(scope="module", params=KINDS)
def on(request: pytest.FixtureRequest) -> Iterator[On]:
    with place(request.param, speed=4) as url:
        yield On(url, "gateway" in request.param)


def fits(wanted: Any, found: Any) -> bool:
    if wanted is Anything:
        return True
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(key in found and fits(wanted[key], found[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and len(wanted) == len(found) and all(map(fits, wanted, found))
    if isinstance(wanted, type) or hasattr(wanted, "__args__"):
        return isinstance(found, wanted)
    return bool(wanted == found)


async def differences(session: aiohttp.ClientSession, url: str, row: Row, folder: str = "FOLDER") -> list[str]:
    """What in the reply is not as the row says."""
    method, _, path = row.ask.replace("FOLDER", folder).partition(" ")
    body = row.body.replace("FOLDER", folder) if row.body is not None else None
    async with session.request(method, URL(url + path, encoded=True), data=body, headers=row.sent) as reply:
        said: Any = (await reply.text(errors="replace")).replace(folder, "FOLDER")
        head = reply.headers
    kind = head.get("Content-Type", "")
    if kind == JSON and method != "HEAD":
        said = json.loads(said)
        if "userdata?dir" in path and isinstance(said, list):
            said.sort(key=str)  # in any order
    named = {name: head.get(name) for name in row.headers}
    return [
        f"{row.ask}: {what} {found!r:.300} instead of {wanted!r}"
        for what, found, wanted, same in (
            ("status", reply.status, row.status, reply.status == row.status),
            ("type", kind, row.kind, kind == row.kind),
            ("body", said, row.says, fits(row.says, said)),
            ("headers", named, row.headers, named == row.headers),
        )
        if not same
    ]


def test_single_requests(on: On) -> None:
    async def talk(session: aiohttp.ClientSession, url: str) -> None:
        rows = on.rows(ROWS)
        assert "\n".join([line for row in rows for line in await differences(session, url, row)]) == ""

    on(talk)


def test_files_of_the_user(on: On) -> None:
    async def talk(session: aiohttp.ClientSession, url: str) -> None:
        folder = f"comfyload-{secrets.token_hex(4)}"
        rows = on.rows(FILES)
        assert "\n".join([line for row in rows for line in await differences(session, url, row, folder)]) == ""

    on(talk)


async def got(session: aiohttp.ClientSession, url: str) -> Any:
    async with session.get(url) as reply:
        return await reply.json()


async def ended(session: aiohttp.ClientSession, url: str, graph: dict[str, Any], workflow: str = "w") -> dict[str, Any]:
    """The job of the graph, once it has ended; nothing waits or runs then."""
    body = {"prompt": graph, "extra_data": {"extra_pnginfo": {"workflow": {"id": workflow}}}}
    async with session.post(f"{url}/prompt", json=body) as reply:
        job = (await reply.json())["prompt_id"]
    async with asyncio.timeout(20):
        while True:
            found = await got(session, f"{url}/api/jobs/{job}")
            if found["status"] not in ("pending", "in_progress"):
                break
            await asyncio.sleep(0.02)
        while (await got(session, f"{url}/prompt"))["exec_info"]["queue_remaining"]:
            await asyncio.sleep(0.02)
    return dict(found)


def image(size: int = 8) -> dict[str, Any]:
    color = secrets.randbelow(2**24)
    return {"class_type": "EmptyImage", "inputs": {"width": size, "height": size, "batch_size": 1, "color": color}}


def shown(source: str) -> dict[str, Any]:
    return {"class_type": "PreviewImage", "inputs": {"images": [source, 0]}}


def text(value: str) -> dict[str, Any]:
    return {"class_type": "PreviewAny", "inputs": {"source": value}}


def test_an_output_linked_to_nothing_leaves_the_others_and_the_next_prompt(on: On) -> None:
    async def talk(session: aiohttp.ClientSession, url: str) -> None:
        for _ in range(2):
            job = await ended(session, url, {"1": image(), "2": shown("1"), "3": shown("9")})
            assert (job["status"], list(job["outputs"])) == ("completed", ["2"])

    on(talk)


def test_what_a_job_shows(on: On) -> None:
    saved = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "conformance"}}
    model = {"class_type": "Preview3D", "inputs": {"model_file": "a.GLB"}}
    a_model = {"filename": "a.GLB", "type": "output", "subfolder": "", "mediaType": "3d"}
    rows: list[tuple[dict[str, Any], int, int, Any]] = [
        ({"1": image(), "2": shown("1")}, 1, 1, {"type": "temp", "nodeId": "2", "mediaType": "images"}),
        ({"1": image(), "2": shown("1"), "3": saved}, 2, 2, {"type": "output", "nodeId": "3", "mediaType": "images"}),
        ({"1": image(), "2": shown("1"), "3": text("x")}, 1, 1, {"type": "temp", "nodeId": "2"}),
        ({"3": text("x" * 1024)}, 0, 0, {"content": "x" * 1024, "nodeId": "3", "mediaType": "text"}),
        ({"3": text("x" * 1025)}, 0, 0, {"content": "x" * 1024, "truncated": True, "nodeId": "3", "mediaType": "text"}),
        ({"4": model, "3": text("x")}, 1, 1, {**a_model, "nodeId": "4"}),
    ]

    async def talk(session: aiohttp.ClientSession, url: str) -> None:
        for graph, count, previewable, preview in rows:
            job = await ended(session, url, graph)
            listed = (await got(session, f"{url}/api/jobs?limit=1"))["jobs"][0]
            for found in (job, listed):
                assert (found["outputs_count"], found["previewable_outputs_count"]) == (count, previewable)
                assert fits(preview, found["preview_output"]), found["preview_output"]
            assert {key: job[key] for key in listed} == listed
        assert job["outputs"]["4"] == {"result": [a_model]}
        assert job["outputs"]["3"] == {"text": ["x"]}

    on(talk)


def test_jobs_are_found_by_workflow_and_sorted(on: On) -> None:
    async def talk(session: aiohttp.ClientSession, url: str) -> None:
        workflow = str(uuid.uuid4())
        noise = {"class_type": "ImageAddNoise", "inputs": {"image": ["1", 0], "seed": 1, "strength": 0.5}}
        graphs = [{"1": image(size), "3": noise, "2": shown("3")} for size in (8, 1024, 16)]
        ids = [(await ended(session, url, graph, workflow))["id"] for graph in graphs]
        await ended(session, url, {"1": image(), "2": shown("1")}, str(uuid.uuid4()))

        async def listed(query: str) -> list[dict[str, Any]]:
            return list((await got(session, f"{url}/api/jobs?workflow_id={workflow}{query}"))["jobs"])

        assert [job["id"] for job in await listed("")] == ids[::-1]
        assert [job["id"] for job in await listed("&sort_order=asc")] == ids
        assert [job["id"] for job in await listed("&sort_order=asc&offset=1&limit=1")] == ids[1:2]
        assert {job["workflow_id"] for job in await listed("")} == {workflow}
        assert await listed("&status=failed,pending") == []
        for order in ("desc", "asc"):
            jobs = await listed(f"&sort_by=execution_duration&sort_order={order}")
            took = [job["execution_end_time"] - job["execution_start_time"] for job in jobs]
            assert took == sorted(took, reverse=order == "desc") and len(set(took)) > 1
            assert jobs[0 if order == "desc" else -1]["id"] == ids[1]

    on(talk)


def test_a_failed_job_names_all_nodes_and_where_it_failed(on: On) -> None:
    async def talk(session: aiohttp.ClientSession, url: str) -> None:
        folder = {"class_type": "LoadImage", "inputs": {"image": "."}}
        graph = {"1": image(), "2": shown("1"), "4": folder, "5": shown("4"), "7": image()}
        error = (await ended(session, url, graph))["execution_error"]
        assert error["node_id"] == "4" and sorted(error["current_outputs"]) == sorted(graph)
        assert len(error["traceback"]) > 1
        assert all(line.startswith('  File "') and line.endswith("\n") for line in error["traceback"])

    on(talk)


FLAGS = '{"type": "feature_flags", "data": {}}'


@pytest.mark.parametrize(
    ("frames", "answered"),
    [
        ([], True),
        (["not json"], True),
        ([b"bytes"], True),
        (["[1]", "7", '"x"', "null"], True),
        (["{}"], False),
        (['{"type": "hello"}'], False),
        ([FLAGS], True),
    ],
)
def test_features_are_told_to_who_says_his_first(on: On, frames: list[str | bytes], answered: bool) -> None:
    async def talk(session: aiohttp.ClientSession, url: str) -> None:
        async with session.ws_connect(f"{url}/ws?clientId={uuid.uuid4()}") as socket:
            for frame in [*frames, FLAGS]:
                await (socket.send_str(frame) if isinstance(frame, str) else socket.send_bytes(frame))
            messages = []
            with pytest.raises(TimeoutError):
                while True:
                    messages.append(json.loads((await socket.receive(timeout=0.3)).data))
            features = [message["data"] for message in messages if message["type"] == "feature_flags"]
            assert len(features) == answered
            assert not answered or features == [await got(session, f"{url}/features")]

    on(talk)
