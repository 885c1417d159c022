"""The benchmark's one table: medians, ranges, and ratios of values that were measured in the same round."""

from __future__ import annotations

import pytest
from bench.__main__ import measure
from bench.case import OURS, Case, Round, Row, rows
from bench.process import Missing
from bench.table import markdown, spread


def case(client: str, values: list[float], what: str = "a job") -> Case:
    """Measures these one after the other, and then fails."""
    left = iter(values)

    def measured() -> dict[str, float]:
        value = next(left, None)
        if value is None:
            raise Missing("no more")
        return {"CPU µs": value}

    return Case(what=what, client=client, measure=measured, rounds=3)


def test_a_ratio_is_of_two_values_of_the_same_round() -> None:
    table, left_out = measure({"jobs": [case(OURS, [100, 200, 400]), case("other", [300, 400, 2000])]}, quick=False)
    assert left_out == []
    ours, other = table
    assert ours.values == [100, 200, 400] and ours.times_ours == []
    assert other.values == [300, 400, 2000] and other.times_ours == [3, 2, 5]


def test_a_round_that_fails_is_left_out_and_named() -> None:
    table, left_out = measure({"jobs": [case(OURS, [100, 200, 400]), case("other", [300]), case("none", [])]}, False)
    assert sorted(left_out) == ["2 of other: no more", "3 of none: no more"]
    assert [(row.client, row.values) for row in table] == [(OURS, [100, 200, 400]), ("other", [300])]


def test_a_round_in_which_we_failed_gives_no_ratio() -> None:
    found: dict[tuple[str, str], list[Round]]
    found = {("a job", OURS): [None, {"CPU µs": 100.0}], ("a job", "other"): [{"CPU µs": 300.0}, {"CPU µs": 500.0}]}
    _, other = rows("jobs", [case(OURS, []), case("other", [])], found)
    assert other.values == [300, 500] and other.times_ours == [5]


def test_quick_is_one_round() -> None:
    (row,), _ = measure({"jobs": [case(OURS, [100, 200])]}, quick=True)
    assert row.values == [100]


def test_a_case_that_we_do_not_have_has_no_ratio() -> None:
    (row,) = rows("sockets", [case("other", [], what="a socket")], {("a socket", "other"): [{"KB": 30.0}]})
    assert row.times_ours == []


def test_the_table_has_a_line_for_each_row_and_what_a_core_does_in_a_second() -> None:
    ours = Row(part="jobs", what="a job, sep", client=OURS, unit="CPU µs", values=[500.0, 400.0, 800.0])
    late = Row(part="lateness", what="x", client="C", unit="p50, µs", values=[1.5], times_ours=[0.25])
    lines = markdown([ours, late]).splitlines()
    assert lines[2:] == [
        "| jobs | a job, sep | comfyload | CPU µs | 500 (400 to 800) | 2,000 |  |",
        "| lateness | x | C | p50, µs | 1.50 |  | 0.250 |",
    ]
    assert len({line.count("|") for line in lines}) == 1


@pytest.mark.parametrize(
    ("values", "text"), [([0.0123], "0.0123"), ([12.34], "12.3"), ([1234567.0, 999.4, 5.0], "999 (5.00 to 1,234,567)")]
)
def test_numbers_have_three_digits(values: list[float], text: str) -> None:
    assert spread(values) == text
