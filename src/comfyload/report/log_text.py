"""In which words a row of the instrumentation log is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from comfyload.judge.columns.ledger import clean
from comfyload.report.text import count, duration

if TYPE_CHECKING:
    from comfyload.record.metrics.log import LogRow

__all__ = [
    "LONGEST",
    "PROMPT",
    "STYLES",
    "LogText",
    "kind",
    "log_text",
    "milliseconds",
    "node_of",
    "node_words",
    "retry",
    "short",
]

LONGEST = 2000
"""Characters of one text."""

PROMPT = 8
"""Characters of a prompt's id that are shown."""

STYLES = {"ok": "green", "run": "green", "cached": "cyan", "interrupted": "yellow"}
"""Of a status."""

_GIB = 2**30


class LogText(NamedTuple):
    """A word, its style, what there is to add, and what may be left out where there is no room."""

    word: str = ""
    style: str = ""
    more: str = ""
    minor: str = ""


def log_text(row: LogRow) -> LogText:
    """What a row says beside its time, event, prompt, node and duration."""
    words = _of_the_probe(row) if row.seq is not None else LogText(_status(row), _style(row), _further(row))
    if row.error is None:
        return words
    text, type_ = clean(row.error, LONGEST), short(row.raw.get("exception_type") or row.raw.get("exception"))
    if text == row.event:
        text = type_
    elif type_ and not text.startswith(type_):
        text = f"{type_}: {text}"
    return LogText("ERROR", "bold red", " ".join(part for part in (text, words.more) if part), words.minor)


def _of_the_probe(row: LogRow) -> LogText:
    raw, status, style = row.raw, _status(row), _style(row)
    match row.event:
        case "prompt.queued":
            nodes, before = raw.get("node_count"), raw.get("queue_depth")
            parts = [
                count(nodes, "node") if isinstance(nodes, int) else "",
                _counted(before, "before it") if before else "",
            ]
            return LogText(more=_listed(*parts, retry(raw.get("attempt"), raw.get("retry_of"))))
        case "prompt.started":
            waited, behind = milliseconds(raw.get("waited_ms")), raw.get("queue_depth")
            return LogText(
                more=f"waited {waited}" if waited else "", minor=_counted(behind, "behind it") if behind else ""
            )
        case "prompt.ended" | "node":
            peak, shown = _gib(raw.get("vram_peak_bytes")), short(raw.get("display_node"))
            parts = [f"VRAM up to {peak}" if peak else "", f"shown as node {shown}" if shown else ""]
            return LogText(status, style, minor=_listed(*parts))
        case "model":
            action, size = short(raw.get("action")), _gib(raw.get("bytes"))
            if not size:
                return LogText(action, minor=short(raw.get("device")))
            sign = {"loaded": "+", "unloaded": "-"}.get(action, "")
            return LogText(f"{sign}{size}", minor=_listed(action, short(raw.get("device"))))
        case "sample":
            return LogText(
                more=_listed(_counted(raw.get("queue_depth"), "in the queue"), *map(_gpu, _dicts(raw.get("gpus"))))
            )
        case "probe.started":
            missing = [short(text) for text in _list(raw.get("missing"))]
            version = f"probe {short(raw.get('version'))}, ComfyUI {short(raw.get('comfyui_version')) or 'unknown'}"
            return LogText(more="; not available: ".join([version, *(["; ".join(missing)] if missing else [])]))
        case "probe.problem":
            return LogText("WARNING", "yellow", "" if row.error else short(raw.get("error")))
        case "probe.disabled":
            return LogText()
    return LogText(status, style, _further(row))


def _status(row: LogRow) -> str:
    return short(row.raw.get("status"))


def _style(row: LogRow) -> str:
    return STYLES.get(_status(row), "")


def _listed(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _further(row: LogRow) -> str:
    """What a writer added of its own, but for what a column or the error says."""
    told = {"event", "status", "error", "exception", "duration_ms", "context", "prompt_id", "node", "class_type"}
    told |= {"timestamp", "time", "ts", "t", "level", "schema", "mono_s", "boot", "seq", "exception_type"}
    fields = {key: value for key, value in row.raw.items() if key not in told and value != row.error}
    fields |= {key: value for key, value in row.context.items() if key not in ("prompt_id", "node", "class_type")}
    return " ".join(f"{clean(key, 60)}={_value(value)}" for key, value in fields.items() if value is not None)


def node_words(row: LogRow) -> str:
    raw = row.raw
    if row.event == "model" and row.seq:
        return short(raw.get("model"))
    node, kind = node_of(row), raw.get("class_type", row.context.get("class_type"))
    if row.event == "prompt.ended" and node is None:
        run, cached = raw.get("nodes_run"), raw.get("nodes_cached")
        parts = [_counted(run, "run"), _counted(cached, "cached")]
        return ", ".join(part for part in parts if part)
    return " ".join(part for part in (short(node), short(kind)) if part)


def kind(row: LogRow) -> str:
    kind, text = short(row.raw.get("exception_type") or row.raw.get("exception")), row.error or ""
    if text == row.event == "node":
        return f"node {node_words(row)}"
    return f"{kind}: {text}" if kind and not text.startswith(kind) else text


def node_of(row: LogRow) -> str | None:
    """The id of the node that a row is about."""
    value = row.raw.get("node", row.context.get("node"))
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def milliseconds(value: Any) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e12:
        return ""
    return duration(value / 1000)


def _gib(value: Any) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return ""
    return f"{value / _GIB:.1f} GiB" if value >= _GIB / 10 else f"{value / 2**20:.0f} MiB"


def _gpu(gpu: dict[str, Any]) -> str:
    """GPU 0 98 %, 11.2 of 16.0 GiB, 172 W, 68 °C."""
    used, total = _gib(gpu.get("vram_used_bytes")), _gib(gpu.get("vram_total_bytes"))
    parts = [_counted(gpu.get("utilisation_percent"), "%"), f"{used} of {total}" if used and total else used]
    parts += [_counted(gpu.get("power_w"), "W"), _counted(gpu.get("temperature_c"), "°C")]
    return f"GPU {short(gpu.get('index'))} " + ", ".join(part for part in parts if part)


def _counted(value: Any, what: str) -> str:
    return f"{value:.0f} {what}" if isinstance(value, int | float) and not isinstance(value, bool) else ""


def retry(attempt: Any, of: Any) -> str:
    if not isinstance(of, str) and not (isinstance(attempt, int) and attempt > 1):
        return ""
    number = f"attempt {attempt}" if isinstance(attempt, int) else "a retry"
    return f"{number} of {clean(of, 100)[:PROMPT]}" if isinstance(of, str) else number


def short(value: Any) -> str:
    return "" if value is None else clean(str(value), 500)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    shown = clean(text, 200)
    return json.dumps(shown, ensure_ascii=False) if " " in shown or not shown else shown


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in _list(value) if isinstance(entry, dict)]
