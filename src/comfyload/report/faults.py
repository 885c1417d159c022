"""Knows the table of fault scenarios: what each client made of each trouble."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from comfyload.report.medium import draw
from comfyload.report.text import DASH, duration

__all__ = ["Outcome", "render_faults"]


class Outcome(Struct, frozen=True, kw_only=True):
    """What one client made of one scenario.

    `in_time`: jobs done within the deadline, of `of` jobs that could be done at all. `slowest_s`: the longest
    latency of those done, as so few have no percentile to tell. `recovery_s`: from the end of the trouble until the
    last job came due that was late or failed; 0: none did. `lost`: jobs of whose end nothing is known. `twice`: jobs
    whose work the server did more than once. `executed`: prompts that the server executed to their end. `failed`: those
    of which a node failed. `left`: prompts of ours in its queue afterwards. `why`: why it was not done.
    """

    scenario: str
    client: str
    in_time: int = 0
    of: int = 0
    slowest_s: float | None = None
    recovery_s: float = 0.0
    lost: int = 0
    twice: int = 0
    executed: int = 0
    failed: int = 0
    left: int = 0
    why: str = ""

    @property
    def clean(self) -> bool:
        """Nothing lost, nothing done twice, nothing left."""
        return not (self.lost or self.twice or self.left)


def render_faults(rows: Sequence[Outcome], deadline_s: float, console: Console) -> None:
    """Print it; what must be 0 and is not is red."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("Trouble, client", no_wrap=True)
    for name in ("in time", "slowest", "recovers", "lost", "twice", "done", "failed", "left"):
        table.add_column(name, justify="right", no_wrap=True)
    last = ""
    notes = []
    for row in rows:
        if row.why:
            if row.scenario != last:
                notes.append(f"{row.scenario}: not done, {row.why}.")
            last = row.scenario
            continue
        if row.scenario != last:
            table.add_row(Text(row.scenario, style="bold"))
            last = row.scenario
        table.add_row(
            Text(f" {row.client}"),
            f"{row.in_time}/{row.of}",
            DASH if row.slowest_s is None else duration(row.slowest_s),
            "at once" if not row.recovery_s else duration(row.recovery_s),
            *(_none_wanted(number) for number in (row.lost, row.twice)),
            str(row.executed),
            str(row.failed),
            _none_wanted(row.left),
        )
    draw(table, console)
    words = [
        f"In time: of jobs that can be done at all, those done within {duration(deadline_s)}.",
        "Done, failed: prompts that the server executed to their end, and those of which a node failed.",
        *notes,
    ]
    console.print()
    draw(Text("\n".join(words), style="dim"), console)


def _none_wanted(number: int) -> Text:
    return Text(str(number), style="bold red" if number else "")
