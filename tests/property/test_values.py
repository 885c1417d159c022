"""Whatever a table, a value or a graph holds, it is read or refused in one line."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from comfyload.errors import UsageError
from comfyload.workflow import ObjectInfo, Variation, parse
from comfyload.workflow.data import parse_table
from comfyload.workflow.object_info import InputSpec
from comfyload.workflow.remarks import remarks
from comfyload.workflow.values import Unfit, typed
from tests.unit.test_table import INFO, workflow

ODD = st.sampled_from(list('1.value3width,;\t"\n\r =sep{}[]:eE+-0 \u2028\x1f\ufeffüNaN'))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = st.from_regex(r"[+-]?[0-9.,eE+-]{0,12}", fullmatch=True) | st.text(ODD, max_size=6)
SPECS = [None, InputSpec(kind=[1, "a", True]), InputSpec(kind="COMBO", options={"options": ["a", 2]})]
SPECS += [InputSpec(kind=kind) for kind in ("INT", "FLOAT", "BOOLEAN", "STRING", "IMAGE", "INT,FLOAT")]
LINKS = st.tuples(st.sampled_from("12345"), st.integers(-1, 2)).map(list)
KEYS = ["seed", "noise_seed", "value", "images", "a.seed", "filename_prefix", "model"]
NODES = st.fixed_dictionaries(
    {
        "class_type": st.sampled_from(["KSampler", "PrimitiveInt", "X", "SaveImage", "LoadImage", "Seed"]),
        "inputs": st.dictionaries(st.sampled_from(KEYS), JSON | LINKS, max_size=4),
    }
)


@given(st.text(ODD, max_size=80), st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_table_is_read_or_refused(text: str, headed: bool) -> None:
    text = f"1.value,3.width\n{text}" if headed else text
    try:
        table = parse_table(text, "t")
        variation = Variation(workflow(), INFO, seed=1, table=table)
    except UsageError as error:
        assert error.exit_code == 2 and error.message.startswith("t")
        return
    for index in range(len(table.rows) + 1):
        assert json.loads(variation.render(index))


@given(JSON | NUMBERS, st.sampled_from(SPECS), JSON, st.booleans())
@settings(max_examples=1000, deadline=None)
def test_any_value_is_typed_or_unfit(value: Any, spec: InputSpec | None, present: Any, comma: bool) -> None:
    try:
        found = typed(value, spec, present, {"1"}, decimal_comma=comma)
    except Unfit as unfit:
        assert str(unfit)
        return
    kind = None if spec is None or spec.choices is not None else spec.kind
    expected = {"INT": int, "FLOAT": (int, float), "BOOLEAN": bool}.get(kind if isinstance(kind, str) else "")
    assert expected is None or isinstance(found, expected) or found == ["1", found[1]]


@given(st.dictionaries(st.sampled_from("12345"), NODES, min_size=1, max_size=5))
@settings(max_examples=300, deadline=None)
def test_any_graph_can_be_varied(graph: dict[str, Any]) -> None:
    read = parse(json.dumps(graph).encode(), "g")
    for info in (ObjectInfo(), INFO):
        variation = Variation(read, info, seed=1, output_folder="x")
        first, second = (json.loads(variation.render(index)) for index in (0, 1))
        assert first.keys() == second.keys() == graph.keys()
        assert (first != second) == bool(variation.varied or variation.salted)
        assert all(remark.text for remark in remarks(variation, 5))
