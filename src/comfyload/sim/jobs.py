"""The jobs API: a prompt that waits, runs, or has ended."""

from comfyload.comfy.wire.listed import ended_item, item_of, named_outputs
from comfyload.comfy.wire.listed import list_jobs as listed
from comfyload.sim.queue import Entry, Item, Queue


def find_job(queue: Queue, job_id: str, now: float) -> Entry | None:
    """One job in full: history before what runs before what waits."""
    entry = queue.entry(job_id, now)
    if entry is not None:
        prompt, extra_data = entry["prompt"][2], entry["prompt"][3]
        return ended_item(entry) | {
            "outputs": {node_id: named_outputs(output) for node_id, output in entry["outputs"].items()},
            "execution_status": entry["status"],
            "workflow": {"prompt": prompt, "extra_data": extra_data},
        }
    if queue.running is not None and queue.running.prompt_id == job_id:
        return _queued(queue.running, "in_progress")
    waiting = next((item for item in queue.pending if item.prompt_id == job_id), None)
    return None if waiting is None else _queued(waiting, "pending")


def list_jobs(queue: Queue, query: dict[str, str], now: float) -> tuple[Entry, int]:
    """The reply's body and status to `GET /api/jobs`."""
    jobs = [_queued(queue.running, "in_progress")] if queue.running is not None else []
    jobs += [_queued(item, "pending") for item in queue.pending]
    jobs += [ended_item(entry) for entry in queue.history(now).values()]
    return listed(jobs, query)


def _queued(item: Item, status: str) -> Entry:
    return item_of(item.prompt_id, status, item.number, item.extra_data)
