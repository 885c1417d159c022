"""One job whole: what is known of it, each attempt, its nodes over time, and what it made."""

from typing import Any

from msgspec import to_builtins

from comfyload.judge.metrics import METRICS
from comfyload.record.codec import within_levels, words
from comfyload.record.kinds import kind_of
from comfyload.record.model import Attempt, Execution, Failure, Record, RetryLine, Sent
from comfyload.record.outcomes import OUTCOMES
from comfyload.record.stamps import node_spans
from comfyload.web.follow import RunFollower
from comfyload.web.rows import row_of

Json = dict[str, Any]

TOO_DEEP = "(lists and objects that lie too deep in each other to be shown)"


def job_of(follower: RunFollower, index: int) -> Json | None:
    """Everything as JSON, its texts printable; None: there is no such job, or its line cannot be read any more.

    Keys: those of a `JobRow`; `values` of its inputs; `durations` of its metrics in seconds; `attempts`; `nodes`;
    `outputs`, whose place is their number; `message` in full; `failure` as the record has it.
    """
    line = follower.record(index)
    row = row_of(follower, index)
    if line is None or row is None:
        return None
    retries = _each_once(follower.retries_of(index))
    found: Json = to_builtins(row)
    if isinstance(line, Sent):
        last = retries[-1] if retries else None
        found |= {"sent_s": None, "started_s": None, "values": {}, "durations": [], "failure": None, "nodes": []}
        found |= {"attempts": _under_way(line, retries, follower), "outputs": []}
        found["message"] = "" if last is None else last.message
        return _printable(found)
    run = line.execution
    values = {key: value if within_levels(value) else TOO_DEEP for key, value in line.values.items()}
    found |= {"sent_s": run.sent, "started_s": run.started, "values": values}
    found["durations"] = [
        {"key": name, "words": metric.words, "seconds": metric.of(line)} for name, metric in METRICS.items()
    ]
    found["failure"] = None if run.failure is None else to_builtins(run.failure)
    found["message"] = "" if run.failure is None else run.failure.message
    found["nodes"] = _nodes(follower, line)
    found["attempts"] = _attempts(line, retries, follower)
    found["outputs"] = [
        {"node": output.node, "file": file, "kind": kind_of(file, output.kind, animated=output.animated)}
        for output in run.outputs
        for file in output.files
    ]
    return _printable(found)


def _printable(found: Json) -> Json:
    printable: Json = words(found)
    return printable


def _nodes(follower: RunFollower, record: Record) -> list[Json]:
    """Of the last attempt: what ran, in order, then what came from the cache."""
    graphs = [facts.nodes for facts in follower.manifest.workflows if facts.name == record.workflow]
    classes = {node: facts.class_type for nodes in graphs for node, facts in nodes.items()}

    def node(name: str, begin: float | None, end: float | None, cached: bool) -> Json:
        return {"node": name, "class": classes.get(name, ""), "begin_s": begin, "end_s": end, "cached": cached}

    spans = sorted(node_spans(record.execution), key=lambda span: span.start)
    ran = [node(span.node, span.start, span.end, False) for span in spans]
    return ran + [node(name, None, None, True) for name in record.execution.cached]


def _attempts(record: Record, retries: list[RetryLine], follower: RunFollower) -> list[Json]:
    run = record.execution
    listed = run.attempts or ([_only(record, run, follower)] if run.sent is not None else [])
    after = {line.attempt - 1: line for line in retries}
    return [_attempt(number, each, after.get(number)) for number, each in enumerate(listed, 1)]


def _only(record: Record, run: Execution, follower: RunFollower) -> Attempt:
    execution = METRICS["execution"].of(record)
    return Attempt(
        server=follower.manifest.server.url,
        prompt_id=record.prompt_id,
        outcome=run.outcome,
        sent=run.sent,
        done=run.done,
        failure=run.failure,
        executed_ms=None if execution is None else round(1000 * execution),
        waited_s=run.held_s,
    )


def _attempt(number: int, attempt: Attempt, after: RetryLine | None) -> Json:
    found = {
        "attempt": number,
        "id": attempt.prompt_id,
        "server": attempt.server,
        "outcome": attempt.outcome,
        "words": OUTCOMES[attempt.outcome].words,
        "sent_s": attempt.sent,
        "ended_s": attempt.done,
        "executed_s": None if attempt.executed_ms is None else attempt.executed_ms / 1000,
        "waited_s": attempt.waited_s,
    }
    return found | _of_failure(attempt.failure) | _decided(after)


def _of_failure(failure: Failure | None) -> Json:
    if failure is None:
        return {"kind": None, "type": "", "error": "", "node": None, "node_class": None, "status": None}
    return {
        "kind": failure.kind,
        "type": failure.type,
        "error": failure.message,
        "node": failure.node,
        "node_class": failure.node_class,
        "status": failure.status,
    }


def _decided(after: RetryLine | None) -> Json:
    """What was decided after an attempt; nothing if it was the last, or the run does not say."""
    if after is None:
        return {"rule": "", "of": None, "wait_s": None, "until_s": None}
    return {"rule": after.rule, "of": after.of, "wait_s": after.wait_s, "until_s": after.t + after.wait_s}


def _under_way(line: Sent, retries: list[RetryLine], follower: RunFollower) -> list[Json]:
    """Attempts of a job that has not ended: those that failed, and the one to come, or under way."""
    found = []
    for each in retries:
        failed = Attempt(
            server=each.server,
            prompt_id=each.prompt_id,
            outcome="lost" if each.why == "lost" else "failed",
            done=each.t,
            failure=Failure(kind=each.why, message=each.message),
        )
        found.append(_attempt(each.attempt - 1, failed, each))
    number = retries[-1].attempt if retries else 1
    now: Json = {"attempt": number, "id": line.prompt_id if number == 1 else "", "outcome": None, "words": "under way"}
    now |= {"server": follower.manifest.server.url, "sent_s": None, "ended_s": None}
    now |= {"executed_s": None, "waited_s": None}
    return [*found, now | _of_failure(None) | _decided(None)]


def _each_once(retries: list[RetryLine]) -> list[RetryLine]:
    """A process that died between two lines may have its first written again by the next."""
    return list({(line.attempt, line.prompt_id): line for line in retries}.values())
