"""What clients see of a job, in ComfyUI's forms: its entry in the history, in the list of jobs and in the queue."""

import json
from typing import Any

from comfyload.gateway.job import Job, State
from comfyload.record.model import Attempt, Execution, Failure

SECRETS = ("auth_token_comfy_org", "api_key_comfy_org")
Entry = dict[str, Any]

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
    """A failure in one sentence."""
    if failure is None:
        return "The job failed"
    node = f"{failure.node_class or 'node'} {failure.node}: " if failure.node else ""
    text = WORDS.get(failure.kind, "")
    detail = failure.message.strip()
    words = f"{text}: {node}{detail}" if text and detail else text or f"{node}{detail}" or failure.kind
    return f"{words} (after {attempts} attempts)" if attempts > 1 else words


def entry_of(
    job: Job, found: Entry | None, graph: Entry, extra: Entry, execution: Execution, ended_ms: int, skew_ms: int
) -> tuple[Entry, State]:
    """The job's entry in the history, and its state. `found`: the entry of the server that ran it, if there is one.
    `skew_ms`: what makes a stamp of that server's clock one of ours.
    """
    extra = {**extra, "create_time": job.created_ms}
    if job.client_id is not None:
        extra["client_id"] = job.client_id
    outputs_to_run: list[str] = []
    entry: Entry = {"prompt": [job.number, job.id, graph, extra, outputs_to_run], "outputs": {}, "meta": {}}
    completed = execution.outcome == "completed"
    messages: list[Any] = []
    if found is not None:
        row = found.get("prompt")
        if isinstance(row, list) and len(row) > 4:
            entry["prompt"][4] = row[4]
        entry |= {key: value for key, value in found.items() if key not in ("prompt", "status")}
        status = found.get("status")
        said = status.get("messages") if isinstance(status, dict) else None
        messages = [_ours(message, job, skew_ms) for message in said] if isinstance(said, list) else []
    kinds = {message[0] for message in messages if isinstance(message, list) and message}
    cancelled = job.cancelled or (execution.failure is not None and execution.failure.kind == "interrupted")
    if completed:
        if not messages:
            messages = [["execution_success", {"prompt_id": job.id, "timestamp": ended_ms}]]
        return entry | {"status": {"status_str": "success", "completed": True, "messages": messages}}, "completed"
    if cancelled and "execution_interrupted" not in kinds:
        messages.append(["execution_interrupted", interrupted_of(job, ended_ms)])
    elif not cancelled and "execution_error" not in kinds:
        messages.append(["execution_error", error_of(job, execution, ended_ms)])
    status = {"status_str": "error", "completed": False, "messages": messages}
    status["error"] = words_of(execution.failure, len(job.attempts))
    return entry | {"status": status}, "cancelled" if cancelled else "failed"


def _ours(message: Any, job: Job, skew_ms: int) -> Any:
    """A message of the attempt as one of the job, by our clock."""
    if not isinstance(message, list) or len(message) != 2 or not isinstance(message[1], dict):
        return message
    data = message[1] | {"prompt_id": job.id}
    stamp = data.get("timestamp")
    return [message[0], data | {"timestamp": stamp + skew_ms} if isinstance(stamp, int) else data]


def skew_of(job: Job, execution: Execution, due: float) -> int | None:
    """Milliseconds to add to a stamp of the server to make it one of our clock, by when it took the job; None: unknown.

    It took the job between our sending and its answer: the clocks may agree if its stamp lies there.
    """
    created, sent, heard = execution.server.create_ms, execution.sent, execution.acknowledged
    if created is None or sent is None or heard is None:
        return None
    first, last = (job.created_ms + (instant - due) * 1000 for instant in (sent, heard))
    return 0 if first - 1 <= created <= last + 1 else round((first + last) / 2 - created)


def error_of(job: Job, execution: Execution, ended_ms: int) -> Entry:
    """The data of an `execution_error` for an end that no server told."""
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


def interrupted_of(job: Job, ended_ms: int) -> Entry:
    return {"prompt_id": job.id, "node_id": "", "node_type": "", "executed": [], "timestamp": ended_ms}


def more_of(job: Job) -> Entry:
    """What we know beside ComfyUI's own fields."""
    more: Entry = {"attempts": [attempt_of(attempt) for attempt in job.attempts]}
    if job.server:
        more["server"] = job.server
    if job.next_attempt_at_ms is not None:
        more["next_attempt_at"] = job.next_attempt_at_ms
    return more


def attempt_of(attempt: Attempt) -> Entry:
    failure = attempt.failure
    found: Entry = {"server": attempt.server, "prompt_id": attempt.prompt_id, "outcome": attempt.outcome}
    if failure is not None:
        found |= {"kind": failure.kind, "error": failure.message}
    return found


def unended_item(job: Job) -> Entry:
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
    """An entry as it is kept on disk: what the job made, not what it was asked for."""
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


def dumps(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")
