"""The numbers of a summary, one row each: how it is named, counted, judged and shown.

The summary, the grammar of gates, the exporters, trends, comparisons and the reference are read from these rows. No
numpy here: gates are read before the first job leaves.
"""

from collections.abc import Callable, Iterator
from functools import partial
from operator import attrgetter
from typing import Any

from comfyload.judge.metrics import METRICS, Metric
from comfyload.judge.number import Count, Counts, Judged, Number
from comfyload.record.kinds import Kind
from comfyload.record.outcomes import OUTCOMES, Outcome

ERRORS = "unexpected_errors"
"""The one gate that is not on a number of the summary."""

_STATISTICS: dict[str, tuple[str, str]] = {
    "avg": ("mean", "mean"),
    "p50": ("median", "median"),
    "p90": ("p90", "90th percentile"),
    "p95": ("p95", "95th percentile"),
    "p99": ("p99", "99th percentile"),
    "max": ("longest", "maximum"),
}
"""Of a duration, by prefix of the key: in a label, and in a sentence."""
_TILES = {"p50_latency_s", "p95_latency_s"}
_FACTS = {"max_latency_s", "p50_queue_wait_s", "p50_execution_s", "p50_book_latency_s"}
_WITH_FAILURES = ("latency", "latency_sent", "book_latency")
"""Durations that a gate judges with failures, where the number itself is of what completed."""
_OF_A_WORKFLOW = {"latency": ("avg", "p50", "p95", "max"), "execution": ("avg", "p50", "p95")}


def _duration(name: str, words: str, meaning: str, statistic: str) -> Number:
    """The row of one statistic of a duration; the maximum is counted, the others are estimated."""
    key, (label, sentence) = f"{statistic}_{name}_s", _STATISTICS[statistic]
    of = f"{sentence} of {meaning}" if "`" in meaning else f"{sentence} of the time {meaning}"
    if name in _WITH_FAILURES and statistic.startswith("p"):
        of += "; of completed jobs, where a gate on it counts the others as infinitely long"
    return Number(
        key=key,
        words=f"{label} {words}",
        unit="s",
        kind="fact" if statistic == "max" else "mean" if statistic == "avg" else "percentile",
        meaning=of,
        count=(lambda counts: counts.longest[name]) if statistic == "max" else None,
        of_workflow=key if statistic in _OF_A_WORKFLOW.get(name, ()) else "",
        place="tile" if key in _TILES else "fact" if key in _FACTS else "detail",
    )


def numbers_of_metric(metric: Metric) -> Iterator[Number]:
    """The rows of every statistic that is stated of a duration."""
    return (_duration(metric.name, metric.words, metric.meaning, statistic) for statistic in metric.shown)


def _number(kind: Judged, key: str, unit: str, meaning: str, count: Count = None, **shown: Any) -> Number:
    """A row whose label is its key, unless `shown` names another."""
    shown = {"words": key.replace("_", " "), **shown}
    return Number(key=key, unit=unit, kind=kind, meaning=meaning, count=count, **shown)


def _fact(key: str, unit: str, meaning: str, count: Count = None, **shown: Any) -> Number:
    """A row that is counted: the field of `Counts` with its key, unless `count` says how."""
    return _number("fact", key, unit, meaning, count or attrgetter(key), **shown)


def number_of_outcome(outcome: Outcome) -> Number:
    """The row that counts the jobs that ended so."""
    row = OUTCOMES[outcome]

    def count(counts: Counts) -> int:
        return counts.outcomes.get(outcome, 0)

    field = "completed" if outcome == "completed" else ""
    return _fact(row.key, "jobs", row.meaning, count, words=row.words, of_workflow=field, place="fact")


def _all_of(kind: Kind) -> Callable[[Counts], int]:
    return lambda counts: sum(counts.made.get(kind, {}).values())


def _saved(counts: Counts) -> int:
    return counts.made.get("image", {}).get("output", 0)


_BOOK = "from when a book was due until the end of its last page was seen, on the client's clock"
_FAILED = "`latency`, every job that did not complete counted as infinitely long"
_OF_METRICS = [row for metric in METRICS.values() for row in numbers_of_metric(metric)]
_share = partial(_number, "share")
_rate = partial(_number, "mean")

NUMBERS: dict[str, Number] = {
    row.key: row
    for row in (
        _number(
            "flag",
            "valid",
            "bool",
            "no finding of level `invalid`: the numbers measure what they are named after",
            lambda counts: counts.valid,
            place="",
        ),
        _fact(
            "total_jobs",
            "jobs",
            "counted jobs offered; the sum of the outcomes below. Warm-up is not in it",
            lambda counts: sum(counts.outcomes.values()),
            words="jobs",
            of_workflow="jobs",
            place="fact",
        ),
        *map(number_of_outcome, OUTCOMES),
        _fact(
            "censored",
            "jobs",
            "of `cancelled`: cut off by the end of the run, with `--no-drain`; no failures",
            words="cut off by the end",
            place="fact",
        ),
        _fact(
            "unfinished",
            "jobs",
            "sent, but without a record of their end: the generator was killed before",
            words="without an end",
            place="fact",
        ),
        _fact("warmup_jobs", "jobs", "run before counting began; in no other number"),
        _fact(
            "cached",
            "jobs",
            "completed, with an output or a sampler taken from the server's cache: the sum of the next two",
            lambda counts: counts.cached_fully + counts.cached_partly,
            words="from the cache",
            of_workflow="cached",
            place="fact",
        ),
        _fact("cached_fully", "jobs", "completed, with every output from the cache: the job made nothing"),
        _fact("cached_partly", "jobs", "completed, with some output or sampler from the cache, but not every output"),
        _fact(
            "images",
            "images",
            "new image files of counted, completed jobs in the server's `output` folder: not cached, not returned by "
            "an earlier job, each once per job. Animated pictures count as videos",
            _saved,
            of_workflow="images",
            place="fact",
        ),
        _fact(
            "previews",
            "images",
            "the same for images in any other folder, mostly `temp`",
            lambda counts: _all_of("image")(counts) - _saved(counts),
            of_workflow="previews",
            place="fact",
        ),
        _fact(
            "videos",
            "files",
            "new videos and animations, of any folder: `.statistics.made` has them by folder",
            _all_of("video"),
            place="fact",
        ),
        _fact("audio_files", "files", "new audio files, of any folder", _all_of("audio"), place="fact"),
        _fact(
            "files_3d",
            "files",
            "new 3D files, of any folder, those that a node reports as a bare path included",
            _all_of("3d"),
            words="3D files",
            place="fact",
        ),
        _fact("latents", "files", "new latents, of any folder", _all_of("latent"), place="fact"),
        _fact("texts", "texts", "new texts, in files or only shown", _all_of("text"), place="fact"),
        _fact("other_files", "files", "new files of any other sort", _all_of("other"), place="fact"),
        _fact("image_bytes", "bytes", "size of the images downloaded with `--fetch`; null without it"),
        _fact(
            "wall_clock_s",
            "s",
            "from when the first counted job was due until the last one's end was seen",
            words="took",
            place="fact",
        ),
        _fact(
            "offered_per_minute",
            "arrivals/min",
            "arrivals (jobs, or books) that were due, from the first due to the last",
        ),
        _fact("sent_per_minute", "arrivals/min", "arrivals that were sent, from the first sent to the last"),
        _fact("completed_per_minute", "arrivals/min", "arrivals that completed, over `wall_clock_s`"),
        _fact("books", "books", "counted books offered; null where an arrival is one job", place="fact"),
        _fact("books_completed", "books", "of which every page completed"),
        _share(
            "success_rate",
            "0..1",
            "`completed` over `total_jobs` less `censored`",
            of_workflow="success_rate",
            place="tile",
        ),
        *(row for row in _OF_METRICS if row.count is None),
        *(
            _duration("latency_with_failures", "latency, failures as infinite", _FAILED, statistic)
            for statistic in ("p50", "p90", "p95", "p99")
        ),
        _rate(
            "images_per_minute",
            "images/min",
            "`images` over `wall_clock_s`; `previews`, where no job put any file into `output` and none reported an "
            "empty list: `.statistics.images_per_minute.unit` says which",
            of_workflow="images_per_minute",
            place="tile",
        ),
        _rate("jobs_per_minute", "jobs/min", "`completed` over `wall_clock_s`", place="fact"),
        _share(
            "book_success_rate",
            "0..1",
            "`books_completed` over `books` less those that the end of the run cut off",
            place="fact",
        ),
        _rate("books_per_hour", "books/h", "`books_completed` over `wall_clock_s`", place="fact"),
        *(_duration("book_latency", "book latency", _BOOK, statistic) for statistic in ("avg", "p50", "p95")),
        *(row for row in _OF_METRICS if row.count is not None),
        _duration("book_latency", "book latency", _BOOK, "max"),
        _fact(
            "observed_p99_latency_s",
            "s",
            "the p99 of the completed jobs by nearest rank: what happened, and no estimate. Null of fewer than 299, "
            "where it would be the maximum, or nearly",
            place="",
        ),
        _number(
            "errors",
            ERRORS,
            "errors",
            "errors of the records and the log that no pattern expects; for gates, and no key of the summary",
            place="",
        ),
    )
}
"""Every number by its key, in the order of the summary."""


COMPARED = (
    "p50_latency_s",
    "avg_latency_s",
    "p95_latency_s",
    "p50_execution_s",
    "avg_execution_s",
    "p50_queue_wait_s",
    "images_per_minute",
    "jobs_per_minute",
)
"""The numbers by which two runs are compared, in the order of the rows."""


def workflow_numbers() -> dict[str, Number]:
    """The numbers that one workflow of several has too, by the field of its row."""
    return {row.of_workflow: row for row in NUMBERS.values() if row.of_workflow}


def number_of(metric: str) -> Number | None:
    """The row of a gate's metric, `KEY` or `WORKFLOW.KEY`; None for no such number."""
    workflow, _, key = metric.rpartition(".")
    return (workflow_numbers() if workflow else NUMBERS).get(key)
