"""A plan in one line: how many jobs or books, under which load, and for how long; and on which servers."""

from comfyload.record.model import Manifest
from comfyload.record.plan import Closed, Load, Open, Plan, Replay, Stage
from comfyload.words import count, seconds_words


def plan_words(plan: Plan) -> str:
    """`12 jobs after 2 to warm up, 1 in flight`; `poisson 12/min for 15 min`."""
    arrivals = f" of {plan.pages} pages" if plan.pages > 1 else ""
    unit = "book" if plan.pages > 1 else "job"
    parts = [] if plan.jobs is None else [f"{count(plan.jobs, unit)}{arrivals}"]
    if plan.jobs is None and plan.pages > 1:
        parts.append(f"books{arrivals}")
    if plan.warmup:
        after = f"after {plan.warmup} to warm up"
        parts = [*parts[:-1], f"{parts[-1]} {after}"] if parts else [after]
    parts.append(load_words(plan.load, plan.duration_s))
    if plan.max_server_queue is not None:
        parts.append(f"held back while the server's queue has {plan.max_server_queue}")
    return ", ".join([*parts, *(() if plan.drain else ("cut off at the end",))])


def servers_words(manifest: Manifest) -> list[str]:
    """The address of the server and its version; of several how many, their names, the rule and each version."""
    fleet = manifest.fleet
    versions = ", ".join(dict.fromkeys(server.comfyui_version for server in fleet if server.comfyui_version))
    where = fleet[0].url
    if len(fleet) > 1:
        where = f"{len(fleet)} servers ({', '.join(server.name for server in fleet)}), {manifest.options.dispatch}"
    return [where, *([f"ComfyUI {versions}"] if versions else [])]


def load_words(load: Load, duration_s: float | None = None) -> str:
    """The load, with the time it lasts if it has one: its own, or `duration_s` if that is shorter or all there is."""
    if isinstance(load, Closed):
        return _closed(load) + _for(duration_s)
    words = _replay(load, duration_s) if isinstance(load, Replay) else _open(load, duration_s)
    if load.max_in_flight is None:
        return words
    rest = "the rest dropped" if load.on_full == "drop" else "the rest waiting"
    return f"{words}, at most {load.max_in_flight} in flight and {rest}"


def _closed(load: Closed) -> str:
    if not load.think_s and not load.ramp_up_s:
        return f"{load.concurrency} in flight"
    think = f", {seconds_words(load.think_s)} think time" if load.think_s else ""
    ramp = f", started over {seconds_words(load.ramp_up_s)}" if load.ramp_up_s else ""
    return f"{count(load.concurrency, 'user')}{think}{ramp}"


def _open(load: Open, duration_s: float | None) -> str:
    name = f"gamma (cv {load.cv:.3g})" if load.arrivals == "gamma" else load.arrivals
    lengths = [stage.seconds for stage in load.stages if stage.seconds is not None]
    own = sum(lengths) if len(lengths) == len(load.stages) else None
    lasts = own if duration_s is None else duration_s if own is None else min(own, duration_s)
    if len(load.stages) > 1:
        return f"{name}, {len(load.stages)} stages{_for(lasts)}"
    (stage,) = load.stages
    return f"{name} {_rate(stage)}{_for(lasts)}"


def _rate(stage: Stage) -> str:
    if stage.to_per_s is None or stage.to_per_s == stage.per_s:
        return f"{60 * stage.per_s:.4g}/min"
    return f"{60 * stage.per_s:.4g} to {60 * stage.to_per_s:.4g}/min"


def _replay(load: Replay, duration_s: float | None) -> str:
    if load.as_it_came:
        return "as it came"
    faster = "" if load.speedup == 1 else f" \N{MULTIPLICATION SIGN}{load.speedup:.4g}"
    return f"replay of {count(len(load.offsets_s), 'arrival')}{faster}{_for(duration_s)}"


def _for(seconds: float | None) -> str:
    return "" if seconds is None else f" for {seconds_words(seconds)}"
