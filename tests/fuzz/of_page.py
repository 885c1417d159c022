"""What reaches the dashboard: calls to every route, and what a tab says on its socket."""

from __future__ import annotations

import json
import shutil
from contextlib import AsyncExitStack
from typing import Any
from unittest.mock import patch

from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from comfyload.app.gateway_config import servers_of
from comfyload.record.lock import LOCK
from comfyload.web import actions
from comfyload.web.answers import HEADERS, Refused
from comfyload.web.feed import MOST_WATCHES, ColumnFrame, _Tab
from comfyload.web.label import LABEL
from comfyload.web.server import Dashboard, DashboardOptions, _protect, app_of, dashboard
from comfyload.web.worker import Answer, as_json
from tests.fuzz.of_files import run_directory
from tests.fuzz.of_gateway import _payload as payload
from tests.fuzz.of_input import GRAPH, scratch
from tests.fuzz.target import Target, now

__all__ = ["TARGETS"]

NOBODY = "http://127.0.0.1:9"
SECRET = "the-secret-of-another-folder"
FAULT = "an error in comfyload"
_MOST_ASKED = 500
STATUSES = {200, 201, 303, 304, 400, 401, 403, 404, 405, 408, 409, 411, 413, 415, 421, 422, 502, 503}


async def _computed(compute: str, *arguments: Any, keep: bool = True) -> Answer:
    """In place of the other process: what it is asked for is checked, and not computed."""
    assert isinstance(compute, str) and keep in (True, False)
    assert not any("beside" in str(each) for each in arguments[:1]), arguments
    return as_json({"error": "", "hint": "", "as_of_s": None})


async def _nothing_begins(words: list[str], *_: Any) -> Any:
    raise Refused(409, "nothing is begun here")


class _Page:
    """A dashboard over a folder with a run, and another folder beside it; made anew now and then."""

    def __init__(self) -> None:
        self._asked = 0
        self._stack: AsyncExitStack | None = None
        self._app: web.Application
        self.page: Dashboard
        self.token = ""

    def call(self, data: bytes) -> None:
        """First line: method and path; second: a header; the rest is the body."""
        now(self._call(data))

    def say(self, data: bytes) -> None:
        """Lines that a tab says; what it then watches is computed."""
        now(self._say(data))

    async def _call(self, data: bytes) -> None:
        await self._renew()
        head, _, rest = data.partition(b"\n")
        line, _, body = rest.partition(b"\n")
        method, _, path = head.decode("latin-1").partition(" ")
        name, _, value = line.decode("utf-8", "surrogateescape").partition(": ")
        headers = CIMultiDict(
            {"Host": "localhost", "Content-Type": "application/json", "X-Comfyload-Token": self.token}
        )
        headers["Content-Length"] = str(len(body))
        if name.replace("-", "").isalnum():
            headers[name] = value
        if not method.isalpha() or not path or not path.isascii() or path.split() != [path]:
            return  # no HTTP: it is refused before us
        try:
            request = make_mocked_request(method, path, headers, payload=payload(body), app=self._app)
        except ValueError:
            return
        with patch.object(actions, "begun", _nothing_begins):  # other tests of this process begin runs
            try:
                reply: Any = await self._app._handle(request)
            except web.HTTPException as error:
                reply = error
        await _protect(request, reply)
        assert all(reply.headers.get(header) for header in HEADERS)
        if not isinstance(reply, web.Response):
            return  # a socket, or a file that is sent in parts: there is nobody whom it could be sent to
        assert reply.status in STATUSES, (reply.status, reply.body)
        content = bytes(reply.body or b"")  # type: ignore[arg-type]
        assert SECRET.encode() not in content
        if reply.content_type == "application/json" and content:
            assert FAULT not in str(json.loads(content))

    async def _say(self, data: bytes) -> None:
        await self._renew()
        feed, tab = self.page.feed, _Tab()
        for line in data.split(b"\n"):
            feed._take(tab, line.decode("utf-8", "replace"))
        assert len(tab.watches) <= MOST_WATCHES and len(tab.notices) <= 10
        try:
            for watch in list(tab.watches.values()):
                try:
                    state = await feed._views[watch.view](watch.params)
                except Refused:
                    continue
                if isinstance(state, ColumnFrame):
                    assert len(state.columns) == 4 * state.head["n"] * len(state.head["names"])
                else:
                    json.loads(state)
                    assert SECRET.encode() not in state
        finally:
            for watch in tab.watches.values():
                feed._leave(tab, watch)
        assert not feed._topics

    async def _renew(self) -> None:
        self._asked += 1
        if self._stack is not None and self._asked % _MOST_ASKED:
            return
        if self._stack is not None:
            await self._stack.aclose()
        folder = scratch() / "page"
        shutil.rmtree(folder, ignore_errors=True)
        run_directory(folder / "runs" / "one")
        run_directory(folder / "runs" / "deep" / "er")
        beside = run_directory(folder / "beside")
        for name in (LOCK, LABEL):
            (beside / name).write_text(SECRET, encoding="utf-8")
        page = folder / "static"
        page.mkdir()
        (page / "index.html").write_text("<!doctype html>", encoding="utf-8")
        self._stack = AsyncExitStack()
        options = DashboardOptions(
            runs=folder / "runs", archive=folder / "archive", servers=servers_of([NOBODY]), page=page
        )
        self.page = await self._stack.enter_async_context(dashboard(options))
        for worker in (self.page._worker, self.page._adviser, self.page._exporter):
            worker.close()
            worker.answer = _computed  # type: ignore[method-assign]
        self.page._starting._launcher.start = _nothing_begins  # type: ignore[method-assign,assignment]
        self.token = self.page._token
        self._app = app_of(self.page, options)
        self._app.freeze()


_UI = "/comfyload/ui"
_FORM = {"server": "gpu1", "workflows": [{"name": "w.json", "text": json.dumps(GRAPH)}], "options": {"jobs": 3}}
_ASKED = (
    "/", "/comfyload/", "/comfyload/login", f"{_UI}/session", f"{_UI}/static/index.html", f"{_UI}/static/..%2fx",
    f"{_UI}/runs/one/page", f"{_UI}/runs/deep%2Fer/page", f"{_UI}/runs/..%2Fbeside/page", f"{_UI}/runs/%2e%2e/page",
    f"{_UI}/runs/one/charts/latency.svg?theme=dark", f"{_UI}/runs/one/jobs/0.json", f"{_UI}/runs/one/jobs/0/outputs/0",
    f"{_UI}/compare?a=one&b=deep%2Fer", f"{_UI}/environment?a=one&b=one", f"{_UI}/trend?run=one", f"{_UI}/archive",
    f"{_UI}/archive/x/page", f"{_UI}/start", f"{_UI}/plans", f"{_UI}/plans/x", f"{_UI}/starts/x", "/comfyload/api/jobs",
    "/comfyload/api/jobs/x?gateway=gpu1",
)  # fmt: skip
_DONE: dict[str, object] = {
    "runs/one/stop": {}, "runs/one/again": {"jobs": [0, 1]}, "runs/one/label": {"label": "after"},
    "runs/deep%2Fer/again": {"jobs": "failed"}, "plan": _FORM, "runs": _FORM, "plans": {**_FORM, "name": "p"},
    "plans/p/delete": {}, "archive": {"runs": ["one"], "name": "first"}, "archive/promote": {"name": "first"},
}  # fmt: skip
_WATCHED = [
    {"watch": 1, "view": "runs"},
    {"watch": 2, "view": "run", "params": {"run": "one", "state": "done", "attempt": "2"}},
    {"watch": 3, "view": "jobs", "params": {"run": "one", "order": "slowest", "offset": 1, "limit": 5, "text": "a"}},
    {"watch": 4, "view": "job", "params": {"run": "deep/er", "index": 0}},
    {"watch": 5, "view": "chart", "params": {"run": "one", "chart": "latency", "from_s": 0, "to_s": 5.5, "width": 100}},
    {"watch": 6, "view": "chart", "params": {"run": "one", "chart": "queue"}}, {"visible": False}, {"unwatch": 1},
]  # fmt: skip
_page = _Page()
TARGETS = [
    Target(name="page_calls", what="calls to the dashboard", feed=_page.call, slow=True, seeds=[
        *(f"{method} {path}\nX-Nothing: x\n".encode() for path in _ASKED for method in ("GET",)),
        *(f"POST {_UI}/{path}\nX-Nothing: x\n".encode() + json.dumps(body).encode() for path, body in _DONE.items()),
        f"GET {_UI}/session\nHost: evil\n".encode(),
        f"GET {_UI}/runs/one/page\nIf-None-Match: \"x\", W/\"y\"\n".encode(),
        f"POST {_UI}/runs/one/stop\nX-Comfyload-Token: x\n{{}}".encode(),
    ]),
    Target(name="page_says", what="what a tab says", feed=_page.say, slow=True, seeds=[
        b"\n".join(json.dumps(each).encode() for each in _WATCHED), *(json.dumps(each).encode() for each in _WATCHED)]),
]  # fmt: skip
