"""The page: verdicts first, nothing loaded, no text that is a stranger's ever markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from msgspec import structs

from comfyload.app.report import compared, whole_page
from comfyload.judge.comparison.compare import compare
from comfyload.judge.gates.gate import judge
from comfyload.judge.gates.grammar import DEFAULT_GATES, GateSet, parse_gate
from comfyload.judge.summary import measure
from comfyload.record.model import Fact
from comfyload.record.plan import Open, Stage
from comfyload.report.comparison import comparison_page
from comfyload.report.html import render_html
from comfyload.report.overview import Shown, overview
from comfyload.report.page import Bar, Bars, Column, Page, Remark, State, Table, Value
from comfyload.report.sections import gates
from tests.unit.chart_runs import EVIL, hostile, shown
from tests.unit.judge_runs import manifest, one_by_one, planned, served

GATES = GateSet(gates=[parse_gate(text) for text in DEFAULT_GATES])


class _Page(HTMLParser):
    """What a page is made of: tags in order, text outside of scripts, scripts and styles by their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[tuple[str, dict[str, str | None], str]] = []
        self.text = ""
        self._in: tuple[str, dict[str, str | None]] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in = (tag, dict(attrs)) if tag in ("script", "style") else None

    def handle_endtag(self, tag: str) -> None:
        self._in = None

    def handle_data(self, data: str) -> None:
        if self._in is None:
            self.text += data
        else:
            self.inline.append((*self._in, data))


def _html(title: str, runs: list[Shown], command: tuple[str, ...] = (), **given: Any) -> str:
    return whole_page(overview(title, runs, **given), runs, command)


@pytest.fixture(scope="module")
def evil() -> str:
    return _html(
        f"baseline {EVIL}",
        [hostile()],
        (f"comfyload run --workflow '{EVIL}'",),
        environment={
            f"custom_nodes.{EVIL}": Fact(value=EVIL, source=EVIL),
            "comfyui.commit": Fact(source="not recorded"),
        },
        notes={EVIL: EVIL},
    )


def _plain(seconds: float = 10.0, name: str = "book") -> Shown:
    return shown(manifest(30, name=name), list(one_by_one([seconds + i % 3 for i in range(30)])))


def test_strangers_text_is_text_and_never_a_tag(evil: str) -> None:
    page = _Page(evil)
    assert EVIL not in evil
    assert page.text.count(EVIL) >= 8 and f"baseline {EVIL}" in page.text
    assert [attributes.get("type") for tag, attributes in page.tags if tag == "script"].count(None) == 2


def test_the_policy_allows_what_is_inline_by_its_hash_and_nothing_else(evil: str) -> None:
    page = _Page(evil)
    (policy,) = [a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv") and a["content"]]
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    hashed = [text for tag, attributes, text in page.inline if attributes.get("type") != "application/json"]
    assert len(hashed) == 3
    for text in hashed:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy
    assert not [
        tag for tag, attributes in page.tags if "style" in attributes or any(k.startswith("on") for k in attributes)
    ]


def test_nothing_is_loaded_from_anywhere(evil: str) -> None:
    page = _Page(evil)
    assert not [tag for tag, _ in page.tags if tag in ("link", "img", "iframe", "object", "embed", "base")]
    assert not [attributes for _, attributes in page.tags if "src" in attributes]
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert all(link is not None and link.startswith("#") for link in links)


def test_data_of_charts_is_json_with_no_character_of_html(evil: str) -> None:
    blocks = [text for _, attributes, text in _Page(evil).inline if attributes.get("type") == "application/json"]
    assert len(blocks) == 7
    for block in blocks:
        assert not set("<>&\u2028") & set(block)
        json.loads(block)


def test_headings_are_in_order_and_the_language_is_stated(evil: str) -> None:
    page = _Page(evil)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert ("html", {"lang": "en"}) in page.tags and page.tags[[t for t, _ in page.tags].index("a")][1][
        "href"
    ] == "#main"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_each_chart_is_described(evil: str) -> None:
    page = _Page(evil)
    plots = [attributes for tag, attributes in page.tags if attributes.get("class") == "plot"]
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert len(plots) == 6
    for plot in plots:
        assert plot["role"] == "img" and {plot["aria-labelledby"], plot["aria-describedby"], plot["data-spec"]} <= ids


def test_answer_and_one_picture_come_first() -> None:
    one = _plain()
    text = _Page(_html("a run", [one], verdicts=judge(GATES, one.measured))).text
    order = [
        "images/min",
        "✓ VALID",
        "✓ ok",
        "Latency of each job",
        "success_rate >= 98 %",
        "What was found",
        "More charts",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.count("Latency of each job, by phase") == 1


def test_a_page_has_one_interval_of_success_and_one_count_of_independent_jobs() -> None:
    """In a queue, jobs depend on each other; the gates of a page rest on the same run as its numbers."""
    due = [1.3 * i for i in range(40)]
    run = planned(Open(stages=[Stage(per_s=1 / 1.3)], arrivals="constant"), 40)
    measured = measure("r", run, served(due, [0.5 + (i // 5 % 2) * 1.4 for i in range(40)]))
    given = GateSet(gates=[parse_gate(f"{name}_latency_s <= 9") for name in ("p50", "p90", "p95")] + GATES.gates)
    one = Shown(measured=measured, charts=[])
    text = _Page(_html("a run", [one], verdicts=judge(given, measured))).text
    assert len(set(re.findall(r"information of (\d+) independent", text))) <= 1
    assert "92.8" not in text  # what the gate's one-sided test would bound it by


def test_a_run_that_is_not_valid_says_so_first() -> None:
    text = _Page(_html("a run", [hostile()])).text
    assert "✗ INVALID" in text and text.index("INVALID") < text.index("What was found")


def test_a_withheld_number_gives_its_reason_once() -> None:
    runs = [shown(manifest(12, name=name), list(one_by_one([10.0 + i % 3 for i in range(12)]))) for name in ("a", "b")]
    html = _html("few", runs)
    table = html[html.index('id="page-table-results"') : html.index('id="remarks"')]
    assert table.count("a p95 needs 20 jobs") == 1 and table.count("≤ 12.0 s") == 2


def test_several_runs_have_a_row_and_a_folded_part_each() -> None:
    html = _html("two", [_plain(10.0, "small"), _plain(20.0, "large")])
    page = _Page(html)
    ids = {attributes.get("id") for tag, attributes in page.tags if tag == "details"}
    assert {"run-1", "run-2"} <= ids
    assert [tag for tag, a in page.tags if tag == "details" and "open" in a] == []
    assert html.count("window.vegaEmbed") == 2  # once where it is set, once where it is called
    assert "small at 1 in flight · " in page.text


def test_gates_of_several_runs_are_a_line_a_gate_with_the_worst() -> None:
    runs = [_plain(10.0, "small"), _plain(60.0, "large")]
    verdicts = [
        structs.replace(verdict, run=one.measured.manifest.name)
        for one in runs
        for verdict in judge(GATES, one.measured)
    ]
    table = gates(verdicts)
    assert table is not None and len(table.rows) == 3
    (slow,) = [row for row in table.rows if row[1].words == "p95_latency_s <= 45"]
    assert [cell.words for cell in slow[:5]] == ["✗", "p95_latency_s <= 45", "62.0 s", "FAIL", "1 of 2 runs"]
    assert gates([]) is None


def test_a_comparison_states_ratio_interval_and_verdict() -> None:
    a, b = _plain(10.0), _plain(20.0)
    page = compared(overview("ab", [b]), comparison_page(compare([a.measured], [b.measured])))
    text = re.sub(r"\s+", " ", _Page(render_html(page)).text)
    assert text.index("SLOWER") < text.index("VALID") < text.index("B against A")
    assert re.search(r"p50 latency ?11\.0 s ?21\.0 s", text)


def test_what_is_unknown_of_the_environment_is_called_unknown(evil: str) -> None:
    text = re.sub(r"\s+", " ", _Page(evil).text)
    assert "comfyui.commitunknown" in text.replace(" ", "") and "not recorded" in text


def test_no_run_at_all_is_still_a_page() -> None:
    assert "No run was made." in _Page(_html("nothing", [])).text


def test_every_part_of_a_page_is_shown_and_numbers_of_notes_are_shared() -> None:
    value = Value(words="5", interval="4 to 6", note="a reason")
    page = Page(
        title="T", subtitle=["sub"], states=[State(word="PASS", look="good", sentence="fine.")], short=["short words"],
        bars=[Bars(key="b", title="bars", bars=[Bar(label="one", share=0.25, words="25 %")])],
        tables=[Table(key="t", title="", note="under it", columns=[Column(title=one) for one in ("", "gate", "n")],
                      rows=[[Value(words="✓"), Value(words="x"), value], [Value(words="✗"), Value(words="y"), value]])],
        remarks=[Remark(level="warning", text="careful", hint="do this"),
                 Remark(level="info", text="quiet", detail=True)],
        notes=["the end"], next=["comfyload next"], places=[("Run", "runs/x")],
    )  # fmt: skip
    html = render_html(page)
    text = _Page(html).text
    parts = ("sub", "✓ PASS", "fine.", "short words", "25 %", "4 to 6", "under it", "careful", "do this", "quiet")
    for part in (*parts, "the end", "comfyload next", "runs/x"):
        assert part in text, part
    assert html.count("a reason") == 1 and html.count('href="#page-table-t-note-1"') == 2
    assert html.index("careful") < html.index("<summary>1 more</summary>") < html.index("quiet")
    assert '<th scope="row" class="plain">x</th>' in html  # a sign heads no row
