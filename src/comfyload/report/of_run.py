"""The Page of a run: whether it counts, the numbers that one came for, the gates, then all else."""

from collections.abc import Sequence

from msgspec import structs

from comfyload.judge.arrivals import as_it_came
from comfyload.judge.columns.ledger import clean
from comfyload.judge.findings.table import Finding
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.observations import run_labels
from comfyload.judge.statistics.stats import CONFIDENCE, Statistic, value_needs
from comfyload.judge.summary import Measured, Summary
from comfyload.report.blocks import failures, node_bars, nodes, servers, switches, workflows
from comfyload.report.durations import OWN_DELAY, durations, open_ends
from comfyload.report.made import rate_label
from comfyload.report.page import Bar, Bars, Chart, Page, PageLine, Remark, State, Value
from comfyload.report.plan_text import plan_words, servers_words
from comfyload.report.run_facts import cache_words, ends_words, facts, server_words
from comfyload.report.values import value_of
from comfyload.report.verdicts import gate_state, gate_tables
from comfyload.words import count, duration


def page_of(measured: Measured, verdicts: Sequence[GateVerdict] = (), charts: Sequence[Chart] = ()) -> Page:
    """Composed once from what was measured and judged; every renderer shows the same."""
    manifest, summary = measured.manifest, measured.summary
    tables = [
        servers(summary),
        workflows(summary),
        switches(summary),
        durations(summary),
        nodes(summary),
        failures([measured]),
    ]
    shown = [table for table in tables if table is not None and table.rows]
    bars = [_time(summary), node_bars(summary)]
    unchanged = manifest.plan.as_is and not as_it_came(manifest.plan)
    load = f"{plan_words(manifest.plan)}{', unchanged graph' if unchanged else ''}"
    if isinstance(manifest.shard, str):
        load += f", shard {manifest.shard} of it"
    words = server_words(summary)
    busy = f"{'servers' if summary.servers else 'server'} {words}" if words else ""
    return Page(
        title=manifest.name,
        subtitle=[load, *servers_words(manifest)],
        states=[validity([measured]), *([gate_state(verdicts)] if verdicts else [])],
        tiles=_tiles(summary),
        short=[*ends_words(summary), *filter(None, [cache_words(summary), busy])],
        bars=[one for one in bars if one is not None],
        charts=list(charts),
        facts=facts(manifest, summary),
        tables=[*gate_tables(_without_repeats(verdicts, summary), _longest(summary)), *shown],
        remarks=[_remark(finding) for finding in summary.findings],
        notes=[*open_ends(shown, summary), f"Ranges are {100 * CONFIDENCE:.0f} % intervals."],
    )


def validity(runs: Sequence[Measured]) -> State:
    """Whether the numbers may be used."""
    invalid = [label for label, run in zip(run_labels(runs), runs, strict=True) if not run.summary.valid]
    if not runs or invalid:
        which = "these numbers:" if len(runs) == 1 else f"the numbers of {clean('; '.join(invalid), 300)}."
        return State("INVALID", "bad", f"Do not use {which}" if runs else "No run was made.")
    codes = [one.code for run in runs for one in run.summary.findings if one.level == "warning"]
    shown = len(codes) if len(runs) == 1 else len(set(codes))  # of several runs, a kind of finding is one remark
    sentence = f"With {count(shown, 'warning')}, below." if codes else "No problems found."
    return State("VALID", "good", sentence)


def _tiles(summary: Summary) -> list[PageLine]:
    """The rate, and how long half of the jobs and the slowest took."""
    rate = rate_label(summary)
    key = "images_per_minute" if rate else "jobs_per_minute"
    found = [_tile((rate or "Jobs/min").lower(), key, summary), _tile("for half of the jobs", "p50_latency_s", summary)]
    longest = summary.summary["max_latency_s"]
    if isinstance(longest, float):
        value = Value(duration(longest), note=_p95(summary.statistics["p95_latency_s"]))
        found.append(PageLine("for the slowest", value, key="max_latency_s"))
    return found


def _tile(label: str, key: str, summary: Summary) -> PageLine:
    """The number; where it is withheld, the reason stands under the dash."""
    statistic = summary.statistics[key]
    value = value_of(statistic)
    return PageLine(label, structs.replace(value, note=statistic.reason if value.note else ""), key=key)


def _p95(statistic: Statistic) -> str:
    """What stands under the slowest: the p95, or what it takes to have one."""
    needs = value_needs(0.95)
    if statistic.value is None:
        return f"p95 from {needs} jobs on" if statistic.n < needs else f"no p95: {statistic.reason}"
    value = value_of(statistic)
    return f"p95 {value.words}{f' ({value.interval})' if value.interval else ''}"


def _time(summary: Summary) -> Bars | None:
    """The mean latency by where it went: before a job was sent, in the server's queue, and executing."""
    known = {name: summary.statistics[f"avg_{name}_s"].value for name in ("latency", "latency_sent")}
    whole, sent = known["latency"], known["latency_sent"]
    waited = whole - sent if whole is not None and sent is not None else 0.0
    parts = [("not sent yet", waited)] if whole and waited > OWN_DELAY * whole else []
    for label, name in (("queue", "queue_wait"), ("execution", "execution")):
        seconds = summary.statistics[f"avg_{name}_s"].value
        if seconds is None:
            return None
        parts.append((label, seconds))
    total = sum(seconds for _, seconds in parts)
    if total <= 0:
        return None
    bars = [Bar(label, seconds / total, duration(seconds)) for label, seconds in parts]
    return Bars(key="time", title="where the time goes", bars=bars, parts=True)


def _longest(summary: Summary) -> dict[str, float]:
    """The maximum of each duration, where all jobs completed: of the others nobody knows how long they took."""
    if summary.summary["completed"] != summary.summary["total_jobs"]:
        return {}
    longest = {key.removeprefix("max_"): value for key, value in summary.summary.items() if key.startswith("max_")}
    return {name.removesuffix("_s"): value for name, value in longest.items() if isinstance(value, float)}


def _without_repeats(verdicts: Sequence[GateVerdict], summary: Summary) -> list[GateVerdict]:
    """Of an invalid run, without the reason of each gate that it leaves open: the page names it above."""
    spoilt = [not summary.valid and verdict.verdict == "INCONCLUSIVE" for verdict in verdicts]
    return [structs.replace(one, why="") if repeats else one for one, repeats in zip(verdicts, spoilt, strict=True)]


def _remark(finding: Finding) -> Remark:
    return Remark(finding.level, finding.text, finding.hint, finding.code, detail=finding.level == "info")
