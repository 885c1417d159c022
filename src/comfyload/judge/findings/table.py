"""The things to know before reading a number: their codes, what each means, and what to do about it."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

__all__ = ["FINDINGS", "Finding", "Level"]

Level = Literal["invalid", "warning", "info"]
"""`invalid`: the numbers do not measure what they are named after; `warning`: they do, with the doubt named."""


class Finding(Struct, frozen=True, kw_only=True):
    """One thing to know before reading a number. `code` is stable, for tools; `hint` says what to do about it."""

    code: str
    level: Level
    text: str
    evidence: dict[str, Any] = {}
    hint: str = ""


_OBSERVED: dict[str, tuple[Level, str]] = {
    "restart": ("invalid", "Find out why it restarted, then run again."),
    "foreign_load": ("invalid", "Run again when nobody else uses the server."),
    "busy_at_start": ("invalid", "Run again when its queue is empty."),
    "duplicate": ("invalid", "Something resubmits prompts: look for a proxy that retries POST requests."),
    "stream_lost": ("warning", "Ends were found by polling while the WebSocket was down: each is a little late."),
    "stream_stalled": ("warning", "Ends were found by polling while the WebSocket was silent: each is a little late."),
    "worker_stalled": ("warning", "Look at the server's log for that time."),
    "orphan": ("warning", "Its GPU time is in no number here; raise the timeout."),
    "server_gone": ("invalid", "Look at its log, and at the network between."),
    "generator_fault": ("invalid", "Mend that on this machine (of open files: ulimit -n), then run again."),
    "unreadable": (
        "warning",
        "What it should have told is in no number. Look for a proxy or a custom node that answers so.",
    ),
    "cancel_unsafe": ("warning", "Use a newer ComfyUI, which can cancel one job by its id."),
    "dropped_outputs": (
        "warning",
        "Mend what is named to measure the whole graph; compare only with runs of the same.",
    ),
    "telemetry": ("info", "Latencies are not touched. What this source tells has a gap, or does not tell all."),
}
"""Level of what was noticed during the run, and a hint; any other code is `info`."""

FINDINGS: dict[str, tuple[str, str]] = {
    # What the journal says.
    "nothing_measured": (
        "No counted job completed.",
        "Read the table of failures. A server without the models or nodes that the graph names refuses each job.",
    ),
    "unfinished": (
        "Jobs were sent, and the journal has no record of their end.",
        "The generator was killed. The jobs may still run on the server: look at its queue before the next run.",
    ),
    "damaged_lines": (
        "Lines of the run's files cannot be read, and `show --salvage` left them out. A damaged record makes the run "
        "invalid: it may have told of a failure.",
        "Look at the line that is named: a disk, a copy or an editor spoilt it. Run again for numbers.",
    ),
    "duplicate_record": (
        "The journal holds two records of one job; the first is counted.",
        "Two runs were written into one directory. Run again into a fresh one.",
    ),
    "not_ended": (
        "The manifest tells no end: the run is going on, was killed or crashed.",
        "Wait for it, or run again.",
    ),
    "ended_early": (
        "The run was stopped or cancelled before all jobs were sent.",
        "The numbers hold for the jobs that ran; their intervals are wider.",
    ),
    "capped": (
        "No more jobs were sent after `--max-jobs` or `--max-time` was reached; those under way ended.",
        "The numbers hold for the jobs that ran; their intervals are wider. Allow more, or ask for less.",
    ),
    "decided_early": (
        "The run was to go on until its gates were decided, and they were before all planned jobs were sent.",
        "Nothing to do. Jobs that were under way then are in the numbers too.",
    ),
    "records_missing": (
        "The run ended well, and the journal holds another number of jobs than the plan makes.",
        "The files were cut or edited. Run again.",
    ),
    "resumed": (
        "The run died and was taken up again, so that its wall clock has a gap; rates are withheld.",
        "Jobs that ended while nobody watched have no latency. Run again in one piece for a rate.",
    ),
    "censored_jobs": (
        "The end of the run cut jobs off. They count as no failures; percentiles of latency are by product limit: "
        "each took longer than what was seen of it. The mean is withheld.",
        "Let the run drain, or make it long against a job.",
    ),
    # What the load did.
    "dropped_arrivals": (
        "Arrivals were never sent: no place or room was free when they were due, or the run was stopped while they "
        "waited.",
        "The latencies are those of the arrivals that found a place. Offer less, or give more places.",
    ),
    "held_back": (
        "Jobs were held back on our side while the server's queue held as many prompts, anybody's, as "
        "`--max-server-queue` allows. `latency` counts that wait, which is not the server's; `latency_sent` does not. "
        "Rates are those of a client that steps back.",
        "To learn what the server can do, have it to yourself and leave `--max-server-queue` out.",
    ),
    "overload": (
        "An open load asked for as much as the server can do, or more: its queue grew through the run. The numbers are "
        "true of this run and would be others of a longer one. Percentiles that dropped or cut arrivals leave open are "
        "withheld.",
        "Offer less than the capacity given in the finding; more than 80 % of it makes long queues already.",
    ),
    "rate_missed": (
        "Arrivals came due, or were sent, at another rate than the plan's, by more than 10 % and beyond chance.",
        "With places that arrivals wait for, these are too few for the rate. Else the generator was held up: read the "
        "self-check.",
    ),
    "generator_late": (
        "Jobs were sent late by more than 5 % of the median latency, or of the mean time between arrivals. Waiting for "
        "a place is not lateness: where arrivals wait for one, it is how late our timers fired.",
        "Let the generator run on a machine that does nothing else. Compare the latency from due with that from sent.",
    ),
    "generator_busy": (
        "The generator used more than 80 % of a CPU.",
        "Lower the load, or move the generator to a faster machine.",
    ),
    "little_law": (
        "The mean number of jobs in flight is not what Little's law makes of the rate and the mean latency. A closed "
        "load has as many as it has users who do not think; an open one as many as rate times latency, unless it ended "
        "while much was under way.",
        "In a closed load, time was lost on our side: read the self-check. An open one was short against its "
        "latencies: let it last longer.",
    ),
    # What the server did.
    "duplicate_execution": (
        "The server ran a job more than once.",
        "Something resubmits prompts, usually a proxy that retries POST requests. Switch that off.",
    ),
    "orphan": (
        "Jobs that were given up ran on the server, or wait there; or nobody could learn whether a job that did not "
        "complete ran, as after a gateway's error in reply to its POST.",
        "What they used of the GPU is in no number. Raise the timeout if they were given up; else look for their ids "
        "in the server's history and queue.",
    ),
    "overlap": (
        "Executions overlapped on the server's clock.",
        "The server is not serial: API nodes, a patched worker, or several servers behind one address.",
    ),
    "client_clock": (
        "Durations on the client's clock were negative and are left out.",
        "A monotonic clock does not do this: the files were edited, or the machine is broken.",
    ),
    "server_clock": (
        "The server's stamps of some jobs cannot be: a wait or an execution by them is negative, or longer than passed "
        "on our own clock, or they are no times in milliseconds. They are left out of every number.",
        "The server's wall clock was set during the run. Check its time synchronisation.",
    ),
    "slept": (
        "The generator's machine slept during the run: its clock stood still while the server went on.",
        "Keep the machine awake (a laptop's lid, its power settings), then run again.",
    ),
    "clock_rate": (
        "Clocks of the generator's machine ran at different rates, by more than 0.2 %. Latencies are by the monotonic "
        "one: beyond 2 % the run is not valid, unless a server on another machine counts as that one does.",
        "Run the generator where the clock is good: not in a virtual machine (WSL, Docker) that its host corrects.",
    ),
    "clock_step": (
        "The time of day was set during the run, by more than 50 ms at once. Latencies do not depend on it.",
        "Times of day in logs of this run are off by as much; look at the machine's time synchronisation.",
    ),
    "server_clock_rate": (
        "The server's clock and ours ran at different rates, by more than 0.2 %, as the ends of its jobs tell. Beyond "
        "2 % the run is not valid: execution times and latencies are in seconds of different length.",
        "Check time synchronisation on both machines; a virtual machine's clock is the usual cause.",
    ),
    "fetch_problems": (
        "Downloads of outputs were cut short, empty, refused, or not what their names say.",
        "Look at `.statistics.fetched.problems`; then at the proxy, and at the server's disk.",
    ),
    "gpu_alike": (
        "The server's machine has several GPUs of one model and memory, and nothing told which of them the server "
        "uses. What the driver told of it may be another's: no flag, energy or sentence rests on it.",
        "Install the probe, which knows its own GPU; or start the server with `--cuda-device`.",
    ),
    "cached_jobs": (
        "Completed jobs were served from the server's cache.",
        "Vary a seed that reaches the sampler, and use another seed for the run than an earlier one's.",
    ),
    "repeated_files": (
        "Jobs answered with files that an earlier job had returned.",
        "Let the workflow save under a prefix, not a fixed name.",
    ),
    "fewer_outputs": (
        "Completed jobs made no file, or fewer at an output node than their like: jobs of the same workflow with the "
        "same switches and small numbers, with nothing from the cache. They count as completed.",
        "Look whether a filter, a detector or a switch in the workflow stopped them. Where a node's number varies "
        "freely, nothing is wrong.",
    ),
    "polled_ends": (
        "Ends of jobs were found by asking the history, because no event told.",
        "Find what drops or delays the WebSocket, usually a proxy.",
    ),
    # Whether one number can stand for the run.
    "cold_head": ("The first counted jobs were unlike the rest.", "Warm up with more jobs: the finding says how many."),
    "drift": (
        "Jobs became slower or faster over the run by more than 3 %, beyond chance.",
        "A clock, a temperature or a cache was still moving. Warm up for longer, or run longer.",
    ),
    "dependent_jobs": (
        "Latencies depend on their neighbours, so that n jobs say less than n independent ones.",
        "The intervals allow for it already. More jobs narrow them.",
    ),
    # What was noticed while it ran.
    "restart": ("The server was restarted during the run.", "Find out why, then run again."),
    "foreign_load": (
        "The server's queue held jobs that are not ours.",
        "They delayed ours. Run again when nobody else uses the server.",
    ),
    "busy_at_start": (
        "The server's queue was not empty when the run began.",
        "The first jobs waited for others'. Run again when it is empty.",
    ),
    "duplicate": (
        "The server held one of our jobs twice.",
        "Something resubmits prompts, usually a proxy that retries POST requests. Switch that off.",
    ),
    "stream_lost": (
        "The WebSocket was lost and opened again.",
        "Ends meanwhile were found by polling, each a little late. Look at the proxy's timeouts.",
    ),
    "stream_stalled": (
        "The WebSocket stayed open and told nothing while jobs ended.",
        "Ends meanwhile were found by polling, each a little late. Look for a proxy that buffers.",
    ),
    "unreadable": (
        "The server sent replies or messages that are none of ComfyUI's. They are counted, and the first is named.",
        "What they should have told is in no number. Look for a proxy or a custom node that answers so.",
    ),
    "worker_stalled": (
        "Nothing moved on the server for a long time while jobs of ours waited or ran.",
        "Its worker may have died: look at its log, and restart it.",
    ),
    "server_gone": (
        "The server was out of reach for so long that its jobs were given up as lost.",
        "Look at its log, and at the network between.",
    ),
    "generator_fault": (
        "The machine that the load came from failed: it had no descriptors, ports, memory or names left. Jobs that "
        "failed by it are in the table of failures as `generator`, and in no rate of success: they say nothing of the "
        "server.",
        "Mend that (of open files: `ulimit -n`), then run again.",
    ),
    "preflight": (
        "Before the run, something was found in a workflow that the server may refuse.",
        "If jobs failed, it is the likely cause: mend the workflow, or put what is missing on the server.",
    ),
    "dropped_outputs": (
        "Outputs of a workflow that the server would have dropped were left out, as asked; the others ran.",
        "Mend what is named. The numbers are those of the smaller graph: compare them only with runs of the same.",
    ),
    "vary": (
        "How far jobs differ from each other: an input was added to make them, or some outputs do not.",
        "Read the text; no number is wrong for it.",
    ),
    "cancel_unsafe": (
        "A job that runs could not be stopped without stopping whatever runs, so it was left.",
        "Use a newer ComfyUI, which can cancel one job by its id.",
    ),
    "unknown_server": (
        "The server does not tell its version, so what it can do is guessed to be little.",
        "Look whether a proxy hides `/system_stats`.",
    ),
    "telemetry": (
        "A source of readings beside the jobs gave no answer for a time, or left something out.",
        "Latencies are not touched. Readings of this source have a gap: the text says which, and why.",
    ),
}
"""What each code means, and what to do about it: those that judgement makes, and those noticed during a run."""
