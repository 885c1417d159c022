"""How jobs wait: departures of servers that each run one job at a time, in the order in which jobs come.

Arrays end in the axis of the jobs; what stands before it are replications, all simulated at once. Times in seconds.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from comfyload.judge.arrays import Floats

Dispatch = Literal["round_robin", "shortest_queue", "affinity"]
"""How a job gets its server at once when it comes: in turn; where the fewest jobs are, by the servers' own counts; or
as our own client does, where its models are and the work expected is little.
"""


def lindley(arrivals: Floats, services: Floats, worked: Floats | None = None) -> Floats:
    """Departures from one server (Lindley 1952), as a running maximum: no loop over the jobs.

    `worked`: the sums of services up to each job's end, for who has them already.
    """
    worked = np.cumsum(services, axis=-1) if worked is None else worked
    # How far the clock has run ahead of the work: the server has idled as long as the most so far.
    ahead = arrivals - worked
    ahead += services
    np.maximum.accumulate(ahead, axis=-1, out=ahead)
    ahead += worked
    return ahead


def fleet(
    arrivals: Floats,
    workflows: NDArray[np.int64],
    warm: Floats,
    switched: Floats,
    *,
    servers: int,
    dispatch: Dispatch = "affinity",
    spill_s: float = 0.0,
    expected: tuple[Floats, Floats] | None = None,
) -> tuple[Floats, Floats]:
    """Departures of `(replications, jobs)` from several servers, and what each job took.

    A job takes `warm` where the server's last job was of the same workflow, else `switched`; no server has run any at
    first. `expected`: what the dispatcher thinks that it takes, warm and switched; None: it knows. `spill_s`: how many
    seconds of expected work more may wait where the job's models are, before it goes elsewhere.
    """
    if servers == 1 or dispatch == "round_robin":
        return _in_turn(arrivals, workflows, warm, switched, servers)
    rows, jobs = arrivals.shape
    row, queues = np.arange(rows), _Queues(rows, servers, jobs)
    last = np.full((rows, servers), -1)
    thought_warm, thought_switched = expected or (warm, switched)
    took = np.empty_like(arrivals)
    for at in range(jobs):
        now, workflow = arrivals[:, at], workflows[:, at]
        queues.advance(now)
        homes = last == workflow[:, None]
        chosen = queues.fewest() if dispatch == "shortest_queue" else queues.affine(now, homes, spill_s)
        stays = homes[row, chosen]
        takes = np.where(stays, warm[:, at], switched[:, at])
        queues.put(at, chosen, now, takes, np.where(stays, thought_warm[:, at], thought_switched[:, at]))
        last[row, chosen], took[:, at] = workflow, takes
    return queues.done, took


class _Queues:
    """The jobs on each server of each row. What runs there is its head, what waits is a list that `next` links.

    Arrays of servers are flat: those of the first row, then those of the second.
    """

    def __init__(self, rows: int, servers: int, jobs: int) -> None:
        self._jobs, self._shape = jobs, (rows, servers)
        self._first_server, self._first_job = servers * np.arange(rows), jobs * np.arange(rows)
        self._count, self._head, self._tail, self._put_at = np.full((4, rows * servers), -1)
        self._count[:] = 0
        self._queued_s, self._free = np.zeros((2, rows * servers))
        self._ends, self._expected_end = np.full((2, rows * servers), np.inf)
        self._next = np.full(rows * jobs, -1)
        self._done, self._takes, self._expected = np.empty((3, rows * jobs))

    @property
    def done(self) -> Floats:
        """Departures, by row and job."""
        return self._done.reshape(self._shape[0], self._jobs)

    def advance(self, now: Floats) -> None:
        """What has ended by then is no longer there, and what waited behind it runs."""
        until = np.repeat(now, self._shape[1])
        while True:
            over = np.flatnonzero(self._ends <= until)
            if not len(over):
                return
            self._count[over] -= 1
            idle = over[self._count[over] == 0]
            self._ends[idle] = np.inf
            goes_on = over[self._count[over] > 0]
            job = self._head[goes_on] = self._next[self._head[goes_on]]
            self._ends[goes_on] = self._done[job]
            self._expected_end[goes_on] = self._done[job] - self._takes[job] + self._expected[job]
            self._queued_s[goes_on] -= self._expected[job]

    def fewest(self) -> NDArray[np.int64]:
        """Where the fewest jobs are; of several, where none was put for longest."""
        few: NDArray[np.int64] = (self._count * (self._jobs + 1) + self._put_at).reshape(self._shape).argmin(axis=1)
        return few

    def affine(self, now: Floats, homes: NDArray[np.bool_], spill_s: float) -> NDArray[np.int64]:
        """The home with the least work expected, unless so much waits there that another server does better."""
        rest = np.maximum(self._expected_end.reshape(self._shape) - now[:, None], 0.0)
        busy = (self._count > 0).reshape(self._shape)
        backlog = np.where(busy, self._queued_s.reshape(self._shape) + rest, 0.0)
        least = backlog.min(axis=1)
        best = np.where(backlog == least[:, None], self._put_at.reshape(self._shape), self._jobs).argmin(axis=1)
        at_home = np.where(homes, backlog, np.inf)
        stays = at_home.min(axis=1) - least <= spill_s
        chosen: NDArray[np.int64] = np.where(stays, at_home.argmin(axis=1), best)
        return chosen

    def put(self, at: int, chosen: NDArray[np.int64], now: Floats, takes: Floats, expected: Floats) -> None:
        """Job `at` of every row goes to its chosen server, behind what is there."""
        server, job = self._first_server + chosen, self._first_job + at
        begun = np.maximum(now, self._free[server])
        done = self._done[job] = self._free[server] = begun + takes
        self._takes[job], self._expected[job] = takes, expected
        runs = self._count[server] == 0
        idle, waits = server[runs], ~runs
        self._head[idle], self._ends[idle], self._expected_end[idle] = job[runs], done[runs], (now + expected)[runs]
        self._queued_s[idle] = 0.0  # no sum of rounding errors
        self._next[self._tail[server[waits]]] = job[waits]
        self._queued_s[server[waits]] += expected[waits]
        self._tail[server], self._put_at[server] = job, at
        self._count[server] += 1


def _in_turn(
    arrivals: Floats, workflows: NDArray[np.int64], warm: Floats, switched: Floats, servers: int
) -> tuple[Floats, Floats]:
    """Every server's jobs are known before any time is: each is a queue of its own, without a loop over the jobs."""
    out, took = np.empty_like(arrivals), np.empty_like(arrivals)
    for server in range(servers):
        mine = np.s_[:, server::servers]
        takes = after(workflows[mine], warm[mine], switched[mine])
        out[mine], took[mine] = lindley(arrivals[mine], takes), takes
    return out, took


def after(workflows: NDArray[np.int64], warm: Floats, switched: Floats) -> Floats:
    """What jobs take that one server runs in this order: `warm` after one of the same workflow, else `switched`."""
    takes = switched.copy()
    np.copyto(takes[..., 1:], warm[..., 1:], where=workflows[..., 1:] == workflows[..., :-1])
    return takes
