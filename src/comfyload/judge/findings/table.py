"""What to know before reading a number, one row a code: its level, its meaning and one hint."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args

from msgspec import Struct

Level = Literal["invalid", "warning", "info"]
"""`invalid`: the numbers do not measure what they are named after; `warning`: they do, with the doubt named."""


class FindingRow(Struct, frozen=True):
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
    row = FINDINGS.get(code, FindingRow("info", "", ""))
    return Finding(code=code, level=level or row.level, text=text, evidence=dict(evidence), hint=row.advice(fields))


_RESUBMITTED = "Something resubmits prompts: look for a proxy that retries POST requests, and switch that off."
_FEWER_JOBS = "The numbers hold for the jobs that ran, with wider intervals. Run again without the cut for more."
_invalid, _warning, _info = (partial(FindingRow, level) for level in get_args(Level))

NOTICED: dict[str, FindingRow] = {
    "restart": _invalid("The server was restarted during the run.", "Find out why, then run again."),
    "foreign_load": _invalid(
        "The server's queue held jobs that are not ours.",
        "They delayed ours. Run again when nobody else uses the server.",
    ),
    "busy_at_start": _invalid(
        "The server's queue was not empty when the run began.",
        "The first jobs waited for others'. Run again when it is empty.",
    ),
    "duplicate": _invalid("The server held one of our jobs twice.", _RESUBMITTED),
    "stream_lost": _warning(
        "The WebSocket was lost and opened again.",
        "Ends meanwhile were found by polling, each a little late. Look at the proxy's timeouts.",
    ),
    "stream_stalled": _warning(
        "The WebSocket stayed open and sent nothing while jobs ended.",
        "Ends meanwhile were found by polling, each a little late. Look for a proxy that buffers.",
    ),
    "unreadable": _warning(
        "The server sent replies or messages that ComfyUI does not send. They are counted, and the first is named.",
        "What they contain is in no number. Look for a proxy or a custom node that answers so.",
    ),
    "worker_stalled": _warning(
        "Nothing moved on the server for a long time while jobs of ours waited or ran.",
        "Its worker may have died: look at the server's log for that time, and restart it.",
    ),
    "server_gone": _invalid(
        "The server was out of reach for so long that its jobs were given up as lost.",
        "Look at its log, and at the network between.",
    ),
    "generator_fault": _invalid(
        "The machine that the load came from failed: it had no descriptors, ports, memory or names left. Jobs "
        "that failed by it are in the table of failures as `generator`, and in no rate of success: they say nothing of "
        "the server.",
        "Repair that on this machine (open files: ulimit -n), then run again.",
    ),
    "preflight": _info(
        "Before the run, something was found in a workflow that the server may refuse.",
        "If jobs failed, it is the likely cause: correct the workflow, or put what is missing on the server.",
    ),
    "dropped_outputs": _warning(
        "Outputs of a workflow that the server would have dropped were left out, as requested; the others ran.",
        "Correct what is named to measure the whole graph. Compare only with runs of the same smaller graph.",
    ),
    "vary": _info(
        "How far jobs differ from each other: an input was added to make them differ, or some outputs do not.",
        "Read the text; no number is wrong because of it.",
    ),
    "lost_shard": _invalid(
        "A shard of the run is missing, cannot be read, or was cut short. Its jobs are not given to others.",
        "Finish what was cut short with comfyload resume. To do without it: --allow-lost-shards.",
    ),
    "lost_shard_allowed": _warning(
        "A shard of the run was lost, and the run was made with `--allow-lost-shards`: all its jobs are left out.",
        "The numbers are those of the other shards' jobs. The server had less load from then on.",
    ),
    "late_start": _invalid(
        "A generator was ready only after the instant at which its load was to begin (`--start-at`). Its jobs were "
        "due from that instant on, so that the first were sent late, all at once.",
        "Leave more time before that instant, for the warm-up as well.",
    ),
    "shards_apart": _invalid(
        "The shards of the run did not begin together, so that the server never had the load of the plan.",
        "Give all the same --start-at, and enough time before it. Check the clocks of their machines.",
    ),
    "clocks_apart": _warning(
        "Shards ran on several machines, and it is not known how far their clocks differ.",
        "Rates and the wall clock of the whole run may be off by that much; latencies are not.",
    ),
    "divided": _info(
        "A limit of the plan was divided among the shards of the run, each of which kept to its part.",
        "An arrival may have waited, or been dropped, in one shard while another had room.",
    ),
    "cancel_unsafe": _warning(
        "A running job could not be stopped without stopping whatever runs, so it was left.",
        "Use a newer ComfyUI, which can cancel one job by its id.",
    ),
    "unknown_server": _info(
        "The server does not report its version, so few abilities of it are used.",
        "Look whether a proxy hides /system_stats.",
    ),
    "server_out": _warning(
        "A server of several did not work for a time, and got no jobs.",
        "Its own jobs ended as the table of servers says; others got the rest. Look at its log for that time.",
    ),
    "telemetry": _info(
        "A source of readings gave no answer for a time, or left something out.",
        "Latencies are not affected. Readings of this source have a gap: the text says which, and why.",
    ),
}
"""Codes of `Observation`, noted while a run goes on, that nothing else makes."""

FINDINGS: dict[str, FindingRow] = {
    # What the journal says.
    "nothing_measured": _invalid(
        "No counted job completed.",
        "Read the table of failures. A server that lacks a model or a node of the graph refuses every job.",
    ),
    "unfinished": _invalid(
        "Jobs were sent, and the journal has no record of their end.",
        "The run was killed. Finish it with comfyload resume, or remove its jobs with comfyload cleanup.",
    ),
    "damaged_lines": _invalid(
        "Lines of the run's files cannot be read, and `show --salvage` left them out. A lost record may be "
        "that of a failure.",
        "Look at the line that is named: a disk, a copy or an editor damaged it. Run again for numbers.",
        varies="warning for samples and the log",
    ),
    "duplicate_record": _invalid(
        "The journal holds two records of one job; the first is counted.",
        "Two runs or shards were written into one directory. Run again into a fresh one.",
    ),
    "not_ended": _invalid(
        "The manifest has no end: the run is going on, was killed or crashed.",
        "Wait for it, or finish it with comfyload resume.",
    ),
    "still_recorded": _info(
        "A gateway still writes this day of its ledger.",
        "Nothing to do. Jobs that wait and run now are not in the numbers yet.",
    ),
    "traffic_cut": _warning(
        "The gateway was killed in the midst of this day of its ledger, and was not started again.",
        "Start it again: it takes up the jobs that waited or ran then, which are not in the numbers, and ends the day.",
    ),
    "ended_early": _warning("The run was stopped or cancelled before all jobs were sent.", _FEWER_JOBS),
    "capped": _warning(
        "No more jobs were sent after `--max-jobs` or `--max-time` was reached; running jobs ended.", _FEWER_JOBS
    ),
    "decided_early": _info(
        "The run was to end when its gates were decided, and they were before all planned jobs were sent.",
        "Nothing to do. Jobs that were running then are in the numbers too.",
    ),
    "records_missing": _invalid(
        "The run ended well, and the journal holds another number of jobs than the plan has.",
        "The files were cut or edited. Run again.",
    ),
    "resumed": _warning(
        "The run died and was resumed, so that its wall clock has a gap; rates are withheld.",
        "Jobs that ended while nobody watched have no latency. Run again in one piece for a rate.",
    ),
    "censored_jobs": _warning(
        "The end of the run cut jobs off. They count as no failures. Percentiles of latency are by product "
        "limit: each job took longer than it was observed for. The mean is withheld.",
        "Let the run drain (leave out --no-drain), or make it much longer than a job.",
    ),
    "one_shard": _warning(
        "The run is one shard of several: a part of the arrivals of a plan. Its rates are its own, and the server had "
        "the load of all.",
        "Read all shards as one run: comfyload show DIR, where DIR holds fleet.json.",
    ),
    # What the load did.
    "dropped_arrivals": _invalid(
        "Arrivals were never sent: all places were taken when they were due, or the run was stopped while they waited.",
        "The latencies are those of the arrivals that were sent. Offer less, or raise --max-in-flight.",
    ),
    "held_back": _warning(
        "Jobs waited on our side while the server's queue held as many prompts, anybody's, as "
        "`--max-server-queue` allows. `latency` counts that wait, which is not the server's; `latency_sent` does not. "
        "Rates are those of a client that steps back.",
        "To measure what the server can do, use it alone and leave --max-server-queue out.",
    ),
    "overload": _invalid(
        "An open load offered as much as the server can do, or more: its queue grew through the run. The "
        "numbers are true of this run and would be others of a longer one. Percentiles that dropped or cut arrivals "
        "leave open are withheld.",
        "Offer at most {most}: beyond that, queues grow long.",
        fields={"most": "80 % of what the server can do"},
    ),
    "rate_missed": _invalid(
        "Arrivals came due, or were sent, at another rate than the plan's, by more than 10 % and beyond chance.",
        "If arrivals waited for a place, raise --max-in-flight. Otherwise read the self-check: the generator was "
        "held up, or the files were cut.",
    ),
    "generator_late": _invalid(
        "Jobs were sent late by more than 5 % of the median latency, or of the mean time between arrivals. A "
        "wait for a place is not lateness: where arrivals wait for one, it is how late our timers fired.",
        "Run the generator on a machine that does nothing else. latency_sent leaves the delay out.",
        varies="warning if only the tail is affected",
    ),
    "generator_busy": _warning(
        "The generator used more than 80 % of a CPU.", "Lower the load, or move the generator to a faster machine."
    ),
    "little_law": _warning(
        "The mean number of jobs in flight is not what Little's law makes of the rate and the mean latency. A "
        "closed load has as many as it has users who do not think; an open one as many as rate times latency, unless "
        "it ended while many jobs were running.",
        "In a closed load, time was lost on our side: read the self-check. An open one was short against its "
        "latencies: run longer.",
    ),
    # What the servers were.
    "servers_differ": _warning(
        "Servers of the run take surely different times for the same work, by the medians of executions that loaded no "
        "model, with intervals that assume no shape of the times.",
        "Read the table of servers, and compare with runs over the same servers only. Measure a slow one by itself.",
    ),
    "servers_unlike": _info(
        "Servers of the run differ in version, flags or hardware.",
        "Numbers of all together hold for this set of servers.",
    ),
    # What the server did.
    "duplicate_execution": _invalid("The server ran a job more than once.", _RESUBMITTED),
    "orphan": _warning(
        "Jobs that were given up ran on the server, or wait there; or it is not known whether a job that did "
        "not complete ran, as after a gateway's error in reply to its POST.",
        "What they used of the GPU is in no number here. If they were given up too early, raise the timeout; look "
        "for their ids in the server's history and queue.",
    ),
    "overlap": _info(
        "Executions overlapped on the server's clock.",
        "The server is not serial: API nodes, a patched worker, or several servers behind one address.",
    ),
    "client_clock": _invalid(
        "Durations on the client's clock were negative and are left out.",
        "A monotonic clock does not do this: the files were edited, or the machine is broken.",
    ),
    "server_clock": _warning(
        "The server's stamps of some jobs cannot be true: a wait or an execution by them is negative, or "
        "longer than passed on our own clock, or they are not in milliseconds. They are left out of every number.",
        "The server's wall clock was set during the run. Check its time synchronisation.",
    ),
    "slept": _invalid(
        "The generator's machine slept during the run: its clock stood still while the server went on.",
        "Keep the machine awake (a laptop's lid, its power settings), then run again.",
    ),
    "clock_rate": _warning(
        "Clocks of the generator's machine ran at different rates, by more than 0.2 %. Latencies are by the "
        "monotonic one.",
        "Run the generator where the clock is good: not in a virtual machine (WSL, Docker) whose clock its host "
        "corrects.",
        varies="invalid above 2 %, unless a server on another machine counts as our monotonic clock does",
    ),
    "clock_step": _warning(
        "The time of day was set during the run, by more than 50 ms at once. Latencies do not depend on it.",
        "Times of day in logs of this run are off by as much. Check the machine's time synchronisation.",
    ),
    "server_clock_rate": _warning(
        "The server's clock and ours ran at different rates, by more than 0.2 %, by the ends of its jobs. "
        "Execution times and latencies are in seconds of different length.",
        "Check time synchronisation on both machines; a virtual machine's clock is the usual cause.",
        varies="invalid above 2 %",
    ),
    "fetch_problems": _warning(
        "Downloads of outputs were cut short, empty, refused, or not what their names say.",
        "Read statistics.fetched.problems in the JSON; then look at the proxy, and at the server's disk.",
    ),
    "gpu_alike": _warning(
        "The server's machine has several GPUs of one model and memory, and it is not known which of them the "
        "server uses. The driver's readings may be another GPU's: no flag, energy or sentence rests on them.",
        "Install the probe, which knows its own GPU (comfyload probe install), or start the server with --cuda-device.",
    ),
    "cached_jobs": _invalid(
        "Completed jobs were served from the server's cache.",
        "Vary an input that reaches the sampler, and use another seed for the run than an earlier one's.",
        varies="warning with `--as-is`",
    ),
    "repeated_files": _invalid(
        "Jobs answered with files that an earlier job had returned.",
        "Let the workflow save under a prefix, not a fixed name, and leave its output folder alone.",
        varies="warning with `--as-is`, or if the files were written over",
    ),
    "fewer_outputs": _warning(
        "Completed jobs made no file, or fewer at an output node than similar jobs: those of the same workflow "
        "with the same switches and small numbers, with nothing from the cache. They count as completed.",
        "Look whether a filter, a detector or a switch in the workflow stopped them: comfyload show RUN --job N. "
        "Where a node's number varies freely, nothing is wrong.",
    ),
    "polled_ends": _info(
        "Ends of jobs were found by polling the history, because no event arrived.",
        "Find what drops or delays the WebSocket, usually a proxy.",
        varies="warning above 1 % of the median",
    ),
    # Whether one number can stand for the run.
    "cold_head": _warning(
        "The first counted jobs were unlike the rest.",
        "Run again with --warmup {warmup} or more.",
        fields={"warmup": "N"},
    ),
    "drift": _warning(
        "Jobs became slower or faster within the run by more than 3 %, beyond chance and for good: at once or little "
        "by little.",
        "A clock, a temperature or a cache was still moving. Warm up for longer, or run longer.",
    ),
    "memory_growth": _warning(
        "Memory of the server or of its GPU grew within the run, by more than 3 % and 16 MiB, after its first tenth.",
        "A leak, or a cache that was still filling. A longer run tells which; restart the server before it is full.",
    ),
    "own_growth": _warning(
        "The generator's own memory grew within the run, by more than 3 % and 16 MiB, after its first tenth.",
        "The server's numbers stand. Please report it: what comfyload holds must not depend on a run's length.",
    ),
    "dependent_jobs": _info(
        "Jobs depend on each other, so that n of them carry less information than n independent ones.",
        "The intervals allow for it already. More jobs narrow them.",
        varies="warning with one job in flight",
    ),
    **NOTICED,
}
"""Every code, in the order in which the reference lists them."""
