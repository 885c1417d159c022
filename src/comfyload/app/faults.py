"""`faults`: trouble on purpose, for clients with and without a retry policy, on the simulator or a real server."""

import asyncio
import json
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext
from random import Random
from typing import Any, Literal, get_args

from msgspec import Struct, structs

from comfyload.advise.naive_client import NAIVE, Naive, scaled
from comfyload.app.bad_prompts import CLASSES, CannotPlay, bad_graph
from comfyload.app.naive_client import NaiveHttpClient, script
from comfyload.clock import stopwatch
from comfyload.comfy.address import parse_headers, parse_server, with_credentials
from comfyload.comfy.api import Api, api_of
from comfyload.comfy.examine import refuse_deadly
from comfyload.comfy.http import Http
from comfyload.comfy.identify import describe_classes, identify
from comfyload.comfy.link import ClientOptions
from comfyload.comfy.timeouts import Timeouts
from comfyload.errors import UsageError
from comfyload.load.engine import Client
from comfyload.record.model import Prompt
from comfyload.record.model import Server as ServerFacts
from comfyload.record.options import RunOptions
from comfyload.record.policy import Policy
from comfyload.report.faults import POLICY, Outcome
from comfyload.retry.client import RetryingClient
from comfyload.sim import Faults, Server, Which
from comfyload.sim.http import serve
from comfyload.sim.proxy import Proxy, Trouble
from comfyload.text_files import read_text
from comfyload.words import count
from comfyload.workflow import ObjectInfo, Variation, parse

Scenario = Literal["steady", "burst", "validation", "oom", "blip", "crash", "latency", "stall", "restart", "poison"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
BAD_PROMPTS = ("validation", "oom", "poison")
"""Scenarios that send prompts that cannot succeed; the simulator runs out of memory by itself."""
CLIENTS = ("no retry", "3 retries at once", POLICY)
LOAD, BURST = 0.6, 2.0
"""Of what the server can do: as a rule, and while there is a burst."""

SEED = 1
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
_TICK_S = 0.5


class FaultOptions(Struct, frozen=True, kw_only=True):
    """`run`: of a real server, its address, headers and workflow; without a server the simulator is used.

    On the simulator jobs take `job_s`; on a real server it only sets the pace. `heavy`: a workflow that exhausts the
    server's memory; None: one that requests more than there can be, and is refused.
    """

    run: RunOptions
    policy: Policy
    scenarios: list[Scenario]
    heavy: bytes | None = None
    jobs: int = 30
    job_s: float = 0.2
    deadline_s: float = 6.0

    @property
    def simulated(self) -> bool:
        """Whether each client gets a simulator of its own."""
        return not self.run.server


class _PlayedJob(Struct, kw_only=True):
    """One job: when it was due, whether it could succeed, the ids under which it was sent, and how it ended."""

    due: float
    good: bool
    ids: list[str]
    done: float | None = None
    outcome: str = ""


async def faults(options: FaultOptions, progress: Callable[[Scenario, float], None]) -> list[Outcome]:
    """Play every scenario for every client; `progress` gets the scenario and the share done, twice a second.

    On the simulator the clients of a scenario play side by side, each with a server of its own; a real server has them
    one after the other.

    Raises:
        UsageError: the server is busy with the work of others, or no workflow is given for it, or an invalid one.
    """
    if len(options.run.workflows) > 1:
        raise UsageError("faults takes one workflow", "give --workflow once")
    if not options.simulated and not options.run.workflows:
        raise UsageError("a real server needs a workflow", "give --workflow FILE")
    if options.simulated and options.heavy is not None:
        raise UsageError("a heavy workflow is for a real server", "give --server URL, or leave --heavy out")
    if options.heavy is not None:
        parse(options.heavy, "heavy", "the heavy workflow")
    out: list[Outcome] = []
    side_by_side = [CLIENTS] if options.simulated else [(client,) for client in CLIENTS]
    steps = [(scenario, clients) for scenario in options.scenarios for clients in side_by_side]
    elapsed, usual_s = stopwatch(), options.jobs * options.job_s / LOAD + 2 * options.job_s
    for number, (scenario, clients) in enumerate(steps):
        began = elapsed()
        played = asyncio.gather(*(_outcome(options, scenario, client) for client in clients))
        try:
            while not played.done():
                share = min(0.95, (elapsed() - began) / usual_s)  # by the time that the step before took
                progress(scenario, (number + share) / len(steps))
                await asyncio.wait([played], timeout=_TICK_S)
        finally:
            played.cancel()
        out += played.result()
        usual_s = elapsed() - began
    return out


async def _outcome(options: FaultOptions, scenario: Scenario, client: str) -> Outcome:
    try:
        return await _play(options, scenario, client)
    except CannotPlay as error:
        return Outcome(scenario=scenario, client=client, why=str(error))


async def _play(options: FaultOptions, scenario: Scenario, name: str) -> Outcome:
    if not options.simulated and scenario == "restart":
        raise CannotPlay("a server cannot be restarted from outside")
    async with AsyncExitStack() as stack:
        simulated: Server | None = None
        url = options.run.server
        if options.simulated:
            simulated = await stack.enter_async_context(Server(faults=_inside(options, scenario), seed=SEED))
            url = await stack.enter_async_context(serve(simulated))
        address, headers = with_credentials(parse_server(url), parse_headers(options.run.headers))
        rng = Random(f"{SEED}/{scenario}")
        proxy = await stack.enter_async_context(Proxy(address.host or "", address.port or 80, rng))
        direct = await stack.enter_async_context(Http.connect(address, headers))
        facts = await identify(direct, direct.name, [])
        if simulated is None and facts.queue_at_start and not options.run.allow_shared:
            raise UsageError(
                f"the server is busy: {count(facts.queue_at_start, 'prompt')} of others in its queue",
                "wait; with --allow-shared it is done all the same",
            )
        proxied = parse_server(proxy.url)
        transport = await stack.enter_async_context(
            Http.connect(address.with_host(proxied.host or "").with_port(proxied.port), headers)
        )
        prompts, clock = await _prompts(options, direct, scenario), stopwatch()
        async with _client(options, name, transport, facts, clock) as client:
            trouble = asyncio.create_task(_make_trouble(options, scenario, proxy, simulated))
            jobs = await _send(options, scenario, client, prompts, clock)
            await trouble
        if isinstance(client, NaiveHttpClient):
            for job in jobs:
                job.ids = client.ids.get(job.ids[0], job.ids)
        await asyncio.sleep(2 * options.job_s)
        api = api_of(direct, facts)
        counts = await _counts(options, jobs, api, simulated)
        # Those that the server does not report may run as well.
        states = [await api.prompt_state(prompt_id) for prompt_id in _ids(jobs)]
        left = sum(state in ("pending", "running", "unknown") for state in states)
        return Outcome(scenario=scenario, client=name, left=left, **counts)


def _inside(options: FaultOptions, scenario: Scenario) -> Faults:
    begin, end = _times(options)
    if scenario == "stall":
        return Faults(hang=Which(at=(max(1, int(BEGINS * options.jobs)),)), hang_s=end - begin)
    return Faults(oom=Which(every=EVERY)) if scenario == "oom" else Faults()


def _timeouts(options: FaultOptions) -> Timeouts:
    """On a simulator whose jobs take a fraction of a second, waits shrink with them."""
    if not options.simulated:
        return Timeouts()
    scale = min(1.0, options.job_s)
    return Timeouts(lost_s=2 * scale, silence_s=scale, confirm_s=5 * scale, cancel_s=5 * scale)


async def _prompts(options: FaultOptions, direct: Http, scenario: Scenario) -> list[tuple[Prompt, bool]]:
    """The jobs, and which of them can succeed."""
    if options.run.workflows:
        content = read_text(options.run.workflows[0].file).encode()
    else:
        job = json.loads(json.dumps(_JOB))
        job["2"]["inputs"]["seconds"] = options.job_s
        content = json.dumps(job).encode()
    workflow = parse(content, "job", "job")
    await refuse_deadly(direct, workflow)
    classes = {workflow.class_of(node) for node in workflow.graph}
    info = ObjectInfo(await describe_classes(direct, {*classes, *CLASSES}))
    variation = Variation(workflow, info, seed=SEED, output_folder="comfyload/faults")
    some_bad = scenario in BAD_PROMPTS and not (scenario == "oom" and options.simulated)
    out = []
    run = f"faults-{uuid.uuid4().hex[:8]}"
    for index in range(options.jobs):
        prompt = variation.prompt(run, index, warmup=False)
        bad = some_bad and index % EVERY == EVERY - 1
        out.append((_spoilt(options, scenario, prompt, info) if bad else prompt, not bad))
    return out


def _spoilt(options: FaultOptions, scenario: Scenario, prompt: Prompt, info: ObjectInfo) -> Prompt:
    if scenario == "oom" and options.heavy is not None:
        content = json.dumps(parse(options.heavy, "heavy", "the heavy workflow").graph).encode()
    else:
        content = bad_graph(scenario, prompt.index, info)
    # Under a name of its own: a client that learns from it must not learn of the good ones.
    return structs.replace(prompt, graph_of=lambda _: content, workflow=f"{prompt.workflow}, {scenario}")


def _client(
    options: FaultOptions, name: str, transport: Http, facts: ServerFacts, clock: Callable[[], float]
) -> AbstractAsyncContextManager[Client]:
    rng = Random(SEED)
    if name != POLICY:
        attempt = script(api_of(transport, facts), options.deadline_s / 40)
        return nullcontext(NaiveHttpClient(_naive(name, options.deadline_s), attempt, clock, rng))
    policy = structs.replace(options.policy, deadline_s=options.deadline_s)
    client_options = ClientOptions(timeouts=_timeouts(options))
    return RetryingClient.open([(transport, facts)], policy, clock, rng=rng, options=client_options)


def _naive(name: str, deadline_s: float) -> Naive:
    usual = next(naive for naive in NAIVE if naive.name == name)
    timeout_s = _USUAL_DEADLINE_S if usual.attempts == 1 else _USUAL_TIMEOUT_S
    return scaled(usual, deadline_s / _USUAL_DEADLINE_S, timeout_s=timeout_s)


async def _send(
    options: FaultOptions,
    scenario: Scenario,
    client: Client,
    prompts: list[tuple[Prompt, bool]],
    clock: Callable[[], float],
) -> list[_PlayedJob]:
    rng, due, jobs = Random(f"{SEED}/arrivals"), clock(), list[_PlayedJob]()
    begin, end = (due + at for at in _times(options))

    async def one(prompt: Prompt, job: _PlayedJob) -> None:
        execution = await client.run(prompt)
        job.done, job.outcome = clock(), execution.outcome
        job.ids = [attempt.prompt_id for attempt in execution.attempts] or [prompt.id]

    async with asyncio.TaskGroup() as group:
        for prompt, good in prompts:
            burst = scenario == "burst" and begin <= due < end
            due += rng.expovariate((BURST if burst else LOAD) / options.job_s)
            await asyncio.sleep(max(0.0, due - clock()))
            job = _PlayedJob(due=due, good=good, ids=[prompt.id])
            jobs.append(job)
            group.create_task(one(prompt, job))
    return jobs


def _times(options: FaultOptions) -> tuple[float, float]:
    whole = options.jobs * options.job_s / LOAD
    return BEGINS * whole, ENDS * whole


async def _make_trouble(options: FaultOptions, scenario: Scenario, proxy: Proxy, simulated: Server | None) -> None:
    begin, end = _times(options)
    bad: Mapping[Scenario, Trouble] = {
        "blip": Trouble(reset=0.3, lose_reply=0.3, reset_after_bytes=500),
        "crash": Trouble(refuse=True),
        "latency": Trouble(delay_s=options.job_s / 4, jitter_s=options.job_s / 2),
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


async def _counts(options: FaultOptions, jobs: list[_PlayedJob], api: Api, simulated: Server | None) -> dict[str, Any]:
    """What became of the jobs, by the fields of an Outcome."""
    good = [job for job in jobs if job.good]
    took = [job.done - job.due for job in good if job.done is not None and job.outcome == "completed"]
    _, end = _times(options)
    late = [job for job in good if job.outcome != "completed" or (job.done or 0.0) - job.due > options.deadline_s]
    ran, failed = await _executions(jobs, api, simulated)
    return {
        **Counter(_fate(job, options.deadline_s) for job in jobs),
        "jobs": len(jobs),
        "of": len(good),
        "slowest_s": max(took, default=None),
        "recovery_s": max([0.0, *(job.due - end for job in late if job.due > end)]),
        "twice": sum(sum(ran[prompt_id] for prompt_id in set(job.ids)) > 1 for job in jobs),
        "executed": sum(ran.values()),
        "executions_failed": failed,
    }


def _fate(job: _PlayedJob, deadline_s: float) -> str:
    """Which of an Outcome's counts a job belongs to: exactly one."""
    if job.outcome == "completed":
        return "in_time" if job.done is not None and job.done - job.due <= deadline_s else "late"
    if job.outcome in ("", "lost"):
        return "lost"
    return "given_up" if job.outcome in ("timed_out", "cancelled", "dropped") else "failed"


def _ids(jobs: list[_PlayedJob]) -> set[str]:
    return {prompt_id for job in jobs for prompt_id in job.ids}


async def _executions(jobs: list[_PlayedJob], api: Api, simulated: Server | None) -> tuple[Counter[str], int]:
    """How often each id was executed to its end, and how many executions failed, by the simulator's own account or by
    the server's history.
    """
    ran: Counter[str] = Counter()
    if simulated is not None:
        ran.update(truth.prompt_id for truth in simulated.truth if truth.outcome == "completed")
        return ran, sum(truth.outcome == "failed" for truth in simulated.truth)
    failed = 0
    for prompt_id in _ids(jobs):
        entry = await api.history(prompt_id)
        kinds = {message.type for message in entry.messages} if entry is not None else set()
        ran[prompt_id] += "execution_success" in kinds
        failed += "execution_error" in kinds
    return ran, failed
