"""A Page as one HTML file that needs no network: answer and picture first, and every text escaped."""

import base64
import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from comfyload.report.charts.chart import script
from comfyload.report.charts.theme import CSS, config
from comfyload.report.page import Page, Remark, Table
from comfyload.report.render.notes import Notes

_SIGNS = {"good": "✓", "doubt": "?", "bad": "✗", "plain": "✓"}
_LEVELS = {"invalid": "bad", "warning": "doubt", "info": "plain"}
_TITLES = {"gates": "Verdicts", "changes": "B against A"}
"""Of tables that have no title where nothing else is shown."""
_REMARKS = 5
"""So many remarks without a level are shown; the rest is folded."""


def render_html(page: Page, parts: Sequence[Page] = (), *, repeat: Sequence[str] = (), tool: str = "comfyload") -> str:
    """The whole file. `parts`: pages of single runs, folded below it. `repeat`: command lines that make it again."""
    css, js, vega = _text("report.css"), _text("report.js"), script()
    templates = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    templates.filters["embedded"] = _embedded
    templates.globals |= {"Notes": Notes, "signs": _SIGNS, "levels": _LEVELS, "titles": _TITLES}
    templates.globals |= {"anchored": _anchored, "parted": _parted}
    return templates.from_string(_text("report.html")).render(
        tool=tool,
        policy=_policy(scripts=(vega, js), style=css),
        css=Markup(css),
        js=Markup(js),
        vega=Markup(vega),
        config=config(CSS),
        page=page,
        parts=parts,
        repeat="\n".join(repeat),
    )


def _anchored(tables: Sequence[Table], anchor: str) -> list[tuple[Table, str]]:
    """Each table with its id, which is no other's."""
    keys = [one.key for one in tables]
    return [(one, f"{anchor}-table-{one.key}{keys[:at].count(one.key) or ''}") for at, one in enumerate(tables)]


def _parted(remarks: Sequence[Remark]) -> tuple[list[Remark], list[Remark]]:
    """Those that are shown: all problems and a few others; and those that are folded."""
    shown = [one for one in remarks if one.level != "info"]
    shown += [one for one in remarks if one.level == "info" and not one.detail][:_REMARKS]
    return shown, [one for one in remarks if one not in shown]


def _policy(scripts: Sequence[str], style: str) -> str:
    """Nothing may load, and only these scripts and this style count, by their hash."""
    allowed = " ".join(_hash(text) for text in scripts)
    parts = ("default-src 'none'", f"script-src {allowed}", f"style-src {_hash(style)}", "img-src data:")
    return "; ".join((*parts, "base-uri 'none'", "form-action 'none'"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _embedded(value: object) -> Markup:
    """JSON that no text in it can leave: `<`, `>`, `&` and the line ends that only JavaScript knows are escaped."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # safe: made of no character that HTML knows


@cache
def _text(name: str) -> str:
    return (files("comfyload.report") / "templates" / name).read_text(encoding="utf-8")
