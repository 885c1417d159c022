"""The jobs API: a prompt that waits, runs, or has ended."""

from typing import Any

from comfyload.sim.queue import Entry, Item, Queue

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
_ENDS = ("execution_success", "execution_error", "execution_interrupted")


def find_job(queue: Queue, job_id: str, now: float) -> Entry | None:
    """One job in full: history before what runs before what waits."""
    entry = queue.entry(job_id, now)
    if entry is not None:
        prompt, extra_data = entry["prompt"][2], entry["prompt"][3]
        return _ended(entry) | {
            "outputs": entry["outputs"],
            "execution_status": entry["status"],
            "workflow": {"prompt": prompt, "extra_data": extra_data},
        }
    if queue.running is not None and queue.running.prompt_id == job_id:
        return _queued(queue.running, "in_progress")
    waiting = next((item for item in queue.pending if item.prompt_id == job_id), None)
    return None if waiting is None else _queued(waiting, "pending")


def list_jobs(queue: Queue, query: dict[str, str], now: float) -> tuple[Entry, int]:
    """The reply's body and status to `GET /api/jobs`: newest first."""
    wanted = [part.strip() for part in query.get("status", "").lower().split(",") if part.strip()]
    unknown = [status for status in wanted if status not in STATUSES]
    if unknown:
        text = f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUSES)}"
        return {"error": text}, 400
    try:
        limit = int(query["limit"]) if "limit" in query else None
        offset = max(0, int(query.get("offset", "0")))
    except ValueError:
        return {"error": "limit must be an integer"}, 400
    if limit is not None and limit <= 0:
        return {"error": "limit must be a positive integer"}, 400
    jobs = [_queued(item, "pending") for item in queue.pending]
    jobs += [_queued(queue.running, "in_progress")] if queue.running is not None else []
    jobs += [_ended(entry) for entry in queue.history(now).values()]
    jobs = [job for job in jobs if not wanted or job["status"] in wanted]
    jobs.sort(key=lambda job: job.get("create_time", 0), reverse=query.get("sort_order", "desc") != "asc")
    shown = jobs[offset:] if limit is None else jobs[offset : offset + limit]
    pages = {"offset": offset, "limit": limit, "total": len(jobs), "has_more": offset + len(shown) < len(jobs)}
    return {"jobs": shown, "pagination": pages}, 200


def _queued(item: Item, status: str) -> Entry:
    return _job(item.prompt_id, status, item.number, item.extra_data)


def _ended(entry: Entry) -> Entry:
    number, prompt_id, _, extra_data, _ = entry["prompt"]
    messages = dict(entry["status"]["messages"])
    end: Entry = next((messages[name] for name in _ENDS if name in messages), {})
    status = "completed"
    if entry["status"]["status_str"] == "error":
        status = "cancelled" if "execution_interrupted" in messages else "failed"
    files = [
        {**item, "nodeId": node_id, "mediaType": kind}
        for node_id, output in entry["outputs"].items()
        for kind, items in output.items()
        for item in items
        if isinstance(item, dict)
    ]
    images = [item for item in files if item["mediaType"] == "images"]
    saved = [item for item in images if item["type"] == "output"]
    return _job(
        prompt_id,
        status,
        number,
        extra_data,
        execution_start_time=messages.get("execution_start", {}).get("timestamp"),
        execution_end_time=end.get("timestamp"),
        execution_error=messages.get("execution_error"),
        outputs_count=len(files),
        previewable_outputs_count=len(images),
        preview_output=next(iter([*saved, *images]), None),
    )


def _job(job_id: str, status: str, number: float, extra_data: Entry, **more: Any) -> Entry:
    """A job without what is not known of it."""
    entry = {
        "id": job_id,
        "status": status,
        "priority": number,
        "create_time": extra_data.get("create_time"),
        "outputs_count": 0,
        "previewable_outputs_count": 0,
        "workflow_id": extra_data.get("extra_pnginfo", {}).get("workflow", {}).get("id"),
        **more,
    }
    return {name: value for name, value in entry.items() if value is not None}
