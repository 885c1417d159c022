"""An application before a gateway that may die: posts jobs, looks after each until it has ended, and listens."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.rig import sleeper

__all__ = ["JOBS", "Seen", "play"]

JOBS = 7
FAILING, CANCELLED = 2, 4
"""Which of them fails in a node, and which is cancelled while it runs."""
LOOK_S = 0.03
UNENDED, ENDED = ("pending", "in_progress"), ("completed", "failed", "cancelled")
ENDS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass
class Seen:
    """`ends`: the status of each job by its id; `heard`: the jobs whose end came as an event; `failing`, `cancelled`:
    the ids of these two. `promised`: the gateway answered that it cancels that one; an answer that was lost may have
    been the same. `broken`: what should not have been seen.
    """

    ends: dict[str, str] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)
    failing: str = ""
    cancelled: str = ""
    promised: bool = False
    broken: list[str] = field(default_factory=list)


async def play(url: str, file: Path) -> int:
    """The whole life of seven jobs; `file` gets what was seen."""
    seen = Seen()
    async with aiohttp.ClientSession(url, timeout=aiohttp.ClientTimeout(total=20.0)) as session:
        listening = asyncio.create_task(_listen(session, seen))
        await asyncio.gather(*(_job(session, number, seen) for number in range(JOBS)))
        history = await _get(session, "/history")
        await asyncio.sleep(0.2)
        listening.cancel()
    for job_id, end in seen.ends.items():
        if end != "gone" and job_id not in history:
            seen.broken.append(f"{job_id} ended and is not in the history")
    if len(history) != sum(end != "gone" for end in seen.ends.values()):
        seen.broken.append(f"{len(history)} entries in the history")
    file.write_text(json.dumps(vars(seen)), encoding="utf-8")
    return 0


async def _job(session: aiohttp.ClientSession, number: int, seen: Seen) -> None:
    await asyncio.sleep(0.05 * number)
    job_id = str(uuid.uuid4())
    graph = sleeper((0.2, 2.0, 0.2, 1.2, 6.0, 0.4, 0.8)[number])
    graph["2"]["inputs"]["seed"] = number
    if number == FAILING:
        seen.failing = job_id
        graph["2"] = {"class_type": "SimFail", "inputs": {"image": ["1", 0], "message": "no such thing", "seed": 1}}
    body = {"prompt": graph, "client_id": "application", "prompt_id": job_id}
    answer = await _post(session, "/prompt", body)
    if answer.get("prompt_id") != job_id:
        seen.broken.append(f"the answer to job {number} was {answer}")
    cancelling = asyncio.create_task(_cancel(session, job_id, seen)) if number == CANCELLED else None
    seen.ends[job_id] = await _end_of(session, job_id, seen, gone=cancelling is not None)
    if cancelling is not None:
        await cancelling


async def _end_of(session: aiohttp.ClientSession, job_id: str, seen: Seen, *, gone: bool) -> str:
    """Look until it has ended. Until then it waits or runs, whatever happens; `gone`: it may also be removed."""
    while True:
        status, job = await _answer(session, f"/api/jobs/{job_id}")
        if status == 404 and gone:
            return "gone"
        if status != 200 or job["status"] not in (*UNENDED, *ENDED):
            seen.broken.append(f"the status of {job_id} was {status} {job}")
            return "lost"
        entry = await _get(session, f"/history/{job_id}")
        if job["status"] in ENDED:
            if not entry:
                seen.broken.append(f"{job_id} is {job['status']} and not in the history")
            return str(job["status"])
        if entry and (await _get(session, f"/api/jobs/{job_id}"))["status"] not in ENDED:
            seen.broken.append(f"{job_id} is {job['status']} and in the history")
        await asyncio.sleep(LOOK_S)


async def _cancel(session: aiohttp.ClientSession, job_id: str, seen: Seen) -> None:
    await asyncio.sleep(0.5)
    seen.cancelled = job_id
    answer = await _post(session, f"/api/jobs/{job_id}/cancel", {})
    seen.promised = bool(answer.get("cancelled"))


async def _listen(session: aiohttp.ClientSession, seen: Seen) -> None:
    while True:
        try:
            async with session.ws_connect("/ws?clientId=application") as socket:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        found = json.loads(message.data)
                        if found["type"] in ENDS:
                            seen.heard.append(found["data"]["prompt_id"])
        except (aiohttp.ClientError, OSError):
            pass
        await asyncio.sleep(LOOK_S)


async def _get(session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    return (await _answer(session, path))[1]


async def _answer(session: aiohttp.ClientSession, path: str) -> tuple[int, dict[str, Any]]:
    """The answer, once there is one: a gateway that was killed is started again."""
    while True:
        try:
            async with session.get(path) as reply:
                return reply.status, await reply.json()
        except (aiohttp.ClientError, OSError, ValueError):
            await asyncio.sleep(LOOK_S)


async def _post(session: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The same for a POST, which is sent again where nobody knows whether it arrived."""
    while True:
        try:
            async with session.post(path, json=body) as reply:
                found: dict[str, Any] = await reply.json()
                return found
        except (aiohttp.ClientError, OSError, ValueError):
            await asyncio.sleep(LOOK_S)
