"""A run as Parquet: typed columns, for data frames and databases. Needs the extra `parquet`."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from comfyload.errors import UsageError
from comfyload.judge.statistics.stats import QUANTILE_METHOD
from comfyload.record.atomic import written_aside
from comfyload.record.codec import printable
from comfyload.record.model import Manifest
from comfyload.report.export.table import ExportColumn, Lines, columns, rows

_GROUP = 10_000
"""Jobs in a row group, and in memory at once."""


def write_parquet(path: Path, manifest: Manifest, lines: Lines) -> int:
    """Write a row for each job to `path`; returns how many.

    The schema's metadata name the run; each field's say its unit.

    Raises:
        UsageError: pyarrow is not installed, or `path` cannot be written.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise UsageError("Parquet needs pyarrow", "pip install 'comfyload[parquet]'") from None
    found, count = columns(lines), 0
    schema = pa.schema([_field(pa, column) for column in found], metadata=_metadata(manifest))
    with written_aside(path) as aside, parquet.ParquetWriter(aside, schema, compression="zstd") as writer:
        for group in _groups(rows(manifest, lines, found)):
            arrays = [pa.array([job[field.name] for job in group], type=field.type) for field in schema]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=_GROUP)
            count += len(group)
    return count


def _field(pa: Any, column: ExportColumn) -> Any:
    kind = {
        "text": pa.string(),
        "word": pa.dictionary(pa.int32(), pa.string()),
        "texts": pa.list_(pa.string()),
        "float": pa.float64(),
        "int": pa.int64(),
        "uint": pa.uint64(),
        "flag": pa.bool_(),
        "instant": pa.timestamp("us", tz="UTC"),
    }[column.kind]
    return pa.field(printable(column.name), kind, metadata={"unit": column.unit} if column.unit else None)


def _metadata(manifest: Manifest) -> dict[str, str]:
    return {
        "comfyload.format": str(manifest.format),
        "comfyload.run_id": manifest.run_id,
        "comfyload.tool": manifest.tool,
        "comfyload.quantile_method": QUANTILE_METHOD,
    }


def _groups(jobs: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    endless = iter(jobs)
    while group := list(islice(endless, _GROUP)):
        yield group
