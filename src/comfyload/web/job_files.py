"""The jobs of a run as a file for other programs: those that a filter leaves, as CSV or JSON."""

from collections.abc import Iterator
from pathlib import Path

from comfyload.errors import RunFilesError
from comfyload.record.atomic import written_aside
from comfyload.record.codec import encode
from comfyload.record.model import Line, Record
from comfyload.record.run import RunReader
from comfyload.report.document import jobs
from comfyload.report.export.csv import write_csv
from comfyload.web.follow import RunFollower
from comfyload.web.states import Filter, View
from comfyload.web.worker import Answer, as_json

Query = tuple[tuple[str, str], ...]


def jobs_answer(path: str, kind: str, query: Query, file: str) -> Answer:
    """Write the jobs to the file; past lines that cannot be read, if there are any."""
    try:
        return _written(RunReader(Path(path)), kind, query, Path(file))
    except RunFilesError:
        return _written(RunReader(Path(path), salvage=True), kind, query, Path(file))


def _written(reader: RunReader, kind: str, query: Query, file: Path) -> Answer:
    def lines() -> Iterator[Line]:
        return (
            line for line in reader.lines() if isinstance(line, Record) and (chosen is None or line.index in chosen)
        )

    chosen = _chosen(reader, query)
    if kind == "csv":
        return as_json({"jobs": write_csv(file, reader.manifest, lines)})
    written = 0
    with written_aside(file) as aside, aside.open("wb") as out:
        out.write(b"[")
        for written, job in enumerate(jobs(reader.manifest, lines()), 1):
            out.write((b",\n" if written > 1 else b"\n") + encode(job))
        out.write(b"\n]\n")
    return as_json({"jobs": written})


def _chosen(reader: RunReader, query: Query) -> set[int] | None:
    """The numbers of the jobs that the filter leaves; None: all of them."""
    flt = Filter.parse(dict(query))
    if flt == Filter():
        return None
    follower = RunFollower(reader.path)
    follower.refresh()
    while follower.behind:
        follower.refresh()
    return set(follower.jobs.index[View(follower).matching(flt)].tolist())
