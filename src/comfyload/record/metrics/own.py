"""Our own rows in the instrumentation log: a run's beginning and end, and its jobs."""

from datetime import UTC, datetime
from typing import Any

from msgspec import to_builtins

from comfyload.record.metrics.log import OURS
from comfyload.record.model import Failure, Manifest, Record
from comfyload.record.outcomes import OUTCOMES


def run_row(manifest: Manifest, event: str, at: datetime, duration_s: float | None = None) -> dict[str, Any]:
    """That a run `began` or `ended`."""
    context = {
        "run": manifest.run_id,
        "server": ", ".join(server.url for server in manifest.fleet),
        "workflows": [workflow.name for workflow in manifest.workflows],
        "jobs": manifest.plan.jobs,
        "concurrency": manifest.plan.concurrency,
        "end": manifest.end,
    }
    return _row(f"run.{event}", "ok", at, duration_s, None, context)


def job_row(record: Record, run_id: str, at: datetime) -> dict[str, Any]:
    """How a job ended; `duration_ms` is its latency, from due to done."""
    execution, failure = record.execution, record.execution.failure
    status = OUTCOMES[execution.outcome].log_status
    context = {
        "prompt_id": record.prompt_id,
        "run": run_id,
        "index": record.index,
        "workflow": record.workflow,
        "warmup": record.warmup,
        "outcome": execution.outcome,
        "outputs": sum(output.count for output in execution.outputs),
    }
    duration_s = None if execution.done is None else execution.done - record.due
    return _row("job", status, at, duration_s, _text(failure) if status == "error" else None, context)


def _row(
    event: str, status: str, at: datetime, duration_s: float | None, error: str | None, context: dict[str, Any]
) -> dict[str, Any]:
    return {
        "event": f"{OURS}{event}",
        "status": status,
        "error": error,
        "duration_ms": None if duration_s is None else round(1000 * duration_s, 3),
        "timestamp": to_builtins(at.astimezone(UTC)),  # a tenth of what `isoformat` takes
        "context": context,
    }


def _text(failure: Failure | None) -> str:
    if failure is None:
        return "no reason is known"
    text = ": ".join(part for part in (failure.type, failure.message) if part)
    return f"{failure.kind}: {text}" if text else failure.kind
