"""`export`: a run in the formats of other tools."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from msgspec import Struct

from comfyload.app.locate import measured
from comfyload.comfy.address import hide_secrets, masked, read_url, redacted
from comfyload.errors import UsageError
from comfyload.hidden import hide
from comfyload.record.run import RunReader


class Formats(Struct, frozen=True, kw_only=True):
    """Where each format goes; None: nowhere. `otlp`: a collector's URL or a file."""

    csv: Path | None = None
    parquet: Path | None = None
    prometheus: Path | None = None
    otlp: str | None = None


def export(run: Path, formats: Formats) -> Iterator[str]:
    """Write the chosen formats; yields a line about each.

    Raises:
        UsageError: a file cannot be written, a collector does not answer, or a library is not installed.
    """
    reader = RunReader(run)
    if formats.csv is not None:
        from comfyload.report.export.csv import write_csv

        yield f"CSV: {formats.csv}, {write_csv(formats.csv, reader.manifest, reader.lines)} jobs"
    if formats.parquet is not None:
        from comfyload.report.export.parquet import write_parquet

        yield f"Parquet: {formats.parquet}, {write_parquet(formats.parquet, reader.manifest, reader.lines)} jobs"
    if formats.prometheus is not None:
        from comfyload.report.export.prometheus import write_prometheus

        write_prometheus(formats.prometheus, measured(reader))
        yield f"Prometheus: {formats.prometheus}"
    if formats.otlp is not None:
        from comfyload.report.export.otlp import send_otlp, write_otlp

        if formats.otlp.startswith(("http://", "https://")):
            where = _collector(formats.otlp)
            spans = send_otlp(formats.otlp, reader.manifest, reader.lines())
        else:
            where = formats.otlp
            spans = write_otlp(Path(where), reader.manifest, reader.lines())
        yield f"OTLP: {where}, {spans} spans"


def _collector(text: str) -> str:
    """The collector's address as it may be shown; what is secret in it, or sent as a header, is remembered as such.

    Raises:
        UsageError: the text is not an http address.
    """
    try:
        url = read_url(text)
    except ValueError:
        raise UsageError(f"invalid --otlp {masked(text)!r}", "write it as http://127.0.0.1:4318") from None
    hide_secrets(url)
    headers = os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    hide(*(unquote(header.partition("=")[2].strip()) for header in headers.split(",")))
    return redacted(url)
