"""The durations of one job for the table of another load tool: submit, wait, execution, total."""

from comfyload.judge.metrics import METRICS
from comfyload.record.model import Execution, Record

PARTS = {"submit": "acknowledge", "wait": "queue_wait", "execution": "execution", "total": "latency"}
"""The rows of a job, and the duration that each one is."""


def parts_of(execution: Execution, called: float, returned: float) -> dict[str, float]:
    """Seconds of each part. One that is not known is left out, except the total, which is then until `returned`.

    `called`, `returned`: when the job was called for and when its execution was given back, on the clock of its
    instants. Of a job that was sent several times, all but the total are of its last attempt.
    """
    record = Record(
        index=0, prompt_id="", workflow="", warmup=False, due=called, values={}, execution=execution
    )  # what the durations are defined on
    known = {part: METRICS[metric].of(record) for part, metric in PARTS.items()}
    if known["total"] is None:
        known["total"] = returned - called
    return {part: seconds for part, seconds in known.items() if seconds is not None}
