"""What an operator asks the gateway and has it do: our own API, under `/comfyload/`."""

import json
from collections.abc import Callable, Collection, Mapping
from functools import wraps
from typing import Any

from aiohttp import web

from comfyload.comfy.address import parse_server
from comfyload.comfy.wire.calls import Reply
from comfyload.comfy.wire.listed import STATUSES
from comfyload.errors import UsageError
from comfyload.gateway import forms
from comfyload.gateway.again import Again, NotSent
from comfyload.gateway.fleet import Member, ServerConfig, free_name
from comfyload.gateway.http import OWN, TENANT, Handler, Route
from comfyload.gateway.intake import Intake, PromptRefused
from comfyload.gateway.job import ClientJob
from comfyload.gateway.made import MadeFiles
from comfyload.gateway.service import Gateway
from comfyload.gateway.store import KEPT, Row
from comfyload.gateway.versions import differences
from comfyload.tasks import within

API = f"{OWN}api"
MOST_LISTED = 1_000
UNENDED = ("pending", "in_progress")
JOINED_S = 5.0
"""How long the answer to a join waits for the server's first."""


class Console:
    """`operators`: tenants who may direct the servers and see everybody's jobs; None: whoever is let in."""

    def __init__(self, gateway: Gateway, intake: Intake, operators: Collection[str] | None) -> None:
        self._gateway = gateway
        self._intake = intake
        self._again = Again(gateway, intake)
        self._made = MadeFiles(gateway)
        self._operators = operators

    def routes(self) -> list[Route]:
        return [
            ("GET", f"{OWN}livez", self._live),
            ("GET", f"{OWN}readyz", self._ready),
            ("GET", f"{API}/jobs", _answered(self._jobs)),
            ("POST", f"{API}/jobs/retry", _answered(self._retry_all)),
            ("POST", f"{API}/jobs/dismiss", _answered(self._dismiss_all)),
            ("GET", f"{API}/jobs/{{id}}", _answered(self._job)),
            ("POST", f"{API}/jobs/{{id}}/retry", _answered(self._retry)),
            ("POST", f"{API}/jobs/{{id}}/dismiss", _answered(self._dismiss)),
            ("POST", f"{API}/jobs/{{id}}/now", _answered(self._now)),
            ("POST", f"{API}/jobs/{{id}}/give-up", _answered(self._give_up)),
            ("GET", f"{API}/servers", _answered(self._servers)),
            ("POST", f"{API}/servers", _answered(self._join)),
            ("POST", f"{API}/servers/{{name}}/drain", _answered(self._drain)),
            ("POST", f"{API}/servers/{{name}}/resume", _answered(self._resume)),
            ("POST", f"{API}/servers/{{name}}/leave", _answered(self._leave)),
        ]

    # --- for supervisors

    async def _live(self, _: web.Request) -> web.Response:
        """It answers, and can go on."""
        if self._gateway.over.is_set():
            return web.Response(status=503, text="it can go on no more\n")
        return web.Response(text="ok\n")

    async def _ready(self, _: web.Request) -> web.Response:
        """It takes jobs, and a server works that can run them."""
        gateway = self._gateway
        if self._intake.closed:
            return web.Response(status=503, text="it is being stopped\n")
        if not any(gateway.client.works(member.address) for member in gateway.fleet.joined):
            return web.Response(status=503, text="no server works\n")
        return web.Response(text="ok\n")

    # --- jobs

    async def _jobs(self, request: web.Request) -> Any:
        tenant = self._whose(request)
        return self.jobs(request.query, request.query.get("tenant") if tenant is None else tenant)

    def jobs(self, query: Mapping[str, str], tenant: str | None = None) -> dict[str, Any]:
        """The jobs that the query asks for, the newest first, and how many there are of each state: of those that have
        ended, of the last `kept`. `tenant`: whose; None: everybody's.
        """
        attention = _yes_or_no(query.get("attention", ""))
        states = [state.strip() for state in query.get("state", "").split(",") if state.strip()] or list(STATUSES)
        if unknown := [state for state in states if state not in STATUSES]:
            raise _Wrong(400, f"no job is {unknown[0]!r}: choose of {', '.join(STATUSES)}")
        limit, offset = _number(query, "limit", 100), _number(query, "offset", 0)
        limit = min(max(limit, 1), MOST_LISTED)
        unended = [
            job
            for job in reversed(self._gateway.jobs.values())
            if tenant in (None, job.tenant) and not attention and job.state in states
        ]
        found, total = [_of_job(job) for job in unended[offset : offset + limit]], len(unended)
        if ended := [state for state in states if state not in UNENDED]:
            rows, more = self._gateway.store.newest(
                tenant, ended, attention=attention, limit=limit - len(found), offset=max(0, offset - len(unended))
            )
            found, total = found + [self._of_row(row) for row in rows], total + more
        return {
            "jobs": found,
            "total": total,
            "offset": offset,
            "needing_attention": self._needing(tenant),
            "counts": dict.fromkeys(STATUSES, 0) | self._gateway.store.counts(tenant),
            "kept": KEPT,
        }

    async def _job(self, request: web.Request) -> Any:
        job_id, tenant = request.match_info["id"], self._whose(request)
        job = self._gateway.jobs.get(job_id)
        if job is not None and tenant in (None, job.tenant):
            return _of_job(job)
        row = self._gateway.store.find(job_id)
        if row is None or tenant not in (None, row.tenant) or row.item is None:
            raise _Wrong(404, "there is no such job")
        return self._of_row(row)

    async def made(self, request: web.Request, job_id: str, address: str, file: str, **limits: Any) -> Reply:
        """What a job made, as `MadeFiles.read` gives it to the caller."""
        return await self._made.read(request[TENANT], job_id, address, file, **limits)

    async def _retry(self, request: web.Request) -> Any:
        job_id = request.match_info["id"]
        return {"id": await self._again.send(job_id, self._whose(request)), "instead_of": job_id}

    async def _retry_all(self, request: web.Request) -> Any:
        """Send again each job that needs attention; those that are refused go on needing it."""
        tenant, sent, refused = self._whose(request), [], []
        for job_id in self._gateway.store.needing(tenant):
            try:
                sent.append({"id": await self._again.send(job_id, tenant), "instead_of": job_id})
            except NotSent as error:
                refused.append({"id": job_id, "error": error.why})
            except PromptRefused as error:
                refused.append({"id": job_id, "error": _words(error)})
                if error.status == 503:
                    break  # the next would be refused as well
        return {"sent": sent, "refused": refused, "needing_attention": self._needing(tenant)}

    async def _dismiss(self, request: web.Request) -> Any:
        job_id = request.match_info["id"]
        self._again.give_up(job_id, self._whose(request))
        return {"dismissed": [job_id]}

    async def _now(self, request: web.Request) -> Any:
        """Send a job that failed, and waits for its next attempt, without the policy's pause."""
        return self._of_waiting(request, self._gateway.hurry)

    async def _give_up(self, request: web.Request) -> Any:
        """Send it no more: it has failed for good, and needs attention."""
        return self._of_waiting(request, self._gateway.give_up)

    def _of_waiting(self, request: web.Request, act: Callable[[ClientJob], bool]) -> Any:
        job_id, tenant = request.match_info["id"], self._whose(request)
        job = self._gateway.jobs.get(job_id)
        if job is None or tenant not in (None, job.tenant):
            raise _Wrong(404, "no such job waits or runs")
        if not act(job):
            raise _Wrong(409, "the job does not wait for its next attempt")
        return {"id": job_id}

    async def _dismiss_all(self, request: web.Request) -> Any:
        tenant = self._whose(request)
        found = self._gateway.store.needing(tenant)
        for job_id in found:
            self._again.give_up(job_id, tenant)
        return {"dismissed": found}

    def _needing(self, tenant: str | None) -> int:
        """How many jobs need attention."""
        return self._gateway.store.newest(tenant, ["failed"], attention=True, limit=0, offset=0)[1]

    def _of_row(self, row: Row) -> dict[str, Any]:
        """A job that has ended."""
        item = forms.loads(row.item or b"")
        more = item.get("comfyload", {})
        status = forms.loads(row.entry or b"").get("status", {})
        later = self._again.became(row)
        found = {
            "id": row.id,
            "state": row.state,
            "tenant": row.tenant,
            "client_id": row.client_id,
            "workflow": row.workflow,
            "created_ms": row.created_ms,
            "started_ms": item.get("execution_start_time"),
            "ended_ms": item.get("execution_end_time"),
            "server": more.get("server"),
            "attempts": more.get("attempts", []),
            "error": status.get("error"),
            "attention": row.attention,
            "became": None if later is None else later.id,
        }
        return {key: value for key, value in found.items() if value is not None}

    def _whose(self, request: web.Request) -> str | None:
        """Whose jobs the caller may see; None: everybody's."""
        return None if self._directs(request) else request[TENANT]

    def _directs(self, request: web.Request) -> bool:
        return self._operators is None or request[TENANT] in self._operators

    # --- servers

    async def _servers(self, request: web.Request) -> Any:
        self._demand_operator(request)
        return self.servers()

    def servers(self) -> dict[str, Any]:
        """The servers, and in what they differ."""
        fleet = self._gateway.fleet
        home = fleet.home
        found = [self._of_server(member) | {"home": member is home} for member in fleet.members]
        return {"servers": found, "differ": differences(fleet.joined)}

    async def _join(self, request: web.Request) -> Any:
        self._demand_operator(request)
        body = _json_of(await request.read())
        name, url = body.get("name", ""), body.get("url")
        if not isinstance(url, str) or not isinstance(name, str):
            raise _Wrong(400, 'write {"url": "http://HOST:PORT", "name": "gpu2"}; the name may be left out')
        fleet = self._gateway.fleet
        name = name or free_name([member.name for member in fleet.members])
        if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or len(name) > 64:
            raise _Wrong(400, "a server's name has letters, digits, '-' and '_'")
        try:
            await fleet.add(ServerConfig(name=name, url=parse_server(url)))
        except UsageError as error:
            raise _Wrong(409 if "already" in error.message or "leaves" in error.message else 400, str(error)) from None
        member = fleet.get(name)
        if member is None:
            raise _Wrong(404, "it was made to leave at once")
        await within(JOINED_S, member.tried.wait(), False)
        return self._of_server(member)

    async def _drain(self, request: web.Request) -> Any:
        return self._directed(request, lambda name: self._gateway.fleet.drain(name))

    async def _resume(self, request: web.Request) -> Any:
        member = self._member(request)
        if member.leaving:
            raise _Wrong(409, f"{member.name} leaves: join it again once it has left")
        return self._directed(request, lambda name: self._gateway.fleet.drain(name, False))

    async def _leave(self, request: web.Request) -> Any:
        """Begin to let it go: it does so when its jobs have ended."""
        return self._directed(request, self._gateway.fleet.leave)

    def _directed(self, request: web.Request, act: Callable[[str], object]) -> Any:
        member = self._member(request)
        act(member.name)
        return self._of_server(member)

    def _member(self, request: web.Request) -> Member:
        self._demand_operator(request)
        name = request.match_info["name"]
        member = self._gateway.fleet.get(name)
        if member is None:
            known = ", ".join(each.name for each in self._gateway.fleet.members)
            raise _Wrong(404, f"there is no server {name!r}: there are {known or 'none'}")
        return member

    def _demand_operator(self, request: web.Request) -> None:
        if not self._directs(request):
            raise _Wrong(403, "only an operator directs the servers: operator = true of a [[tenant]] in --config")

    def _of_server(self, member: Member) -> dict[str, Any]:
        health = self._gateway.client.health(member.address)
        facts = member.facts
        state = "up"
        if member.leaving:
            state = "leaving"
        elif facts is None or health is None:
            state = "joining"
        elif health.circuit != "closed":
            state = "down"
        elif member.drained:
            state = "drained"
        found: dict[str, Any] = {"name": member.name, "url": member.address, "state": state, "drained": member.drained}
        if member.why:
            found["why"] = member.why
        if health is not None:
            found |= {
                "circuit": health.circuit,
                "broken_s": round(health.broken_s, 1),
                "jobs": health.jobs,
                "running": health.running,
                "others": health.others,
            }
        if facts is not None:
            found |= {"comfyui": facts.comfyui_version, "devices": [device.get("name") for device in facts.devices]}
        return found


class _Wrong(Exception):
    """The answer to a call that cannot be done."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


def _answered(handler: Callable[[web.Request], Any]) -> Handler:
    """What the handler returns, as JSON; what it raises, as an error in words."""

    @wraps(handler)
    async def answer(request: web.Request) -> web.Response:
        try:
            return web.json_response(await handler(request))
        except (_Wrong, NotSent) as error:
            return web.json_response({"error": error.why}, status=error.status)
        except PromptRefused as error:
            return web.json_response({"error": _words(error)}, status=error.status, headers=error.headers)

    return answer


def _of_job(job: ClientJob) -> dict[str, Any]:
    """A job that waits or runs."""
    found = {
        "id": job.id,
        "state": job.state,
        "tenant": job.tenant,
        "client_id": job.client_id,
        "workflow": job.workflow,
        "created_ms": job.created_ms,
        "started_ms": job.started_ms,
        "attention": False,
        **forms.more_of(job),
    }
    return {key: value for key, value in found.items() if value is not None}


def _words(error: PromptRefused) -> str:
    """The message of an error in ComfyUI's form."""
    try:
        found = forms.loads(error.body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"refused with {error.status}"
    return str(found)


def _number(query: Mapping[str, str], name: str, otherwise: int) -> int:
    text = query.get(name, "")
    if text and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _Wrong(400, f"{name} is not a number")
    return int(text) if text else otherwise


def _yes_or_no(text: str) -> bool | None:
    """What a query says; None: nothing."""
    return {"1": True, "true": True, "0": False, "false": False}.get(text)


def _json_of(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _Wrong(400, "the body is not a JSON object")
    return found
