"""A run as OpenTelemetry traces, one a job: to a collector or a file. Needs the extra `otlp`.

Spans lie between instants of the client's clock only, put on the wall clock by the run's start. What the server's
clock says are attributes: the two clocks are never mixed.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from comfyload.errors import UsageError
from comfyload.judge.columns.ledger import Ledger, clean
from comfyload.judge.metrics import METRICS
from comfyload.record.atomic import written_aside
from comfyload.record.codec import printable
from comfyload.record.model import Manifest, Record, Sent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_BATCH = 512
"""Spans after which a batch is full; a job's spans are never parted."""

_NEEDS = "pip install 'comfyload[otlp]'"
_PATH = "/v1/traces"


def send_otlp(url: str, manifest: Manifest, lines: Iterable[Record | Sent], timeout_s: float = 10.0) -> int:
    """Send a trace for each job to the collector at `url`; returns how many spans it took.

    A URL without a path gets that of OTLP over HTTP, `/v1/traces`. `OTEL_EXPORTER_OTLP_HEADERS` may hold a key.

    Raises:
        UsageError: the extra is not installed, or the collector does not take a batch within `timeout_s`.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace.export import SpanExportResult
    except ImportError:
        raise UsageError("OTLP needs OpenTelemetry", _NEEDS) from None
    parts, count, first_error = urlsplit(url), 0, _FirstError()
    endpoint = urlunsplit(parts._replace(path=_PATH)) if parts.path in ("", "/") else url
    exporter = OTLPSpanExporter(endpoint, timeout=timeout_s)
    logging.getLogger("opentelemetry").addHandler(first_error)
    try:
        for batch in _batches(manifest, lines):
            if exporter.export(batch) is not SpanExportResult.SUCCESS:
                before = f" after {count} spans" if count else ""
                hint = "is an OTLP collector listening for HTTP (usually port 4318) there?"
                raise UsageError(
                    f"{parts.hostname} did not take the traces{before}: {clean(first_error.first, 300)}", hint
                )
            count += len(batch)
    finally:
        exporter.shutdown()  # type: ignore[no-untyped-call]
        logging.getLogger("opentelemetry").removeHandler(first_error)
    return count


class _FirstError(logging.Handler):
    """Keeps what the exporter logs off the screen; `first` is why it failed, which it reports nowhere else."""

    first = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.first = self.first or record.getMessage()


def write_otlp(path: Path, manifest: Manifest, lines: Iterable[Record | Sent]) -> int:
    """Write a trace for each job to `path`, a request of OTLP's JSON a line; returns how many spans.

    Raises:
        UsageError: the extra is not installed, or `path` cannot be written.
    """
    try:
        from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
    except ImportError:
        raise UsageError("OTLP needs OpenTelemetry", _NEEDS) from None
    count = 0
    with written_aside(path) as aside, aside.open("w", encoding="utf-8", newline="\n") as file:
        for batch in _batches(manifest, lines):
            message = MessageToDict(encode_spans(batch), use_integers_for_enums=True)
            file.write(json.dumps(_hex_ids(message), ensure_ascii=False) + "\n")
            count += len(batch)
    return count


def _hex_ids(value: Any) -> Any:
    """OTLP's JSON is protobuf's, but with ids in hexadecimal."""
    if isinstance(value, dict):
        return {
            key: base64.b64decode(inner).hex() if key in ("traceId", "spanId", "parentSpanId") else _hex_ids(inner)
            for key, inner in value.items()
        }
    return [_hex_ids(inner) for inner in value] if isinstance(value, list) else value


def _batches(manifest: Manifest, lines: Iterable[Record | Sent]) -> Iterator[list[ReadableSpan]]:
    ledger, traces, batch = Ledger(), _traces(manifest), list["ReadableSpan"]()
    for record in ledger.enter(lines):
        batch += traces(record)
        if len(batch) >= _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _traces(manifest: Manifest) -> Callable[[Record], list[ReadableSpan]]:
    """Makes a job's spans, the root first. Ids come of the run's and the job's: sent twice, they are the same spans."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    host = urlsplit(manifest.server.url).hostname or ""
    resource = Resource({"service.name": "comfyui", "server.address": host, "comfyload.run_id": manifest.run_id})
    scope, began = InstrumentationScope("comfyload", manifest.tool.rpartition(" ")[2]), _unix_ns(manifest.started_utc)
    classes = {(facts.name, node): f.class_type for facts in manifest.workflows for node, f in facts.nodes.items()}

    def trace(record: Record) -> list[ReadableSpan]:
        digest = sha256(f"{manifest.run_id}/{record.index}".encode()).digest()
        spans: list[ReadableSpan] = []
        for number, (name, parent, start, end, attributes) in enumerate(_parts(record, classes)):
            own = sha256(digest + number.to_bytes(4)).digest()
            context = SpanContext(
                int.from_bytes(digest[:16]), int.from_bytes(own[:8]) or 1, False, TraceFlags(TraceFlags.SAMPLED)
            )
            failed = printable(_failure(record)) if number == 0 else ""
            span = ReadableSpan(
                printable(name),
                context=context,
                parent=None if parent is None else spans[parent].context,
                resource=resource,
                attributes={key: printable(v) if isinstance(v, str) else v for key, v in attributes.items()},
                kind=SpanKind.CLIENT if number == 0 else SpanKind.INTERNAL,
                status=Status(StatusCode.ERROR, failed) if failed else Status(),
                start_time=began + round(start * 1e9),
                end_time=began + round(end * 1e9),
                instrumentation_scope=scope,
            )
            spans.append(span)
        return spans

    return trace


Part = tuple[str, int | None, float, float, dict[str, Any]]
"""Name, which part holds it, start, end (seconds of the run) and attributes of a span."""


def _parts(record: Record, classes: dict[tuple[str, str], str]) -> list[Part]:
    """The job; its wait for a place, its time in the server's queue, its execution; in that, its nodes.

    Where the client did not learn an instant, the parts that need it are left out, and nodes lie in the job.
    """
    run, due = record.execution, record.due
    known = [instant for instant in (due, run.sent, run.acknowledged, run.started, run.done) if instant is not None]
    end = max(known) if run.done is None else run.done
    parts: list[Part] = [("comfyui.prompt", None, due, max(due, end), _attributes(record))]
    for name, start, until in (
        ("comfyui.wait", due, run.sent),
        ("comfyui.queue", run.sent, run.started),
        ("comfyui.execution", run.started, run.done),
    ):
        if start is not None and until is not None and until >= start:
            parts.append((name, 0, start, until, {}))
    holder = len(parts) - 1 if parts[-1][0] == "comfyui.execution" else 0
    for span in run.nodes:
        if span.end is not None and span.end >= span.start:
            class_type = classes.get((record.workflow, span.node))
            attributes = {"comfyui.node.id": span.node}
            if class_type is not None:
                attributes["comfyui.node.class_type"] = class_type
            parts.append((f"comfyui.node {class_type or span.node}", holder, span.start, span.end, attributes))
    return parts


def _attributes(record: Record) -> dict[str, Any]:
    run = record.execution
    attributes: dict[str, Any] = {
        "comfyui.prompt_id": record.prompt_id,
        "comfyui.workflow": record.workflow,
        "comfyload.job": record.index,
        "comfyload.warmup": record.warmup,
        "comfyload.outcome": run.outcome,
        "comfyload.censored": record.censored,
        "comfyload.end_known": run.done is not None,
    }
    for metric in METRICS.values():
        seconds = metric.of(record) if metric.clock == "server" else None
        if seconds is not None:
            attributes[f"comfyui.server.{metric.name}_s"] = seconds
    if run.attempts:
        attributes["server.address"] = urlsplit(run.attempts[-1].server).hostname or ""
        attributes["comfyload.server"] = run.attempts[-1].server
    if run.failure is not None and not record.censored:
        attributes["error.type"] = run.failure.kind
    return attributes


def _failure(record: Record) -> str:
    """Why the job is an error; "" if it is not: a job that the end of the run cut off did not fail."""
    run = record.execution
    if run.outcome == "completed" or record.censored:
        return ""
    failure = run.failure
    return run.outcome if failure is None else clean(f"{failure.kind} {failure.type} {failure.message}", 200)


def _unix_ns(utc: str) -> int:
    since = datetime.fromisoformat(utc) - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000
