"""A text from a shell or a table becomes the value that its input takes, or is refused with the reason."""

from __future__ import annotations

from typing import Any

import pytest

from comfyload.workflow.object_info import InputSpec
from comfyload.workflow.values import Unfit, typed

INT = InputSpec(kind="INT", options={"min": 0, "max": 2**64 - 1})
FLOAT, BOOLEAN, STRING = (InputSpec(kind=kind) for kind in ("FLOAT", "BOOLEAN", "STRING"))
CHOICE = InputSpec(kind=[1, 2, "euler"])
COMBO = InputSpec(kind="COMBO", options={"options": ["fixed", 8]})
NODES = {"1", "2"}


@pytest.mark.parametrize(
    ("text", "spec", "present", "value"),
    [
        ("False", BOOLEAN, True, False),
        ("FALSE", BOOLEAN, True, False),
        ("true", BOOLEAN, False, True),
        ("Yes", BOOLEAN, False, True),
        ("no", BOOLEAN, True, False),
        ("1", BOOLEAN, False, True),
        (" 0 ", BOOLEAN, True, False),
        ("False", None, True, False),
        (0, BOOLEAN, True, False),
        ("64", INT, 1, 64),
        ("064", INT, 1, 64),
        (" 64", INT, 1, 64),
        ("64.0", INT, 1, 64),
        ("1e2", INT, 1, 100),
        ("-3", INT, 1, -3),
        (7.0, INT, 1, 7),
        ("18446744073709551615", INT, 1, 2**64 - 1),
        ("18446744073709551615.0", INT, 1, 2**64 - 1),
        ("64", INT, "placeholder", 64),
        ("64", INT, ["1", 0], 64),
        ("3.9", FLOAT, 1, 3.9),
        ("8", FLOAT, 1.0, 8.0),
        (".5", FLOAT, 1.0, 0.5),
        ("8.5", None, 8, 8.5),
        ("8", None, 8.5, 8),
        ("12", STRING, "x", "12"),
        ("12", None, "x", "12"),
        ("", STRING, "x", ""),
        ("[1, 2]", STRING, "x", "[1, 2]"),
        ("2", CHOICE, 1, 2),
        ("euler", CHOICE, 1, "euler"),
        ("8", COMBO, "fixed", 8),
        ("heun", CHOICE, 1, "heun"),  # no choice of the list: preflight says so
        ('["1", 0]', INT, 1, ["1", 0]),
        (["2", 1], STRING, "x", ["2", 1]),
        ('{"a": 1}', InputSpec(kind="CURVE"), {}, {"a": 1}),
    ],
)
def test_a_value_gets_the_type_of_its_input(text: Any, spec: InputSpec | None, present: Any, value: Any) -> None:
    found = typed(text, spec, present, NODES)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "spec", "present", "says"),
    [
        ("maybe", BOOLEAN, True, "write true or false"),
        ("2", BOOLEAN, True, "write true or false"),
        ("", BOOLEAN, True, "is empty"),
        ("3.9", INT, 1, "write an integer"),
        (3.9, INT, 1, "write an integer"),
        ("big", INT, 1, "write an integer"),
        ("0x40", INT, 1, "write an integer"),
        ("1,000", INT, 1, "write an integer"),
        ("1e9999999999", INT, 1, "write an integer"),
        ("9" * 5000, INT, 1, "write an integer"),
        ("", INT, 1, "is empty; write an integer"),
        (True, INT, 1, "write an integer"),
        ("NaN", INT, 1, "write an integer"),
        ("1.84467E+19", INT, 1, "rounded by a spreadsheet"),
        ("1.23457E+11", INT, 1, "rounded by a spreadsheet"),
        (1.84467e19, INT, 1, "write all digits"),
        ("0,8", FLOAT, 1.0, "decimal point"),
        ("nan", FLOAT, 1.0, "write a number"),
        (float("nan"), FLOAT, 1.0, "finite"),
        ("1e999", FLOAT, 1.0, "finite"),
        ("x", None, 3, "write a number"),
        (None, STRING, "x", "is null"),
        ("a\0b", STRING, "x", "NUL"),
        ('["77", 0]', INT, 1, "node 77, which is not in the graph"),
        (["77", 0], INT, 1, "node 77, which is not in the graph"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(
    text: Any, spec: InputSpec | None, present: Any, says: str
) -> None:
    with pytest.raises(Unfit, match=says):
        typed(text, spec, present, NODES)


def test_a_decimal_comma_is_read_where_commas_do_not_separate() -> None:
    assert typed("0,8", FLOAT, 1.0, NODES, decimal_comma=True) == 0.8
    with pytest.raises(Unfit):
        typed("3,9", INT, 1, NODES, decimal_comma=True)
