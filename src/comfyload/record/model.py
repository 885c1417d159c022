"""The types of a run: prompts, what a server did with them, and the files of a run directory.

Two clocks, never mixed. Fields in seconds (`due`, `sent`, `done`, …) are instants on the client's monotonic clock,
counted from the start of the run. Fields ending in `_ms` are the server's wall clock, Unix milliseconds; only
differences between two of them mean anything. `None` is "not known", never zero.
"""

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from comfyload.errors import JobFailed
from comfyload.record.bounds import Count, Instant, Milliseconds, Number, Seconds, Value
from comfyload.record.clocks import ClockCheck
from comfyload.record.codec import MOST_LEVELS, within_levels
from comfyload.record.options import RunOptions
from comfyload.record.outcomes import OUTCOMES
from comfyload.record.outcomes import Outcome as Outcome  # passed on
from comfyload.record.plan import Plan
from comfyload.record.policy import Policy
from comfyload.record.shard import WHOLE, Shard, ShardText, read_shard

FORMAT = 1
"""Version of the run directory's files; readers refuse a newer one."""

FailureKind = Literal[
    "validation",  # 400: the graph cannot run on this server
    "missing_node",  # 400: a node class the server lacks
    "invalid_id",  # 400: the prompt id was refused
    "partial_validation",  # 200, but some outputs were dropped
    "too_large",  # 413
    "auth",  # 401, 403
    "http",  # any other 4xx, or a reply that is not JSON
    "server_error",  # 5xx
    "connect",  # no connection: nothing was sent
    "generator",  # our own machine failed: no descriptors, ports or names; not the server's fault
    "submit_unknown",  # sent, no reply, and the server does not know the id
    "execution_error",  # a node raised
    "oom",  # a node ran out of memory, the GPU's or the host's
    "cuda",  # the GPU context is broken; the server needs a restart
    "interrupted",  # stopped by another client
    "timeout",  # not done within the job's timeout, or by its deadline
    "hung",  # it ran without progress; given up by us
    "cancelled",  # stopped by us
    "lost",  # accepted once, unknown to the server now
    "fetch",  # an output could not be downloaded whole
    "dropped",  # never sent: there was no free slot
    "shed",  # never sent: it could not have been done by its deadline
    "censored",  # cut off by the end of the run
]


class Prompt(Struct, frozen=True, kw_only=True, gc=False):
    """One concrete graph to submit. Its JSON and its values are made by its index when they are needed, so that a job
    that waits holds neither. `targets`: a JSON list of the outputs to run; empty: all.
    """

    id: str
    index: int
    workflow: str
    warmup: bool
    graph_of: Callable[[int], bytes]
    values_of: Callable[[int], dict[str, Any]] = lambda _: {}
    extra_data: bytes = b""
    targets: bytes = b""

    def graph(self) -> bytes:
        return self.graph_of(self.index)

    def values(self) -> dict[str, Any]:
        """What this job's inputs got, by `node.input`."""
        return self.values_of(self.index)


class Failure(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Why an execution failed. `type` is the server's own name of the error (`prompt_no_outputs`, `RuntimeError`).

    `retry_after_s`: the pause that the server requests.
    """

    kind: FailureKind
    type: str = ""
    message: str = ""
    node: str | None = None
    node_class: str | None = None
    status: Count | None = None
    retry_after_s: Seconds | None = None


class ServerTimes(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The server's own stamps, Unix ms on its wall clock. Queue wait = start - create; execution = end - start."""

    create_ms: Milliseconds | None = None
    start_ms: Milliseconds | None = None
    end_ms: Milliseconds | None = None

    @property
    def execution_ms(self) -> int | None:
        return None if self.start_ms is None or self.end_ms is None else self.end_ms - self.start_ms


class Span(Struct, frozen=True, array_like=True, gc=False):
    """One node's run, timed by the client: `[node id, start, end]`, seconds; `end` None: it never finished."""

    node: str
    start: Instant
    end: Instant | None


class Output(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What one output node reported under one key, its `kind` (`images`, `text`, …). `files`: `type/subfolder/name`.

    `animated`: the node says that its pictures move.
    """

    node: str
    kind: str
    count: Count
    files: list[str] = []
    animated: bool = False


class Fetch(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One output file, downloaded and discarded; `problem`: what was wrong with it, or ""."""

    file: str
    bytes: Number
    seconds: Seconds
    problem: str = ""


class Attempt(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One of several times that a job was sent: to which server (its redacted address), under which id, and its end.

    `executed_ms`: how long the server executed it, by its own clock. `waited_s`: how long the client held the job back
    before this attempt, from the call for the job or from the previous attempt.
    """

    server: str
    prompt_id: str
    outcome: Outcome
    sent: Instant | None = None
    done: Instant | None = None
    failure: Failure | None = None
    executed_ms: Milliseconds | None = None
    waited_s: Seconds = 0.0


ServerState = Literal["finished", "failed", "cancelled", "pending", "running", "absent", "unknown"]
"""The last known state of a job that the client gave up."""


class Execution(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What a server did with one prompt.

    `sent`: the POST was sent. `acknowledged`: its reply was read. `first_event`: first WebSocket event of the prompt.
    `started`: `execution_start` arrived. `done`: the client learned of the end, from an event, or from a poll at most
    `done_uncertainty_s` after it happened; `end_source` says which. `executions`: how often the server started it.
    `held_s`: how long it was held back before it was sent, because the server's queue was full. `attempts`: every
    attempt, if the job was sent several times or there are several servers; else empty.
    """

    outcome: Outcome
    sent: Instant | None = None
    acknowledged: Instant | None = None
    first_event: Instant | None = None
    started: Instant | None = None
    done: Instant | None = None
    end_source: Literal["events", "history", "client"] = msgspec.field(name="seen_by", default="client")
    done_uncertainty_s: Seconds = msgspec.field(name="done_within_s", default=0.0)
    server: ServerTimes = ServerTimes()
    number: float | None = None
    nodes: list[Span] = []
    cached: list[str] = []
    outputs: list[Output] = []
    failure: Failure | None = None
    previews: Count = 0
    preview_bytes: Number = 0
    fetches: list[Fetch] = []
    executions: Count = 0
    held_s: Seconds = 0.0
    server_state_after: ServerState | None = msgspec.field(name="left_on_server", default=None)
    attempts: list[Attempt] = []

    def raise_for_failure(self) -> None:
        """Do nothing if it completed.

        Raises:
            JobFailed: it did not; the message says how it ended and why, and it carries this execution.
        """
        if self.outcome != "completed":
            why = self.failure
            kind = "" if why is None else f": {why.kind}" + (f" in {why.node_class}" if why.node_class else "")
            text = "" if why is None or not why.message else f", {why.message}"
            raise JobFailed(f"the job {OUTCOMES[self.outcome].words}{kind}{text}", self)


class Sent(Struct, frozen=True, kw_only=True, tag_field="line", tag="sent", gc=False):
    """Written before a job's POST is sent: after a crash, this id may be on the server."""

    index: Number
    prompt_id: str
    due: Instant


class Record(Struct, frozen=True, kw_only=True, tag_field="line", tag="record", gc=False):
    """One job from due to end: the journal's unit. Never rounded, never sampled.

    `book`: the number of its book, if an arrival has several pages. `censored`: cut off by the end of the run, so that
    `execution.done - due` is only a lower bound of its latency.
    """

    index: Number
    prompt_id: str
    workflow: str
    warmup: bool
    due: Instant
    values: dict[str, Any]
    execution: Execution
    book: Number | None = None
    censored: bool = False


Line = Sent | Record
"""One line of `records.ndjson`."""


class Sample(Struct, frozen=True, kw_only=True, gc=False):
    """One telemetry reading at `t` seconds of the run; `value` None: unknown to the source."""

    t: Instant
    source: str
    name: str
    value: Value | None


class LogLine(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One row written by the server's probe or by an application, read from the probe during the run or from the log.

    `t`: when it happened, in seconds of the run, by a measured offset between the two clocks; None: the offset is
    unknown, as for rows of a log. `row` is kept as it was written. `server`: the probe's, in a run over several.
    """

    t: Instant | None
    source: Literal["probe", "log"]
    row: dict[str, Any]
    server: str = ""

    def __post_init__(self) -> None:
        nested = any(isinstance(value, dict | list) for value in self.row.values())  # few rows are
        if nested and not within_levels(self.row):
            raise ValueError(f"more than {MOST_LEVELS} levels of JSON")


class RetryLine(Struct, frozen=True, kw_only=True, gc=False):
    """Written when a job will be sent again: at `t`, after the attempt `prompt_id` on `server` failed.

    `attempt`: which is to come, from 2, `of` so many at most by the policy (None: not known). `rule`: the words of the
    policy's rule that decided. It is sent `wait_s` after `t`, or later if no server is free then.
    """

    t: Instant
    index: Number
    prompt_id: str
    server: str
    attempt: Count
    of: Count | None
    why: FailureKind
    message: str
    rule: str
    wait_s: Seconds


class NodeFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts of a node that are kept without the graph. `sampler`: it is expected to sample in each job. `samplers`:
    those that an output depends on.
    """

    class_type: str
    output: bool = False
    sampler: bool = False
    samplers: list[str] = []


class WorkflowFacts(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What identifies a workflow, and how its jobs differ from each other.

    `varied`: each `node.input` with a new value in each job. `salted`: nodes with an extra input, which defeats the
    cache. `constant`: output nodes with the same result in every job (they do not count as `output`). `pinned`: seeds
    with one value for all jobs. `reloaded`: nodes that load or patch a model and run in every job, because they depend
    on an input that varies. `dropped`: outputs that the server would not run and that were left out, and why.
    """

    name: str
    sha256: str
    nodes: dict[str, NodeFacts]
    varied: list[str] = []
    salted: list[str] = []
    constant: list[str] = []
    dropped: dict[str, str] = {}
    pinned: list[str] = []
    reloaded: list[str] = []
    overrides: dict[str, Any] = {}
    output_prefix: str | None = None
    graph: dict[str, Any] | None = None


class Server(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The facts of a server, read once. `None`: not reported.

    `name`: what it is called in a run over several; "" where there is but one. `version` is (major, minor, patch). The
    four abilities decide how jobs are looked up and cancelled.
    """

    url: str
    comfyui_version: str | None = None
    version: tuple[int, int, int] | None = None
    jobs_api: bool = False
    jobs_cancel: bool = False
    interrupt_by_id: bool = False
    client_prompt_id: bool = False
    argv: list[str] | None = None
    cache_mode: str | None = None
    system: dict[str, Any] = {}
    devices: list[dict[str, Any]] = []
    features: dict[str, Any] | None = None
    packs: list[str] | None = None
    queue_at_start: int | None = None
    headers: list[str] = []
    name: str = ""


class Observation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something noticed about the server or the stream during the run, at `t` seconds. `code` is stable, for tools.
    `server`: its name, in a run over several.

    Codes: `restart`, `foreign_load`, `busy_at_start`, `stream_lost`, `stream_stalled`, `worker_stalled`, `orphan`,
    `server_gone`, `generator_fault`, `preflight`, `dropped_outputs`, `vary`, `cancel_unsafe`, `unknown_server`,
    `telemetry`, `capped`, `unreadable`, `server_out`, `late_start`; of a run in shards `lost_shard`,
    `lost_shard_allowed`, `shards_apart`, `clocks_apart`, `divided`.
    """

    t: Instant
    code: str
    text: str
    count: Count = 1
    server: str = ""


class Quantiles(Struct, frozen=True, kw_only=True):
    """Median, 99th percentile and maximum of `n` readings of our own error, in seconds.

    Beyond 10,000 readings p50 and p99 are true to within 0.5 %.
    """

    n: Number
    p50: float
    p99: float
    max: float


class SelfCheck(Struct, frozen=True, kw_only=True):
    """The generator's own error bar over the run.

    `timer_lateness_s`: how late our own timer fired. `send_lateness_s`: sent - due of counted jobs. `busy_fraction`:
    CPU time of the process over wall time. `gc_pauses_s`: None if none happened. `run_queue_delay_s`: time the kernel
    kept us waiting for a CPU, in all; None where /proc does not say.
    """

    wall_s: float
    timer_lateness_s: Quantiles | None
    send_lateness_s: Quantiles | None
    busy_fraction: float
    gc_pauses_s: Quantiles | None
    run_queue_delay_s: float | None
    max_rss_bytes: int | None


class Fact(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One fact of the system under test, and its source (`nvml`, `sysfs`, `server`, `git`, `note`, …).

    `value` None: unknown, and `source` says which source failed, or which one would know it.
    """

    value: str | int | float | bool | None = None
    source: str = ""


Environment = dict[str, Fact]
"""By dotted key, such as `gpu.0.model` or `comfyui.commit`, in the order in which they are read."""


class Host(Struct, frozen=True, kw_only=True):
    """The machine the load came from."""

    os: str
    cpu: str | None
    cores: int | None
    ram_bytes: int | None
    python: str
    libraries: dict[str, str]


class AgainOf(Struct, frozen=True, kw_only=True):
    """Whose jobs a run sends once more, with the same workflows, seeds and values: `indexes` of the run `run_id`, whose
    arrivals had `pages` jobs each. Job n of the run that has this is `indexes[n]` there.
    """

    run_id: str
    indexes: list[Count]
    pages: Annotated[int, Meta(ge=1, le=1_000_000)] = 1


class Manifest(Struct, kw_only=True):
    """`manifest.json`: everything that defines the run. Written when it starts and again when it ends.

    `options`: the options of the command, without secrets, from which the run can be resumed.
    `plan_sha256`: of everything that decides which jobs are sent and when. `scheduled`: how many counted arrivals the
    schedule has; None: not known in advance. `retry`: the policy by which jobs are sent again; None: each once.
    `resumed`: instants at which a run that had died was resumed. `end` "decided": it was stopped as soon as its
    gates were decided; "capped": no more jobs were sent after `--max-jobs` or `--max-time` was reached. `looks`: after
    how many counted jobs the gates were judged; every look is a chance to err. `environment`: of the server under test.
    `clocks`: what the clocks of the generator's machine did, a row for each process of the run. `again_of`: the jobs of
    another run that this one sends once more; absent: they are its own. `shard`: which part of the plan's arrivals
    this run has; absent: all. `zero_utc`: zero of the run's clock, by the wall clock. `began_utc`: when the counted
    load really began. These two stand in shards only. `shards`: how many generators made the run, if it is read from
    several directories; no `manifest.json` has it.
    `servers`: all of them, of which `server` is the first, and `environments` of the others by name; absent: there is
    one server.
    """

    format: int
    tool: str
    run_id: str
    name: str
    started_utc: str
    ended_utc: str | None
    end: Literal["complete", "decided", "capped", "stopped", "cancelled", "crashed"] | None
    plan: Plan
    client: Host
    server: Server
    workflows: list[WorkflowFacts]
    options: RunOptions = msgspec.field(name="asked", default=RunOptions())
    plan_sha256: str = ""
    retry: Policy | None = None
    scheduled: Count | None = None
    resumed: list[Instant] = msgspec.field(default_factory=list)
    looks: list[Count] = msgspec.field(default_factory=list)
    environment: Environment = msgspec.field(default_factory=dict)
    counted_from: Instant | None = None
    counted_to: Instant | None = None
    self_check: SelfCheck | None = None
    clocks: list[ClockCheck] = msgspec.field(default_factory=list)
    observations: list[Observation] = msgspec.field(default_factory=list)
    again_of: AgainOf | UnsetType = UNSET
    shard: ShardText | UnsetType = UNSET
    zero_utc: str | UnsetType = UNSET
    began_utc: str | UnsetType = UNSET
    shards: Count | UnsetType = UNSET

    @property
    def part(self) -> Shard:
        """Which of the plan's arrivals it has."""
        return WHOLE if self.shard is UNSET else read_shard(self.shard)

    servers: list[Server] | UnsetType = UNSET
    environments: dict[str, Environment] | UnsetType = UNSET

    @property
    def fleet(self) -> list[Server]:
        """All servers of the run."""
        return [self.server] if isinstance(self.servers, UnsetType) else self.servers
