"""`baseline`: keep runs under a name, with all that is needed to read, check and repeat them."""

import json
import math
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from comfyload.app.check import check
from comfyload.app.locate import Result, Target, check_ended, measured, window
from comfyload.app.report import environment_of, limits, notes_of, shown, whole_page, write_page
from comfyload.app.run.repeat import command
from comfyload.app.summary import write_output
from comfyload.errors import RunFilesError
from comfyload.judge.columns.jobs import Jobs
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.gates.grammar import GateSet
from comfyload.judge.summary import jsonable
from comfyload.record import archive
from comfyload.record.archive import Contents, Kept, KeptRun
from comfyload.record.copies import copy_run
from comfyload.record.environment.describe import with_notes
from comfyload.record.metrics.log import write_slice
from comfyload.record.metrics.own import job_row
from comfyload.record.model import Record, Sent
from comfyload.record.plan import Closed
from comfyload.record.run import RunReader
from comfyload.report.baseline import pictures, render_readme
from comfyload.report.charts.chart import png
from comfyload.report.overview import overview
from comfyload.report.plan_text import load_words

_NOT_IN_FILES = re.compile('[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff/\\\\:*?"<>|]+')
"""What the name of a file cannot hold on some system: a run is called as its user or its workflow wills."""

_NOT_IMAGES = ("videos", "audio_files", "files_3d", "latents", "texts", "other_files")
"""Counts of files that are not images, which an earlier version took for images."""
LOG = "comfyui_metrics.ndjson"
PAGE = "report.html"
README = "README.md"


def save_baseline(
    base: Path, name: str | None, found: Target, gates: GateSet, log: Path | None, notes: Mapping[str, str] = {}
) -> tuple[Kept, list[GateVerdict]]:
    """Keep the runs of `found` in the archive `base`, with their rows of `log`; returns the baseline and the verdicts
    that its README states.

    Raises:
        RunFilesError: the name is taken, a run has no end, or something cannot be read or written.
    """
    title = archive.check_free(base, name).name
    for result in found.results:
        check_ended(result.reader)
    verdicts = check(found, gates, log=log).verdicts

    def fill(folder: Path) -> Contents:
        contents = _evidence(folder, found.results, log, notes)
        runs = [shown(result, gates.gates) for result in found.results]
        view = overview(
            title,
            runs,
            verdicts=verdicts,
            environment=contents.environment,
            notes=contents.notes,
            limits=limits(gates.gates),
        )
        for file, chart in pictures(contents, view, runs).items():
            (folder / file).write_bytes(png(chart))
        write_page(folder / README, render_readme(contents, view, runs))
        write_page(folder / PAGE, whole_page(view, runs, contents.command))
        return contents

    return archive.save(base, name, fill), verdicts


def _evidence(folder: Path, results: Sequence[Result], log: Path | None, notes: Mapping[str, str]) -> Contents:
    """The runs, what was made from them, and the log's rows of them."""
    kept = []
    for result, output in zip(results, _outputs(results), strict=True):
        manifest = result.reader.manifest
        write_output(folder / output, result.reader, result.measured.summary)
        kept.append(
            KeptRun(
                folder=copy_run(result.reader.path, folder),
                output=output,
                run_id=manifest.run_id,
                name=manifest.name,
                load=load_words(manifest.plan.load),
            )
        )
    noted = {**notes_of(results), **notes}
    return Contents(
        runs=kept,
        environment=with_notes(environment_of(results), noted),
        notes=noted,
        command=[line for result in results if (line := shlex.join(command(result.reader.manifest.options)))],
        log=_slice(folder, results, log),
    )


def _outputs(results: Sequence[Result]) -> list[str]:
    """`load_<workflow>.json`; where a workflow has several runs, with its concurrency, or a number, behind it."""
    names = [_NOT_IN_FILES.sub("_", result.reader.manifest.name) for result in results]
    total, used = Counter(names), Counter[str]()
    out = []
    for name, result in zip(names, results, strict=True):
        load, stem = result.reader.manifest.plan.load, f"load_{name}"
        if total[name] > 1 and isinstance(load, Closed):
            stem += f"_c{load.concurrency}"
        used[stem] += 1
        out.append(f"{stem}.json" if used[stem] == 1 else f"{stem}_{used[stem]}.json")
    return out


def _slice(folder: Path, results: Sequence[Result], log: Path | None) -> str:
    """One file with the rows of all runs: of the log those of their time, the rows that the runs recorded, and for a
    run that recorded none a row for each job.
    """
    ours = {line.prompt_id for result in results for line in result.reader.lines() if isinstance(line, Sent)}
    windows = [window(result.reader.manifest) for result in results]
    write_slice(log, folder / LOG, windows, ours, chain.from_iterable(map(_rows, results)))
    return LOG


def _rows(result: Result) -> Iterator[dict[str, Any]]:
    """The rows that the run recorded, or else a row for each of its jobs."""
    recorded = False
    for line in result.reader.log():
        recorded = True
        yield line.row
    if recorded:
        return
    manifest = result.reader.manifest
    started = datetime.fromisoformat(manifest.started_utc)
    for record in result.reader.lines():
        if isinstance(record, Record):
            ended = record.due if record.execution.done is None else record.execution.done
            yield job_row(record, manifest.run_id, started + timedelta(seconds=ended))


def verify(kept: Kept) -> list[str]:
    """What is wrong with a baseline: files that changed, and summaries that the records no longer give."""
    problems = archive.verify_files(kept)
    for run in kept.manifest.runs:
        if not any(problem.startswith((run.folder, run.output)) for problem in problems):
            problems += _recomputed(kept, run)
    return problems


def _recomputed(kept: Kept, run: KeptRun) -> list[str]:
    """The summary, made again from the records, against the one that was written.

    A later version may state more numbers; those that were stated must still come out.
    """
    try:
        stated: dict[str, Any] = json.loads((kept.path / run.output).read_text(encoding="utf-8"))["summary"]
        found = measured(RunReader(kept.path / run.folder))
    except (RunFilesError, OSError, ValueError, KeyError) as error:
        return [f"{run.output} cannot be checked against {run.folder}: {error}"]
    again = jsonable(found.summary.summary)
    if "previews" not in stated:
        again = _as_before(again, found.jobs, stated)
    return [
        f"{run.output}: {key} is {value}, and its records give {again.get(key)}"
        for key, value in stated.items()
        if key in again and again[key] != value
    ]


def _as_before(again: Mapping[str, Any], jobs: Jobs, stated: Mapping[str, Any]) -> dict[str, Any]:
    """A summary as a version makes it that counts previews among the images, and gives a p99 of however few jobs.

    Where jobs made anything but images, that version may have called it an image or not: what it says of images, and
    of files that came again, is left out.
    """
    images, wall_s, latency = again["images"] + again["previews"], again["wall_clock_s"], np.sort(jobs.known("latency"))
    p99 = float(latency[math.ceil(0.99 * len(latency)) - 1]) if len(latency) else None
    before = {**again, "images": images, "observed_p99_latency_s": p99}
    rate = stated.get("images_per_minute")
    if rate is not None and wall_s:
        expected = 60 * images / wall_s
        before["images_per_minute"] = rate if math.isclose(rate, expected, rel_tol=1e-9) else expected
    if any(again[key] for key in _NOT_IMAGES):
        before = {key: value for key, value in before.items() if not key.startswith("image") and key != "valid"}
    return before
