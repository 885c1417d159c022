"""A Page as one HTML file that needs no network: answer and picture first, and every text escaped."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment as Templates
from jinja2 import StrictUndefined
from markupsafe import Markup

from comfyload.report.charts.chart import Chart
from comfyload.report.charts.draw import script
from comfyload.report.charts.theme import CSS, config
from comfyload.report.page import Page, Remark, Table, Value

_SIGNS = {"good": "✓", "doubt": "?", "bad": "✗", "plain": "✓"}
_LEVELS = {"invalid": "bad", "warning": "doubt", "info": "plain"}
_TITLES = {"gates": "Verdicts", "changes": "B against A"}
"""Of tables that have no title where nothing else is shown."""
_REMARKS = 5
"""So many remarks without a level are shown; the rest is folded."""


def render_html(page: Page, parts: Sequence[Page] = (), *, repeat: Sequence[str] = (), tool: str = "comfyload") -> str:
    """The whole file. `parts`: pages of single runs, folded below it. `repeat`: command lines that make it again."""
    css, js, vega = _text("report.css"), _text("report.js"), script()
    template = _templates().from_string(_text("report.html"))
    return template.render(
        tool=tool,
        policy=_policy(scripts=(vega, js), styles=(css,)),
        css=Markup(css),
        js=Markup(js),
        vega=Markup(vega),
        config=_embedded(config(CSS)),
        page=_view(page, "page"),
        parts=[_view(part, f"run-{number}") for number, part in enumerate(parts, 1)],
        repeat="\n".join(repeat),
    )


def _view(page: Page, anchor: str) -> dict[str, Any]:
    """The page as the template takes it; ids begin with `anchor`."""
    charts = [_chart(chart, f"{anchor}-{chart.name}") for chart in page.charts]
    first, rest = _remarks(page.remarks)
    keys = [one.key for one in page.tables]
    tables = [
        _table(one, f"{anchor}-table-{one.key}{keys[:at].count(one.key) or ''}") for at, one in enumerate(page.tables)
    ]
    facts = _Notes()
    return {
        "anchor": anchor,
        "title": page.title,
        "subtitle": page.subtitle,
        "states": [(one, _SIGNS[one.look]) for one in page.states],
        "tiles": page.tiles,
        "short": page.short,
        "bars": page.bars,
        "main": charts[:1],
        "charts": charts[1:],
        "facts": [(one.label, facts.cell(one.value)) for one in page.facts],
        "fact_notes": facts.texts,
        "tables": [one for one in tables if not one["detail"]],
        "details": [one for one in tables if one["detail"]],
        "remarks": first,
        "more_remarks": rest,
        "notes": page.notes,
        "next": "\n".join(page.next),
        "places": page.places,
    }


def _table(table: Table, anchor: str) -> dict[str, Any]:
    """Its rows with their columns, for narrow screens; a table without a title has that of its first column."""
    notes = _Notes()
    rows = [
        [{"column": column, **notes.cell(value)} for column, value in zip(table.columns, row, strict=True)]
        for row in table.rows
    ]
    return {
        "id": anchor,
        "title": table.title or table.columns[0].title or _TITLES.get(table.key, table.key.capitalize()),
        "columns": table.columns,
        "header": 1 if all(len(row[0].words) == 1 for row in table.rows) else 0,  # a sign heads no row
        "titled": any(column.title for column in table.columns),
        "rows": rows,
        "notes": notes.texts,
        "note": table.note,
        "detail": table.detail,
        "intervals": any(value.interval for row in table.rows for value in row),
    }


class _Notes:
    """Footnotes, numbered as they come up; equal ones have one number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def cell(self, value: Value) -> dict[str, Any]:
        """A value with the number of its note, 0 for none."""
        if value.note and value.note not in self.texts:
            self.texts.append(value.note)
        note = self.texts.index(value.note) + 1 if value.note else 0
        return {"words": value.words, "interval": value.interval, "look": value.look, "note": note}


def _remarks(remarks: Sequence[Remark]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Those that are shown: all problems and a few others; and those that are folded."""
    rows = [
        {"look": _LEVELS[one.level], "level": one.level if one.level != "info" else "", "text": one.text}
        | {"hint": one.hint, "folded": "yes" if one.detail else ""}
        for one in remarks
    ]
    shown = [row for row in rows if row["level"]]
    shown += [row for row in rows if not row["level"] and not row["folded"]][:_REMARKS]
    return shown, [row for row in rows if row not in shown]


def _chart(chart: Chart, anchor: str) -> dict[str, Any]:
    return {
        "id": anchor,
        "title": chart.title,
        "description": chart.description,
        "json": None if chart.spec is None else _embedded(chart.spec),
        "columns": chart.columns,
        "rows": chart.rows,
    }


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
