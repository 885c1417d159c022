"""What made two runs, and which differences between them leave nothing to compare."""

import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Sequence

from msgspec import Struct, json

from comfyload.errors import UsageError
from comfyload.judge.arrivals import as_it_came
from comfyload.judge.columns.ledger import clean
from comfyload.judge.summary import Measured
from comfyload.record.model import Manifest, Server, WorkflowFacts
from comfyload.record.plan import Closed, Open, Plan, Replay, Stage

REFUSING = {
    "valid": "a run that is not valid does not measure what its numbers are named after",
    "servers": "times of several servers together depend on how many there are and on which gets what",
    "gpu": "times on different GPUs say nothing of what else was changed",
    "workflow": "different graphs are different work; the hash counts --set in",
    "cache_mode": "what a server keeps decides which nodes run at all",
    "seeds": "jobs that differ from each other and jobs that repeat are different work",
    "load": "latency and throughput are those of a load",
    "counted": "a cold start is in one and not in the other, or the lengths are worlds apart",
    "settings": "different settings or rows of a table are different work",
}
"""Keys of differences that leave nothing to compare, and why."""

_LENGTHS_APART = 4
"""Counted jobs that differ by more than this factor see different parts of a warm-up, a drift and a tail."""

_SHOWN = re.compile(
    r"(comfyui|custom_nodes|frontend|cuda|driver|kernel|cpu)\b|gpu\.\w+\.(driver|cuda|power_limit|pcie)"
)
"""Facts of the environment that one may be comparing, and that the server did not tell of itself."""

_TOLD_ABOVE = tuple(f"comfyui.{name}" for name in ("version", "argv", "cache_mode", "torch", "python"))
"""Facts that the server reported of itself, under a key of their own."""

_CACHE_FLAGS = ("--cache-none", "--cache-classic", "--high-ram", "--cache-lru", "--cache-ram")
Told = tuple[str, str | None]
"""A key, and what a run says under it; None: it does not say."""


class Difference(Struct, frozen=True, kw_only=True):
    """What the runs of A and of B say under `key`; several answers of one side are joined by " / ".

    `refuses`: not comparable, unless the key is accepted. `why`: why that is so, or why it does not refuse.
    """

    key: str
    a: str
    b: str
    refuses: bool
    why: str = ""


def differences(a: Sequence[Measured], b: Sequence[Measured]) -> list[Difference]:
    """Everything that made the runs and is not the same in all of them, what refuses first.

    Runs of one side must agree among themselves too. What one side does not tell may be the same, so it is shown.
    """
    found, runs = list[Difference](), [*a, *b]
    if not all(run.summary.valid for run in runs):
        found.append(_refused("valid", a, b, _validity))
    counted, warm = [run.jobs.n for run in runs], {run.manifest.plan.warmup > 0 for run in runs}
    if len(warm) > 1 or max(counted) > _LENGTHS_APART * min(counted):
        found.append(_refused("counted", a, b, _count))
    facts_a, facts_b = ([dict(_facts(run)) for run in side] for side in (a, b))
    for key in dict.fromkeys(key for facts in (*facts_a, *facts_b) for key in facts):
        difference = _differs(key, [facts.get(key) for facts in facts_a], [facts.get(key) for facts in facts_b])
        if difference is not None:
            found.append(difference)
    order = list(REFUSING)
    return sorted(found, key=lambda found: (not found.refuses, order.index(found.key) if found.key in order else 99))


def check_keys(accept: Collection[str]) -> None:
    """Raises UsageError for a key that refuses nothing."""
    unknown = [key for key in accept if key not in REFUSING]
    if unknown:
        raise UsageError(f"nothing is refused for {', '.join(map(repr, unknown))}", f"keys are {', '.join(REFUSING)}")


def refuse(found: Sequence[Difference], accept: Collection[str]) -> None:
    """Raises UsageError with every difference that refuses and is not accepted, and both its values."""
    left = [difference for difference in found if difference.refuses and difference.key not in accept]
    if left:
        named = "; ".join(f"{d.key} (A: {clean(d.a, 120)}, B: {clean(d.b, 120)})" for d in left)
        keys = dict.fromkeys(d.key for d in left)
        raise UsageError(
            f"these runs are not comparable: {named}",
            f"to compare them all the same: {' '.join(f'--accept {key}' for key in keys)}",
        )


def label(manifest: Manifest) -> str:
    """The workflows and the load of a run in words; runs of one label are of one series. Traffic is the server's, whose
    days differ in what is wanted.
    """
    if as_it_came(manifest.plan):
        return manifest.name
    fleet = len(manifest.fleet)
    over = f", over {fleet} servers ({manifest.options.dispatch})" if fleet > 1 else ""
    return f"{' + '.join(sorted(facts.name for facts in manifest.workflows))}, {load_words(manifest)}{over}"


def workflow_hashes(manifest: Manifest) -> str:
    """The beginning of the hash of every workflow; of a mix with its name, which tells them apart in the results."""
    return ", ".join(sorted(f"{_named(manifest, facts)}{facts.sha256[:12]}" for facts in manifest.workflows))


def _named(manifest: Manifest, facts: WorkflowFacts) -> str:
    """One graph is the same whatever its file is called."""
    return f"{facts.name} " if len(manifest.workflows) > 1 else ""


def load_words(manifest: Manifest) -> str:
    """The load and what else decides the order of arrivals; how many there are does not count."""
    plan, mixed = manifest.plan, len(manifest.workflows) > 1
    parts = [_load(plan)]
    if plan.max_server_queue is not None:
        parts.append(f"held back while the server's queue has {plan.max_server_queue}")
    if plan.pages > 1:
        parts.append(f"books of {plan.pages} pages")
    if isinstance(manifest.shard, str):
        parts.append(f"shard {manifest.shard}")
    if mixed:
        parts += [] if plan.order == "random" else [plan.order + (f" {plan.stickiness:g}" if plan.stickiness else "")]
        weights = [choice.weight for choice in manifest.options.workflows]
        parts += [f"weights {':'.join(f'{weight:g}' for weight in weights)}"] if len(set(weights)) > 1 else []
    if manifest.retry is not None:
        parts.append(f"retried by a policy ({hashlib.sha256(json.encode(manifest.retry)).hexdigest()[:8]})")
    return ", ".join([*parts, *(["outputs fetched"] if plan.fetch else [])])


def _load(plan: Plan) -> str:
    load = plan.load
    if isinstance(load, Closed):
        think = f", {load.think_s:g} s think time" if load.think_s else ""
        ramp = f", started over {load.ramp_up_s:g} s" if load.ramp_up_s else ""
        return f"{load.concurrency} in flight{think}{ramp}"
    if as_it_came(plan):
        words = "as it came"
    elif isinstance(load, Replay):
        digest = hashlib.sha256(json.encode(load.offsets_s)).hexdigest()[:8]
        words = f"replay of {len(load.offsets_s)} arrivals ({digest})"
    else:
        words = f"{load.arrivals}{f' (cv {load.cv:g})' if load.arrivals == 'gamma' else ''} {_stages(load)}"
    if load.max_in_flight is None:
        return words
    return f"{words}, at most {load.max_in_flight} in flight ({load.on_full})"


def _stages(load: Open) -> str:
    """The only stage's length is how long the run lasted, and no part of its rate."""
    if len(load.stages) == 1:
        return _rate(load.stages[0])
    lengths = ("" if stage.seconds is None else f" for {stage.seconds:g} s" for stage in load.stages)
    return ", then ".join(_rate(stage) + length for stage, length in zip(load.stages, lengths, strict=True))


def _rate(stage: Stage) -> str:
    to = "" if stage.to_per_s in (None, stage.per_s) else f" to {60 * float(stage.to_per_s or 0):g}"
    return f"{60 * stage.per_s:g}{to}/min"


def _facts(run: Measured) -> Iterator[Told]:
    """What refuses, then what is shown, each as words that are the same if and only if the thing is."""
    manifest = run.manifest
    plan, fleet = manifest.plan, manifest.fleet
    yield "servers", "1" if len(fleet) == 1 else f"{len(fleet)}, {manifest.options.dispatch}"
    yield "gpu", _gpu(manifest)
    yield "workflow", workflow_hashes(manifest)
    yield "cache_mode", _of_all(fleet, lambda server: server.cache_mode)
    yield "seeds", _seeds(manifest)
    yield "load", load_words(manifest)
    yield "settings", _settings(manifest)
    for key, of in _OF_SERVERS.items():
        yield key, _of_all(fleet, of)
    for key, fact in manifest.environment.items():
        if _SHOWN.match(key) and key not in _TOLD_ABOVE:
            yield f"environment.{key}", _text(fact.value)
    client = manifest.client
    yield "client", f"{client.os}, {client.cpu or 'CPU unknown'}, {client.cores or '?'} cores"
    yield "tool", manifest.tool
    yield "timeout", "none" if plan.timeout_s is None else f"{plan.timeout_s:g} s"
    yield "end", "waits for the last jobs" if plan.drain else "cuts the last jobs off"


_OF_SERVERS: dict[str, Callable[[Server], str | None]] = {
    "server": lambda server: server.url,
    "comfyui": lambda server: server.comfyui_version,
    "torch": lambda server: _text(server.system.get("pytorch_version")),
    "python": lambda server: _text(server.system.get("python_version")),
    "os": lambda server: _text(server.system.get("os")),
    "node_packs": lambda server: None if server.packs is None else ", ".join(sorted(server.packs)) or "none",
    "argv": lambda server: None if server.argv is None else " ".join(_without_cache(server.argv[1:])) or "none",
}
"""What a server tells of itself, by key."""


def _of_all(fleet: Sequence[Server], of: Callable[[Server], str | None]) -> str | None:
    """What the servers say, each answer once; None if one does not say."""
    answers = [of(server) for server in fleet]
    known = [one for one in answers if one is not None]
    return "; ".join(dict.fromkeys(known)) if len(known) == len(answers) else None


def _gpu(manifest: Manifest) -> str | None:
    """Names of the servers' devices without their index and allocator; else what the environment knows of the first."""
    facts = manifest.environment.items()
    known = [str(fact.value) for key, fact in facts if re.fullmatch(r"gpu\.\w+\.model", key) and fact.value]
    first = manifest.fleet[0]
    return _of_all(
        manifest.fleet, lambda one: _devices(one) or (", ".join(sorted(known)) if one is first else "") or None
    )


def _devices(server: Server) -> str:
    names = [re.sub(r"^\w+:\d+ | : \w+$", "", str(device.get("name", ""))) for device in server.devices]
    pairs = zip(names, server.devices, strict=True)
    return ", ".join(sorted(f"{name} ({device.get('type', '?')})" for name, device in pairs if name))


def _seeds(manifest: Manifest) -> str:
    """How jobs differ from each other; not which seeds they got."""
    if manifest.plan.as_is:
        return "as is"
    kinds = (
        _named(manifest, facts) + ("varied" if facts.varied else "salted" if facts.salted else "the same")
        for facts in manifest.workflows
    )
    return ", ".join(sorted(kinds))


def _settings(manifest: Manifest) -> str:
    data = manifest.options.data
    settings = [f"{key}={value!r}" for facts in manifest.workflows for key, value in sorted(facts.overrides.items())]
    slots = sorted({slot for facts in manifest.workflows for slot in facts.varied}) if data else []
    rows = [f"rows of {data} for {', '.join(slots)}"] if data else []
    return ", ".join([*dict.fromkeys(settings), *rows]) or "none"


def _without_cache(argv: list[str]) -> list[str]:
    kept: list[str] = []
    dropping = False
    for part in argv:
        dropping = part in _CACHE_FLAGS or (dropping and not part.startswith("-"))
        kept += [] if dropping else [part]
    return kept


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _differs(key: str, a: list[str | None], b: list[str | None]) -> Difference | None:
    known = {value for value in (*a, *b) if value is not None}
    refusing, open_question = key in REFUSING, len(known) == 1 and None in (*a, *b)
    if len(known) == 0 or (len(known) == 1 and not (refusing and open_question)):
        return None  # a fact of one side alone is not a difference
    why = "not known of every run, so it may be the same" if open_question else REFUSING.get(key, "")
    return Difference(key=key, a=_joined(a), b=_joined(b), refuses=refusing and not open_question, why=why)


def _joined(values: Sequence[str | None]) -> str:
    return " / ".join(dict.fromkeys("unknown" if value is None else value for value in values))


def _refused(key: str, a: Sequence[Measured], b: Sequence[Measured], words: Callable[[Measured], str]) -> Difference:
    ours, theirs = (_joined([words(run) for run in side]) for side in (a, b))
    return Difference(key=key, a=ours, b=theirs, refuses=True, why=REFUSING[key])


def _validity(run: Measured) -> str:
    codes = dict.fromkeys(finding.code for finding in run.summary.findings if finding.level == "invalid")
    return f"not valid: {', '.join(codes)}" if codes else "valid"


def _count(run: Measured) -> str:
    warmup = run.manifest.plan.warmup
    return f"{run.jobs.n} jobs {f'after {warmup} to warm up' if warmup else 'without warm-up'}"
