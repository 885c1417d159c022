"""The gateway among the servers that are configured: what its console says and does, under the paths it has there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiohttp import web

from comfyload.app.operate import Operator
from comfyload.comfy.wire.calls import Reply
from comfyload.errors import NotLetIn, ServerUnreachable, UsageError
from comfyload.gateway.fleet import ServerConfig
from comfyload.record.codec import encode
from comfyload.web.answers import Refused, Route, answer
from comfyload.web.feed import Params

API = "/comfyload/api"
MOST_SHOWN, MOST_ENDED = "500", "60"
_UNENDED = {"state": "pending,in_progress", "limit": MOST_SHOWN}
_ATTENTION = {"attention": "1", "limit": MOST_SHOWN}
_ENDED = {
    "done": {"state": "completed"},
    "ended": {"state": "failed,cancelled", "attention": "0"},
    "": {"state": "completed,failed,cancelled", "attention": "0"},
}
"""What is looked for by the badge that a person wants to see; "": by those who want all."""

GETS = ("jobs", "jobs/{id}", "servers")
POSTS = (
    *("jobs/retry", "jobs/dismiss", "jobs/{id}/retry", "jobs/{id}/dismiss", "jobs/{id}/now", "jobs/{id}/give-up"),
    *("servers/{name}/drain", "servers/{name}/resume"),
)
"""What is passed on; that a server joins is not, as a page names no server."""

_QUERY = ("state", "attention", "limit", "offset", "tenant")


class Inside(Protocol):
    """The console of the gateway that we stand in: jobs that a query asks for, what a job made, and its servers."""

    def jobs(self, query: Mapping[str, str]) -> Any: ...
    def servers(self) -> Any: ...
    async def made(self, request: web.Request, job_id: str, address: str, file: str, **limits: Any) -> Reply: ...


class Gateways:
    """`servers`: those that are configured, of which some may be gateways. `inside`: we stand in one."""

    def __init__(self, servers: Sequence[ServerConfig], token: str) -> None:
        self._operators = {server.name: Operator(str(server.url), token) for server in servers}
        self._found: str | None = None
        self.inside: Inside | None = None

    def routes(self) -> list[Route]:
        found: list[Route] = [("GET", f"{API}/{path}", self._ask) for path in GETS]
        return found + [("POST", f"{API}/{path}", self._act) for path in POSTS]

    async def view(self, params: Params) -> bytes:
        """The jobs of the gateway that have not ended, those that need attention, and the last that need none; and how
        many jobs have each badge. `state`: the badge of those that a person wants to see.
        """
        wanted = params.get("state")
        queries = (_UNENDED, _ATTENTION, _ENDED.get(wanted if isinstance(wanted, str) else "", _ENDED[""]))
        if self.inside is not None:
            unended, attention, ended = map(self.inside.jobs, queries)
        else:
            operator = await self._gateway("")
            try:
                unended, attention, ended = await asyncio.gather(
                    *(operator.ask("jobs", query=each) for each in queries)
                )
            except UsageError as error:
                raise Refused(409, error.message, error.hint) from None
        found = {"unended": unended, "attention": attention, "ended": ended}
        return encode(found | {"counts": _badges(ended), "kept": ended.get("kept")})

    def servers(self) -> Any:
        """Those of the gateway that we stand in."""
        return None if self.inside is None else self.inside.servers()

    async def _ask(self, request: web.Request) -> web.Response:
        query = {name: request.query[name] for name in _QUERY if name in request.query}
        operator = await self._gateway(request.query.get("gateway", ""))
        return await _passed(operator.ask(*_parts(request), query=query))

    async def _act(self, request: web.Request) -> web.Response:
        operator = await self._gateway(request.query.get("gateway", ""))
        return await _passed(operator.act(*_parts(request)))

    async def _gateway(self, name: str) -> Operator:
        """That of the name; "": the first of the servers that is one.

        Raises:
            Refused: there is none.
        """
        if name or self._found is not None:
            found = self._operators.get(name or str(self._found))
            if found is None:
                raise Refused(404, f"no server is called {name[:80]!r}")
            return found
        for known, operator in self._operators.items():
            try:
                await operator.ask("servers")
            except NotLetIn as error:
                raise Refused(409, error.message, error.hint) from None
            except (ServerUnreachable, UsageError):
                continue
            self._found = known
            return operator
        raise Refused(404, "none of the servers is a gateway", "comfyload ui --server URL of a comfyload gateway")


def _badges(answer: Any) -> dict[str, int] | None:
    """How many jobs have each badge; None: the gateway is an older one, which does not say it."""
    counts, needing = answer.get("counts"), answer.get("needing_attention")
    try:
        return {
            "pending": counts["pending"],
            "rendering": counts["in_progress"],
            "attention": needing,
            "done": counts["completed"],
            "ended": counts["cancelled"] + counts["failed"] - needing,
        }
    except (KeyError, TypeError):
        return None


def _parts(request: web.Request) -> list[str]:
    """The path below the API, part by part, decoded: the operator's call encodes them again."""
    route = request.match_info.route.resource
    assert route is not None
    return [
        request.match_info[part[1:-1]] if part.startswith("{") else part
        for part in route.canonical.removeprefix(f"{API}/").split("/")
    ]


async def _passed(call: Any) -> web.Response:
    try:
        return answer(await call)
    except ServerUnreachable as error:
        raise Refused(502, error.message, error.hint) from None
    except UsageError as error:
        raise Refused(409, error.message, error.hint) from None
