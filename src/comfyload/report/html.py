"""The page that people look at: one file that needs no network, the verdicts first, and every text escaped."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment as Templates
from jinja2 import StrictUndefined
from markupsafe import Markup
from msgspec import Struct

from comfyload.judge.columns.ledger import clean
from comfyload.judge.gates.gate import overall
from comfyload.judge.summary import Measured
from comfyload.record.model import Environment
from comfyload.report.charts.chart import Chart
from comfyload.report.charts.draw import script
from comfyload.report.charts.theme import CSS, config
from comfyload.report.headline import headline
from comfyload.report.plan_text import plan_words
from comfyload.report.sections import (
    SHOWN,
    comparison_view,
    duration_rows,
    environment_rows,
    failure_rows,
    finding_rows,
    gate_groups,
    job_rows,
    run_facts,
    workflow_rows,
)
from comfyload.report.text import DASH, count

if TYPE_CHECKING:
    from comfyload.judge.comparison.compare import Comparison
    from comfyload.judge.gates.gate import GateVerdict

__all__ = ["JOBS", "Shown", "render_html"]

JOBS = 200
"""Jobs listed in a page; the JSON beside it has them all."""

_STATES = {
    "PASS": ("good", "✓", "Every gate is proven at 95 %."),
    "PASS*": ("doubt", "✓", "Every gate is inside its limit; not all are proven."),
    "INCONCLUSIVE": ("doubt", "?", "At least one gate is undecided."),
    "FAIL": ("bad", "✗", "At least one gate is disproven, or an error was not expected."),
}


class Shown(Struct, frozen=True, kw_only=True):
    """A run as a page shows it. `jobs`: flat, as `document.jobs` gives them; more than `JOBS` are not needed."""

    measured: Measured
    charts: list[Chart]
    jobs: list[dict[str, Any]] = []


def render_html(
    title: str,
    shown: Sequence[Shown],
    *,
    verdicts: Sequence[GateVerdict] = (),
    comparison: Comparison | None = None,
    environment: Environment | None = None,
    notes: dict[str, str] | None = None,
    observations: Sequence[str] = (),
    command: Sequence[str] = (),
) -> str:
    """The whole page. `command`: lines for a shell. It needs a browser, and nothing else."""
    css, js, vega = _text("report.css"), _text("report.js"), script()
    template = _templates().from_string(_text("report.html"))
    manifests = [one.measured.manifest for one in shown]
    return template.render(
        title=title,
        subtitle=_subtitle(shown),
        tool=manifests[0].tool if manifests else "comfyload",
        policy=_policy(scripts=(vega, js), styles=(css,)),
        css=Markup(css),
        js=Markup(js),
        vega=Markup(vega),
        config=_embedded(config(CSS)),
        states=_states(shown, verdicts),
        runs=[_run(one, number, len(shown)) for number, one in enumerate(shown)],
        observations=observations,
        gates=gate_groups(verdicts),
        comparison=None if comparison is None else comparison_view(comparison),
        environment=environment_rows(environment or {}),
        notes=list((notes or {}).items()),
        command="\n".join(command),
        provenance=[_provenance(one) for one in shown],
    )


def _run(shown: Shown, number: int, of: int) -> dict[str, Any]:
    measured = shown.measured
    manifest, summary = measured.manifest, measured.summary
    anchor, jobs = f"run-{number + 1}", len(measured.jobs.every.completed)
    return {
        "anchor": anchor,
        "name": manifest.name,
        "heading": manifest.name if of > 1 else "In detail",
        "load": plan_words(manifest.plan),
        "valid": "✓ valid" if summary.valid else "✗ not valid",
        "look": "good" if summary.valid else "bad",
        "facts": run_facts(measured),
        "numbers": headline(measured),
        "findings": finding_rows(summary),
        "charts": [_figure(chart, f"{anchor}-{chart.name}") for chart in shown.charts],
        "shown": SHOWN,
        "durations": duration_rows(summary),
        "workflows": workflow_rows(summary),
        "failures": failure_rows(summary),
        "jobs": job_rows(shown.jobs[:JOBS]),
        "jobs_words": count(jobs, "job")
        + (f", the first {JOBS} listed; the run's JSON has all" if jobs > JOBS else ""),
    }


def _figure(chart: Chart, anchor: str) -> dict[str, Any]:
    return {
        "id": anchor,
        "title": chart.title,
        "description": chart.description,
        "json": None if chart.spec is None else _embedded(chart.spec),
        "columns": chart.columns,
        "rows": chart.rows,
    }


def _states(shown: Sequence[Shown], verdicts: Sequence[GateVerdict]) -> list[dict[str, str]]:
    invalid = [one.measured.manifest.name for one in shown if not one.measured.summary.valid]
    warnings = sum(finding.level == "warning" for one in shown for finding in one.measured.summary.findings)
    if not shown or invalid:
        text = "The numbers do not measure what they are named after: " + clean(", ".join(invalid), 300)
        states = [{"look": "bad", "sign": "✗", "word": "NOT VALID", "text": text if shown else "There is no run."}]
    else:
        look, text = ("doubt", f"With {count(warnings, 'warning')}, below.") if warnings else ("good", "")
        text = text or "Nothing was found that speaks against these numbers."
        states = [{"look": look, "sign": "✓", "word": "VALID", "text": text}]
    if verdicts:
        word = overall(verdicts)
        look, sign, text = _STATES[word]
        states.append({"look": look, "sign": sign, "word": word, "text": f"{text} {count(len(verdicts), 'gate')}."})
    else:
        states.append({"look": "", "sign": DASH, "word": "No gates", "text": "Nothing was held against a limit."})
    return states


def _subtitle(shown: Sequence[Shown]) -> str:
    if not shown:
        return "No run"
    manifest = shown[0].measured.manifest
    runs = count(len(shown), "run")
    return f"{runs}, begun {manifest.started_utc[:16].replace('T', ' ')} UTC on {clean(manifest.server.url, 120)}"


def _provenance(shown: Shown) -> list[str]:
    manifest = shown.measured.manifest
    hashes = ", ".join(f"{facts.name} {facts.sha256[:16]}…" for facts in manifest.workflows)
    times = (manifest.started_utc[:19], (manifest.ended_utc or "no end")[:19])
    return [manifest.name, manifest.run_id, *times, manifest.tool, hashes]


def _policy(scripts: Sequence[str], styles: Sequence[str]) -> str:
    """Nothing may load, and only these scripts and styles count, by their hash."""
    allowed = " ".join(_hash(text) for text in scripts)
    looks = " ".join(_hash(text) for text in styles)
    parts = ("default-src 'none'", f"script-src {allowed}", f"style-src {looks}", "img-src data:")
    return "; ".join((*parts, "base-uri 'none'", "form-action 'none'"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded(value: object) -> Markup:
    """JSON that no text in it can leave: `<`, `>`, `&` and the line ends that only JavaScript knows are escaped."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # safe: made of no character that HTML knows


def _templates() -> Templates:
    return Templates(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@cache
def _text(name: str) -> str:
    return (files("comfyload.report") / "templates" / name).read_text(encoding="utf-8")
