"""The screen of `faults`: the sums in a sentence, a sign for each client in each trouble, and rows that add up."""

from __future__ import annotations

import io

from rich.console import Console

from comfyload.report.faults import Outcome, faults_page
from comfyload.report.render.terminal import render

NAIVE = "3 retries at once"
ROWS = [
    Outcome(scenario="steady", client="no retry", jobs=100, in_time=100, of=100),
    Outcome(scenario="steady", client=NAIVE, jobs=100, in_time=100, of=100),
    Outcome(scenario="steady", client="policy", jobs=100, in_time=100, of=100),
    Outcome(scenario="validation", client="no retry", jobs=100, in_time=30, late=40, failed=30, of=84),
    Outcome(scenario="validation", client=NAIVE, jobs=100, in_time=60, late=20, failed=10, given_up=7, lost=3, of=84,
            slowest_s=123.4, recovery_s=61.2, twice=11, executed=100, executions_failed=12, left=10),
    Outcome(scenario="validation", client="policy", jobs=100, in_time=84, failed=16, of=84),
    Outcome(scenario="restart", client="policy", why="a server cannot be restarted from outside"),
]  # fmt: skip


def _printed(rows: list[Outcome], *, all_: bool = False, encoding: str = "utf-8") -> list[str]:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="\n", write_through=True)
    render(faults_page(rows, 6.0), Console(file=file, width=80, color_system=None), all=all_)
    return raw.getvalue().decode(encoding).splitlines()


def test_the_sentence_comes_first_and_the_policy_first_in_it() -> None:
    lines = _printed(ROWS)
    assert " ".join(lines[:2]) == (
        "With the policy: 184 of 184 jobs in time, none run twice. No retry: 130. 3 retries at once: 160, 11 run twice."
    )
    assert max(map(len, lines)) <= 80


def test_a_sign_stands_for_all_for_half_and_for_less() -> None:
    (steady, validation, *_) = (line.split() for line in _printed(ROWS) if line.startswith(("steady", "validation")))
    assert steady == ["steady", "●", "●", "●"]
    assert validation == ["validation", "●", "○", "30/84", "◐", "60/84", "11", "twice"]
    assert ["steady", "*", "*", "*"] in [line.split() for line in _printed(ROWS, encoding="ascii")]


def test_only_what_went_wrong_has_a_row_and_its_parts_add_up() -> None:
    short, whole = _printed(ROWS), _printed(ROWS, all_=True)
    (naive,) = (line for line in short if NAIVE in line and line.split()[-1] == "10")
    assert naive.split()[-8:] == ["100", "60", "20", "10", "7", "3", "11", "10"]
    assert sum(map(int, naive.split()[-7:-2])) == 100
    assert sum("policy" in line for line in short) == 2 and sum("policy" in line for line in whole) == 6
    text = " ".join(short)
    assert (
        "validation: 16 of 100 jobs cannot be done at all." in text and "restart: not played, a server cannot" in text
    )
    assert "123 s" not in text and "123 s" in " ".join(whole) and max(map(len, whole)) <= 80


def test_what_the_policy_must_never_do_is_an_error() -> None:
    rows = [Outcome(scenario="blip", client="policy", jobs=9, in_time=8, lost=1, of=9, left=2)]
    assert "✗ blip: with the policy 1 lost, 2 left in the queue." in _printed(rows)
