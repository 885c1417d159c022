"""The README of a baseline, on one screen: the answer, the table, one picture, verdicts, and how to repeat it."""

import re
from collections.abc import Sequence
from functools import partial
from urllib.parse import quote

from msgspec import structs

from comfyload.record.archive import Contents
from comfyload.report.console import escaped
from comfyload.report.overview import Shown, gpu_names
from comfyload.report.page import Chart, Page, Table, table
from comfyload.report.render.markdown import as_markdown
from comfyload.report.sections import environment_rows
from comfyload.report.steps import by_workflow, knee
from comfyload.words import count

PAGE = "report.html"
_link = partial(quote, errors="surrogateescape")
"""A file name as the target of a link."""
_OF_EACH = ("latency", "nodes")
"""Charts of each workflow that are kept as pictures, of its run at the knee."""
_MACHINE = ("gpu.", "enclosure", "host.cpu", "host.os", "comfyui.version", "comfyui.commit")
"""What of the environment is shown: the page has all of it."""
_REMARKS = 5


def pictures(kept: Contents, page: Page, shown: Sequence[Shown]) -> dict[str, Chart]:
    """The charts that a baseline keeps as PNG, by their file names: the page's first, and two of each workflow."""
    out = {f"{chart.name}.png": chart for chart in page.charts[:1]} if len(shown) > 1 else {}
    of = {id(one.measured): (run, one) for run, one in zip(kept.runs, shown, strict=True)}
    for steps in by_workflow([one.measured for one in shown]):
        run, one = of[id(knee(steps) or steps[0])]
        stem = run.output.removesuffix(".json").removeprefix("load_")
        out |= {f"{stem}_{chart.name}.png": chart
                for chart in one.charts if chart.name in _OF_EACH and chart.spec is not None}  # fmt: skip
    return out


def render_readme(kept: Contents, page: Page, shown: Sequence[Shown]) -> str:
    """The README in GitHub's Markdown; `shown` are the runs of `kept`, in its order, and `page` is of them together.

    Text of servers and workflows is escaped: no markup, no HTML, no new cell.
    """
    images = [f"![{escaped(chart.title)}]({_link(name)})" for name, chart in pictures(kept, page, shown).items()]
    tables = {one.key: one for one in page.tables if not one.detail}
    titles = {"gates": "Verdicts", "failures": "Failures"}
    below = [Page(title=title, tables=[structs.replace(tables[key], title="")])
             for key, title in titles.items() if key in tables]  # fmt: skip
    parts = [
        _answer(page, [tables["results"]] if "results" in tables else []),
        f"[The page with all numbers and charts]({PAGE})",
        *images[:1],
        *(as_markdown(one, level=2).rstrip() for one in below),
        _found(page),
        as_markdown(_machine(kept, shown), level=2).rstrip(),
        _folded("Repeat it", _repeat(kept)),
        _folded("Files", _files(kept)),
        *([_folded("More pictures", "\n\n".join(images[1:]))] if images[1:] else []),
    ]
    return "\n\n".join(parts) + "\n"


def _answer(page: Page, tables: list[Table]) -> str:
    """Title, states and numbers; where a table has a row for each run, only what all runs have in common before it."""
    common = [f"{one.value.words} {one.label}" for one in page.tiles if not one.key]
    head = Page(
        title=f"Baseline {page.title}",
        subtitle=page.subtitle,
        states=page.states,
        tiles=[] if tables else page.tiles,
        short=common if tables else page.short,
        tables=[structs.replace(one, title="") for one in tables],
    )
    return as_markdown(head).rstrip()


def _folded(title: str, text: str) -> str:
    """A part that a reader opens, as GitHub shows it."""
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _found(page: Page) -> str:
    """All problems, and as many of the rest as make five."""
    grave = [one for one in page.remarks if one.level != "info"]
    rest = [one for one in page.remarks if one.level == "info" and not one.detail]
    shown = [*grave, *rest[: max(0, _REMARKS - len(grave))]]
    found = Page(title="What was found", subtitle=[] if shown else ["Nothing."], remarks=shown)
    left = len(page.remarks) - len(shown)
    more = f"- {left} more in [the page]({PAGE})" if left else ""
    return f"{as_markdown(found, level=2, all=True)}{more}".rstrip()


def _machine(kept: Contents, shown: Sequence[Shown]) -> Page:
    """What is known of the machine, and what people noted; the page has the rest, and what is unknown."""
    rows = [
        (key, value, source)
        for key, value, source in environment_rows(kept.environment, kept.notes)
        if source == "you" or (key.startswith(_MACHINE) and value != "unknown")
    ]
    if rows:
        return Page(title="Machine", tables=[table("machine", ("what", "value", "source"), rows)])
    gpus = gpu_names([one.measured for one in shown])
    return Page(title="Machine", subtitle=[f"GPU: {gpus}. More was not recorded."])


def _repeat(kept: Contents) -> str:
    """Commands as a block of code: nothing in it is markup, except a line that would end it."""
    lines = [" ".join(line.splitlines()) for line in kept.command]
    if not lines:
        return "The commands were not recorded."
    fence = "`" * max([3, *(len(ticks) + 1 for ticks in re.findall("`+", " ".join(lines)))])
    return "\n".join([f"{fence}sh", *lines, fence])


def _files(kept: Contents) -> str:
    outputs = ", ".join(f"[{escaped(run.output)}]({_link(run.output)})" for run in kept.runs)
    lines = [f"- [{PAGE}]({PAGE}): every number, chart and job, for people", f"- {outputs}: the same for programs"]
    lines.append(f"- `runs/`: {count(len(kept.runs), 'run directory', 'run directories')} that the numbers come from")
    if kept.log is not None:
        lines.append(f"- [{escaped(kept.log)}]({_link(kept.log)}): the instrumentation log's rows of these runs")
    lines.append("- `manifest.json`: SHA-256 of every file; `comfyload baseline verify` checks them and every number")
    return "\n".join(lines)
