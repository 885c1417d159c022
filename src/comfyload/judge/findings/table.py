"""What to know before reading a number, one row a code: its level, its meaning and one hint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

Level = Literal["invalid", "warning", "info"]
"""`invalid`: the numbers do not measure what they are named after; `warning`: they do, with the doubt named."""


class FindingRow(Struct, frozen=True, kw_only=True):
    """How grave it is, what it means, and what to do about it.

    `varies`: when the level is another one, in words; "" if it never is. `hint` may name fields in braces: a finding
    gives their values, and `fields` says what stands there without one.
    """

    level: Level
    meaning: str
    hint: str
    varies: str = ""
    fields: dict[str, str] = {}

    def advice(self, fields: Mapping[str, str]) -> str:
        """The hint with its fields filled in."""
        return self.hint.format_map({**self.fields, **fields})


class Finding(Struct, frozen=True, kw_only=True):
    """One thing to know before reading a number. `code` is stable, for tools; `hint` says what to do about it."""

    code: str
    level: Level
    text: str
    evidence: dict[str, Any] = {}
    hint: str = ""


_NONE: Mapping[str, str] = {}


def finding(
    code: str, text: str, evidence: Mapping[str, Any], level: Level | None = None, fields: Mapping[str, str] = _NONE
) -> Finding:
    """A finding with the level and the hint of its row. `level`: another one, for a code whose level varies. `fields`
    are values for the hint.

    A code that the table lacks, as of a run of a newer version, is `info` without a hint.
    """
    row = FINDINGS.get(code, FindingRow(level="info", meaning="", hint=""))
    return Finding(code=code, level=level or row.level, text=text, evidence=dict(evidence), hint=row.advice(fields))


_RESUBMITTED = "Something resubmits prompts: look for a proxy that retries POST requests, and switch that off."
_FEWER_JOBS = "The numbers hold for the jobs that ran, with wider intervals. Run again without the cut for more."

NOTICED: dict[str, FindingRow] = {
    "restart": FindingRow(
        level="invalid",
        meaning="The server was restarted during the run.",
        hint="Find out why, then run again.",
    ),
    "foreign_load": FindingRow(
        level="invalid",
        meaning="The server's queue held jobs that are not ours.",
        hint="They delayed ours. Run again when nobody else uses the server.",
    ),
    "busy_at_start": FindingRow(
        level="invalid",
        meaning="The server's queue was not empty when the run began.",
        hint="The first jobs waited for others'. Run again when it is empty.",
    ),
    "duplicate": FindingRow(
        level="invalid",
        meaning="The server held one of our jobs twice.",
        hint=_RESUBMITTED,
    ),
    "stream_lost": FindingRow(
        level="warning",
        meaning="The WebSocket was lost and opened again.",
        hint="Ends meanwhile were found by polling, each a little late. Look at the proxy's timeouts.",
    ),
    "stream_stalled": FindingRow(
        level="warning",
        meaning="The WebSocket stayed open and sent nothing while jobs ended.",
        hint="Ends meanwhile were found by polling, each a little late. Look for a proxy that buffers.",
    ),
    "unreadable": FindingRow(
        level="warning",
        meaning="The server sent replies or messages that ComfyUI does not send. They are counted, and the first is "
        "named.",
        hint="What they contain is in no number. Look for a proxy or a custom node that answers so.",
    ),
    "worker_stalled": FindingRow(
        level="warning",
        meaning="Nothing moved on the server for a long time while jobs of ours waited or ran.",
        hint="Its worker may have died: look at the server's log for that time, and restart it.",
    ),
    "server_gone": FindingRow(
        level="invalid",
        meaning="The server was out of reach for so long that its jobs were given up as lost.",
        hint="Look at its log, and at the network between.",
    ),
    "generator_fault": FindingRow(
        level="invalid",
        meaning="The machine that the load came from failed: it had no descriptors, ports, memory or names left. Jobs "
        "that failed by it are in the table of failures as `generator`, and in no rate of success: they say nothing of "
        "the server.",
        hint="Repair that on this machine (open files: ulimit -n), then run again.",
    ),
    "preflight": FindingRow(
        level="info",
        meaning="Before the run, something was found in a workflow that the server may refuse.",
        hint="If jobs failed, it is the likely cause: correct the workflow, or put what is missing on the server.",
    ),
    "dropped_outputs": FindingRow(
        level="warning",
        meaning="Outputs of a workflow that the server would have dropped were left out, as requested; the others ran.",
        hint="Correct what is named to measure the whole graph. Compare only with runs of the same smaller graph.",
    ),
    "vary": FindingRow(
        level="info",
        meaning="How far jobs differ from each other: an input was added to make them differ, or some outputs do not.",
        hint="Read the text; no number is wrong because of it.",
    ),
    "cancel_unsafe": FindingRow(
        level="warning",
        meaning="A running job could not be stopped without stopping whatever runs, so it was left.",
        hint="Use a newer ComfyUI, which can cancel one job by its id.",
    ),
    "unknown_server": FindingRow(
        level="info",
        meaning="The server does not report its version, so few abilities of it are used.",
        hint="Look whether a proxy hides /system_stats.",
    ),
    "telemetry": FindingRow(
        level="info",
        meaning="A source of readings gave no answer for a time, or left something out.",
        hint="Latencies are not affected. Readings of this source have a gap: the text says which, and why.",
    ),
}
"""Codes of `Observation`, noted while a run goes on, that nothing else makes."""

FINDINGS: dict[str, FindingRow] = {
    # What the journal says.
    "nothing_measured": FindingRow(
        level="invalid",
        meaning="No counted job completed.",
        hint="Read the table of failures. A server that lacks a model or a node of the graph refuses every job.",
    ),
    "unfinished": FindingRow(
        level="invalid",
        meaning="Jobs were sent, and the journal has no record of their end.",
        hint="The run was killed. Finish it with comfyload resume, or remove its jobs with comfyload cleanup.",
    ),
    "damaged_lines": FindingRow(
        level="invalid",
        varies="warning for samples and the log",
        meaning="Lines of the run's files cannot be read, and `show --salvage` left them out. A lost record may be "
        "that of a failure.",
        hint="Look at the line that is named: a disk, a copy or an editor damaged it. Run again for numbers.",
    ),
    "duplicate_record": FindingRow(
        level="invalid",
        meaning="The journal holds two records of one job; the first is counted.",
        hint="Two runs or shards were written into one directory. Run again into a fresh one.",
    ),
    "not_ended": FindingRow(
        level="invalid",
        meaning="The manifest has no end: the run is going on, was killed or crashed.",
        hint="Wait for it, or finish it with comfyload resume.",
    ),
    "ended_early": FindingRow(
        level="warning",
        meaning="The run was stopped or cancelled before all jobs were sent.",
        hint=_FEWER_JOBS,
    ),
    "capped": FindingRow(
        level="warning",
        meaning="No more jobs were sent after `--max-jobs` or `--max-time` was reached; running jobs ended.",
        hint=_FEWER_JOBS,
    ),
    "decided_early": FindingRow(
        level="info",
        meaning="The run was to end when its gates were decided, and they were before all planned jobs were sent.",
        hint="Nothing to do. Jobs that were running then are in the numbers too.",
    ),
    "records_missing": FindingRow(
        level="invalid",
        meaning="The run ended well, and the journal holds another number of jobs than the plan has.",
        hint="The files were cut or edited. Run again.",
    ),
    "resumed": FindingRow(
        level="warning",
        meaning="The run died and was resumed, so that its wall clock has a gap; rates are withheld.",
        hint="Jobs that ended while nobody watched have no latency. Run again in one piece for a rate.",
    ),
    "censored_jobs": FindingRow(
        level="warning",
        meaning="The end of the run cut jobs off. They count as no failures. Percentiles of latency are by product "
        "limit: each job took longer than it was observed for. The mean is withheld.",
        hint="Let the run drain (leave out --no-drain), or make it much longer than a job.",
    ),
    # What the load did.
    "dropped_arrivals": FindingRow(
        level="invalid",
        meaning="Arrivals were never sent: all places were taken when they were due, or the run was stopped while they "
        "waited.",
        hint="The latencies are those of the arrivals that were sent. Offer less, or raise --max-in-flight.",
    ),
    "held_back": FindingRow(
        level="warning",
        meaning="Jobs waited on our side while the server's queue held as many prompts, anybody's, as "
        "`--max-server-queue` allows. `latency` counts that wait, which is not the server's; `latency_sent` does not. "
        "Rates are those of a client that steps back.",
        hint="To measure what the server can do, use it alone and leave --max-server-queue out.",
    ),
    "overload": FindingRow(
        level="invalid",
        meaning="An open load offered as much as the server can do, or more: its queue grew through the run. The "
        "numbers are true of this run and would be others of a longer one. Percentiles that dropped or cut arrivals "
        "leave open are withheld.",
        hint="Offer at most {most}: beyond that, queues grow long.",
        fields={"most": "80 % of what the server can do"},
    ),
    "rate_missed": FindingRow(
        level="invalid",
        meaning="Arrivals came due, or were sent, at another rate than the plan's, by more than 10 % and beyond "
        "chance.",
        hint="If arrivals waited for a place, raise --max-in-flight. Otherwise read the self-check: the generator was "
        "held up, or the files were cut.",
    ),
    "generator_late": FindingRow(
        level="invalid",
        varies="warning if only the tail is affected",
        meaning="Jobs were sent late by more than 5 % of the median latency, or of the mean time between arrivals. A "
        "wait for a place is not lateness: where arrivals wait for one, it is how late our timers fired.",
        hint="Run the generator on a machine that does nothing else. latency_sent leaves the delay out.",
    ),
    "generator_busy": FindingRow(
        level="warning",
        meaning="The generator used more than 80 % of a CPU.",
        hint="Lower the load, or move the generator to a faster machine.",
    ),
    "little_law": FindingRow(
        level="warning",
        meaning="The mean number of jobs in flight is not what Little's law makes of the rate and the mean latency. A "
        "closed load has as many as it has users who do not think; an open one as many as rate times latency, unless "
        "it ended while many jobs were running.",
        hint="In a closed load, time was lost on our side: read the self-check. An open one was short against its "
        "latencies: run longer.",
    ),
    # What the server did.
    "duplicate_execution": FindingRow(
        level="invalid",
        meaning="The server ran a job more than once.",
        hint=_RESUBMITTED,
    ),
    "orphan": FindingRow(
        level="warning",
        meaning="Jobs that were given up ran on the server, or wait there; or it is not known whether a job that did "
        "not complete ran, as after a gateway's error in reply to its POST.",
        hint="What they used of the GPU is in no number here. If they were given up too early, raise the timeout; look "
        "for their ids in the server's history and queue.",
    ),
    "overlap": FindingRow(
        level="info",
        meaning="Executions overlapped on the server's clock.",
        hint="The server is not serial: API nodes, a patched worker, or several servers behind one address.",
    ),
    "client_clock": FindingRow(
        level="invalid",
        meaning="Durations on the client's clock were negative and are left out.",
        hint="A monotonic clock does not do this: the files were edited, or the machine is broken.",
    ),
    "server_clock": FindingRow(
        level="warning",
        meaning="The server's stamps of some jobs cannot be true: a wait or an execution by them is negative, or "
        "longer than passed on our own clock, or they are not in milliseconds. They are left out of every number.",
        hint="The server's wall clock was set during the run. Check its time synchronisation.",
    ),
    "slept": FindingRow(
        level="invalid",
        meaning="The generator's machine slept during the run: its clock stood still while the server went on.",
        hint="Keep the machine awake (a laptop's lid, its power settings), then run again.",
    ),
    "clock_rate": FindingRow(
        level="warning",
        varies="invalid above 2 %, unless a server on another machine counts as our monotonic clock does",
        meaning="Clocks of the generator's machine ran at different rates, by more than 0.2 %. Latencies are by the "
        "monotonic one.",
        hint="Run the generator where the clock is good: not in a virtual machine (WSL, Docker) whose clock its host "
        "corrects.",
    ),
    "clock_step": FindingRow(
        level="warning",
        meaning="The time of day was set during the run, by more than 50 ms at once. Latencies do not depend on it.",
        hint="Times of day in logs of this run are off by as much. Check the machine's time synchronisation.",
    ),
    "server_clock_rate": FindingRow(
        level="warning",
        varies="invalid above 2 %",
        meaning="The server's clock and ours ran at different rates, by more than 0.2 %, by the ends of its jobs. "
        "Execution times and latencies are in seconds of different length.",
        hint="Check time synchronisation on both machines; a virtual machine's clock is the usual cause.",
    ),
    "fetch_problems": FindingRow(
        level="warning",
        meaning="Downloads of outputs were cut short, empty, refused, or not what their names say.",
        hint="Read statistics.fetched.problems in the JSON; then look at the proxy, and at the server's disk.",
    ),
    "gpu_alike": FindingRow(
        level="warning",
        meaning="The server's machine has several GPUs of one model and memory, and it is not known which of them the "
        "server uses. The driver's readings may be another GPU's: no flag, energy or sentence rests on them.",
        hint="Install the probe, which knows its own GPU (comfyload probe install), or start the server with "
        "--cuda-device.",
    ),
    "cached_jobs": FindingRow(
        level="invalid",
        varies="warning with `--as-is`",
        meaning="Completed jobs were served from the server's cache.",
        hint="Vary an input that reaches the sampler, and use another seed for the run than an earlier one's.",
    ),
    "repeated_files": FindingRow(
        level="invalid",
        varies="warning with `--as-is`, or if the files were written over",
        meaning="Jobs answered with files that an earlier job had returned.",
        hint="Let the workflow save under a prefix, not a fixed name, and leave its output folder alone.",
    ),
    "fewer_outputs": FindingRow(
        level="warning",
        meaning="Completed jobs made no file, or fewer at an output node than similar jobs: those of the same workflow "
        "with the same switches and small numbers, with nothing from the cache. They count as completed.",
        hint="Look whether a filter, a detector or a switch in the workflow stopped them: comfyload show RUN --job N. "
        "Where a node's number varies freely, nothing is wrong.",
    ),
    "polled_ends": FindingRow(
        level="info",
        varies="warning above 1 % of the median",
        meaning="Ends of jobs were found by polling the history, because no event arrived.",
        hint="Find what drops or delays the WebSocket, usually a proxy.",
    ),
    # Whether one number can stand for the run.
    "cold_head": FindingRow(
        level="warning",
        meaning="The first counted jobs were unlike the rest.",
        hint="Run again with --warmup {warmup} or more.",
        fields={"warmup": "N"},
    ),
    "drift": FindingRow(
        level="warning",
        meaning="Jobs became slower or faster over the run by more than 3 %, beyond chance.",
        hint="A clock, a temperature or a cache was still moving. Warm up for longer, or run longer.",
    ),
    "dependent_jobs": FindingRow(
        level="info",
        varies="warning with one job in flight",
        meaning="Jobs depend on each other, so that n of them carry less information than n independent ones.",
        hint="The intervals allow for it already. More jobs narrow them.",
    ),
    **NOTICED,
}
"""Every code, in the order in which the reference lists them."""
