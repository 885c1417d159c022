"""The words of one row of the instrumentation log."""

import json
from typing import Any, NamedTuple

from comfyload.judge.columns.ledger import clean
from comfyload.record.metrics.log import LogRow
from comfyload.words import count, duration, gib

LONGEST = 2000
"""Characters of one text."""

PROMPT = 8
"""Characters of a prompt's id that are shown."""

_STYLES = {"ok": "green", "run": "green", "cached": "cyan", "interrupted": "yellow"}
_COLUMNS = {"event", "status", "error", "exception", "exception_type", "duration_ms", "context", "prompt_id", "node"}
_COLUMNS |= {"class_type", "timestamp", "time", "ts", "t", "level", "schema", "mono_s", "boot", "seq"}
"""Keys of a row that another part of its line shows."""


class LogText(NamedTuple):
    """A status in a word, its style, and everything else."""

    word: str = ""
    style: str = ""
    more: str = ""


def log_text(row: LogRow) -> LogText:
    """What a row says besides its time, event, prompt, node and duration."""
    more = _of_the_probe(row) if row.seq is not None else _further(row)
    if row.error is not None:
        further = more if row.seq is None else ""  # the probe's text says all that matters of an error
        return LogText("ERROR", "bold red", " ".join(part for part in (_error(row), further) if part))
    if row.event == "probe.problem":
        return LogText("WARNING", "yellow", _short(row.raw.get("error")))
    status = _short(row.raw.get("status"))
    return LogText(status, _STYLES.get(status, ""), more)


def _of_the_probe(row: LogRow) -> str:
    raw = row.raw
    match row.event:
        case "prompt.queued":
            nodes, before = raw.get("node_count"), raw.get("queue_depth")
            parts = [count(nodes, "node") if isinstance(nodes, int) else "", _counted(before or None, "before it")]
            return _listed(*parts, _retry(raw.get("attempt"), raw.get("retry_of")))
        case "prompt.started":
            waited = milliseconds(raw.get("waited_ms"))
            behind = _counted(raw.get("queue_depth") or None, "behind it")
            return _listed(f"waited {waited}" if waited else "", behind)
        case "prompt.ended" | "node":
            peak, shown = _bytes(raw.get("vram_peak_bytes")), _short(raw.get("display_node"))
            return _listed(f"VRAM up to {peak}" if peak else "", f"shown as node {shown}" if shown else "")
        case "model":
            return _listed(_short(raw.get("action")), _bytes(raw.get("bytes")), _short(raw.get("device")))
        case "sample":
            gpus = [_gpu(gpu) for gpu in _list(raw.get("gpus")) if isinstance(gpu, dict)]
            return _listed(_counted(raw.get("queue_depth"), "in the queue"), *gpus)
        case "probe.started":
            missing = _list(raw.get("missing"))
            version = f"probe {_short(raw.get('version'))}, ComfyUI {_short(raw.get('comfyui_version')) or 'unknown'}"
            return "; not available: ".join([version, *(["; ".join(map(_short, missing))] if missing else [])])
        case "probe.problem" | "probe.disabled":
            return ""
    return _further(row)


def _listed(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _further(row: LogRow) -> str:
    """The fields that a writer added of its own."""
    fields = {key: value for key, value in row.raw.items() if key not in _COLUMNS and value != row.error}
    fields |= {key: value for key, value in row.context.items() if key not in ("prompt_id", "node", "class_type")}
    return " ".join(f"{clean(key, 60)}={_value(value)}" for key, value in fields.items() if value is not None)


def node_words(row: LogRow) -> str:
    """The node that a row is about; of a model its name, of a prompt how many nodes ran."""
    raw = row.raw
    if row.event == "model" and row.seq:
        return _short(raw.get("model"))
    node, class_type = node_of(row), raw.get("class_type", row.context.get("class_type"))
    if row.event == "prompt.ended" and node is None:
        return _listed(_counted(raw.get("nodes_run"), "run"), _counted(raw.get("nodes_cached"), "cached"))
    return " ".join(part for part in (_short(node), _short(class_type)) if part)


def kind_of_error(row: LogRow) -> str:
    """What errors are counted by."""
    return f"node {node_words(row)}" if row.error == row.event == "node" else _error(row) or row.event


def _error(row: LogRow) -> str:
    """The type of an error and its text, if this says more than its event does."""
    text, type_ = clean(row.error or "", LONGEST), _short(row.raw.get("exception_type") or row.raw.get("exception"))
    if text == row.event:
        return type_
    return f"{type_}: {text}" if type_ and not text.startswith(type_) else text


def node_of(row: LogRow) -> str | None:
    """The id of the node that a row is about."""
    value = row.raw.get("node", row.context.get("node"))
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


def milliseconds(value: Any) -> str:
    """A number of milliseconds in words; "" for anything else."""
    number = _number(value)
    return "" if number is None or not 0 <= number < 1e12 else duration(number / 1000)


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _bytes(value: Any) -> str:
    size = _number(value)
    if size is None:
        return ""
    return gib(size) if size >= 2**30 / 10 else f"{size / 2**20:.0f} MiB"


def _gpu(gpu: dict[str, Any]) -> str:
    """GPU 0 98 %, 11.2 of 16.0 GiB, 172 W, 68 °C."""
    used, total = _bytes(gpu.get("vram_used_bytes")), _bytes(gpu.get("vram_total_bytes"))
    parts = [_counted(gpu.get("utilisation_percent"), "%"), f"{used} of {total}" if used and total else used]
    parts += [_counted(gpu.get("power_w"), "W"), _counted(gpu.get("temperature_c"), "°C")]
    return f"GPU {_short(gpu.get('index'))} {_listed(*parts)}"


def _counted(value: Any, what: str) -> str:
    number = _number(value)
    return "" if number is None else f"{number:.0f} {what}"


def _retry(attempt: Any, of: Any) -> str:
    if not isinstance(of, str) and not (isinstance(attempt, int) and attempt > 1):
        return ""
    number = f"attempt {attempt}" if isinstance(attempt, int) else "a retry"
    return f"{number} of {clean(of, 100)[:PROMPT]}" if isinstance(of, str) else number


def _short(value: Any) -> str:
    return "" if value is None else clean(str(value), 500)


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    shown = clean(text, 200)
    return json.dumps(shown, ensure_ascii=False) if " " in shown or not shown else shown


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
