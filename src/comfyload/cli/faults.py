"""`comfyload faults`: its flags."""

from pathlib import Path
from typing import Annotated

import typer

from comfyload import clock
from comfyload.cli.flags import Json, Quiet
from comfyload.cli.output import check_writable, for_people, show_page, write_json
from comfyload.cli.progress import working
from comfyload.cli.signature import Given, Takes, with_flags
from comfyload.errors import UsageError
from comfyload.record.flag import Flag
from comfyload.retry.policy import decode, default
from comfyload.text_files import read_text

TAKES = Takes(
    names=("server", "workflow", "policy", "header", "allow_shared"),
    env=False,
    help={
        "server": "A real server; only troubles that can be caused from outside. \\[default: the simulator]",
        "workflow": "The workflow for a real server, in API format.",
        "policy": "The retry policy, a file that comfyload policy makes. \\[default: a cautious policy]",
        "allow_shared": "Run even if others use the server.",
    },
)


@with_flags
def faults(
    given: Annotated[Given, TAKES],
    scenario: Annotated[
        str,
        Flag(
            "--scenario", "NAME", "steady, burst, validation, oom, blip, crash, latency, stall, restart, poison or all."
        ),
    ] = "all",
    heavy: Annotated[
        Path | None,
        Flag(
            "--heavy",
            "FILE",
            "A workflow that exhausts the server's memory, for oom.",
            default="one that allocates too much",
        ),
    ] = None,
    jobs: Annotated[int, Flag("--jobs", "N", "Jobs of each client.", short="-n", least=6)] = 30,
    job_time: Annotated[
        float, Flag("--job-time", "TIME", "How long a job takes; jobs arrive at 0.6 of the capacity.", least=0.001)
    ] = 0.2,
    deadline: Annotated[
        float | None, Flag("--deadline", "TIME", "When a job must be done.", default="30 times --job-time")
    ] = None,
    output: Annotated[Path | None, Flag("--output", "FILE", "Write the outcomes as JSON.", short="-o")] = None,
    all_: Annotated[bool, Flag("--all", "", "Show every count and time.")] = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Cause trouble on purpose and count the jobs done in time: without retries, with naive ones, and with a policy.

    The simulator has every scenario. A real server, through a proxy, has those of
    a bad network and of bad prompts. Jobs of others are not touched.

    Exit code 1: with the policy a job was lost, done twice, or left in the queue.

    [bold]Examples[/bold]

    comfyload faults --scenario all --policy retry.json

    comfyload faults --server :8188 --workflow smoke_small.json --scenario blip --job-time 300ms
    """
    from comfyload.app.faults import SCENARIOS, FaultOptions, Scenario
    from comfyload.app.faults import faults as play

    chosen = [name for name in SCENARIOS if scenario in (name, "all")]
    if not chosen:
        raise UsageError(f"unknown --scenario {scenario!r}", f"choose {', '.join(SCENARIOS)} or all")
    check_writable("--output", output, json_=json_)
    wanted = given.options()
    deadline_s = 30 * job_time if deadline is None else deadline
    options = FaultOptions(
        run=wanted,
        policy=default(deadline_s) if wanted.policy is None else decode(read_text(wanted.policy).encode()),
        scenarios=chosen,
        heavy=None if heavy is None else read_text(str(heavy)).encode(),
        jobs=jobs,
        job_s=job_time,
        deadline_s=deadline_s,
    )
    with working("Playing", quiet=quiet or json_, steps=True) as shown:

        def progress(name: Scenario, share: float) -> None:
            shown(share, f"{name} ({chosen.index(name) + 1} of {len(chosen)})")

        found = clock.run(play(options, progress))

    from comfyload.judge.summary import jsonable
    from comfyload.report.faults import faults_page

    document = {"deadline_s": deadline_s, "outcomes": jsonable(found)}
    write_json(output, document)
    show_page(faults_page(found, deadline_s), for_people(output), document if json_ else None, quiet=quiet, all_=all_)
    raise typer.Exit(0 if all(row.clean for row in found if row.client == "policy") else 1)
