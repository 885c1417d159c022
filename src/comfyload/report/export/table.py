"""A run as a table: a row for each job, and the columns with their units, once for every format.

Durations and instants are in seconds; an instant ending in `_s` counts from the start of the run, one ending in
`_utc` is the same on the wall clock of the machine that sent the load. None is "not known".
"""

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, Literal

from msgspec import Struct

from comfyload.judge.metrics import METRICS
from comfyload.record.codec import printable
from comfyload.record.model import Failure, Manifest, Record, Sent
from comfyload.report.document import jobs

Lines = Callable[[], Iterable[Record | Sent]]
"""Gives a run's lines from the start, each time it is called: `RunReader.lines` itself."""

Kind = Literal["text", "word", "texts", "float", "int", "uint", "flag", "instant"]
"""A `word` is a text of which few differ; `texts` are a list; `uint` is too large for a signed 64-bit number."""

_VALUE = "value."
_RANGES = (("below 0", -(1 << 63), 0), ("int", 0, 1 << 63), ("uint", 1 << 63, 1 << 64))
"""Of whole numbers, from and below; seeds go up to 2**64 - 1, and what fits none is a text."""
_HOLDS: dict[Kind, set[str]] = {
    "flag": {"flag"},
    "int": {"int", "below 0"},
    "uint": {"int", "uint"},
    "float": {"int", "below 0", "float"},
}


class ExportColumn(Struct, frozen=True, kw_only=True):
    """One column. `unit`: "s", "1" of a count, "" of what has none."""

    name: str
    kind: Kind
    unit: str = ""


_OF_FAILURE: dict[str, Kind] = {"status": "int", "message": "text"}
_BEFORE_METRICS = (
    ExportColumn(name="index", kind="int", unit="1"),
    ExportColumn(name="prompt_id", kind="text"),
    ExportColumn(name="workflow", kind="word"),
    ExportColumn(name="server", kind="word"),
    ExportColumn(name="book", kind="int", unit="1"),
    ExportColumn(name="warmup", kind="flag"),
    ExportColumn(name="outcome", kind="word"),
    ExportColumn(name="censored", kind="flag"),
    ExportColumn(name="cached", kind="flag"),
    ExportColumn(name="cache", kind="word"),
    *(ExportColumn(name=f"{name}_s", kind="float", unit="s") for name in ("due", "sent", "done")),
    *(ExportColumn(name=f"{name}_utc", kind="instant") for name in ("due", "sent", "done")),
)
_AFTER_METRICS = (
    ExportColumn(name="seen_by", kind="word"),
    ExportColumn(name="done_within_s", kind="float", unit="s"),
    ExportColumn(name="images", kind="int", unit="1"),
    ExportColumn(name="previews", kind="int", unit="1"),
    ExportColumn(name="files", kind="texts"),
    *(ExportColumn(name=f"failure_{name}", kind=_OF_FAILURE.get(name, "word")) for name in Failure.__struct_fields__),
    ExportColumn(name="left_on_server", kind="word"),
)


def columns(lines: Lines) -> list[ExportColumn]:
    """The columns of a run: the same for every run, and then one for each input that some job gave a value."""
    kinds: dict[str, set[str]] = {}
    for line in lines():
        if isinstance(line, Record):
            for key, value in line.values.items():
                kinds.setdefault(key, set()).add(_value_kind(value))
    inputs = []
    for key, found in kinds.items():  # the kind that holds all of them unchanged; any mix can be a text
        kind: Kind = next((kind for kind, holds in _HOLDS.items() if found <= holds), "text")
        inputs.append(ExportColumn(name=f"{_VALUE}{key}", kind=kind))
    durations = [ExportColumn(name=f"{name}_s", kind="float", unit="s") for name in METRICS]
    return [*_BEFORE_METRICS, *durations, *_AFTER_METRICS, *inputs]


def rows(manifest: Manifest, lines: Lines, of: Iterable[ExportColumn]) -> Iterator[dict[str, Any]]:
    """A flat object for each job by the names of `of`, in the order of the journal; a value fits its column's kind."""
    began = datetime.fromisoformat(manifest.started_utc)
    values_of = [column for column in of if column.name.startswith(_VALUE)]
    inputs = [(column.name, column.name.removeprefix(_VALUE), column.kind) for column in values_of]
    for job in jobs(manifest, lines()):
        failure, values = job.pop("failure") or {}, job.pop("values")
        job.pop("made")
        for name in ("due", "sent", "done"):
            job[f"{name}_utc"] = None if job[f"{name}_s"] is None else began + timedelta(seconds=job[f"{name}_s"])
        for name in Failure.__struct_fields__:
            job[f"failure_{name}"] = failure.get(name)
        for name, key, kind in inputs:
            job[name] = _as(kind, values.get(key))
        yield {printable(name): _printable(value) for name, value in job.items()}


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    return [printable(text) for text in value] if isinstance(value, list) else value


def _value_kind(value: object) -> str:
    """What a value is, as far as it decides its column's kind."""
    if isinstance(value, bool):
        return "flag"
    if isinstance(value, int):
        return next((kind for kind, low, high in _RANGES if low <= value < high), "text")
    return "float" if isinstance(value, float) else "text"


def _as(kind: Kind, value: Any) -> Any:
    if value is None or kind != "text" or isinstance(value, str):
        return float(value) if kind == "float" and value is not None else value
    return json.dumps(value, ensure_ascii=False)
