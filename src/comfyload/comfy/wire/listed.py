"""`/api/jobs`: the form of a job, made of its entry in the history, and the list of jobs, filtered and sorted."""

from collections.abc import Iterator
from typing import Any

Entry = dict[str, Any]

STATUSES = ("pending", "in_progress", "completed", "failed", "cancelled")
_ENDS = ("execution_success", "execution_error", "execution_interrupted")
_SHOWN = ("images", "video", "audio", "3d", "text")  # kinds of output that the page can show
_THREE_D = (".obj", ".fbx", ".gltf", ".glb", ".usdz")
_TEXTS = (".txt", ".md", ".json")
_MOST_TEXT = 1024


def list_jobs(jobs: list[Entry], query: dict[str, str]) -> tuple[Entry, int]:
    """The reply's body and status to `GET /api/jobs` with that query: newest first."""
    wanted = [part.strip() for part in query.get("status", "").lower().split(",") if part.strip()]
    unknown = [status for status in wanted if status not in STATUSES]
    by, order = query.get("sort_by", "created_at").lower(), query.get("sort_order", "desc").lower()
    limit, offset = _whole(query.get("limit")), _whole(query.get("offset", "0"))
    wrong = ""
    if unknown:
        wrong = f"Invalid status value(s): {', '.join(unknown)}. Valid values: {', '.join(STATUSES)}"
    elif by not in ("created_at", "execution_duration"):
        wrong = "sort_by must be 'created_at' or 'execution_duration'"
    elif order not in ("asc", "desc"):
        wrong = "sort_order must be 'asc' or 'desc'"
    elif "limit" in query and limit is None:
        wrong = "limit must be an integer"
    elif limit is not None and limit <= 0:
        wrong = "limit must be a positive integer"
    elif offset is None:
        wrong = "offset must be an integer"
    if wrong:
        return {"error": wrong}, 400
    workflow = query.get("workflow_id")
    jobs = [job for job in jobs if not wanted or job["status"] in wanted]
    jobs = [job for job in jobs if not workflow or job.get("workflow_id") == workflow]
    jobs.sort(key=_created if by == "created_at" else _duration, reverse=order == "desc")
    first = max(0, offset or 0)
    shown = jobs[first:] if limit is None else jobs[first : first + limit]
    pages = {"offset": first, "limit": limit, "total": len(jobs), "has_more": first + len(shown) < len(jobs)}
    return {"jobs": shown, "pagination": pages}, 200


def _whole(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def _created(job: Entry) -> int:
    return int(job.get("create_time", 0))


def _duration(job: Entry) -> int:
    start, end = job.get("execution_start_time", 0), job.get("execution_end_time", 0)
    return int(end - start) if start and end else 0


def ended_item(entry: Entry) -> Entry:
    """A job that has ended, by its entry in the history."""
    number, prompt_id, _, extra_data, _ = entry["prompt"]
    messages = dict(entry["status"]["messages"])
    end: Entry = next((messages[name] for name in _ENDS if name in messages), {})
    status = "completed"
    if entry["status"]["status_str"] == "error":
        status = "cancelled" if "execution_interrupted" in messages else "failed"
    files = list(_files(entry["outputs"]))
    shown = [item for item in files if _can_be_shown(item)]
    pictures = [item for item in shown if item["mediaType"] != "text" and not _name_of(item).endswith(_TEXTS)]
    saved = [item for item in pictures if item.get("type") == "output"]
    return item_of(
        prompt_id,
        status,
        number,
        extra_data,
        execution_start_time=messages.get("execution_start", {}).get("timestamp"),
        execution_end_time=end.get("timestamp"),
        execution_error=messages.get("execution_error"),
        outputs_count=len(files),
        previewable_outputs_count=len(shown),
        preview_output=next(iter([*saved, *pictures, *shown, *_texts(entry["outputs"])]), None),
    )


def _files(outputs: Entry) -> Iterator[Entry]:
    for node_id, output in outputs.items():
        for kind, items in named_outputs(output).items():
            yield from ({"mediaType": kind, **item, "nodeId": node_id} for item in items if isinstance(item, dict))


def named_outputs(output: Entry) -> Entry:
    """A node's output with the models among its texts as files, and without its blanks."""

    def as_file(item: Any) -> Any:
        is_model = isinstance(item, str) and item.lower().endswith(_THREE_D)
        return {"filename": item, "type": "output", "subfolder": "", "mediaType": "3d"} if is_model else item

    return {
        kind: [as_file(item) for item in items if item is not None]
        for kind, items in output.items()
        if isinstance(items, list)
    }


def _can_be_shown(item: Entry) -> bool:
    return item["mediaType"] in _SHOWN or _name_of(item).endswith((*_THREE_D, *_TEXTS))


def _name_of(item: Entry) -> str:
    """The file's name in lower case; a custom node may report what has none."""
    name = item.get("filename")
    return name.lower() if isinstance(name, str) else ""


def _texts(outputs: Entry) -> Iterator[Entry]:
    """What a job shows that has nothing else to show."""
    for node_id, output in outputs.items():
        for text in named_outputs(output).get("text", ()):
            if isinstance(text, str):
                cut: Entry = {"truncated": True} if len(text) > _MOST_TEXT else {}
                yield {"content": text[:_MOST_TEXT], **cut, "nodeId": node_id, "mediaType": "text"}


def item_of(job_id: str, status: str, number: float, extra_data: Entry, **more: Any) -> Entry:
    """A job without what is not known of it."""
    entry = {
        "id": job_id,
        "status": status,
        "priority": number,
        "create_time": extra_data.get("create_time"),
        "outputs_count": 0,
        "previewable_outputs_count": 0,
        "workflow_id": _workflow_of(extra_data),
        **more,
    }
    return {name: value for name, value in entry.items() if value is not None}


def _workflow_of(extra_data: Entry) -> str | None:
    """The id of the page's workflow; clients may put anything in its place."""
    found: Any = extra_data
    for key in ("extra_pnginfo", "workflow", "id"):
        found = found.get(key) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None
