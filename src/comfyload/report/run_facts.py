"""What a run was and did, a label and a value a line."""

from collections.abc import Iterator

from comfyload.judge.arrivals import as_it_came
from comfyload.judge.columns.gpu import GpuRow
from comfyload.judge.columns.retries import RetryRow
from comfyload.judge.findings.table import Finding
from comfyload.judge.number import Plain
from comfyload.judge.numbers import NUMBERS
from comfyload.judge.summary import Summary
from comfyload.record.model import Manifest, SelfCheck
from comfyload.record.outcomes import OUTCOMES
from comfyload.record.plan import Closed
from comfyload.report.durations import own_delay
from comfyload.report.made import made_rows, rate_label
from comfyload.report.page import PageLine, Value
from comfyload.report.values import in_words, value_of
from comfyload.words import DASH, count, duration, fixed, gib, percent, sentence_case

_ALONE = ("share", "mean", "fact")
_ELSEWHERE = {
    *(row.key for row in OUTCOMES.values()),
    *("total_jobs", "censored", "unfinished", "warmup_jobs", "cached", "cached_fully", "cached_partly", "image_bytes"),
    *("images", "previews", "videos", "audio_files", "files_3d", "latents", "texts", "other_files"),
    *("offered_per_minute", "sent_per_minute", "completed_per_minute", "images_per_minute", "jobs_per_minute"),
    *("success_rate", "books", "books_completed", "book_success_rate", "books_per_hour"),
}
"""Numbers that a line of the page says together with others."""

_OF_THE_GENERATOR = ("generator_late", "generator_busy", "little_law", "slept", "clock_rate")
"""Findings for which one looks at the self-check."""


def facts(manifest: Manifest, summary: Summary) -> list[PageLine]:
    """In the order of reading; those that only confirm that nothing was unusual are details."""
    found = [*_jobs(manifest, summary), *_rates(summary), *_load(summary), *_retries(summary.retries)]
    wall = summary.summary["wall_clock_s"]
    took = f"{duration(wall)}, from the first due time to the last end" if isinstance(wall, float) else DASH
    found.append(PageLine("Took", Value(took), "wall_clock_s", detail=True))
    found += _others(summary)
    if not as_it_came(manifest.plan):
        found.append(_self_check(manifest.self_check, summary.findings))
    if isinstance(manifest.shards, int):
        found.append(PageLine("Made by", Value(count(manifest.shards, "shard")), detail=True))
    found.append(PageLine("Run id", Value(manifest.run_id), detail=True))
    return found


def ends_words(summary: Summary) -> list[str]:
    """How the jobs ended: `97 of 100 completed`, `1 failed`, `1 timed out`."""
    flat = summary.summary
    counts = {**flat, "cancelled": int(flat["cancelled"] or 0) - int(flat["censored"] or 0)}
    rows = [NUMBERS[key] for key in (*(row.key for row in OUTCOMES.values()), "censored", "unfinished")]
    others = [f"{counts[row.key]} {row.words}" for row in rows if counts[row.key] and row.key != "completed"]
    return [f"{flat['completed']} of {flat['total_jobs']} completed", *others]


def cache_words(summary: Summary) -> str:
    """How many completed jobs came from the server's cache; "" where none completed."""
    partial, cached = summary.cache["partial"].jobs, summary.cache["cached"].jobs
    if not summary.summary["completed"]:
        return ""
    if not partial + cached:
        return "none from the cache"
    parts = [f"{number} {how}" for number, how in ((cached, "wholly"), (partial, "partly")) if number]
    return f"{' and '.join(parts)} from the server's cache"


def _jobs(manifest: Manifest, summary: Summary) -> Iterator[PageLine]:
    yield PageLine("Jobs", Value(", ".join(ends_words(summary))), "total_jobs", detail=True)
    if not isinstance(manifest.plan.load, Closed):
        named = (("due", "offered_per_minute"), ("sent", "sent_per_minute"), ("completed", "completed_per_minute"))
        words = ", ".join(f"{_plain_words(summary.summary[key], '/min')} {name}" for name, key in named)
        yield PageLine("Arrivals/min" if summary.books is None else "Books/min", Value(words))
    if books := _books(summary):
        yield PageLine("Books", Value(books), "books")
        yield PageLine("Books whole", value_of(summary.statistics["book_success_rate"]), "book_success_rate")
        yield PageLine("Books/h", value_of(summary.statistics["books_per_hour"]), "books_per_hour")
    success = summary.statistics["success_rate"]
    yield PageLine("Success", value_of(success), "success_rate", detail=success.value in (None, 1))
    yield _cache(summary)
    if own_delay(summary):
        yield _sent(summary)


def _cache(summary: Summary) -> PageLine:
    """The class of each completed job, and the latency of the fresh alone where others are among them."""
    fresh, words = summary.cache["fresh"], cache_words(summary)
    others = summary.cache["partial"].jobs + summary.cache["cached"].jobs
    text = f"{fresh.jobs} fresh, {words}" if words else DASH
    if others and fresh.avg_latency_s.value is not None:
        text += f"; latency is of all of them, the mean of the fresh alone is {duration(fresh.avg_latency_s.value)}"
    return PageLine("Cache", Value(text), "cached", detail=not others)


def _sent(summary: Summary) -> PageLine:
    """Latency without the time before a job was sent."""
    flat = summary.summary
    half, longest = flat["p50_latency_sent_s"], flat["max_latency_sent_s"]
    words = ", ".join(
        f"{duration(value)} {of}"
        for value, of in ((half, "for half of the jobs"), (longest, "for the slowest"))
        if isinstance(value, float)
    )
    return PageLine("Once sent", Value(words or DASH), "p50_latency_sent_s")


def _books(summary: Summary) -> str:
    """Books by how they ended; "" if an arrival is one job."""
    row = summary.books
    if row is None:
        return ""
    ends = {"failed": row.failed, "dropped": row.dropped, "cut off by the end": row.censored}
    parts = [f"{row.completed} of {row.books} complete", *(f"{n} {words}" for words, n in ends.items() if n)]
    return f"{', '.join(parts)}; each of {count(row.pages, 'page')}"


def _rates(summary: Summary) -> Iterator[PageLine]:
    usual = not summary.made or set(summary.made) == {"image"}
    for label, words in made_rows(summary):
        yield PageLine(label, Value(words), detail=usual)
    if rate := rate_label(summary):
        yield PageLine(rate, value_of(summary.statistics["images_per_minute"]), "images_per_minute", detail=True)
    yield PageLine("Jobs/min", value_of(summary.statistics["jobs_per_minute"]), "jobs_per_minute", detail=True)


def _load(summary: Summary) -> Iterator[PageLine]:
    if words := server_words(summary):
        yield PageLine("Servers" if summary.servers else "Server", Value(words), detail=True)
    for gpu, row in summary.gpus.items():
        value = gpu_value(row)
        if value.words:
            yield PageLine(f"GPU {gpu}", value)


def _retries(row: RetryRow | None) -> Iterator[PageLine]:
    """What retries saved and cost, and what the first attempts did alone."""
    if row is None:
        return
    cost = "" if row.amplification is None else f", {row.amplification:.3g} for each job that was sent"
    unknown = row.executed_unknown
    least = "at least " if unknown else ""
    besides = f" (of {count(unknown, 'attempt')} this is not known)" if unknown else ""
    held = f", {count(row.not_sent, 'job')} not sent at all" if row.not_sent else ""
    words = (
        f"{count(row.attempts, 'attempt')}{cost}; {count(row.retried, 'job')} sent again, {row.saved} of them saved"
        f"{held}; {least}{duration(row.executed_for_nothing_s)} executed for nothing{besides}"
    )
    yield PageLine("Retries", Value(words))
    rate = row.first_success_rate.value
    first = [] if rate is None else [f"success {percent(rate)}"]
    for name, statistic in (("p50", row.first_p50_latency_s), ("p95", row.first_p95_latency_s)):
        if statistic.value is not None:
            first.append(f"{name} {duration(statistic.value)}")
    yield PageLine("First attempts", Value(", ".join(first) or DASH))


def _others(summary: Summary) -> Iterator[PageLine]:
    """Counts and rates that no other line of the page has, so that a row that is added to NUMBERS is shown."""
    for key, row in NUMBERS.items():
        value = summary.summary.get(key)
        if row.kind in _ALONE and row.measure != "s" and key not in _ELSEWHERE and row.place and value:
            known = summary.statistics.get(key)
            shown = Value(_plain_words(value, row.measure)) if known is None else value_of(known)
            yield PageLine(sentence_case(row.words), shown, key, detail=True)


def _plain_words(value: Plain, unit: str) -> str:
    return value if isinstance(value, str) else in_words(value, unit=unit).words


def _self_check(check: SelfCheck | None, findings: list[Finding]) -> PageLine:
    if check is None:
        return PageLine("Self-check", Value("the generator did not measure itself: its own error is unknown"))
    parts = []
    for name, spread in (("sent", check.send_lateness_s), ("timers", check.timer_lateness_s)):
        if spread is not None:
            parts.append(f"{name} {duration(spread.p99)} late (p99), at most {duration(spread.max)}")
    parts.append(f"CPU {percent(check.busy_fraction)} busy")
    if check.gc_pauses_s is not None:
        pauses = count(check.gc_pauses_s.n, "pause")
        parts.append(f"{pauses} to collect garbage, at most {duration(check.gc_pauses_s.max)}")
    wrong = any(finding.code in _OF_THE_GENERATOR for finding in findings)
    return PageLine("Self-check", Value(" · ".join(parts)), detail=not wrong)


def server_words(summary: Summary) -> str:
    """How busy the server was, or several on average, by their own times; "" if that is not known."""
    found = summary.saturation
    busy, each = found.server_busy, " each" if summary.servers else ""
    if busy is None:
        return ""
    if busy > 1.02:
        return f"{busy:.1f} jobs at a time{each} on average"
    mean = " on average" if summary.servers else ""
    return f"{percent(busy)} busy{mean}{': more would wait' if found.server_saturated else ''}"


def gpu_value(row: GpuRow) -> Value:
    """What is known of a GPU, with a note why the energy of a job is withheld; without words if nothing is known."""
    parts, note = [], ""
    if row.utilisation_percent is not None:
        while_busy = "" if row.ceiling_percent is None else f" ({row.ceiling_percent:.0f} % while a job executes)"
        parts.append(f"{row.utilisation_percent:.0f} % busy{while_busy}")
    if row.vram_peak_bytes is not None:
        of = "" if row.vram_total_bytes is None else f" of {gib(row.vram_total_bytes)}"
        parts.append(f"at most {gib(row.vram_peak_bytes)}{of}")
    if row.power_w is not None:
        parts.append(f"{row.power_w:.0f} W")
    if row.temperature_max_c is not None:
        parts.append(f"{row.temperature_max_c:.0f} °C")
    if row.throttled_share:
        parts.append(f"throttled {percent(row.throttled_share)} of the time")
    if row.power_w is not None:
        joules = row.energy_per_job_j
        parts.append(f"energy per job {DASH}" if joules.value is None else f"{fixed(joules.value, 0)} J a job")
        note = "" if joules.value is not None else f"withheld: {joules.reason}"
    doubt = f"one of {row.alike} alike, perhaps not the server's: " if row.alike > 1 and parts else ""
    simulated = "simulated: " if row.simulated and parts else ""
    return Value(simulated + doubt + " · ".join(parts), note=note)
