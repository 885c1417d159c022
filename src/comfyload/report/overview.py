"""The page of a run, or of several that belong together, such as a baseline: the answer and one picture come first."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from msgspec import Struct, UnsetType, structs

from comfyload.judge.columns.ledger import clean
from comfyload.judge.findings.table import Finding
from comfyload.judge.gates.gate import GateVerdict
from comfyload.judge.observations import observations, run_labels
from comfyload.judge.summary import Measured
from comfyload.record.environment.which_gpu import is_simulated
from comfyload.record.model import Environment
from comfyload.report.blocks import failures
from comfyload.report.charts.concurrency import concurrency_chart
from comfyload.report.charts.distribution import Limit
from comfyload.report.of_run import page_of, validity
from comfyload.report.page import Chart, Look, Page, PageLine, Remark, Table, Value, table
from comfyload.report.plan_text import plan_words
from comfyload.report.sections import environment_rows, gates, gates_by_run, jobs_table, p95, results, sure
from comfyload.report.steps import by_workflow, knee, rate_key
from comfyload.report.verdicts import gate_state
from comfyload.words import DASH, count, seconds_words

JOBS = 200
"""Jobs listed in a page; the run's JSON has them all."""
_TILES = 3
"""Workflows that have tiles of their own."""
_VARIED = 5


class Shown(Struct, frozen=True, kw_only=True):
    """A run as a page shows it. `jobs`: flat, as `document.jobs` gives them; more than `JOBS` are not needed."""

    measured: Measured
    charts: list[Chart]
    jobs: list[dict[str, Any]] = []


def overview(
    title: str,
    shown: Sequence[Shown],
    *,
    verdicts: Sequence[GateVerdict] = (),
    environment: Environment | None = None,
    notes: dict[str, str] | None = None,
    limits: Sequence[Limit] = (),
) -> Page:
    """The page of these runs together. `limits`: words and seconds of gates on latency."""
    runs = [one.measured for one in shown]
    rows = environment_rows(environment or {}, notes)
    columns = ["what", "value", "source"]
    known = table("environment", columns, rows, title="Environment", detail=True) if rows else None
    single = len(shown) == 1
    page = run_page(shown[0], title, verdicts) if single else _of_several(title, runs, verdicts, limits)
    found = [Remark("info", one.text) for one in observations(runs)]
    return structs.replace(
        page,
        subtitle=_subtitle(runs),
        tables=[*page.tables, *_present([known, _origin(runs)])],
        remarks=[*page.remarks, *found],
    )


def run_page(shown: Shown, title: str, verdicts: Sequence[GateVerdict] = ()) -> Page:
    """The page of a run with its pictures and jobs."""
    measured = shown.measured
    page = page_of(measured, verdicts, [chart for chart in shown.charts if chart.spec is not None])
    jobs = len(measured.jobs.every.completed)
    name = "Jobs" if jobs <= JOBS else f"The first {JOBS} of {jobs} jobs; the run's JSON has all"
    tables = [*page.tables, *_present([jobs_table(shown.jobs[:JOBS], name)])]
    return structs.replace(page, title=title, tables=tables)


def _of_several(title: str, runs: Sequence[Measured], verdicts: Sequence[GateVerdict], limits: Sequence[Limit]) -> Page:
    chart = concurrency_chart(runs, limits)
    tables = [gates(verdicts), results(runs), failures(runs), gates_by_run(verdicts)]
    return Page(
        title=title,
        states=[validity(runs), *([gate_state(verdicts)] if verdicts else [])],
        tiles=_tiles(runs),
        charts=[chart] if chart.spec is not None else [],
        tables=_present(tables if runs else []),
        remarks=_findings(runs),
    )


def _present(tables: Iterable[Table | None]) -> list[Table]:
    return [one for one in tables if one is not None]


def _subtitle(runs: Sequence[Measured]) -> list[str]:
    """When, how many runs, on which machine."""
    if not runs:
        return ["no run"]
    first = runs[0].manifest
    begun = datetime.fromisoformat(first.started_utc)
    fleet = [server for run in runs for server in run.manifest.fleet]
    versions = dict.fromkeys(server.comfyui_version or "of unknown version" for server in fleet)
    servers = dict.fromkeys(clean(server.url, 120) for server in fleet)
    return [
        f"{begun.day} {begun:%b %Y, %H:%M} UTC",
        count(len(runs), "run") if len(runs) > 1 else plan_words(first.plan),
        gpu_names(runs),
        f"ComfyUI {clean(', '.join(versions), 60)}",
        ", ".join(servers),
    ]


def gpu_names(runs: Sequence[Measured]) -> str:
    """The GPUs by name, from the environment, or else as the server calls them."""
    names: dict[str, None] = {}
    for run in runs:
        manifest, more = run.manifest, run.manifest.environments
        for server in manifest.fleet:
            facts = manifest.environment
            if server != manifest.server:
                facts = {} if isinstance(more, UnsetType) else more.get(server.name, {})
            models = [fact.value for key, fact in facts.items() if key.startswith("gpu.") and key.endswith(".model")]
            known = [str(model) for model in models if model is not None]
            devices = [str(device.get("name") or device.get("type")) for device in server.devices]
            names |= dict.fromkeys(known or devices)
    words = clean(", ".join(names), 200) or "GPU unknown"
    simulated = any(is_simulated(server) for run in runs for server in run.manifest.fleet)
    return f"{words}: a simulator, no measurement of a GPU" if simulated else words


def _tiles(runs: Sequence[Measured]) -> list[PageLine]:
    """Rate and p95 of each workflow at its knee, or else at its highest rate; then what all have in common."""
    tiles = list[PageLine]()
    rate, steps = rate_key(runs), by_workflow(runs)
    unit = "images/min" if rate == "images_per_minute" else "jobs/min"
    for part in steps[:_TILES]:
        best = knee(part) or max(part, key=lambda run: run.summary.statistics[rate].value or 0.0)
        name = clean(best.manifest.name, 40) if len(steps) > 1 else ""
        users = best.manifest.plan.concurrency
        where = " at ".join(filter(None, [name, f"{users} in flight" if users else ""]))
        tiles.append(PageLine(f"{unit}, {where}", sure(best.summary.statistics[rate]), key=rate))
        tiles.append(PageLine(f"p95 latency, {where}", p95(best.summary), key="p95_latency_s"))
    done, jobs = (sum(int(run.summary.summary[key] or 0) for run in runs) for key in ("completed", "total_jobs"))
    look: Look = "plain" if done == jobs else "bad"
    tiles.append(PageLine("jobs completed", Value(f"{done} of {jobs}", look=look), look=look))
    knees = [run.manifest.plan.concurrency or 0 for run in map(knee, steps) if run is not None]
    if knees and len(knees) == len(steps):
        words = f"{min(knees)}" if len(set(knees)) == 1 else f"{min(knees)} {DASH} {max(knees)}"
        tiles.append(PageLine("saturates the server", Value(f"{words} in flight")))
    return tiles


def _origin(runs: Sequence[Measured]) -> Table | None:
    """When and how each run was made, and of what."""
    rows = []
    for run in runs:
        manifest, plan = run.manifest, run.manifest.plan
        times = [(time or "no end")[:19].replace("T", " ") for time in (manifest.started_utc, manifest.ended_utc)]
        varied = [name for facts in manifest.workflows for name in facts.varied]
        more = f" and {len(varied) - _VARIED} more" if len(varied) > _VARIED else ""
        rows.append(
            [
                manifest.run_id,
                *times,
                plan_words(plan),
                "none" if plan.timeout_s is None else seconds_words(plan.timeout_s),
                "new" if plan.seed is None else str(plan.seed),
                "nothing" if plan.as_is or not varied else ", ".join(varied[:_VARIED]) + more,
                ", ".join(f"{facts.name} {facts.sha256[:16]}" for facts in manifest.workflows),
                manifest.tool,
            ]
        )
    columns = ["run", "started (UTC)", "ended (UTC)", "load", "timeout", "seed", "differs between jobs",
               "workflow SHA-256", "tool"]  # fmt: skip
    return table("origin", columns, rows, title="How each run was made", detail=True) if rows else None


def _findings(runs: Sequence[Measured]) -> list[Remark]:
    """A remark for each kind of finding: that of the first run, and how many others have it."""
    found: dict[str, list[tuple[str, Finding]]] = {}
    for label, run in zip(run_labels(runs), runs, strict=True):
        for finding in run.summary.findings:
            found.setdefault(finding.code, []).append((label, finding))
    order = ("invalid", "warning", "info").index
    remarks = []
    for code, given in found.items():
        label, first = min(given, key=lambda one: order(one[1].level))
        everywhere = len({finding.text for _, finding in given}) == 1 and len(given) == len(runs)
        others = f" {count(len(given) - 1, 'other run')} too." if len(given) > 1 else ""
        text = first.text if everywhere else f"{label}: {first.text}{others}"
        remarks.append(Remark(first.level, text, hint=first.hint, code=code))
    return sorted(remarks, key=lambda one: order(one.level))
