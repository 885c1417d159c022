"""What clients see of a job, in ComfyUI's forms: its entry in the history, in the list of jobs and in the queue."""

import json
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any

import msgspec
from msgspec import structs

from comfyload.comfy.wire.lenient import decode_json
from comfyload.gateway.job import ClientJob, State
from comfyload.record.job_events import Retrying
from comfyload.record.model import Attempt, Execution, Failure
from comfyload.record.outcomes import Outcome

SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")
Entry = dict[str, Any]

MOST_MESSAGES = 1_000
LONG, MANY = 1 << 16, 1_000
"""Letters of a text that is written in pieces, and entries of an object that is."""

_KIND = re.compile(r"[A-Za-z0-9_.-]{1,64}")

WORDS: dict[str, str] = {
    "lost": "The server lost the job, and it could not be sent again",
    "timeout": "The job was not done by its deadline",
    "shed": "No server could have it done by its deadline",
    "hung": "The job made no progress",
    "connect": "No server can be reached",
    "oom": "The server ran out of memory",
    "cuda": "The server's GPU failed",
    "server_error": "The server failed",
    "submit_unknown": "It is not known whether the server got the job",
}
"""The beginning of a final failure's message, for those who have a user and not a log."""


def words_of(failure: Failure | None, attempts: int) -> str:
    """A failure in one sentence; None: its client had cancelled the job, and its server was quicker."""
    if failure is None:
        return "The job was cancelled"
    node = f"{failure.node_class or 'node'} {failure.node}: " if failure.node else ""
    text = WORDS.get(failure.kind, "")
    detail = failure.message.strip()
    words = f"{text}: {node}{detail}" if text and detail else text or f"{node}{detail}" or failure.kind
    return f"{words} (after {attempts} attempts)" if attempts > 1 else words


def entry_in(history: bytes, prompt_id: str) -> Entry | None:
    """The entry of a prompt in a server's history, with the shape that a ComfyUI gives it, whatever the server says."""
    try:
        entry = decode_json(history, dict[str, Any]).get(prompt_id)
    except msgspec.MsgspecError:
        return None
    if not isinstance(entry, dict):
        return None
    outputs, status, meta = (_object(entry.get(name)) for name in ("outputs", "status", "meta"))
    listed = status.get("messages")
    messages = [_message(*pair) for pair in listed if _is_message(pair)] if isinstance(listed, list) else []
    made = {node: output for node, output in outputs.items() if isinstance(output, dict)}
    return entry | {"outputs": made, "meta": meta, "status": status | {"messages": messages[:MOST_MESSAGES]}}


def _object(value: Any) -> Entry:
    return value if isinstance(value, dict) else {}


def _is_message(pair: Any) -> bool:
    if not isinstance(pair, list) or len(pair) != 2:
        return False
    kind, data = pair
    return isinstance(kind, str) and _KIND.fullmatch(kind) is not None and isinstance(data, dict)


def _message(kind: str, data: Entry) -> list[Any]:
    """A message with the fields that the page's list of jobs cannot do without."""
    if not isinstance(data.get("timestamp"), int):
        data = {key: value for key, value in data.items() if key != "timestamp"}
    if kind == "execution_error":
        texts = ("node_id", "node_type", "exception_message", "exception_type")
        data = data | {name: str(data.get(name) or "") for name in texts}
        traced = data.get("traceback")
        data["traceback"] = [str(line) for line in traced] if isinstance(traced, list) else []
        data["current_inputs"] = _object(data.get("current_inputs"))
    return [kind, data]


def entry_of(
    job: ClientJob, found: Entry | None, graph: Entry, extra: Entry, execution: Execution, ended_ms: int, skew_ms: int
) -> tuple[Entry, State]:
    """The job's entry in the history, and its state. `found`: the entry of the server that ran it, if there is one.
    `skew_ms`: what makes a stamp of that server's clock one of ours.
    """
    extra = {**extra, "create_time": job.created_ms}
    if job.client_id is not None:
        extra["client_id"] = job.client_id
    outputs_to_run: list[str] = []
    entry: Entry = {"prompt": [job.number, job.id, graph, extra, outputs_to_run], "outputs": {}, "meta": {}}
    failure = execution.failure
    messages: list[Any] = []
    if found is not None:
        row = found.get("prompt")
        if isinstance(row, list) and len(row) > 4:
            entry["prompt"][4] = row[4]
        entry |= {key: value for key, value in found.items() if key not in ("prompt", "status")}
        messages = [_ours(message[0], message[1], job, skew_ms) for message in found["status"]["messages"]]
    kinds = {message[0] for message in messages}
    cancelled = job.cancelled or (failure is not None and failure.kind == "interrupted")
    if execution.outcome == "completed" and not job.cancelled:  # a cancel that was answered holds
        if "execution_success" not in kinds:
            messages += [["execution_success", {"prompt_id": job.id, "timestamp": ended_ms}]]
        return entry | {"status": {"status_str": "success", "completed": True, "messages": messages}}, "completed"
    if cancelled and "execution_interrupted" not in kinds:
        messages.append(["execution_interrupted", interrupted_of(job, ended_ms)])
    elif not cancelled and "execution_error" not in kinds:
        messages.append(["execution_error", error_of(job, execution, ended_ms)])
    status = {"status_str": "error", "completed": False, "messages": messages}
    status["error"] = words_of(failure, len(job.attempts))
    return entry | {"status": status}, "cancelled" if cancelled else "failed"


def delivered(execution: Execution) -> Execution:
    """The same end; completed if a server took the prompt without some of its outputs and made the others, since that
    is an end like any other for the client of a ComfyUI.
    """
    if not _is_partial(execution.failure):
        return execution
    attempts = [
        structs.replace(each, outcome="completed", failure=None) if _is_partial(each.failure) else each
        for each in execution.attempts
    ]
    return structs.replace(execution, outcome="completed", failure=None, attempts=attempts)


def _is_partial(failure: Failure | None) -> bool:
    return failure is not None and failure.kind == "partial_validation"


def _ours(kind: str, data: Entry, job: ClientJob, skew_ms: int) -> list[Any]:
    """A message of the attempt as one of the job, by our clock."""
    data = data | {"prompt_id": job.id}
    stamp = data.get("timestamp")
    return [kind, data | {"timestamp": stamp + skew_ms} if isinstance(stamp, int) else data]


def skew_of(job: ClientJob, execution: Execution, due: float) -> int | None:
    """Milliseconds to add to a stamp of the server to make it one of our clock, by when it took the job; None: unknown.

    It took the job between our sending and its answer: the clocks may agree if its stamp lies there.
    """
    created, sent, answered = execution.server.create_ms, execution.sent, execution.acknowledged
    if created is None or sent is None or answered is None:
        return None
    first, last = (job.created_ms + (instant - due) * 1000 for instant in (sent, answered))
    return 0 if first - 1 <= created <= last + 1 else round((first + last) / 2 - created)


def error_of(job: ClientJob, execution: Execution, ended_ms: int) -> Entry:
    """The data of an `execution_error` for an end that no server reported."""
    failure = execution.failure
    return {
        "prompt_id": job.id,
        "node_id": (failure.node if failure else None) or "",
        "node_type": (failure.node_class if failure else None) or "",
        "executed": [],
        "exception_message": words_of(failure, len(job.attempts)),
        "exception_type": f"comfyload.{failure.kind if failure else 'failed'}",
        "traceback": [],
        "current_inputs": {},
        "current_outputs": [],
        "timestamp": ended_ms,
    }


def interrupted_of(job: ClientJob, ended_ms: int) -> Entry:
    return {"prompt_id": job.id, "node_id": "", "node_type": "", "executed": [], "timestamp": ended_ms}


def more_of(job: ClientJob) -> Entry:
    """What we know apart from ComfyUI's own fields."""
    more: Entry = {"attempts": [attempt_of(attempt) for attempt in job.attempts]}
    if job.server:
        more["server"] = job.server
    if job.next_attempt_at_ms is not None:
        more["next_attempt_at"] = job.next_attempt_at_ms
    return more


def attempts_of(job: ClientJob, execution: Execution, name_of: Callable[[str], str]) -> list[Attempt]:
    """Each time that the job was sent; `name_of`: a server's name, by its address."""
    if execution.attempts:
        return [structs.replace(each, server=name_of(each.server)) for each in execution.attempts]
    if not job.attempt_id:
        return []
    return [_attempt(job, execution.outcome, execution.failure)]


def attempt_before(job: ClientJob, event: Retrying) -> Attempt:
    """The attempt after which the job is sent again."""
    return _attempt(job, "lost" if event.why == "lost" else "failed", Failure(kind=event.why, message=event.message))


def _attempt(job: ClientJob, outcome: Outcome, failure: Failure | None) -> Attempt:
    return Attempt(server=job.server, prompt_id=job.attempt_id, outcome=outcome, failure=failure)


def attempt_of(attempt: Attempt) -> Entry:
    failure = attempt.failure
    found: Entry = {"server": attempt.server, "prompt_id": attempt.prompt_id, "outcome": attempt.outcome}
    if failure is not None:
        found |= {"kind": failure.kind, "error": failure.message}
    return found


def unended_item(job: ClientJob) -> Entry:
    """As `/api/jobs` lists a job that waits or runs."""
    item: Entry = {
        "id": job.id,
        "status": job.state,
        "priority": job.number,
        "create_time": job.created_ms,
        "outputs_count": 0,
        "previewable_outputs_count": 0,
    }
    if job.started_ms is not None:
        item["execution_start_time"] = job.started_ms
    if job.workflow_id is not None:
        item["workflow_id"] = job.workflow_id
    return item | {"comfyload": more_of(job)}


def workflow_id_in(extra: Entry) -> str | None:
    """The id of the page's workflow, by the `extra_data` of a prompt."""
    found: Any = extra
    for key in ("extra_pnginfo", "workflow", "id"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def without_payload(entry: Entry) -> Entry:
    """An entry as it is kept on disk: what the job made, not what was requested."""
    number, job_id, _, extra, outputs = entry["prompt"]
    kept = {key: extra[key] for key in ("client_id", "create_time") if key in extra}
    return entry | {"prompt": [number, job_id, {}, kept, outputs]}


def refusal(kind: str, message: str, details: str = "", extra: Entry | None = None) -> bytes:
    """An error in ComfyUI's form; its page shows the message."""
    error = {"type": kind, "message": message, "details": details, "extra_info": extra or {}}
    return dumps({"error": error, "node_errors": {}})


def accepted(job_id: str, number: float, node_errors: bytes | None) -> bytes:
    """The answer to a prompt that was taken."""
    return dumps({"prompt_id": job_id, "number": number, "node_errors": loads(node_errors or b"")})


def loads(text: bytes) -> Any:
    """Our own JSON, or ComfyUI's with NaN in it."""
    return json.loads(text) if text else {}


def dumps_graph(graph: Entry) -> bytes:
    """The same as `dumps`, of a graph that may be large: node by node, and long texts in pieces."""
    out = BytesIO()
    _dump(graph, out, depth=3)  # nodes, their inputs, and what these hold
    return out.getvalue()


def _dump(value: Any, out: BytesIO, depth: int) -> None:
    if isinstance(value, str) and len(value) > LONG:
        out.write(b'"')
        out.writelines(dumps(value[at : at + LONG])[1:-1] for at in range(0, len(value), LONG))
        out.write(b'"')
    elif isinstance(value, dict) and depth and _is_long(value, depth):
        before = b"{"
        for key, inner in value.items():
            out.write(before + dumps(key) + b": ")
            _dump(inner, out, depth - 1)
            before = b", "
        out.write(b"}")
    else:
        out.write(dumps(value))


def _is_long(value: Entry, depth: int) -> bool:
    """Whether there are many of them, or long texts among them."""
    return len(value) > MANY or any(
        len(inner) > LONG
        if isinstance(inner, str)
        else depth > 1 and isinstance(inner, dict) and _is_long(inner, depth - 1)
        for inner in value.values()
    )


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")
