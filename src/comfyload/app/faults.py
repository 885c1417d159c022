"""`faults`: trouble on purpose, for clients with and without a retry policy, on a simulator or before a real server."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Literal, get_args
from urllib.parse import urlsplit

from msgspec import Struct, structs

from comfyload.advise.naive_client import NAIVE, scaled
from comfyload.app.bad_prompts import CLASSES, CannotPlay, bad_graph
from comfyload.app.naive_client import NaiveHttpClient, script
from comfyload.clock import stopwatch
from comfyload.comfy.address import parse_headers, parse_server, with_credentials
from comfyload.comfy.api import api_of
from comfyload.comfy.examine import refuse_deadly
from comfyload.comfy.http import Http
from comfyload.comfy.identify import describe_classes, identify
from comfyload.comfy.timeouts import Timeouts
from comfyload.errors import UsageError
from comfyload.record.model import Prompt
from comfyload.report.faults import Outcome
from comfyload.retry.client import RetryingClient
from comfyload.sim import Faults, Server, Which
from comfyload.sim.http import serve
from comfyload.sim.proxy import Proxy, Trouble
from comfyload.workflow import ObjectInfo, Variation, parse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from comfyload.advise.naive_client import Naive
    from comfyload.comfy.api import Api
    from comfyload.comfy.client import Client
    from comfyload.retry.policy import Policy

__all__ = ["CLIENTS", "POLICY", "SCENARIOS", "FaultOptions", "faults"]

Scenario = Literal["steady", "burst", "validation", "oom", "blip", "crash", "latency", "stall", "restart", "poison"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
BAD_PROMPTS = ("validation", "oom", "poison")
"""Scenarios that send prompts that cannot succeed; the simulator runs out of memory by itself."""
POLICY = "policy"
CLIENTS = ("no retry", "3 retries at once", POLICY)
LOAD, BURST = 0.6, 2.0
"""Of what the server can do: as a rule, and while there is a burst."""

EVERY = 6
"""Of the jobs one in so many is bad, where jobs are what is bad."""
CUTS = 5
"""How often open connections are cut while the network is bad."""

BEGINS, ENDS = 0.25, 0.5
"""When the network or the server is bad, as shares of the time in which jobs come."""

_JOB: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SimSleep", "inputs": {"image": ["1", 0], "seconds": 0.1, "seed": 1}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "faults/x"}},
}


_USUAL_DEADLINE_S, _USUAL_TIMEOUT_S = 90.0, 60.0
"""With which the usual retries are thought, and the timeout that scripts have when nobody has thought about it."""


class FaultOptions(Struct, frozen=True, kw_only=True):
    """`server` None: the simulator, whose jobs take `job_s`. On a real server `job_s` only sets the pace. `heavy`: a
    workflow that exhausts the server's memory; None: one that asks for more than there can be, and is refused.
    """

    policy: Policy
    scenarios: list[Scenario]
    server: str | None = None
    headers: list[str] = []
    workflow: bytes | None = None
    heavy: bytes | None = None
    jobs: int = 30
    job_s: float = 0.2
    deadline_s: float = 6.0
    allow_shared: bool = False
    seed: int = 1
    clients: tuple[str, ...] = CLIENTS


class _Ask(Struct, kw_only=True):
    """One job: when it was due, whether it could succeed, the ids under which it was sent, and how it ended."""

    due: float
    good: bool
    ids: list[str]
    done: float | None = None
    outcome: str = ""


async def faults(asked: FaultOptions, begins: Callable[[str, str], None]) -> list[Outcome]:
    """Every scenario for every client; `begins` is told which. On the simulator the clients of a scenario have a server
    each and play it side by side, a real one has them one after the other.

    Raises:
        UsageError: the server is busy with the work of others, or no workflow is given for it, or one that is none.
    """
    if asked.server is not None and asked.workflow is None:
        raise UsageError("a real server needs a workflow", "give --workflow FILE")
    if asked.server is None and asked.heavy is not None:
        raise UsageError("a heavy workflow is for a real server", "give --server URL, or leave --heavy out")
    if asked.heavy is not None:
        parse(asked.heavy, "heavy", "the heavy workflow")

    async def one(scenario: Scenario, client: str) -> Outcome:
        begins(scenario, client)
        try:
            return await _play(asked, scenario, client)
        except CannotPlay as error:
            return Outcome(scenario=scenario, client=client, why=str(error))

    out: list[Outcome] = []
    for scenario in asked.scenarios:
        if asked.server is not None and scenario == "restart":
            why = "a server cannot be restarted from outside"
            out += [Outcome(scenario=scenario, client=client, why=why) for client in asked.clients]
        elif asked.server is not None:
            out += [await one(scenario, client) for client in asked.clients]
        else:
            out += await asyncio.gather(*(one(scenario, client) for client in asked.clients))
    return out


async def _play(asked: FaultOptions, scenario: Scenario, name: str) -> Outcome:
    async with AsyncExitStack() as stack:
        simulated: Server | None = None
        url = asked.server
        if url is None:
            simulated = await stack.enter_async_context(Server(faults=_inside(asked, scenario), seed=asked.seed))
            url = await stack.enter_async_context(serve(simulated))
        headers = parse_headers(asked.headers)
        address, headers = with_credentials(parse_server(url), headers)
        parts = urlsplit(str(address))
        rng = Random(f"{asked.seed}/{scenario}")
        proxy = await stack.enter_async_context(Proxy(parts.hostname or "", parts.port or 80, rng))
        direct = await stack.enter_async_context(Http.connect(address, headers))
        facts = await identify(direct, direct.name, [])
        if simulated is None and facts.queue_at_start and not asked.allow_shared:
            raise UsageError(
                f"the server is busy: {facts.queue_at_start} prompts of others are in its queue",
                "wait; with --allow-shared it is done all the same",
            )
        proxied = parse_server(proxy.url)
        transport = await stack.enter_async_context(
            Http.connect(address.with_host(proxied.host or "").with_port(proxied.port), headers)
        )
        prompts = await _prompts(asked, direct, scenario)
        clock, asks = stopwatch(), list[_Ask]()
        timeouts = _timeouts(asked)
        async with _client(asked, name, transport, api_of(transport, facts), facts, clock, timeouts) as client:
            trouble = asyncio.create_task(_make_trouble(asked, scenario, proxy, simulated))
            await _send(asked, scenario, client, prompts, asks, clock)
            await trouble
            if isinstance(client, NaiveHttpClient):
                for ask in asks:
                    ask.ids = client.ids.get(ask.ids[0], ask.ids)
        await asyncio.sleep(2 * asked.job_s)
        return await _judge(asked, scenario, name, asks, api_of(direct, facts), simulated)


def _inside(asked: FaultOptions, scenario: Scenario) -> Faults:
    begin, end = _times(asked)
    if scenario == "stall":
        return Faults(hang=Which(at=(max(1, int(BEGINS * asked.jobs)),)), hang_s=end - begin)
    return Faults(oom=Which(every=EVERY)) if scenario == "oom" else Faults()


def _timeouts(asked: FaultOptions) -> Timeouts:
    """On a simulator whose jobs take a fraction of a second, waits shrink with them."""
    if asked.server is not None:
        return Timeouts()
    scale = min(1.0, asked.job_s)
    return Timeouts(lost_s=2 * scale, silence_s=scale, confirm_s=5 * scale, cancel_s=5 * scale)


async def _prompts(asked: FaultOptions, direct: Http, scenario: Scenario) -> list[tuple[Prompt, bool]]:
    """The jobs, and which of them can succeed."""
    content = asked.workflow
    if content is None:
        job = json.loads(json.dumps(_JOB))
        job["2"]["inputs"]["seconds"] = asked.job_s
        content = json.dumps(job).encode()
    workflow = parse(content, "job", "job")
    await refuse_deadly(direct, workflow)
    classes = {workflow.class_of(node) for node in workflow.graph}
    info = ObjectInfo(await describe_classes(direct, {*classes, *CLASSES}))
    variation = Variation(workflow, info, seed=asked.seed, output_folder="comfyload/faults")
    some_bad = scenario in BAD_PROMPTS and not (scenario == "oom" and asked.server is None)
    out = []
    run = f"faults-{uuid.uuid4().hex[:8]}"
    for index in range(asked.jobs):
        prompt = variation.prompt(run, index, warmup=False)
        bad = some_bad and index % EVERY == EVERY - 1
        out.append((_spoilt(asked, scenario, prompt, info) if bad else prompt, not bad))
    return out


def _spoilt(asked: FaultOptions, scenario: Scenario, prompt: Prompt, info: ObjectInfo) -> Prompt:
    if scenario == "oom" and asked.heavy is not None:
        content = json.dumps(parse(asked.heavy, "heavy", "the heavy workflow").graph).encode()
    else:
        content = bad_graph(scenario, prompt.index, info)
    # Under a name of its own: a client that learns from it must not learn of the good ones.
    return structs.replace(prompt, graph=lambda: content, workflow=f"{prompt.workflow}, {scenario}")


@asynccontextmanager
async def _client(
    asked: FaultOptions,
    name: str,
    transport: Http,
    api: Api,
    facts: Any,
    clock: Callable[[], float],
    timeouts: Timeouts,
) -> AsyncIterator[Client]:
    if name != POLICY:
        yield NaiveHttpClient(
            _naive(name, asked.deadline_s), script(api, asked.deadline_s / 40), clock, Random(asked.seed)
        )
        return
    policy = structs.replace(asked.policy, deadline_s=asked.deadline_s)
    async with RetryingClient.open(
        [(transport, facts)], policy, clock, rng=Random(asked.seed), timeouts=timeouts
    ) as client:
        yield client


def _naive(name: str, deadline_s: float) -> Naive:
    usual = next(naive for naive in NAIVE if naive.name == name)
    timeout_s = _USUAL_DEADLINE_S if usual.attempts == 1 else _USUAL_TIMEOUT_S
    return scaled(usual, deadline_s / _USUAL_DEADLINE_S, timeout_s=timeout_s)


async def _send(
    asked: FaultOptions,
    scenario: Scenario,
    client: Client,
    prompts: list[tuple[Prompt, bool]],
    asks: list[_Ask],
    clock: Callable[[], float],
) -> None:
    rng, due = Random(f"{asked.seed}/arrivals"), clock()
    begin, end = (due + at for at in _times(asked))

    async def one(prompt: Prompt, ask: _Ask) -> None:
        execution = await client.run(prompt)
        ask.done, ask.outcome = clock(), execution.outcome
        ask.ids = [attempt.prompt_id for attempt in execution.attempts] or [prompt.id]

    async with asyncio.TaskGroup() as group:
        for prompt, good in prompts:
            burst = scenario == "burst" and begin <= due < end
            due += rng.expovariate((BURST if burst else LOAD) / asked.job_s)
            await asyncio.sleep(max(0.0, due - clock()))
            ask = _Ask(due=due, good=good, ids=[prompt.id])
            asks.append(ask)
            group.create_task(one(prompt, ask))


def _times(asked: FaultOptions) -> tuple[float, float]:
    whole = asked.jobs * asked.job_s / LOAD
    return BEGINS * whole, ENDS * whole


async def _make_trouble(asked: FaultOptions, scenario: Scenario, proxy: Proxy, simulated: Server | None) -> None:
    begin, end = _times(asked)
    bad: Mapping[Scenario, Trouble] = {
        "blip": Trouble(reset=0.3, lose_reply=0.3, reset_after_bytes=500),
        "crash": Trouble(refuse=True),
        "latency": Trouble(delay_s=asked.job_s / 4, jitter_s=asked.job_s / 2),
        "stall": Trouble(silent=True),
    }
    await asyncio.sleep(begin)
    if scenario == "restart" and simulated is not None:
        simulated.restart((end - begin) / 2)
        return
    if scenario not in bad or (scenario == "stall" and simulated is not None):
        return
    proxy.trouble = bad[scenario]
    for _ in range(CUTS):
        if scenario in ("blip", "crash"):
            proxy.cut()
        await asyncio.sleep((end - begin) / CUTS)
    proxy.trouble = Trouble()


async def _judge(
    asked: FaultOptions, scenario: Scenario, name: str, asks: list[_Ask], api: Api, simulated: Server | None
) -> Outcome:
    good = [ask for ask in asks if ask.good]
    took = [ask.done - ask.due for ask in good if ask.done is not None and ask.outcome == "completed"]
    _, end = _times(asked)
    late = [ask for ask in good if ask.outcome != "completed" or (ask.done or 0.0) - ask.due > asked.deadline_s]
    ran, failed = await _executions(asks, api, simulated)
    fates = Counter(_fate(ask, asked.deadline_s) for ask in asks)
    twice = sum(sum(ran[prompt_id] for prompt_id in set(ask.ids)) > 1 for ask in asks)
    return Outcome(
        scenario=scenario,
        client=name,
        jobs=len(asks),
        in_time=fates["in_time"],
        late=fates["late"],
        failed=fates["failed"],
        given_up=fates["given_up"],
        lost=fates["lost"],
        of=len(good),
        slowest_s=max(took, default=None),
        recovery_s=max([0.0, *(ask.due - end for ask in late if ask.due > end)]),
        twice=twice,
        executed=sum(ran.values()),
        executions_failed=failed,
        left=await _left(asks, api),
    )


def _fate(ask: _Ask, deadline_s: float) -> str:
    """Which of an Outcome's counts a job belongs to: exactly one."""
    if ask.outcome == "completed":
        return "in_time" if ask.done is not None and ask.done - ask.due <= deadline_s else "late"
    if ask.outcome in ("", "lost"):
        return "lost"
    return "given_up" if ask.outcome in ("timed_out", "cancelled", "dropped") else "failed"


async def _left(asks: list[_Ask], api: Api) -> int:
    """How many prompts of ours the server has still to do, those that it does not tell of included."""
    ids = {prompt_id for ask in asks for prompt_id in ask.ids}
    return sum([await api.prompt_state(prompt_id) in ("pending", "running", "unknown") for prompt_id in ids])


async def _executions(asks: list[_Ask], api: Api, simulated: Server | None) -> tuple[Counter[str], int]:
    """How often each id was executed to its end, and how many executions failed, by the simulator's own account or by
    the server's history.
    """
    ran: Counter[str] = Counter()
    if simulated is not None:
        ran.update(truth.prompt_id for truth in simulated.truth if truth.outcome == "completed")
        return ran, sum(truth.outcome == "failed" for truth in simulated.truth)
    failed = 0
    for prompt_id in {prompt_id for ask in asks for prompt_id in ask.ids}:
        entry = await api.history(prompt_id)
        kinds = {message.type for message in entry.messages} if entry is not None else set()
        ran[prompt_id] += "execution_success" in kinds
        failed += "execution_error" in kinds
    return ran, failed
