"""The table of fault scenarios: what each client made of each trouble."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from comfyload.report.console import draw
from comfyload.report.text import DASH, count, duration

__all__ = ["Outcome", "render_faults"]


class Outcome(Struct, frozen=True, kw_only=True):
    """What one client made of one scenario.

    `jobs` were sent, and each is one of: `in_time`, done within the deadline; `late`, done after it; `failed`, refused
    or failed in a node; `given_up`, by the client, as at its deadline or timeout; `lost`, nothing is known of its end.
    `of`: jobs that could be done at all. `slowest_s`: the longest latency of those done, as so few have no percentile
    to tell. `recovery_s`: from the end of the trouble until the last job came due that was late or failed; 0: none did.
    `twice`: jobs whose work the server did more than once. `executed`: prompts that the server executed to their end.
    `executions_failed`: those of which a node failed. `left`: prompts of ours in its queue afterwards. `why`: why it
    was not done.
    """

    scenario: str
    client: str
    jobs: int = 0
    in_time: int = 0
    late: int = 0
    failed: int = 0
    given_up: int = 0
    lost: int = 0
    of: int = 0
    slowest_s: float | None = None
    recovery_s: float = 0.0
    twice: int = 0
    executed: int = 0
    executions_failed: int = 0
    left: int = 0
    why: str = ""

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing done twice, nothing left."""
        return not (self.lost or self.twice or self.left)


_COLUMNS = ("in\ntime", "late", "failed", "given\nup", "lost", "slowest", "re-\ncovers", "twice", "runs", "left")


def render_faults(rows: Sequence[Outcome], deadline_s: float, console: Console) -> None:
    """Print it; what must be 0 and is not is red."""
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("Trouble, jobs\nclient", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    notes: list[str] = []
    for scenario, played in _by_scenario(rows).items():
        done = [row for row in played if not row.why]
        notes += [f"{scenario}: not done, {row.why}." for row in played[:1] if row.why]
        if not done:
            continue
        table.add_row(Text(f"{scenario}, {count(done[0].jobs, 'job')}", style="bold"))
        if done[0].of < done[0].jobs:
            notes.append(f"{scenario}: {done[0].jobs - done[0].of} of {done[0].jobs} jobs cannot be done at all.")
        for row in done:
            table.add_row(Text(f" {row.client}"), *_cells(row))
    draw(table, console)
    words = [
        "In time to lost add up to the jobs. "
        f"In time: done within {duration(deadline_s)} of when it was due; late: done after that; "
        "given up: by the client, as at its deadline or timeout; lost: nothing is known of its end.",
        "Slowest: of those done. Recovers: how long after the trouble jobs still came due that were not done in time.",
        "Twice: jobs whose work the server did more than once. Runs: prompts that it executed, those included of which "
        "a node failed. Left: prompts of ours in its queue afterwards.",
        *notes,
    ]
    console.print()
    draw(Text("\n".join(words), style="dim"), console)


def _by_scenario(rows: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for row in rows:
        found.setdefault(row.scenario, []).append(row)
    return found


def _cells(row: Outcome) -> list[Text]:
    return [
        *(Text(str(number)) for number in (row.in_time, row.late, row.failed, row.given_up)),
        _none_wanted(row.lost),
        Text(DASH if row.slowest_s is None else duration(row.slowest_s)),
        Text(duration(row.recovery_s) if row.recovery_s else "0 s"),
        _none_wanted(row.twice),
        Text(str(row.executed + row.executions_failed)),
        _none_wanted(row.left),
    ]


def _none_wanted(number: int) -> Text:
    return Text(str(number), style="bold red" if number else "")
