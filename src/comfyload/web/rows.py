"""The list of a run's jobs: those that a filter lets pass, in order, a page of them at a time."""

from typing import Literal

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from comfyload.record.codec import printable
from comfyload.web.badges import STATES, places_of
from comfyload.web.columns import KINDS
from comfyload.web.follow import RunFollower
from comfyload.web.states import Filter, View

Order = Literal["newest", "slowest", "due"]
MOST_ROWS = 200


class JobRow(Struct, frozen=True, kw_only=True):
    """One job in a list. Instants are of the run's clock; None is not known.

    `words`: the finer state. `attempt` of `of`: which attempt it is at, or was sent, and the most that the policy
    allows. `until_s`: when it is sent again. `why`: of its failure, or of the attempt that failed before.
    """

    index: int
    id: str
    badge: str
    fine: str
    words: str
    workflow: str
    due_s: float | None
    ended_s: float | None
    latency: float | None
    attempt: int
    of: int | None
    until_s: float | None
    why: str
    server: str
    book: int | None
    warmup: bool


def rows(
    follower: RunFollower, flt: Filter, offset: int = 0, limit: int = 100, order: Order = "newest"
) -> tuple[int, list[JobRow]]:
    """How many jobs pass, and those of the page."""
    view = View(follower)
    passing = np.flatnonzero(view.matching(flt))
    first = max(0, offset)
    page = _ordered(follower, passing, order, first + min(max(0, limit), MOST_ROWS))[first:]
    ids = follower.ids(page)
    return len(passing), [_row(view, row, prompt_id) for row, prompt_id in zip(page.tolist(), ids, strict=True)]


def row_of(follower: RunFollower, index: int) -> JobRow | None:
    """One job as the list shows it; None: there is none of that number."""
    row = follower.jobs.row(index)
    return None if row < 0 else _row(View(follower), row, *follower.ids(np.array([row])))


class Trouble(Struct, frozen=True, kw_only=True):
    """Jobs that need attention for one reason: how many, and the one of them that ended last."""

    t_s: float | None
    index: int
    kind: str
    node: str
    text: str
    count: int


def errors(follower: RunFollower, limit: int = 20) -> list[Trouble]:
    """The reasons for which jobs need attention, the newest first."""
    jobs = follower.jobs
    here = np.flatnonzero(np.isin(jobs.fine, places_of("attention")))
    if not len(here):
        return []
    here = here[np.argsort(jobs.done[here], kind="stable")[::-1]]
    reasons = np.stack([jobs.kind[here], jobs.node[here], jobs.message[here]]).astype(np.int64)
    _, first, counts = np.unique(reasons, axis=1, return_index=True, return_counts=True)
    newest = np.argsort(first)[: max(0, limit)]
    return [_trouble(follower, int(here[first[at]]), int(counts[at])) for at in newest]


def _trouble(follower: RunFollower, row: int, count: int) -> Trouble:
    jobs = follower.jobs
    return Trouble(
        t_s=_known(jobs.done[row]),
        index=int(jobs.index[row]),
        kind=KINDS[jobs.kind[row]],
        node=follower.nodes.texts[jobs.node[row]],
        text=follower.messages.texts[jobs.message[row]],
        count=count,
    )


def _ordered(follower: RunFollower, passing: NDArray[np.int64], order: Order, most: int) -> NDArray[np.int64]:
    """The first so many of the jobs."""
    jobs = follower.jobs
    if order == "due":
        return passing[np.argsort(jobs.due[passing], kind="stable")[:most]]
    if order == "slowest":  # those that have not ended, or have no latency, come last
        return passing[np.argsort(-jobs.latency[passing], kind="stable")[:most]]
    return passing[::-1][:most]


def _row(view: View, row: int, prompt_id: str) -> JobRow:
    follower, jobs = view.follower, view.follower.jobs
    state, index = STATES[view.fine[row]], int(jobs.index[row])
    again = follower.retries.get(index)
    until = None if again is None or state.key != "retrying" else again.t + again.wait_s
    words, of = state.words, None if again is None else again.of
    if state.key == "retrying" and again is not None:
        words = f"retrying {again.attempt}/{again.of}" if again.of is not None else f"retrying, attempt {again.attempt}"
    why = follower.messages.texts[jobs.message[row]] or KINDS[jobs.kind[row]].replace("_", " ")
    if again is not None:
        why = printable(again.message) or again.why.replace("_", " ")
    book = int(jobs.book[row])
    return JobRow(
        index=index,
        id=printable(prompt_id),
        badge=state.badge,
        fine=state.key,
        words=words,
        workflow=follower.workflows.texts[jobs.workflow[row]],
        due_s=_known(jobs.due[row]),
        ended_s=_known(jobs.done[row]),
        latency=_known(jobs.done[row] - jobs.due[row]) if jobs.done[row] >= jobs.due[row] else None,
        attempt=int(view.attempt[row]),
        of=of,
        until_s=until,
        why=why[:300],
        server=follower.servers.texts[jobs.server[row]],
        book=book if book >= 0 else None,
        warmup=bool(jobs.warmup[row]),
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
