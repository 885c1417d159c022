"""Tables as people have them are read, or refused in one line that names the cause."""

from __future__ import annotations

import json
from typing import Any

import pytest

from comfyload.errors import UsageError
from comfyload.workflow import ObjectInfo, Variation, override, parse
from comfyload.workflow.data import parse_table
from comfyload.workflow.vary import SALT_INPUT

GRAPH = {
    "1": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "x"}, "_meta": {"title": "Prompt"}},
    "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    "3": {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 7},
        "_meta": {"title": "Size, big"},
    },
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "d"}},
    "5": {"class_type": "PrimitiveBoolean", "inputs": {"value": True}},
    "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 0]}},
}
INFO = ObjectInfo(
    {
        "PrimitiveStringMultiline": {"output": ["STRING"], "input": {"required": {"value": ["STRING", {}]}}},
        "PrimitiveBoolean": {"output": ["BOOLEAN"], "input": {"required": {"value": ["BOOLEAN", {}]}}},
        "EmptyImage": {"output": ["IMAGE"], "input": {"required": {"width": ["INT", {"min": 1, "max": 16384}]}}},
        "PreviewAny": {"output": ["STRING"], "output_node": True},
        "SaveImage": {"output": [], "output_node": True},
    }
)


def workflow() -> Any:
    return parse(json.dumps(GRAPH).encode(), "g")


def jobs(text: str) -> list[dict[str, Any]]:
    """What the first job of each row gets."""
    table = parse_table(text, "t.csv")
    variation = Variation(workflow(), INFO, seed=1, table=table)
    values = [variation.values(index) for index in range(len(table.rows))]
    return [{slot: value for slot, value in row.items() if not slot.endswith(SALT_INPUT)} for row in values]


TWO = [{"1.value": "a fox", "3.width": 64}, {"1.value": "b", "3.width": 128}]


@pytest.mark.parametrize(
    "text",
    [
        "1.value,3.width\na fox,64\nb,128\n",
        "\ufeff1.value,3.width\r\na fox,64\r\nb,128\r\n",
        "1.value,3.width\ra fox,64\rb,128\r",
        "1.value;3.width\na fox;64\nb;128\n",
        "1.value\t3.width\na fox\t64\nb\t128\n",
        "sep=,\r\n1.value,3.width\r\na fox,64\r\nb,128\r\n",
        "sep=|\n1.value|3.width\na fox|64\nb|128\n",
        "1.value, 3.width\na fox, 64\nb, 128\n",
        " 1.value ,3.width\na fox,64\nb,128\n",
        "1.value,3.width,\na fox,64,\nb,128,\n",
        "1.value,3.width\na fox,64\n\n   \nb,128\n",
        '"1.value","3.width"\n"a fox","64"\n"b",128\n',
        'Prompt.value,"Size, big.width"\na fox,64\nb,128\n',
        "1.value,3.width\na fox,64.0\nb,1.28e2\n",
        '{"1.value":"a fox","3.width":64}\n{"3.width":"128","1.value":"b"}\n',
        '[{"1.value":"a fox","3.width":64},{"1.value":"b","3.width":128.0}]',
        '[\n {"1.value": "a fox", "3.width": 64},\n {"1.value": "b", "3.width": 128}\n]\n',
    ],
)
def test_tables_that_mean_the_same_are_read_alike(text: str) -> None:
    assert jobs(text) == TWO


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ('"a\nmultiline fox"', "a\nmultiline fox"),
        ('a "quoted" word', 'a "quoted" word'),
        ("it's 5\" tall", "it's 5\" tall"),
        ('"a ""big"" fox, red"', 'a "big" fox, red'),
        ("🦊 fox 中文 \u2028 x\x85 y", "🦊 fox 中文 \u2028 x\x85 y"),
        ('"{""a"": 1}"', '{"a": 1}'),
        ("12", "12"),
    ],
)
def test_a_text_stays_what_it_is(cell: str, value: str) -> None:
    assert jobs(f"1.value\n{cell}\nanother\n")[0] == {"1.value": value}


def test_booleans_of_a_spreadsheet_are_booleans() -> None:
    assert jobs("5.value\nFALSE\nTRUE\n") == [{"5.value": False}, {"5.value": True}]


def test_a_row_may_link_an_input() -> None:
    assert jobs('{"3.width":["1",0]}\n') == [{"3.width": ["1", 0]}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no rows"),
        ("1.value,3.width\n", "holds no rows"),
        ("1.value,3.width\na,64\nb,big\nc,64\n", "line 3: 3.width is \"big\""),
        ("1.value,3.width\na fox,\n", "line 2: 3.width is empty"),
        ("1.value,3.width\na fox,0x40\n", 'line 2: 3.width is "0x40"'),
        ("1.value,3.width\na fox,64\nb\n", "line 3 has 1 field where the header has 2"),
        ("1.value,3.width\na, fox,64\n", "line 2 has 3 fields"),
        ("1.value,1.value\na,b\n", "two columns '1.value'"),
        ("1.value,Prompt.value\na,b\n", "two columns name the input 1.value"),
        ("1.value,\na,b\n", "column 2 has no name"),
        ('1.value\n"unterminated\nb\n', "a quoted field is not closed"),
        ("1.value,3.width\na\0fox,64\n", "line 2: 1.value holds a NUL character"),
        ('{"1.value":"a","3.width":64}\n{"1.value":"c"}\n', "line 2 has other keys than the first row (3.width is"),
        ('{"1.value":"a"}\n{"2.x":"c"}\n', "1.value is missing, 2.x is new"),
        ('{"1.value":null,"3.width":64}\n', "line 1: 1.value is null"),
        ('{"1.value":"a","1.value":"b"}\n', "key \"1.value\" twice"),
        ('{"1.value":"a"}\nx\n', "line 2 is not JSON"),
        ('[{"1.value":"a"}, 5]', "row 2 is not a JSON object"),
        ('{"3.width":["77",0]}\n', "line 1: 3.width links to node 77, which is not in the graph"),
        ("3.width\n1.84467E+19\n", "rounded by a spreadsheet"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_right_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        jobs(text)
    assert says in caught.value.message
    assert caught.value.message.startswith("t.csv")
    assert "\n" not in caught.value.message and caught.value.exit_code == 2


def test_a_set_link_to_a_missing_node_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--set 3.width links to node 55, which is not in the graph"):
        override(workflow(), ['3.width=["55",0]'], INFO)


def test_set_takes_the_declared_type() -> None:
    changed, applied = override(workflow(), ["5.value=False", "3.width=128"], INFO)
    assert applied == {"5.value": False, "3.width": 128}
    assert changed.graph["5"]["inputs"]["value"] is False
    with pytest.raises(UsageError, match=r"--set 3.width is 3.9"):
        override(workflow(), ["3.width=3.9"], INFO)
