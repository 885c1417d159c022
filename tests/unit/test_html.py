"""The page: verdicts first, nothing loaded, no text that is a stranger's ever markup."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from comfyload.judge.comparison.compare import compare
from comfyload.judge.gates.gate import judge
from comfyload.judge.gates.grammar import DEFAULT_GATES, GateSet, parse_gate
from comfyload.judge.summary import measure
from comfyload.record.model import Fact
from comfyload.record.plan import Open, Stage
from comfyload.report.html import Shown, render_html
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


@pytest.fixture(scope="module")
def evil() -> str:
    return render_html(
        f"baseline {EVIL}",
        [hostile()],
        environment={f"custom_nodes.{EVIL}": Fact(value=EVIL, source=EVIL), "comfyui.commit": Fact(source="not told")},
        notes={EVIL: EVIL},
        observations=[EVIL],
        command=[f"comfyload run --workflow '{EVIL}'"],
    )


def _plain(seconds: float = 10.0, name: str = "book") -> Shown:
    return shown(manifest(30, name=name), list(one_by_one([seconds + i % 3 for i in range(30)])))


def test_strangers_text_is_text_and_never_a_tag(evil: str) -> None:
    page = _Page(evil)
    assert EVIL not in evil
    assert page.text.count(EVIL) >= 8
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
    assert len(blocks) == 8
    for block in blocks:
        assert not set("<>&\u2028") & set(block)
        json.loads(block)


def test_headings_are_in_order_and_the_language_is_told(evil: str) -> None:
    page = _Page(evil)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert ("html", {"lang": "en"}) in page.tags and page.tags[[t for t, _ in page.tags].index("a")][1][
        "href"
    ] == "#main"
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_each_chart_has_its_words_beside_it(evil: str) -> None:
    page = _Page(evil)
    plots = [attributes for tag, attributes in page.tags if attributes.get("class") == "plot"]
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert len(plots) == 7
    for plot in plots:
        assert plot["role"] == "img" and {plot["aria-labelledby"], plot["aria-describedby"], plot["data-spec"]} <= ids


def test_verdict_and_validity_come_before_any_number() -> None:
    one = _plain()
    text = _Page(render_html("a run", [one], verdicts=judge(GATES, one.measured))).text
    assert (
        text.index("✓ VALID") < text.index("✓ PASS*") < text.index("Success rate") < text.index("Latency of each job")
    )
    assert "success_rate >= 98 %" in text and "All 30 jobs completed. To prove 98 %:" in text


def test_a_page_has_one_interval_of_success_and_one_count_of_independent_jobs() -> None:
    """In a queue, jobs depend on each other; the gates of a page rest on the same run as its numbers."""
    due = [1.3 * i for i in range(40)]
    run = planned(Open(stages=[Stage(per_s=1 / 1.3)], arrivals="constant"), 40)
    measured = measure("r", run, served(due, [0.5 + (i // 5 % 2) * 1.4 for i in range(40)]))
    gates = GateSet(gates=[parse_gate(f"{name}_latency_s <= 9") for name in ("p50", "p90", "p95")] + GATES.gates)
    text = _Page(render_html("a run", [Shown(measured=measured, charts=[])], verdicts=judge(gates, measured))).text
    assert len(set(re.findall(r"information of (\d+) independent", text))) == 1
    assert set(re.findall(r"(\d+\.\d) . 100 %", text)) == {"91.2"}
    assert "92.8" not in text  # what the gate's one-sided test would bound it by


def test_a_run_that_is_not_valid_says_so_first() -> None:
    text = _Page(render_html("a run", [hostile()])).text
    assert "✗ NOT VALID" in text and text.index("NOT VALID") < text.index("What was run")


def test_a_withheld_number_gives_its_reason() -> None:
    few = shown(manifest(12), list(one_by_one([10.0 + i % 3 for i in range(12)])))
    assert "withheld: 12 completed jobs; a p95 needs 20" in _Page(render_html("few", [few])).text


def test_several_runs_have_an_overview_whose_links_lead_to_them() -> None:
    html = render_html("two", [_plain(10.0, "small"), _plain(20.0, "large")])
    page = _Page(html)
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    ids = {attributes.get("id") for _, attributes in page.tags}
    assert "#run-1" in links and "#run-2" in links and {"run-1", "run-2"} <= ids
    assert html.count("window.vegaEmbed") == 2  # once where it is set, once where it is called


def test_a_comparison_states_ratio_interval_and_verdict() -> None:
    a, b = _plain(10.0), _plain(20.0)
    text = _Page(render_html("ab", [b], comparison=compare([a.measured], [b.measured]))).text
    assert "Comparison" in text and "single runs" in text
    assert re.search(r"p50 latency\s*11\.0 s\s*21\.0 s", re.sub(r"\s+", " ", text))


def test_what_is_unknown_of_the_environment_is_called_unknown(evil: str) -> None:
    text = re.sub(r"\s+", " ", _Page(evil).text)
    assert "comfyui.commit unknown" in text.replace("comfyui.commitunknown", "comfyui.commit unknown")
    assert "not told" in text


def test_no_run_at_all_is_still_a_page() -> None:
    assert "There is no run." in _Page(render_html("nothing", [])).text
