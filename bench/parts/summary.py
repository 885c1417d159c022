"""CPU time and memory of the summary of a million jobs, and of other ways to read the same file.

A made-up run is written once, and each way reads it in a process of its own, start of Python and imports included.
`comfyload` makes its whole summary. `msgspec`, `DuckDB` and `polars` compute four percentiles of the latency by
workflow and outcome: the least that reading such a file costs. `DuckDB, whole` does as much of the summary's work as
SQL can (`summary.sql`), which leaves out intervals, drift, saturation and the findings.
"""

from __future__ import annotations

import random
import sys
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec

from bench.case import OURS, Case, Setting
from bench.process import Missing, cost_of, needed
from comfyload.record.journal import RECORDS
from comfyload.record.model import (
    Execution,
    Failure,
    Host,
    Manifest,
    NodeFacts,
    Output,
    Record,
    Sent,
    Server,
    ServerTimes,
    Span,
    WorkflowFacts,
)
from comfyload.record.plan import Closed, Plan
from comfyload.record.run import RunWriter

COMFYLOAD = """
import sys
from pathlib import Path
from comfyload.judge.summary import summarise
from comfyload.record.run import RunReader
reader = RunReader(Path(sys.argv[1]))
print(summarise(reader.manifest, reader.lines(), reader.samples()).summary["p95_latency_s"])
"""

MSGSPEC = """
import sys
from array import array
from pathlib import Path
import msgspec
class Execution(msgspec.Struct, gc=False):
    outcome: str
    done: float | None = None
class Line(msgspec.Struct, gc=False):
    due: float
    workflow: str = ""
    execution: Execution | None = None
decode, groups = msgspec.json.Decoder(Line).decode, {}
with open(Path(sys.argv[1], "records.ndjson"), "rb") as file:
    for text in file:
        line = decode(text)
        run = line.execution
        if run is not None and run.done is not None:
            key = line.workflow, run.outcome
            if key not in groups:
                groups[key] = array("d")
            groups[key].append(run.done - line.due)
for group in groups.values():
    ordered = sorted(group)
    found = [ordered[int(p * (len(ordered) - 1))] for p in (0.5, 0.9, 0.95, 0.99)]
print(found)
"""

DUCKDB = """
import sys
from pathlib import Path
import duckdb
path = str(Path(sys.argv[1], "records.ndjson"))
columns = "{due: 'DOUBLE', workflow: 'VARCHAR', execution: 'STRUCT(outcome VARCHAR, done DOUBLE)'}"
print(duckdb.sql(
    "select workflow, execution.outcome as outcome, quantile_cont(execution.done - due, [0.5, 0.9, 0.95, 0.99]) "
    f"from read_json('{path}', format='newline_delimited', columns={columns}) "
    "where execution is not null group by all"
).fetchall())
"""

DUCKDB_WHOLE = f"""
import sys
from pathlib import Path
import duckdb
connection = duckdb.connect()
connection.execute("SET VARIABLE records = ?", [str(Path(sys.argv[1], "records.ndjson"))])
for statement in Path({str(Path(__file__).with_name("summary.sql"))!r}).read_text().rstrip().split(";\\n"):
    print(connection.execute(statement).fetchall())
"""

POLARS = """
import sys
from pathlib import Path
import polars as pl
schema = {
    "line": pl.String, "due": pl.Float64, "workflow": pl.String,
    "execution": pl.Struct({"outcome": pl.String, "done": pl.Float64}),
}
run = pl.col("execution").struct
latency = run.field("done") - pl.col("due")
print(
    pl.scan_ndjson(Path(sys.argv[1], "records.ndjson"), schema=schema)
    .filter(pl.col("execution").is_not_null())
    .group_by("workflow", run.field("outcome"))
    .agg(latency.quantile(p, "linear").alias(str(p)) for p in (0.5, 0.9, 0.95, 0.99))
    .collect()
)
"""

WAYS = {OURS: COMFYLOAD, "msgspec": MSGSPEC, "DuckDB": DUCKDB, "DuckDB, whole": DUCKDB_WHOLE, "polars": POLARS}


def cases(setting: Setting) -> Iterator[Case]:
    jobs = 50_000 if setting.quick else 1_000_000
    for way in WAYS:
        yield Case(what=f"{jobs:,} jobs", client=way, measure=partial(_measure, setting, way, jobs), rounds=3)


def _measure(setting: Setting, way: str, jobs: int) -> dict[str, float]:
    run = setting.folder / "made-up"
    if not run.exists():
        write_run(run, jobs)
    command = [sys.executable, "-c", WAYS[way], str(run)]
    usage = cost_of(command, setting)
    if "ModuleNotFoundError" in usage.said:
        raise Missing("not installed")
    needed(usage, command)
    return {"CPU s": usage.cpu_s, "peak, MB": usage.max_rss_bytes / 1e6}


def write_run(path: Path, jobs: int) -> None:
    """A run of `jobs` jobs of two workflows, about 600 bytes a record; one in a hundred failed."""
    draw, now = random.Random(1), 0.0
    writer = RunWriter(path, manifest(jobs))
    writer.close()
    encode = msgspec.json.Encoder().encode
    with (path / RECORDS).open("wb") as file:
        for index in range(jobs):
            now += draw.expovariate(10.0)
            record = made_up(index, now, draw)
            file.write(encode(Sent(index=index, prompt_id=record.prompt_id, due=record.due)) + b"\n")
            file.write(encode(record) + b"\n")


def made_up(index: int, due: float, draw: random.Random) -> Record:
    sent, took = due + 0.001 * draw.random(), draw.lognormvariate(0.0, 0.5)
    waited, done, answered = 0.2 * took, sent + took, sent + 0.002 + 0.002 * draw.random()
    unix = 1_760_000_000_000 + round(1000 * sent)
    failed = index % 100 == 99
    workflow = ("portrait", "landscape")[index % 2]
    return Record(
        index=index,
        prompt_id=str(uuid.UUID(int=draw.getrandbits(128))),
        workflow=workflow,
        warmup=index < 10,
        due=due,
        values={"3.seed": draw.getrandbits(50)},
        execution=Execution(
            outcome="failed" if failed else "completed",
            sent=sent,
            acknowledged=answered,
            first_event=answered + 0.001,
            started=sent + waited,
            done=done,
            end_source="events",
            server=ServerTimes(create_ms=unix, start_ms=unix + round(1000 * waited), end_ms=unix + round(1000 * took)),
            number=float(index),
            nodes=[Span("3", sent + waited, sent + 0.9 * took), Span("9", sent + 0.9 * took, sent + 0.98 * took)],
            outputs=[]
            if failed
            else [Output(node="9", kind="images", count=1, files=[f"output/{workflow}/image_{index:07}_.png"])],
            failure=Failure(kind="execution_error", type="RuntimeError", message="mat1 and mat2", node="3")
            if failed
            else None,
            executions=1,
        ),
    )


def manifest(jobs: int) -> Manifest:
    nodes = {
        "3": NodeFacts(class_type="KSampler", sampler=True),
        "9": NodeFacts(class_type="SaveImage", output=True, samplers=["3"]),
    }
    return Manifest(
        format=1,
        tool="comfyload bench",
        run_id="bench",
        name="bench",
        started_utc="2026-01-01T00:00:00+00:00",
        ended_utc="2026-01-02T00:00:00+00:00",
        end="complete",
        plan=Plan(load=Closed(concurrency=10), jobs=jobs - 10, warmup=10),
        client=Host(os="Linux", cpu=None, cores=2, ram_bytes=None, python="3.11", libraries={}),
        server=Server(url="http://127.0.0.1:8188"),
        workflows=[WorkflowFacts(name=name, sha256="0" * 64, nodes=nodes) for name in ("portrait", "landscape")],
    )
