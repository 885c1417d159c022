"""Cost of `comfyload`'s summary of a long run, and of yardsticks that read the same file.

Writes a made-up run to a temporary folder, then reads it in separate processes, one after the other. `comfyload` makes
its whole summary. Two yardsticks show how little reading such a file can cost, and state far less: `msgspec` decodes
four fields of each line into a struct and takes percentiles of latency by workflow and outcome, and `duckdb` computes
the same percentiles with SQL. `duckdb_whole` is like for like: DuckDB doing as much of the summary's work as SQL can
(`summarise.sql`), which leaves out intervals, drift, saturation and the findings. DuckDB is used if it is installed.
All times include starting Python and the imports.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import msgspec

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
for statement in Path({str(Path(__file__).with_name("summarise.sql"))!r}).read_text().rstrip().split(";\\n"):
    print(connection.execute(statement).fetchall())
"""

WAYS = {"comfyload": COMFYLOAD, "msgspec": MSGSPEC, "duckdb": DUCKDB, "duckdb_whole": DUCKDB_WHOLE}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sent", action=argparse.BooleanOptionalAction, default=True, help="a line per job sent, too")
    parser.add_argument("--keep", type=Path, help="write the run here, or read the one that is here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="comfyload-bench-") as temporary:
        run = args.keep or Path(temporary, "run")
        if not (run / RECORDS).exists():
            write_run(run, args.jobs, sent=args.sent)
        print(json.dumps(compared(run, args.rounds), indent=2))


def compared(run: Path, rounds: int) -> dict[str, Any]:
    """Median CPU seconds and peak bytes of each way, and comfyload's as multiples of the others'."""
    seen: dict[str, list[tuple[float, int]]] = {}
    for _ in range(rounds):
        for way, code in WAYS.items():
            cost = measured(code, run)
            if cost is not None:
                seen.setdefault(way, []).append(cost)
    out: dict[str, Any] = {"bytes": (run / RECORDS).stat().st_size, "rounds": rounds}
    for way, costs in seen.items():
        cpu = [seconds for seconds, _ in costs]
        out[way] = {
            "cpu_s": round(statistics.median(cpu), 2),
            "cpu_s_range": [round(min(cpu), 2), round(max(cpu), 2)],
            "max_rss_bytes": int(statistics.median(rss for _, rss in costs)),
        }
    for way in list(seen)[1:]:
        mine, other = out["comfyload"], out[way]
        out[f"comfyload / {way}"] = {name: round(mine[name] / other[name], 2) for name in ("cpu_s", "max_rss_bytes")}
    return out


def measured(code: str, run: Path) -> tuple[float, int] | None:
    """CPU seconds (user and system) and peak resident bytes of one process; None if it lacks a library."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([sys.executable, "-c", code, str(run)], stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            text = output.read().decode()
            if "ModuleNotFoundError" in text:
                return None
            raise SystemExit(text)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def write_run(path: Path, jobs: int, *, sent: bool) -> None:
    """A run of `jobs` jobs of two workflows, about 600 bytes a record; one in a hundred failed."""
    draw, now = random.Random(1), 0.0
    writer = RunWriter(path, manifest(jobs))
    writer.close()
    encode = msgspec.json.Encoder().encode
    with (path / RECORDS).open("wb") as file:
        for index in range(jobs):
            now += draw.expovariate(10.0)
            record = made_up(index, now, draw)
            if sent:
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


if __name__ == "__main__":
    main()
