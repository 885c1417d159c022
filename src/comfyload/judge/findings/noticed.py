"""The findings that are noted while a run goes on, and not made from its numbers."""

from __future__ import annotations

from comfyload.judge.findings.row import RESUBMITTED, FindingRow

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
        hint=RESUBMITTED,
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
"""Codes of `Observation` that nothing else makes."""
