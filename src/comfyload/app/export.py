"""`export`: a run in the formats of other tools."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from comfyload.app.locate import measured, runs_in
from comfyload.comfy.address import hide_secrets, masked, read_url, redacted
from comfyload.errors import UsageError
from comfyload.hidden import hide
from comfyload.record.atomic import write_whole
from comfyload.record.run import RunReader
from comfyload.report.export.csv import write_csv
from comfyload.report.export.otlp import send_otlp, write_otlp
from comfyload.report.export.parquet import write_parquet
from comfyload.report.export.prometheus import metrics_text
from comfyload.words import count


def export(
    run: Path,
    *,
    csv: Path | None = None,
    parquet: Path | None = None,
    prometheus: Path | None = None,
    otlp: str | None = None,
) -> Iterator[str]:
    """Write the formats that have a file, or a collector's URL in `otlp`; yields a line about each.

    Raises:
        UsageError: it is a folder of runs, a file cannot be written, a collector does not answer, or a library is
            missing.
    """
    if inside := runs_in(run):
        raise UsageError(f"{run} holds {count(len(inside), 'run')}", f"name one, such as {inside[-1]}")
    reader = RunReader(run)
    if csv is not None:
        yield f"CSV: {csv}, {write_csv(csv, reader.manifest, reader.lines)} jobs"
    if parquet is not None:
        yield f"Parquet: {parquet}, {write_parquet(parquet, reader.manifest, reader.lines)} jobs"
    if prometheus is not None:
        write_whole(prometheus, metrics_text(measured(reader)))
        yield f"Prometheus: {prometheus}"
    if otlp is not None:
        if otlp.startswith(("http://", "https://")):
            where = _collector(otlp)
            spans = send_otlp(otlp, reader.manifest, reader.lines())
        else:
            where = otlp
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
