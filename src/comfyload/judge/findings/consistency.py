"""Findings from the ledger, the server and the cache: what is wrong with a run's jobs."""

from collections.abc import Iterator, Mapping

from msgspec import structs

from comfyload.judge.arrivals import as_it_came, planned_jobs
from comfyload.judge.columns.fold import Fold
from comfyload.judge.columns.gpu import GpuRow
from comfyload.judge.columns.ledger import clean, join
from comfyload.judge.columns.made import Shortage
from comfyload.judge.estimates import Evidence
from comfyload.judge.findings.table import Finding, finding
from comfyload.record.journal import RECORDS, Damage, journal_of
from comfyload.record.kinds import KIND_WORDS
from comfyload.record.model import Manifest, Observation, WorkflowFacts
from comfyload.record.outcomes import OUTCOMES


def damage_findings(damage: Mapping[str, Damage]) -> Iterator[Finding]:
    """What could not be read of the run's files. A lost record may have been of a failure: then nothing is certain."""
    for name, lost in damage.items():
        text = f"{name} cannot be read to its end"
        if lost.lines:
            lines, are = ("1 line", "is") if lost.lines == 1 else (f"{lost.lines} lines", "are")
            text = f"{lines} of {name} cannot be read and {are} left out: line {lost.first}"
        jobs = journal_of(name.rpartition("/")[2]) == RECORDS  # a shard's is named with its directory
        missing = " Jobs may be missing in every number." if jobs else ""
        yield finding(
            "damaged_lines",
            f"{text}: {clean(lost.why, 120)}.{missing}",
            {"file": name, "count": lost.lines, "first": lost.first},
            level="invalid" if jobs else "warning",
        )


def ledger_findings(evidence: Evidence) -> Iterator[Finding]:
    """Whether every job has exactly one end, and whether any end is a success."""
    ledger, manifest = evidence.fold.ledger, evidence.manifest
    completed, offered = ledger.counted["completed"], ledger.offered
    if completed == 0:
        ends = ", ".join(f"{count} {OUTCOMES[outcome].words}" for outcome, count in ledger.counted.most_common())
        text = f"Nothing was measured: {ends or 'no counted job has ended'}."
        yield finding("nothing_measured", text, dict[str, int](ledger.counted.items()))
    if ledger.unfinished:
        count, jobs = len(ledger.unfinished), sorted(ledger.unfinished.items())
        text = f"{_jobs(count)} sent and never recorded as ended: job {join(index for index, _ in jobs)}."
        yield finding("unfinished", text, {"count": count, "prompt_ids": [prompt_id for _, prompt_id in jobs[:100]]})
    if ledger.duplicates.count:
        text = f"{_jobs(ledger.duplicates.count)} recorded twice: job {ledger.duplicates}. The first is counted."
        yield finding("duplicate_record", text, {"count": ledger.duplicates.count, "jobs": ledger.duplicates.first})
    yield from _end_findings(manifest, offered, bool(ledger.unfinished))


def _end_findings(manifest: Manifest, offered: int, unfinished: bool) -> Iterator[Finding]:
    planned = planned_jobs(manifest)
    evidence = {"end": manifest.end, "planned": planned, "offered": offered}
    of = "" if planned is None else f" of {planned}"
    if manifest.end is None and as_it_came(manifest.plan):
        yield finding("still_recorded", f"{_jobs(offered)} ended so far, and the gateway still writes.", evidence)
    elif manifest.end == "crashed" and as_it_came(manifest.plan):
        text = f"The traffic is cut short, as the gateway was killed: {_jobs(offered)} ended before."
        yield finding("traffic_cut", text, evidence)
    elif manifest.end is None or manifest.end == "crashed":
        what = "has no end (it is still going on, or was killed)" if manifest.end is None else "crashed"
        yield finding("not_ended", f"The run {what}: {offered}{of} jobs ended.", evidence)
    elif manifest.end == "decided":
        text = f"The run ended as soon as its gates were decided: {offered}{of} planned jobs were offered."
        yield finding("decided_early", text, evidence)
    elif manifest.end == "capped":
        why = next((one.text for one in manifest.observations if one.code == "capped"), "a cap was reached")
        text = f"{_sentence(why)}: {offered}{of} planned jobs were offered."
        yield finding("capped", text, evidence)
    elif manifest.end != "complete":
        text = f"The run was {manifest.end} early: {offered}{of} planned jobs were offered."
        yield finding("ended_early", text, evidence)
    elif planned is not None and offered != planned and not unfinished:
        text = f"The journal holds {offered} jobs where the plan has {planned}."
        yield finding("records_missing", text, evidence)


def server_findings(evidence: Evidence) -> Iterator[Finding]:
    """What the server did besides our jobs, or to them more than once."""
    fold = evidence.fold
    again = fold.ledger.executed_again
    if again.count:
        text = f"{_jobs(again.count)} executed more than once by the server: job {again}."
        yield finding("duplicate_execution", text, {"count": again.count, "jobs": again.first})
    yield from _left_findings(fold)
    yield from _noticed(evidence.manifest.observations, has_orphans=bool(fold.ledger.left))
    overlaps = evidence.jobs.overlaps()
    if overlaps:
        fleet = evidence.manifest.fleet
        which = [server.name for place, server in enumerate(fleet) if evidence.jobs.overlaps(place)]
        who = "the server is" if len(fleet) == 1 else f"{' and '.join(which)} {'is' if len(which) == 1 else 'are'}"
        text = f"{overlaps} executions began before an earlier one had ended: {who} not serial."
        yield finding("overlap", text, {"count": overlaps})
    if negative := evidence.jobs.negative():
        text = f"{negative} durations on the client's clock were negative and are left out: the clock was set back."
        yield finding("client_clock", text, {"count": negative})
    if fold.impossible.count:
        recorded = fold.ledger.offered + fold.ledger.warmup.total()
        yield finding(
            "server_clock",
            f"The server's stamps of {fold.impossible.count} of {recorded} jobs cannot be true and are left out (job "
            f"{fold.impossible}): a wait or an execution was negative, or longer than our own clock leaves room for, "
            "or a timestamp was not in milliseconds. Its clock was set.",
            {"count": fold.impossible.count, "of": recorded, "jobs": fold.impossible.first},
        )
    if fold.fetched.problems:
        problems, total = fold.fetched.problems, sum(fold.fetched.problems.values())
        text = f"{total} of {fold.fetched.files} downloads were not whole, or not what their names say."
        yield finding("fetch_problems", text, {"problems": problems})


def gpu_findings(gpus: Mapping[str, GpuRow]) -> Iterator[Finding]:
    """Whether the readings of GPUs are of the server's GPU."""
    for gpu, row in gpus.items():
        if row.alike > 1:
            text = f"GPU {gpu} is one of {row.alike} identical ones, and it is not known which of them the server uses"
            text += ": its readings may be another GPU's, and nothing is judged by them."
            yield finding("gpu_alike", text, {"gpu": gpu, "alike": row.alike})


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
    sentences = [f"Jobs that we gave up were on the server all the same: {'; '.join(parts)}."] if parts else []
    if unknown := left.get("unknown"):
        those = "1 job that" if unknown.count == 1 else f"{unknown.count} jobs that"
        sentences.append(f"It is not known whether the server ran {those} did not complete (job {unknown}).")
    yield finding("orphan", " ".join(sentences), {state: named.count for state, named in left.items()})


def _noticed(observations: list[Observation], has_orphans: bool) -> Iterator[Finding]:
    by_code: dict[str, list[Observation]] = {}
    for observation in observations:
        by_code.setdefault(observation.code, []).append(observation)
    for code, same in by_code.items():
        if code == "capped" or (code == "orphan" and has_orphans):  # the end, or the records, say it already
            continue
        count = sum(observation.count for observation in same)
        more = f" (and {len(same) - 1} more such)" if len(same) > 1 else ""
        if code in ("generator_fault", "unreadable"):
            more = f" ({count} times in all)" if count > 1 else ""
        text = f"{_sentence(same[0].text)}{more}."
        yield finding(code, text, {"count": count, "first_t": same[0].t, "last_t": same[-1].t})


def cache_findings(evidence: Evidence) -> Iterator[Finding]:
    """Whether completed jobs made what they returned. Who sends one job twice in production wants the same again."""
    fold, jobs = evidence.fold, evidence.jobs
    completed = int(jobs.completed.sum())
    of_class = jobs.cache_classes()
    images = int(jobs.counted.images.sum()) + int(jobs.counted.previews.sum())
    cached, as_is = of_class["cached"] + of_class["partial"], evidence.manifest.plan.as_is
    if cached and not as_it_came(evidence.manifest.plan):
        partly = f" ({of_class['partial']} of them in part)" if of_class["partial"] else ""
        pinned = [slot for facts in evidence.manifest.workflows for slot in facts.pinned]
        new = "1 image was" if images == 1 else f"{images or 'no'} images were"
        text = f"{cached} of {_jobs(completed)} served from the cache{partly}: {new} made."
        if as_is:
            text += " Latency and rate are those of a cache."
        elif pinned:
            text += f" {', '.join(pinned)} was the same in every job, as you set it: leave that out, or give --as-is."
        yield finding(
            "cached_jobs",
            text,
            {"completed": completed, "images": images, **of_class},
            level="warning" if as_is else "invalid",
        )
    repeated, overwritten = fold.repeated, fold.overwritten
    if repeated.count:
        made = overwritten == repeated.count
        why = "their output nodes ran, so files were written over" if made else "the server reported no cache hit"
        yield finding(
            "repeated_files",
            f"{_jobs(repeated.count)} answered with files that an earlier job had returned ({why}): job {repeated}. "
            "They count as nothing new.",
            {"count": repeated.count, "overwritten": overwritten, "jobs": repeated.first},
            level="warning" if made or as_is else "invalid",
        )


def output_findings(evidence: Evidence) -> Iterator[Finding]:
    """Whether jobs made as much as similar jobs."""
    made = list(evidence.fold.made.shortages())
    if not made:
        return
    names = {facts.name: facts for facts in evidence.manifest.workflows}
    several = len(evidence.fold.workflows) > 1
    sentences = [_shortage(one, names.get(one.workflow), several=several) for one in made]
    more = f" And {len(sentences) - _SHOWN} more such." if len(sentences) > _SHOWN else ""
    same = ("workflow", "node", "kind", "made", "usual", "of")
    jobs = [{name: getattr(one, name) for name in same} | structs.asdict(one.jobs) for one in made]
    yield finding("fewer_outputs", " ".join(sentences[:_SHOWN]) + more, {"jobs": jobs})


_SHOWN = 5


def _shortage(one: Shortage, facts: WorkflowFacts | None, *, several: bool) -> str:
    """`3 of 12 jobs made no image although similar jobs did (job 3, 7, 11).`"""
    word, words = ("output", "outputs") if one.kind is None else KIND_WORDS[one.kind]
    node = None if one.node is None or facts is None else facts.nodes.get(one.node)
    where = "" if one.node is None else f" at node {one.node}" + (f" ({node.class_type})" if node is not None else "")
    jobs = f"{one.jobs.count} of {one.of} jobs{f' of {one.workflow}' if several else ''}"
    if not one.made:
        why = " although similar jobs did" if one.usual else ": their output nodes reported an empty list"
        return f"{jobs} {one.verb} no {word}{where}{why} (job {one.jobs})."
    made = f"{one.made} {word if one.made == 1 else words}"
    return f"{jobs} made {made}{where} where similar jobs made {one.usual} (job {one.jobs})."


def _jobs(count: int) -> str:
    return f"{count} job was" if count == 1 else f"{count} jobs were"


def _sentence(text: str) -> str:
    first = text.partition(" ")[0]
    return ((text[:1].upper() if first.isalpha() else text[:1]) + text[1:]).rstrip(".")
