"""The Page of `faults`: how each client did in each trouble."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from comfyload.report.page import Page, Remark, Row, Table, Value, table
from comfyload.report.values import in_words
from comfyload.words import DASH, count, duration, sentence_case

POLICY = "policy"


class Outcome(Struct, frozen=True, kw_only=True):
    """What one client made of one scenario.

    `jobs` were sent, and each is one of: `in_time`, done within the deadline; `late`, done after it; `failed`, refused
    or failed in a node; `given_up`, by the client, as at its deadline or timeout; `lost`, its end is unknown. `of`:
    jobs that could be done at all. `slowest_s`: the longest latency of those done, which are too few for a percentile.
    `recovery_s`: from the end of the trouble until the last job came due that was late or failed; 0: none did.
    `twice`: jobs whose work the server did more than once. `executed`: prompts that the server executed to their end.
    `executions_failed`: those of which a node failed. `left`: our prompts in its queue afterwards. `why`: why the
    scenario was not played.
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

    @property
    def perfect(self) -> bool:
        """Clean, and everything that can be done was done in time."""
        return self.clean and self.in_time == self.of


def faults_page(rows: Sequence[Outcome], deadline_s: float) -> Page:
    """The sums in a sentence, a matrix of troubles and clients, then only the rows where something went wrong."""
    played = [row for row in rows if not row.why]
    flawed = [row for row in played if not row.perfect]
    tables = [_matrix(played, deadline_s)] if played else []
    if flawed:
        tables.append(_counts("Where not every job was done in time", flawed))
    if played:
        tables += [_counts("Every client in every trouble", played, detail=True), _times(played)]
    return Page(title=_sentence(played) or "No scenario was played.", tables=tables, remarks=list(_remarks(rows)))


def _sentence(played: Sequence[Outcome]) -> str:
    """With the policy: 288 of 290 jobs in time, none run twice. No retry: 261. 3 retries at once: 268, 3 run twice."""
    parts = []
    for client in _clients(played):
        own = [row for row in played if row.client == client]
        in_time, twice = sum(row.in_time for row in own), sum(row.twice for row in own)
        if client == POLICY:
            jobs = count(sum(row.of for row in own), "job")
            parts.append(f"With the policy: {in_time} of {jobs} in time, {twice or 'none'} run twice.")
        else:
            again = f", {twice} run twice" if twice else ""
            parts.append(f"{sentence_case(client)}: {in_time}{again}.")
    return " ".join(parts)


def _clients(played: Sequence[Outcome]) -> list[str]:
    """The policy first."""
    return sorted(dict.fromkeys(row.client for row in played), key=lambda name: name != POLICY)


def _matrix(played: Sequence[Outcome], deadline_s: float) -> Table:
    clients = _clients(played)
    outcomes = {(row.scenario, row.client): row for row in played}
    rows = []
    for scenario in dict.fromkeys(row.scenario for row in played):
        cells = [outcomes.get((scenario, client)) for client in clients]
        rows.append([scenario, *(DASH if row is None else _cell(row) for row in cells)])
    legend = f"● all that can be done were done within {duration(deadline_s)}, ◐ at least half, ○ fewer."
    return table("matrix", ("", *clients), rows, note=legend)


def _cell(row: Outcome) -> str:
    """A sign, and behind it what is not perfect."""
    sign = "●" if row.in_time == row.of else "◐" if 2 * row.in_time >= row.of else "○"
    share = "" if row.in_time == row.of else f" {row.in_time}/{row.of}"
    twice = f" {row.twice} twice" if row.twice else ""
    return f"{sign}{share}{twice}"


_COUNTS = ("", "client", ">jobs", ">in time", ">late", ">failed", ">given up", ">lost", ">twice", ">left")


def _counts(title: str, rows: Sequence[Outcome], *, detail: bool = False) -> Table:
    """Rows that add up: in time, late, failed, given up and lost are the jobs. What must be 0 and is not is red."""
    out, before = list[Row](), ""
    for row in rows:
        sums = (row.jobs, row.in_time, row.late, row.failed, row.given_up)
        faults = (row.lost, row.twice, row.left)
        bad = [Value(str(number), look="bad" if number else "plain") for number in faults]
        name = "" if row.scenario == before else row.scenario
        out.append([name, row.client, *map(str, sums), *bad])
        before = row.scenario
    note = (
        "In time to lost add up to the jobs. Given up: by the client, as at its deadline or timeout. "
        "Lost: the end is unknown. Twice: the server did the work more than once. Left: still in its queue."
    )
    key = "counts" if detail else "flawed"
    return table(key, _COUNTS, out, title=title, detail=detail, note=note)


def _times(rows: Sequence[Outcome]) -> Table:
    out: list[Row] = [
        [
            row.scenario,
            row.client,
            in_words(row.slowest_s, unit="s"),
            duration(row.recovery_s) if row.recovery_s else "0 s",
            str(row.executed + row.executions_failed),
        ]
        for row in rows
    ]
    note = (
        "Slowest: of the jobs that were done. Recovers: how long after the trouble jobs still came due that were "
        "not done in time. Runs: prompts that the server executed, with those of which a node failed."
    )
    columns, title = ("", "client", ">slowest", ">recovers", ">runs"), "Times, and prompts that the server ran"
    return table("times", columns, out, title=title, detail=True, note=note)


def _remarks(rows: Sequence[Outcome]) -> Iterator[Remark]:
    for scenario in dict.fromkeys(row.scenario for row in rows):
        row = next(row for row in rows if row.scenario == scenario)
        if row.why:
            yield Remark("info", f"{scenario}: not played, {row.why}.")
        elif row.of < row.jobs:
            yield Remark("info", f"{scenario}: {row.jobs - row.of} of {row.jobs} jobs cannot be done at all.")
    for row in rows:
        if row.client == POLICY and not row.why and not row.clean:
            faults = {"lost": row.lost, "run twice": row.twice, "left in the queue": row.left}
            words = ", ".join(f"{number} {what}" for what, number in faults.items() if number)
            yield Remark("invalid", f"{row.scenario}: with the policy {words}.")
