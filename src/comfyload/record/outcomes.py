"""How a job can end, one row each: every count, word and mark of an outcome is read from here."""

from typing import Literal

from msgspec import Struct

Outcome = Literal["completed", "failed", "timed_out", "cancelled", "lost", "dropped"]
"""How an arrival ended. Exactly one each; offered = their sum."""


class OutcomeRow(Struct, frozen=True, kw_only=True):
    """`key` counts it in the summary; `words` name it for people; `mark` is its shape in a chart, "" if it has none.

    `log_status`: the status of such a job's row in the instrumentation log. `error`: it counts against the server.
    `sent`: a prompt left for the server.
    """

    key: str
    words: str
    meaning: str
    mark: str = ""
    log_status: Literal["ok", "error", "interrupted"]
    error: bool = False
    sent: bool = True


OUTCOMES: dict[Outcome, OutcomeRow] = {
    "completed": OutcomeRow(
        key="completed",
        words="completed",
        meaning="ended well by the server's history, and with `--fetch` every output was whole",
        log_status="ok",
    ),
    "failed": OutcomeRow(
        key="failed",
        words="failed",
        meaning="refused, raised in a node, interrupted by another client, or an output could not be fetched",
        mark="M-1,-1L1,1M1,-1L-1,1",
        log_status="error",
        error=True,
    ),
    "timed_out": OutcomeRow(
        key="timeouts",
        words="timed out",
        meaning="not done within `--timeout`; cancelled on the server",
        mark="triangle-down",
        log_status="error",
        error=True,
    ),
    "cancelled": OutcomeRow(
        key="cancelled",
        words="cancelled",
        meaning="stopped by us: a second Ctrl-C, SIGTERM, or the end of a run that does not drain",
        mark="square",
        log_status="interrupted",
    ),
    "lost": OutcomeRow(
        key="lost",
        words="lost",
        meaning="accepted once, and unknown to the server afterwards",
        mark="cross",
        log_status="error",
        error=True,
    ),
    "dropped": OutcomeRow(
        key="dropped",
        words="dropped",
        meaning="due but never sent: all places were taken, or the run was stopped while they waited for one",
        mark="diamond",
        log_status="interrupted",
        sent=False,
    ),
}
"""Every outcome, in the order in which people read them."""
