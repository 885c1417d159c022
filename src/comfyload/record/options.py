"""The options of a run as one typed value; the flags of `comfyload run` are the metadata of its fields."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from comfyload.record.bounds import Seconds
from comfyload.record.flag import JUDGE, LOAD, RESULT, SERVER, WORK, Flag
from comfyload.record.gateway_options import ServerTable
from comfyload.record.plan import Closed, Plan

Dispatch = Literal["least-backlog", "round-robin", "affinity", "pinned"]
"""Which of several servers a job goes to: the one with the least prompts, each in turn, where its models are loaded, or
one that its workflow names."""


class WorkflowChoice(Struct, frozen=True, kw_only=True):
    """A workflow file and how often it is drawn in relation to the others. `server`: the name or the tag of the servers
    that get its jobs, with `pinned`.
    """

    file: str
    server: str = ""
    weight: Annotated[float, Meta(gt=0, le=1e9)] = 1.0


class RunOptions(Struct, frozen=True, kw_only=True):
    """All of `comfyload run`. `headers` are `NAME=VALUE` or `NAME=env:VAR`; `notes` are `KEY=TEXT`; paths are as given.

    `preflight` False: what the server would refuse is submitted all the same. `telemetry` False: nothing is read but
    the jobs. `servers`: all, if there are several; `server` is then the first. `policy`: a file with a retry policy.
    `max_jobs`, `max_time_s`: caps on what the command sends in all its runs. `shard`: `I/N`, the part of the arrivals
    that this process sends. `start_at`: when the counted load begins, in ISO 8601, UTC. `allow_lost_shards`: a run of
    several shards counts without those that were lost.
    """

    server: Annotated[
        str,
        Flag(
            "--server",
            "URL",
            "The ComfyUI server, with its base path if it has one. Several share the load; NAME=URL names one.",
            many=True,
            env="COMFYLOAD_SERVER",
        ),
    ] = ""
    workflows: Annotated[
        list[WorkflowChoice],
        Flag(
            "--workflow",
            "FILE[@SERVER][=WEIGHT]",
            "A workflow in API format; - reads standard input. Several make a mix.",
            many=True,
        ),
    ] = []
    servers: Annotated[
        list[ServerTable],
        Flag("--servers", "FILE", "A TOML file with a table [[server]] for each of several servers.", SERVER),
    ] = []
    dispatch: Annotated[
        Dispatch,
        Flag(
            "--dispatch",
            "RULE",
            "Of several servers, which gets a job: least-backlog, round-robin, affinity or pinned.",
            SERVER,
        ),
    ] = "least-backlog"
    resolve_all: Annotated[
        bool, Flag("--resolve-all", "", "Use every address that the server's name has, as a server of its own.", SERVER)
    ] = False
    plan: Plan = Plan(load=Closed())
    settings: Annotated[
        list[str],
        Flag(
            "--set",
            "NODE.INPUT=VALUE",
            "Set an input, or a seed, in all jobs; NODE is an id or a title. Repeatable.",
            WORK,
        ),
    ] = []
    data: Annotated[
        str | None, Flag("--data", "FILE", "CSV, TSV or JSON with columns NODE.INPUT: one row per job.", WORK)
    ] = None
    uploads: Annotated[
        list[str], Flag("--upload", "FILE", "Upload an input image to the server first. Repeatable.", WORK)
    ] = []
    keep_prefix: Annotated[
        bool, Flag("--keep-prefix", "", "Save under the graph's own file names, not in a folder of the run.", WORK)
    ] = False
    keep_workflow: Annotated[
        bool, Flag("--keep-workflow", "", "Keep the graph itself in the manifest, not only its hash.", RESULT)
    ] = False
    preflight: Annotated[bool, Flag("--no-preflight", "", "Submit even what the server would refuse.", SERVER)] = True
    drop_broken_outputs: Annotated[
        bool, Flag("--drop-broken-outputs", "", "Leave out the outputs that the server would drop.", SERVER)
    ] = False
    allow_shared: Annotated[
        bool, Flag("--allow-shared", "", "Run even if others use the server; the run may then be invalid.", SERVER)
    ] = False
    headers: Annotated[
        list[str],
        Flag("--header", "NAME=VALUE", "Send a header; NAME=env:VAR reads it from the variable. Repeatable.", SERVER),
    ] = []
    ca_file: Annotated[str | None, Flag("--ca-file", "PEM", "Trust this certificate authority.", SERVER)] = None
    insecure: Annotated[bool, Flag("--insecure", "", "Do not check the server's certificate.", SERVER)] = False
    name: Annotated[str | None, Flag("--name", "NAME", "Name of the run.", RESULT, default="the workflow's")] = None
    run_dir: Annotated[
        str | None, Flag("--run-dir", "DIR", "The run directory.", RESULT, default="runs/<utc>-<name>", repeat=False)
    ] = None
    comfyui_dir: Annotated[
        str | None,
        Flag(
            "--comfyui-dir",
            "DIR",
            "ComfyUI's folder, for its commit and those of its custom nodes.",
            RESULT,
            default="that of the process on the port",
        ),
    ] = None
    notes: Annotated[
        list[str],
        Flag("--note", "KEY=TEXT", "Record what no program can see, such as the enclosure. Repeatable.", RESULT),
    ] = []
    policy: Annotated[
        str | None,
        Flag(
            "--policy",
            "FILE",
            "Send failed jobs again by this policy, which comfyload policy makes.",
            LOAD,
            old="--retry",
        ),
    ] = msgspec.field(name="retry", default=None)  # the key of manifests, which had the flag's earlier name
    telemetry: Annotated[
        bool, Flag("--no-telemetry", "", "Read no GPU, machine, probe or log during the run.", RESULT)
    ] = True
    scrape: Annotated[
        list[str],
        Flag("--scrape", "URL", "Read a Prometheus endpoint, such as DCGM's, during the run. Repeatable.", RESULT),
    ] = []
    metrics_log: Annotated[
        str | None,
        Flag(
            "--metrics-log",
            "FILE",
            "The instrumentation log; its rows from the run are judged and kept.",
            JUDGE,
            env="COMFYUI_METRICS_LOG",
        ),
    ] = None
    max_jobs: Annotated[
        int | None,
        Flag("--max-jobs", "N", "Send at most N jobs in all runs of the command, warm-up included.", SERVER, least=1),
    ] = None
    max_time_s: Annotated[
        Seconds | None,
        Flag(
            "--max-time",
            "TIME",
            "Send no more jobs after this time, such as 30m. Running jobs finish.",
            SERVER,
            least=0.001,
        ),
    ] = None
    shard: Annotated[
        str | None,
        Flag("--shard", "I/N", "Send every N-th arrival from the I-th on; I is from 0 to N-1.", LOAD, repeat=False),
    ] = None
    start_at: Annotated[
        str | None,
        Flag("--start-at", "INSTANT", "Begin the load then: ISO 8601 (UTC), or Unix seconds.", LOAD, repeat=False),
    ] = None
    allow_lost_shards: Annotated[
        bool,
        Flag("--allow-lost-shards", "", "A run in shards is valid without the jobs of lost ones.", LOAD, repeat=False),
    ] = False
