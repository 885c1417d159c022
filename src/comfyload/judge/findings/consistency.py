"""What the ledger, the server and the cache say against a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from comfyload.judge.arrivals import planned_jobs
from comfyload.judge.columns.fold import Fold
from comfyload.judge.columns.gpu import GpuRow
from comfyload.judge.columns.jobs import CACHE_CLASSES
from comfyload.judge.columns.ledger import clean, join
from comfyload.judge.columns.made import Shortage
from comfyload.judge.estimates import Evidence
from comfyload.judge.findings.table import _OBSERVED, FINDINGS, Finding
from comfyload.record.journal import RECORDS, Damage
from comfyload.record.kinds import KIND_WORDS
from comfyload.record.model import Manifest, Observation, WorkflowFacts

__all__ = ["cache_findings", "damage_findings", "gpu_findings", "ledger_findings", "output_findings", "server_findings"]


def damage_findings(damage: Mapping[str, Damage]) -> Iterator[Finding]:
    """What of the run's files could not be read. A lost record may have been of a failure: then nothing is certain."""
    for name, lost in damage.items():
        if lost.lines:
            lines = "1 line" if lost.lines == 1 else f"{lost.lines} lines"
            text = (
                f"{lines} of {name} cannot be read and {'is' if lost.lines == 1 else 'are'} left out: line {lost.first}"
            )
        else:
            text = f"{name} cannot be read to its end"
        yield Finding(
            code="damaged_lines",
            level="invalid" if name == RECORDS else "warning",
            text=f"{text}: {clean(lost.why, 120)}.",
            evidence={"file": name, "count": lost.lines, "first": lost.first},
            hint="Jobs may be missing in every number." if name == RECORDS else "",
        )


def ledger_findings(evidence: Evidence) -> Iterator[Finding]:
    """Whether every job has exactly one end, and whether any end is a success."""
    ledger, manifest = evidence.fold.ledger, evidence.manifest
    completed, offered = ledger.counted["completed"], ledger.offered
    if completed == 0:
        ends = ", ".join(f"{count} {_words(outcome)}" for outcome, count in ledger.counted.most_common())
        text = f"Nothing was measured: {ends or 'no counted job was offered'}."
        yield Finding(code="nothing_measured", level="invalid", text=text, evidence=dict(ledger.counted))
    if ledger.unfinished:
        count, jobs = len(ledger.unfinished), sorted(ledger.unfinished.items())
        yield Finding(
            code="unfinished",
            level="invalid",
            text=f"{_jobs(count)} sent without a record of the end: job {join(index for index, _ in jobs)}.",
            evidence={"count": count, "prompt_ids": [prompt_id for _, prompt_id in jobs[:100]]},
            hint="The generator ended before them; they may still run on the server.",
        )
    if ledger.duplicates.count:
        yield Finding(
            code="duplicate_record",
            level="invalid",
            text=f"{_jobs(ledger.duplicates.count)} recorded twice: job {ledger.duplicates}. The first is counted.",
            evidence={"count": ledger.duplicates.count, "jobs": ledger.duplicates.first},
            hint="Two runs or shards wrote the same job into one journal.",
        )
    yield from _end_findings(manifest, offered, bool(ledger.unfinished))


def _end_findings(manifest: Manifest, offered: int, unfinished: bool) -> Iterator[Finding]:
    scheduled = manifest.scheduled
    planned = planned_jobs(manifest.plan) if scheduled is None else scheduled * manifest.plan.pages
    evidence = {"end": manifest.end, "planned": planned, "offered": offered}
    of = "" if planned is None else f" of {planned}"
    if manifest.end is None or manifest.end == "crashed":
        what = "has no end: it is still going on, or was killed" if manifest.end is None else "crashed"
        text = f"The run {what}, with {offered}{of} jobs ended."
        yield Finding(code="not_ended", level="invalid", text=text, evidence=evidence)
    elif manifest.end == "decided":
        text = f"The run ended as soon as its gates were decided: {offered}{of} planned jobs were offered."
        yield Finding(code="decided_early", level="info", text=text, evidence=evidence)
    elif manifest.end == "capped":
        why = next((seen.text for seen in manifest.observations if seen.code == "capped"), "a cap was reached")
        text = f"{_sentence(why)}: {offered}{of} planned jobs were offered."
        yield Finding(code="capped", level="warning", text=text, evidence=evidence, hint=FINDINGS["capped"][1])
    elif manifest.end != "complete":
        text = f"The run was {manifest.end} early: {offered}{of} planned jobs were offered."
        yield Finding(code="ended_early", level="warning", text=text, evidence=evidence)
    elif planned is not None and offered != planned and not unfinished:
        text = f"The journal holds {offered} of the {planned} jobs that the run was to make."
        yield Finding(code="records_missing", level="invalid", text=text, evidence=evidence)


def server_findings(evidence: Evidence) -> Iterator[Finding]:
    """What the server did besides our jobs, or to them more than once."""
    fold = evidence.fold
    again = fold.ledger.executed_again
    if again.count:
        yield Finding(
            code="duplicate_execution",
            level="invalid",
            text=f"{_jobs(again.count)} executed more than once by the server: job {again}.",
            evidence={"count": again.count, "jobs": again.first},
            hint="Something resubmits prompts: look for a proxy that retries POST requests.",
        )
    yield from _left_findings(fold)
    yield from _observed(evidence.manifest.observations, has_orphans=bool(fold.ledger.left))
    overlaps = evidence.jobs.overlaps()
    if overlaps:
        yield Finding(
            code="overlap",
            level="info",
            text=f"{overlaps} executions began before an earlier one had ended: the server is not serial.",
            evidence={"count": overlaps},
        )
    if negative := evidence.jobs.negative().get("client"):
        yield Finding(
            code="client_clock",
            level="invalid",
            text=f"{negative} durations on the client's clock were negative and are left out: the clock was set back.",
            evidence={"count": negative},
            hint="Check time synchronisation on that machine.",
        )
    if fold.impossible.count:
        told = fold.ledger.offered + fold.ledger.warmup.total()
        yield Finding(
            code="server_clock",
            level="warning",
            text=f"The server's stamps of {fold.impossible.count} of {told} jobs cannot be, and are left out (job "
            f"{fold.impossible}): a wait or an execution was negative, or longer than our own clock leaves room for, "
            "or a stamp was no time in milliseconds. Its clock was set.",
            evidence={"count": fold.impossible.count, "of": told, "jobs": fold.impossible.first},
            hint="Check time synchronisation on the server's machine.",
        )
    if fold.fetched.problems:
        problems, total = fold.fetched.problems, sum(fold.fetched.problems.values())
        yield Finding(
            code="fetch_problems",
            level="warning",
            text=f"{total} of {fold.fetched.files} downloads were not whole or not what they claimed to be.",
            evidence={"problems": problems},
        )


def gpu_findings(gpus: Mapping[str, GpuRow]) -> Iterator[Finding]:
    """Whether what was read of GPUs is the server's."""
    for gpu, row in gpus.items():
        if row.alike > 1:
            yield Finding(
                code="gpu_alike",
                level="warning",
                text=f"GPU {gpu} is one of {row.alike} alike, and nothing tells which of them the server uses: what "
                "was read of it may be another's, and nothing is judged by it.",
                evidence={"gpu": gpu, "alike": row.alike},
                hint="Install the probe (comfyload probe install), or start the server with --cuda-device.",
            )


def _left_findings(fold: Fold) -> Iterator[Finding]:
    left = {state: named for state, named in fold.ledger.left.items() if state not in ("absent", "cancelled", "failed")}
    if not left:
        return
    words = {
        "finished": "finished after we gave up",
        "running": "still running at the end",
        "pending": "still queued at the end",
    }
    parts = [f"{named.count} {words[state]} (job {named})" for state, named in sorted(left.items()) if state in words]
    said, hints = [], []
    if parts:
        said.append(f"Jobs we gave up were on the server all the same: {'; '.join(parts)}.")
        hints.append(
            "What they used of the GPU delayed the jobs behind them and is in no number here; raise the timeout."
        )
    if unknown := left.get("unknown"):
        those = "1 job that" if unknown.count == 1 else f"{unknown.count} jobs that"
        said.append(f"It could not be learnt whether the server ran {those} did not complete (job {unknown}).")
        hints.append("If it did, its time is in no number here: look for their ids in the server's history and queue.")
    yield Finding(
        code="orphan",
        level="warning",
        text=" ".join(said),
        evidence={state: named.count for state, named in left.items()},
        hint=" ".join(hints),
    )


def _observed(observations: list[Observation], has_orphans: bool) -> Iterator[Finding]:
    by_code: dict[str, list[Observation]] = {}
    for observation in observations:
        by_code.setdefault(observation.code, []).append(observation)
    for code, seen in by_code.items():
        if code == "capped" or (code == "orphan" and has_orphans):  # the end, or the records, tell it already
            continue
        level, hint = _OBSERVED.get(code, ("info", ""))
        count = sum(observation.count for observation in seen)
        more = f" (and {len(seen) - 1} more such)" if len(seen) > 1 else ""
        if code in ("generator_fault", "unreadable"):
            more = f" ({count} times in all)" if count > 1 else ""
        yield Finding(
            code=code,
            level=level,
            text=f"{_sentence(seen[0].text)}{more}.",
            evidence={"count": count, "first_t": seen[0].t, "last_t": seen[-1].t},
            hint=hint,
        )


def cache_findings(evidence: Evidence) -> Iterator[Finding]:
    """Whether completed jobs made what they returned."""
    fold, jobs = evidence.fold, evidence.jobs
    completed = int(jobs.completed.sum())
    of_class = {name: int((jobs.cache[jobs.completed] == code).sum()) for code, name in enumerate(CACHE_CLASSES)}
    images = int(jobs.counted.images.sum()) + int(jobs.counted.previews.sum())
    cached, as_is = of_class["cached"] + of_class["partial"], evidence.manifest.plan.as_is
    if cached:
        partly = f" ({of_class['partial']} of them in part)" if of_class["partial"] else ""
        yield Finding(
            code="cached_jobs",
            level="warning" if as_is else "invalid",
            text=f"{cached} of {_jobs(completed, '')} served from the cache{partly}: {_images(images)} made.",
            evidence={"completed": completed, "images": images, **of_class},
            hint=_cache_hint(evidence.manifest),
        )
    repeated, overwritten = fold.repeated, fold.overwritten
    if repeated.count:
        made = overwritten == repeated.count
        why = "their output nodes ran, so files were written over" if made else "the server reported no cache hit"
        yield Finding(
            code="repeated_files",
            level="warning" if made or as_is else "invalid",
            text=f"{_jobs(repeated.count)} answered with files that an earlier job had returned ({why}): "
            f"job {repeated}. They count as nothing new.",
            evidence={"count": repeated.count, "overwritten": overwritten, "jobs": repeated.first},
            hint="Let the workflow save under a prefix, not a fixed name, and leave its output folder alone.",
        )


def _cache_hint(manifest: Manifest) -> str:
    if manifest.plan.as_is:
        return "Latency and rate are those of a cache."
    pinned = [slot for facts in manifest.workflows for slot in facts.pinned]
    if pinned:
        return f"{', '.join(pinned)} was the same in every job, as you set it: leave that out, or give --as-is."
    return "Vary an input that reaches the sampler, and use another seed than an earlier run's."


def output_findings(evidence: Evidence) -> Iterator[Finding]:
    """Whether jobs made as much as their like."""
    made = list(evidence.fold.made.shortages())
    if not made:
        return
    names = {facts.name: facts for facts in evidence.manifest.workflows}
    several = len(evidence.fold.workflows) > 1
    said = [_shortage(one, names.get(one.workflow), several=several) for one in made]
    yield Finding(
        code="fewer_outputs",
        level="warning",
        text=" ".join(said[:_SAID]) + (f" And {len(said) - _SAID} more such." if len(said) > _SAID else ""),
        evidence={
            "jobs": [
                {
                    "workflow": one.workflow,
                    "node": one.node,
                    "kind": one.kind,
                    "made": one.made,
                    "usual": one.usual,
                    "count": one.jobs.count,
                    "of": one.of,
                    "first": one.jobs.first,
                }
                for one in made
            ]
        },
        hint="The server calls them successful, and their times are in the numbers. Look whether a filter, a detector "
        "or a switch in the workflow stopped them: comfyload show RUN --job N.",
    )


_SAID = 5


def _shortage(one: Shortage, facts: WorkflowFacts | None, *, several: bool) -> str:
    """`3 of 12 jobs made no image although their like did (job 3, 7, 11).`"""
    word, words = ("output", "outputs") if one.kind is None else KIND_WORDS[one.kind]
    node = None if one.node is None or facts is None else facts.nodes.get(one.node)
    where = "" if one.node is None else f" at node {one.node}" + (f" ({node.class_type})" if node is not None else "")
    jobs = f"{one.jobs.count} of {one.of} jobs{f' of {one.workflow}' if several else ''}"
    if not one.made:
        why = " although their like did" if one.usual else ": their output nodes reported that there is none"
        return f"{jobs} {one.verb} no {word}{where}{why} (job {one.jobs})."
    made = f"{one.made} {word if one.made == 1 else words}"
    return f"{jobs} made {made}{where} where their like made {one.usual} (job {one.jobs})."


def _jobs(count: int, verb: str = "") -> str:
    return f"{count} job was" if count == 1 else f"{count} jobs were"


def _images(count: int) -> str:
    return "1 image was" if count == 1 else f"{count or 'no'} images were"


def _words(outcome: str) -> str:
    return outcome.replace("_", " ")


def _sentence(text: str) -> str:
    first = text.partition(" ")[0]
    return ((text[:1].upper() if first.isalpha() else text[:1]) + text[1:]).rstrip(".")
