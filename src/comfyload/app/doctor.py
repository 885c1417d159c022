"""`doctor`: what can be checked on a server and a workflow before a run; submits nothing."""

import copy
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, structs, to_builtins

from comfyload.app.earlier import newest_run
from comfyload.app.run.inputs import Inputs, load_inputs, vary
from comfyload.app.run.options import RunOptions
from comfyload.app.run.preflight import Beforehand
from comfyload.app.run.servers import connect_all, resolved
from comfyload.comfy import examine
from comfyload.comfy.identify import identify
from comfyload.comfy.wire.calls import Transport
from comfyload.errors import ServerUnreachable
from comfyload.judge.columns.ledger import join
from comfyload.record.model import Server
from comfyload.visible import visible
from comfyload.words import count, duration, gib, seconds_words
from comfyload.workflow import ObjectInfo, Variation
from comfyload.workflow.preflight import PreflightAnswer, describe
from comfyload.workflow.problems import Kind
from comfyload.workflow.remarks import remarks

Status = Literal["ok", "warning", "problem", "unknown"]

CLOCK_WARNING_S = 2.0
LITTLE_RAM = 0.1


class DoctorCheck(Struct, frozen=True):
    """One check. `advice`: what to do about it, "" for nothing. `about` decides the exit code of a problem.

    `facts`: the numbers in `found`.
    """

    name: str
    status: Status
    found: str
    advice: str = ""
    facts: dict[str, Any] = {}
    about: Literal["server", "workflow", "reach"] = "server"


def exit_code(checks: list[DoctorCheck]) -> int:
    """4: no server, 2: the workflow cannot run there, 3: the server is not ready to be measured, 0: go on."""
    wrong = {check.about for check in checks if check.status == "problem"}
    return 4 if "reach" in wrong else 2 if "workflow" in wrong else 3 if "server" in wrong else 0


def answer(checks: list[DoctorCheck]) -> tuple[bool, str]:
    """Whether to go on, and in a sentence how many checks say what, and which server it is."""
    counts = Counter(check.status for check in checks)
    found = [count(counts[status], status) for status in ("problem", "warning") if counts[status]]
    server = [f" {visible(check.found)}." for check in checks if check.name == "server" and check.status == "ok"]
    return not counts["problem"], f"{' and '.join(found) or 'no problem'}.{''.join(server)}"


async def doctor(options: RunOptions, runs: Path = Path("runs")) -> list[DoctorCheck]:
    """Check the server, and the workflows on it; `runs` is where earlier runs are looked for.

    Raises:
        UsageError: a file cannot be read or is not a graph, or an override fits no node.
    """
    inputs = load_inputs(options) if options.workflows else Inputs([], [], None)
    options = await resolved(options)
    async with connect_all(options) as connected:
        found = [
            await examine_server(one.http, one.http.name, options, copy.deepcopy(inputs), runs) for one in connected
        ]
    if len(found) == 1:
        return found[0]
    return _of_several({one.name: checks for one, checks in zip(connected, found, strict=True)})


def _of_several(found: dict[str, list[DoctorCheck]]) -> list[DoctorCheck]:
    """The checks of all servers, each with its server's name. What another server can run is no problem of the run."""
    runs = {
        check.facts["workflow"]
        for checks in found.values()
        for check in checks
        if check.name == "preflight" and check.status != "problem"
    }
    named = []
    for name, checks in found.items():
        for check in checks:
            if check.name == "preflight" and check.status == "problem" and check.facts["workflow"] in runs:
                check = structs.replace(check, status="warning", advice="its jobs go to the servers that can run it")
            named.append(structs.replace(check, found=f"{name}: {check.found}", facts={**check.facts, "server": name}))
    return named


async def examine_server(
    transport: Transport, name: str, options: RunOptions, inputs: Inputs, runs: Path
) -> list[DoctorCheck]:
    """All checks, in the order in which they are read."""
    try:
        server = await identify(transport, name, [])
    except ServerUnreachable as error:
        return [DoctorCheck("server", "problem", error.message, error.hint, about="reach")]
    checks = [await _reach(transport, server)]
    if await examine.is_gateway(transport):
        checks.append(_gateway())
    checks += [_version(server), _caching(server), *_flags(server)]
    checks += await _queue_and_events(transport)
    checks += [_clock(await examine.clock_offset(transport)), *_memory(server)]
    if inputs.workflows:
        described = await examine.fetch_object_info(transport, inputs.classes())
        info = ObjectInfo(described.classes)
        inputs.settle(info)
        beforehand = Beforehand(options, inputs, info, described, server)
        await beforehand.look(transport)
        for variation in vary(options, inputs, info, "comfyload/doctor"):
            name = variation.workflow.name
            answer, dropped = beforehand.answers[name], inputs.dropped.get(name, {})
            checks.append(_preflight(variation, answer, dropped))
            own = [_variation(variation, options), _outputs(variation), _cost(variation, server, options, runs)]
            several = len(inputs.workflows) > 1
            checks += [structs.replace(one, found=f"{name}: {one.found}") for one in own] if several else own
    return checks


async def _reach(transport: Transport, server: Server) -> DoctorCheck:
    seconds = await examine.round_trips(transport)
    version = server.comfyui_version
    name = f"ComfyUI {visible(version)}" if version else "a ComfyUI of unknown version"
    if not seconds:
        advice = "look at the server's log: without this route a run cannot see the queue"
        return DoctorCheck("server", "problem", f"{name} at {server.url} does not answer GET /prompt", advice)
    median, most = statistics.median(seconds), max(seconds)
    found = f"{name} at {server.url} answers in {duration(median)} (slowest of {len(seconds)}: {duration(most)})"
    return DoctorCheck("server", "ok", found, facts={"round_trip_s": median, "round_trip_max_s": most})


def _gateway() -> DoctorCheck:
    found = (
        "a comfyload gateway answers for its servers: it sends jobs again that fail, so that a run measures what an "
        "application sees, and no server by itself"
    )
    return DoctorCheck("gateway", "warning", found, "to measure one server, give its own address")


def _version(server: Server) -> DoctorCheck:
    if server.version is None:
        advice = "running jobs cannot be stopped, and their queue wait may be missing"
        return DoctorCheck("version", "unknown", "the server does not report its version", advice)
    lacks = examine.missing_abilities(server)
    facts = {"version": server.comfyui_version, "lacks": lacks}
    version = visible(server.comfyui_version or "")
    if not lacks:
        return DoctorCheck("version", "ok", f"{version} has everything that a run uses", facts=facts)
    found = f"ComfyUI {version} lacks\n" + "\n".join(f"- {line}" for line in lacks)
    return DoctorCheck("version", "warning", found, "update ComfyUI if one of these matters", facts)


def _caching(server: Server) -> DoctorCheck:
    mode = server.cache_mode
    facts = {"cache_mode": mode}
    if mode is None:
        return DoctorCheck("cache", "unknown", "the server does not report its flags", facts=facts)
    if mode == "none":
        found = "--cache-none: nothing is cached, so every job loads its models again, and warm-up does not help"
        return DoctorCheck("cache", "warning", found, "measure with this flag only if production uses it", facts)
    if mode.startswith(("lru", "ram ")):
        found = f"--cache-{mode}: older results are cached too, so a seed that was used before costs no time"
        return DoctorCheck("cache", "warning", found, "give every run its own seed, which is the default", facts)
    return DoctorCheck(
        "cache", "ok", f"models and results are cached ({mode}); fresh seeds make every job run", facts=facts
    )


def _flags(server: Server) -> Iterator[DoctorCheck]:
    if server.argv is None:
        yield DoctorCheck("flags", "unknown", "the server does not report its flags")
        return
    disturbing = examine.disturbing_flags(server.argv)
    for flag, meaning in disturbing.items():
        advice = "compare only with servers that run with this flag"
        yield DoctorCheck("flags", "warning", f"{flag}: {meaning}", advice, {"flag": flag})
    if not disturbing:
        yield DoctorCheck("flags", "ok", "no flag disturbs the measurement")


async def _queue_and_events(transport: Transport) -> list[DoctorCheck]:
    queue, greeted = await examine.look_at_queue(transport), await examine.greeting(transport)
    if queue is None:
        advice = "look at the server's log: jobs of others cannot be noticed"
        return [DoctorCheck("queue", "unknown", "GET /queue fails", advice), _events(greeted, None)]
    if not queue.total:
        idle = DoctorCheck("worker", "ok", "idle")  # a worker that died would still hold its prompt
        return [DoctorCheck("queue", "ok", "empty"), idle, _events(greeted, None)]
    jobs = f"{len(queue.running)} running and {queue.pending} waiting, of {count(queue.clients, 'client')}"
    found = f"the queue is not empty: {jobs}"
    advice = "wait until it is empty, or use another server: your jobs would wait for these"
    facts = {"running": len(queue.running), "pending": queue.pending, "clients": queue.clients}
    watched = await examine.watch_worker(transport)
    return [DoctorCheck("queue", "problem", found, advice, facts), _worker(watched), _events(greeted, watched)]


def _worker(watched: examine.Watched) -> DoctorCheck:
    if watched.moved is None:
        return DoctorCheck("worker", "unknown", "the queue could not be read twice")
    if watched.moved:
        return DoctorCheck("worker", "ok", f"working: the queue moved within {watched.seconds:.1f} s")
    found = f"no progress in {watched.seconds:.1f} s: the worker is dead, or runs one long prompt (both look the same)"
    advice = "look at the server's log and its GPU; if the worker is dead, restart the server"
    return DoctorCheck("worker", "problem", found, advice)


def _events(greeted: float | str, watched: examine.Watched | None) -> DoctorCheck:
    polls = "until then a run polls, and knows less exactly when a job ended"
    if isinstance(greeted, str):
        advice = f"let the proxy pass WebSocket upgrades of /ws; {polls}"
        return DoctorCheck("events", "warning", f"no events: {greeted}", advice)
    facts = {"greeting_s": greeted}
    if watched is not None and watched.moved and not watched.events:
        found = f"the stream is open but silent while the queue moved ({watched.seconds:.1f} s): events are held up"
        advice = f"find the client that does not read its socket (often a sleeping browser tab); {polls}"
        return DoctorCheck("events", "warning", found, advice, facts)
    return DoctorCheck("events", "ok", f"events arrive ({duration(greeted)})", facts=facts)


def _clock(offset: tuple[float, float] | None) -> DoctorCheck:
    if offset is None:
        return DoctorCheck("clock", "unknown", "the server's replies carry no usable date; a run does not need it")
    low, high = offset
    middle, half = (low + high) / 2, (high - low) / 2
    way = "ahead of" if middle >= 0 else "behind"
    found = f"the server's clock is {abs(middle):.1f} s {way} ours (± {max(0.1, half):.1f} s)"
    facts = {"offset_s": middle, "uncertainty_s": half}
    if low <= CLOCK_WARNING_S and high >= -CLOCK_WARNING_S:
        return DoctorCheck("clock", "ok", found, facts=facts)
    advice = "set it before you compare logs of both machines; a run's own numbers do not need it"
    return DoctorCheck("clock", "warning", found, advice, facts)


def _memory(server: Server) -> Iterator[DoctorCheck]:
    for device in server.devices:
        free, total = device.get("vram_free"), device.get("vram_total")
        if device.get("type") != "cpu" and isinstance(free, int) and isinstance(total, int):
            found = f"{gib(free)} of {gib(total)} free on {device.get('name', 'a GPU')}"
            yield DoctorCheck("GPU memory", "ok", found, facts={"free_bytes": free, "total_bytes": total})
    free, total = server.system.get("ram_free"), server.system.get("ram_total")
    if isinstance(free, int) and isinstance(total, int):
        facts = {"free_bytes": free, "total_bytes": total}
        little = free < LITTLE_RAM * total
        found = f"{'only ' if little else ''}{gib(free)} of {gib(total)} of memory free"
        advice = "close other programs: the server may swap" if little else ""
        yield DoctorCheck("memory", "warning" if little else "ok", found, advice, facts)
    else:
        yield DoctorCheck("memory", "unknown", "the server does not report its memory")
    yield DoctorCheck("disk", "unknown", "the server does not report it: make sure that every image has room")


def _preflight(variation: Variation, answer: PreflightAnswer, dropped: dict[str, str]) -> DoctorCheck:
    """`dropped`: outputs that are left out by --drop-broken-outputs, each with the reason; `answer`: on the rest."""
    workflow = variation.workflow
    facts = {
        "workflow": workflow.name,
        "verdict": answer.verdict,
        "dropped": list(dropped) or answer.dropped,
        "problems": to_builtins(answer.problems),
    }
    left_out = [f"output {output} is left out: {why}" for output, why in dropped.items()]
    if not answer.problems:
        found = f"{workflow.name}: the server would accept it ({count(len(workflow.graph), 'node')})"
        advice = "the run will have no results of these outputs" if dropped else ""
        status: Status = "warning" if dropped else "ok"
        return DoctorCheck("preflight", status, "\n".join([found, *left_out]), advice, facts, "workflow")
    advice = "; ".join(dict.fromkeys(_MENDS.get(problem.kind, "change the graph") for problem in answer.problems))
    if answer.verdict == "partly":
        advice += "; or run the other outputs alone with run --drop-broken-outputs"
    found = "\n".join([describe(answer, workflow.name), *left_out])
    status = "warning" if answer.verdict == "doubtful" else "problem"
    return DoctorCheck("preflight", status, found, advice, facts, "workflow")


_MENDS: dict[Kind, str] = {
    "missing_model": "put the model into ComfyUI's models folder",
    "missing_image": "put the image into ComfyUI's input folder (run --upload does that)",
    "unknown_class": "install the node pack that has this class",
}
"""What to do about a problem; about any other: change the graph."""


def _variation(variation: Variation, options: RunOptions) -> DoctorCheck:
    facts = {
        "varied": variation.varied,
        "salted": variation.salted,
        "constant": variation.constant,
        "pinned": variation.pinned,
        "reloaded": variation.reach.reloaded,
    }
    jobs = ((options.plan.jobs or 0) + options.plan.warmup) * options.plan.pages
    notes = list(remarks(variation, jobs))
    varied = [] if variation.as_is else variation.varied
    found = [f"{count(len(varied), 'input')} varied: {join(varied, 6)}"] if varied else []
    found += [remark.text for remark in notes]
    status: Status = "warning" if any(remark.level == "warning" for remark in notes) else "ok"
    advice = "; ".join(remark.advice for remark in notes if remark.advice)
    return DoctorCheck("variation", status, "; ".join(found), advice, facts, "workflow")


def _outputs(variation: Variation) -> DoctorCheck:
    outputs = [node for node in variation.outputs if node not in variation.constant]
    kinds = Counter(variation.workflow.class_of(node) for node in outputs)
    found = f"{count(len(outputs), 'output node')} in each job: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}"
    return DoctorCheck("outputs", "ok", found, "", {"outputs": len(outputs)}, "workflow")


def _cost(variation: Variation, server: Server, options: RunOptions, runs: Path) -> DoctorCheck:
    """How long the run will take, by the newest run of the same graph on the same server."""
    plan = options.plan
    earlier = newest_run(variation.workflow.sha256, server.url, runs)
    if earlier is None:
        found = f"no earlier run of this graph on this server, neither in {runs}/ nor in the archive"
        advice = "to know how long a run takes, run one job first, with --jobs 1"
        return DoctorCheck("cost", "unknown", found, advice, about="workflow")
    seconds, mean = earlier.seconds, statistics.fmean(earlier.seconds)
    found = f"a job executes for {duration(mean)} (mean of {count(len(seconds), 'job')} in {earlier.path})"
    facts = {"execution_s": mean, "jobs_seen": len(seconds), "run": str(earlier.path)}
    if plan.jobs is not None and len(options.workflows) == 1:
        jobs = (plan.jobs + plan.warmup) * plan.pages
        facts["total_s"] = jobs * mean
        found = f"{count(jobs, 'job')} take about {seconds_words(jobs * mean)}: {found}"
    return DoctorCheck("cost", "ok", found, "", facts, "workflow")
