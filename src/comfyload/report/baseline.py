"""The README of a baseline: what was measured, on what, how sure it is, and how to repeat it, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from comfyload.judge.gates.gate import overall
from comfyload.report.console import escaped
from comfyload.report.headline import Number, headline
from comfyload.report.plan_text import plan_words
from comfyload.report.sections import environment_rows, failure_rows, gpu_words
from comfyload.report.text import count, duration
from comfyload.report.verdicts import by_result, value_words

if TYPE_CHECKING:
    from comfyload.judge.gates.gate import GateVerdict
    from comfyload.judge.summary import Measured
    from comfyload.record.archive import KeptRun
    from comfyload.record.model import Environment
    from comfyload.report.charts.chart import Chart
    from comfyload.report.html import Shown

__all__ = ["BaselineContents", "pictures", "render_readme"]

PAGE = "report.html"
_PICTURES = ("latency", "distribution", "flow", "gpu", "nodes")
_HARDWARE = ("gpu", "enclosure", "host")


class BaselineContents(Protocol):
    """What a README needs of a baseline: its manifest has it, and so has what goes into a new one."""

    @property
    def runs(self) -> list[KeptRun]: ...
    @property
    def environment(self) -> Environment: ...
    @property
    def notes(self) -> dict[str, str]: ...
    @property
    def command(self) -> list[str]: ...
    @property
    def log(self) -> str | None: ...


def pictures(kept: BaselineContents, shown: Sequence[Shown]) -> dict[str, Chart]:
    """The charts that a baseline keeps as PNG beside its README, by their file names."""
    out = {}
    for run, one in zip(kept.runs, shown, strict=True):
        for chart in one.charts:
            if chart.name in _PICTURES and chart.spec is not None:
                stem = run.output.removesuffix(".json").removeprefix("load_")
                out[f"{stem}_{chart.name}.png"] = chart
    return out


def render_readme(
    kept: BaselineContents,
    shown: Sequence[Shown],
    *,
    verdicts: Sequence[GateVerdict] = (),
    observations: Sequence[str] = (),
    title: str = "",
) -> str:
    """The README in GitHub's Markdown; `shown` are the runs of `kept`, in its order.

    Text of servers and workflows is escaped: no markup, no HTML, no new cell.
    """
    names = list(dict.fromkeys(run.name for run in kept.runs))
    parts = [
        f"# Baseline {escaped(title or ', '.join(names))}",
        _state(shown, verdicts),
        "## Results",
        _results(kept, shown),
        _failures(shown),
        "## Acceptance",
        _acceptance(verdicts),
        "## Observations",
        "\n".join(f"- {escaped(sentence)}" for sentence in observations) or "None.",
        "## Hardware",
        _hardware(kept, shown),
        "## ComfyUI and custom nodes",
        _facts(kept.environment, lambda room: room not in (*_HARDWARE, "note")) or _servers(shown),
        "## How the load was made",
        _parameters(kept, shown),
        "## Pictures",
        _images(kept, shown),
        "## Repeat it",
        _repeat(kept),
        "## Files",
        _files(kept),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _state(shown: Sequence[Shown], verdicts: Sequence[GateVerdict]) -> str:
    invalid = [one.measured.manifest.name for one in shown if not one.measured.summary.valid]
    said = "**VALID.** The numbers measure what they are named after."
    if invalid or not shown:
        which = escaped(", ".join(invalid) or "there is no run")
        said = f"**NOT VALID:** {which}. Those numbers do not measure what they are named after; the page says why."
    gates = f" Gates: **{escaped(overall(verdicts))}** ({count(len(verdicts), 'gate')})." if verdicts else ""
    begun = shown[0].measured.manifest.started_utc[:16].replace("T", " ") if shown else "never"
    return f"{said}{gates}\n\nMeasured {begun} UTC. [The page with all charts and tables]({PAGE})."


def _results(kept: BaselineContents, shown: Sequence[Shown]) -> str:
    """A row a run: value, and the interval beneath; why a number is withheld stands in its place."""
    if not shown:
        return "None."
    labels = [one.label for one in headline(shown[0].measured)]
    rows = []
    for run, one in zip(kept.runs, shown, strict=True):
        flat = one.measured.summary.summary
        cells = [_cell(cell) for cell in headline(one.measured)]
        jobs = f"{flat['completed']} of {flat['total_jobs']}"
        rows.append([escaped(run.name), escaped(run.load), jobs, *cells])
    table = _table(["run", "load", "completed", *labels], rows, escape=False)
    return f"{table}\n\nBeneath each number its 95 % interval, and n: the jobs that it rests on."


def _cell(cell: Number) -> str:
    """Value, interval and n in three lines of a cell; why there is no interval in the second."""
    lines = (cell.value, cell.interval or cell.why, f"n = {cell.n}" if cell.n else "")
    return "<br>".join(escaped(line) for line in lines if line)


def _failures(shown: Sequence[Shown]) -> str:
    rows = [[one.measured.manifest.name, *row] for one in shown for row in failure_rows(one.measured.summary)[:5]]
    if not rows:
        return ""
    return "### Failures\n\n" + _table(["run", "kind", "jobs", "node class", "first message", "first job"], rows)


def _acceptance(verdicts: Sequence[GateVerdict]) -> str:
    if not verdicts:
        return "No gate was judged."
    rows = [
        [f"{_SIGNS[one.verdict]} {one.verdict}", run, one.gate, value_words(one), str(one.n or ""), one.why]
        for run, given in by_result(verdicts).items()
        for one in given
    ]
    legend = "PASS: proven at 95 %. PASS\\*: inside the limit, not proven. INCONCLUSIVE: undecided. FAIL: disproven. "
    legend += "Intervals here are what a verdict rests on: one-sided at 95 % of a share or a percentile."
    return _table(["verdict", "run", "gate", "value", "n", "why"], rows) + f"\n\n{legend}"


_SIGNS = {"PASS": "✓", "PASS*": "✓", "INCONCLUSIVE": "?", "FAIL": "✗"}


def _hardware(kept: BaselineContents, shown: Sequence[Shown]) -> str:
    table = _facts(kept.environment, lambda room: room in _HARDWARE)
    notes = "\n".join(f"- {escaped(key)}: {escaped(text)}" for key, text in kept.notes.items())
    gpus = ", ".join(dict.fromkeys(gpu_words(one.measured) for one in shown))
    return "\n\n".join(part for part in (table or f"GPU: {escaped(gpus)}. More was not recorded.", notes) if part)


def _servers(shown: Sequence[Shown]) -> str:
    told = {(m.server.url, m.server.comfyui_version or "unknown") for m in (one.measured.manifest for one in shown)}
    lines = [f"- {escaped(url)}: ComfyUI {escaped(version)}, commit unknown" for url, version in sorted(told)]
    return "\n".join([*lines, "- custom nodes: not recorded"])


def _facts(environment: Environment, of: Callable[[str], bool]) -> str:
    rows = environment_rows({key: fact for key, fact in environment.items() if of(key.partition(".")[0])})
    return _table(["what", "value", "where it was read"], rows) if rows else ""


def _parameters(kept: BaselineContents, shown: Sequence[Shown]) -> str:
    rows = []
    for run, one in zip(kept.runs, shown, strict=True):
        plan, manifest = one.measured.manifest.plan, one.measured.manifest
        timeout = "none" if plan.timeout_s is None else duration(plan.timeout_s)
        graphs = ", ".join(f"{facts.name} {facts.sha256[:12]}" for facts in manifest.workflows)
        varied = "unchanged graph" if plan.as_is else _varied(one.measured)
        seed = "drawn anew" if plan.seed is None else str(plan.seed)
        rows.append([run.name, plan_words(plan), str(plan.warmup), timeout, seed, varied, graphs])
    columns = ["run", "load", "warm-up", "timeout", "seed", "what differs between jobs", "workflow, SHA-256"]
    return _table(columns, rows)


def _varied(measured: Measured) -> str:
    varied = [name for facts in measured.manifest.workflows for name in facts.varied]
    if not varied:
        return "nothing"
    return ", ".join(varied[:5]) + (f" and {len(varied) - 5} more" if len(varied) > 5 else "")


def _images(kept: BaselineContents, shown: Sequence[Shown]) -> str:
    """Each picture under its title, its words beneath it; of those that were not drawn, why."""
    parts = []
    of = {id(chart): name for name, chart in pictures(kept, shown).items()}
    for run, one in zip(kept.runs, shown, strict=True):
        parts += [f"### {escaped(run.name)}, {escaped(run.load)}"] if len(shown) > 1 else []
        for chart in one.charts:
            if id(chart) in of:
                picture = f"![{escaped(chart.title)}]({_target(of[id(chart)])})"
                parts.append(f"**{escaped(chart.title)}**\n\n{picture}\n\n{escaped(chart.description)}")
            elif chart.name in _PICTURES:
                parts.append(f"**{escaped(chart.title)}**: not drawn, {escaped(chart.withheld)}.")
    return "\n\n".join(parts) or "None."


def _repeat(kept: BaselineContents) -> str:
    """Commands as a block of code: nothing in it is markup, except a line that would end it."""
    lines = [" ".join(line.splitlines()) for line in kept.command]
    if not lines:
        return "The commands were not recorded."
    fence = "`" * max(3, *(_longest_run(line) + 1 for line in lines))
    return "\n".join([f"{fence}sh", *lines, fence])


def _longest_run(line: str) -> int:
    return max((len(part) for part in "".join(c if c == "`" else " " for c in line).split()), default=0)


def _files(kept: BaselineContents) -> str:
    lines = [
        f"- [{escaped(run.output)}]({_target(run.output)}): numbers and jobs of {escaped(run.folder)}"
        for run in kept.runs
    ]
    lines.append(f"- [{PAGE}]({PAGE}): the same as a page for people")
    if kept.log is not None:
        told = "what the log or the probe told of the runs, else a row for each job"
        lines.append(f"- [{escaped(kept.log)}]({_target(kept.log)}): {told}")
    lines.append("- `manifest.json`: SHA-256 of every file; `comfyload baseline verify` checks them and every number")
    return "\n".join(lines)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, escape: bool = True) -> str:
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join('---' for _ in columns)} |"]
    lines += [f"| {' | '.join(escaped(cell) if escape else cell for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _target(name: str) -> str:
    """A file name as the target of a link."""
    return quote(name, errors="surrogateescape")
