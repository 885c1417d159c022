"""How a gate is written: a number of the summary, how it compares, and a limit; and which numbers there are.

No numpy here: gates are read before the first job leaves.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable
from typing import Literal, NoReturn, cast

from msgspec import Struct

from comfyload.errors import UsageError
from comfyload.judge.columns.ledger import clean
from comfyload.judge.number import Measure, Number
from comfyload.judge.numbers import NUMBERS, workflow_numbers
from comfyload.load.grammar import parse_duration

Op = Literal["<=", "<", ">=", ">", "=="]
DEFAULT_GATES = ("success_rate >= 98 %", "p95_latency_s <= 45", "unexpected_errors == 0")


class Gate(Struct, frozen=True, kw_only=True):
    """One condition. `metric` is a key of the summary, of one workflow if `WORKFLOW.` stands before it; `limit` is in
    the unit of the key, a share as a fraction. `of_baseline`: it is a factor of the baseline's value instead.
    `independent`: failures are taken to come one at a time.
    """

    text: str
    metric: str
    op: Op
    limit: float
    of_baseline: bool = False
    independent: bool = False

    @property
    def workflow(self) -> str:
        """Whose number it is; "" for the whole run's."""
        return self.metric.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The number without its workflow."""
        return self.metric.rpartition(".")[2]

    @property
    def upper(self) -> bool:
        """Whether less is better."""
        return self.op in ("<=", "<", "==")

    @property
    def number(self) -> Number:
        """The row of the number."""
        return (workflow_numbers() if self.workflow else NUMBERS)[self.name]

    def holds(self, value: float, limit: float) -> bool:
        """Whether a value stands on the right side of a limit."""
        if self.op == "==":
            return value == limit
        if self.upper:
            return value < limit or (self.op == "<=" and value == limit)
        return value > limit or (self.op == ">=" and value == limit)


class GateSet(Struct, frozen=True, kw_only=True):
    """Gates, and regular expressions of expected errors. `independent_failures`: failures are taken to come one at a
    time, and not in bursts.
    """

    gates: list[Gate]
    expected_errors: list[str] = []
    independent_failures: bool = False


_SHAPE = re.compile(r"(?P<metric>[^<>=]+?)\s*(?P<op><=|>=|==|<|>)\s*(?P<limit>[^<>=]+)")
_NUMBER = r"(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)"
_LIMIT = re.compile(rf"{_NUMBER}\s*(?P<unit>%|[a-z]+)?")
_OF_BASELINE = re.compile(
    rf"(?:{_NUMBER}\s*\*\s*)?baseline|baseline\s*\*\s*(?P<after>{_NUMBER.replace('number', 'n')})"
)
_KEYS = "gates, expected_errors and independent_failures"
_EXAMPLE = "write it like: p95_latency_s <= 45, success_rate >= 98 %, images_per_minute >= 0.95 * baseline"


def parse_gate(text: str) -> Gate:
    """Read one gate.

    Raises:
        UsageError: it is not written as a gate is, names no number of the summary, or cannot be judged.
    """
    text = clean(text, 200)
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        raise UsageError(f"invalid gate {text or '(empty)'!r}", _EXAMPLE)
    metric, op = shape["metric"], cast(Op, shape["op"])
    number = _number(text, metric)
    exact = number.measure in ("count", "bytes")
    if op == "==" and not exact:
        _refuse(text, f"{metric} is measured, so == never holds", "use <= or >=")
    relative = _OF_BASELINE.fullmatch(shape["limit"].strip())
    if relative is not None:
        if op == "==" or number.kind == "errors":
            _refuse(text, f"{metric} cannot be compared with a baseline in this way", "give a number")
        factor = float(relative["number"] or relative["after"] or 1)
        if not 0 < factor < float("inf"):
            _refuse(text, "the factor of the baseline must be above 0", _EXAMPLE)
        return Gate(text=text, metric=metric, op=op, limit=factor, of_baseline=True)
    return Gate(text=text, metric=metric, op=op, limit=_limit(text, shape["limit"].strip(), number.measure))


def read_gates(text: str, origin: str) -> GateSet:
    """Read a file of gates in TOML: `gates`, a list of them, `expected_errors`, a list of regular expressions, and
    `independent_failures`, true or false.

    A file without gates has an empty list of them: whoever reads it uses the defaults then.

    Raises:
        UsageError: it is not TOML, holds another key or another type, or something in it is not written as it must be.
    """
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{origin}: invalid TOML: {clean(str(error), 120)}", 'write gates = ["…"]') from None
    lists: dict[str, list[str]] = {"gates": [], "expected_errors": []}
    independent = content.pop("independent_failures", False)
    if not isinstance(independent, bool):
        raise UsageError(f"{origin}: independent_failures is not true or false", "write independent_failures = true")
    for key, value in content.items():
        if key not in lists:
            hint = _nearest(key, [*lists, "independent_failures"])
            raise UsageError(f"{origin}: unknown key {clean(key, 60)}", hint or f"the keys are {_KEYS}")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise UsageError(f"{origin}: {key} must be a list of texts", f'write {key} = ["…"]')
        lists[key] = value
    expected_patterns(lists["expected_errors"], f"{origin}: ")
    try:
        gates = [parse_gate(gate) for gate in lists["gates"]]
    except UsageError as error:
        raise UsageError(f"{origin}: {error.message}", error.hint) from None
    return GateSet(gates=gates, expected_errors=lists["expected_errors"], independent_failures=independent)


def expected_patterns(expressions: Iterable[str], where: str = "") -> list[re.Pattern[str]]:
    """Compile what is expected.

    Raises:
        UsageError: one is not a regular expression, or matches everything because it is empty.
    """
    patterns = []
    for expression in expressions:
        try:
            patterns.append(re.compile(expression))
        except re.error as error:
            message = f"{where}invalid regular expression {clean(expression, 80)!r}"
            raise UsageError(message, f"{error.msg}; put \\ before a sign that stands for itself") from None
        if not expression:
            raise UsageError(f"{where}an empty pattern matches every error", "leave it out")
    return patterns


def _number(text: str, metric: str) -> Number:
    workflow, _, name = metric.rpartition(".")
    names = workflow_numbers() if workflow else {key: row for key, row in NUMBERS.items() if row.kind != "flag"}
    if name not in names:
        of = " of one workflow" if workflow else ""
        hint = _nearest(name, names) or "name a key of the summary, such as success_rate or p95_latency_s"
        _refuse(text, f"unknown number {name}{of}", hint)
    return names[name]


def _nearest(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(names), 1, 0.5)
    return f"did you mean {near[0]}?" if near else ""


def _limit(text: str, written: str, measure: Measure) -> float:
    if measure == "s" and not re.fullmatch(_NUMBER, written):
        try:
            return parse_duration(written)
        except UsageError as error:
            _refuse(text, error.message, error.hint or _EXAMPLE)
    parts = _LIMIT.fullmatch(written)
    if parts is None:
        _refuse(text, f"invalid limit {written!r}", _EXAMPLE)
    limit, unit = float(parts["number"]), parts["unit"]
    if unit == "%" and measure == "share":
        limit = round(0.01 * limit, 12)  # 98 * 0.01 is not quite 0.98
    elif unit is not None:
        _refuse(text, f"unknown unit {unit}", "use %" if measure == "share" else "leave it out")
    if limit == float("inf"):
        _refuse(text, "the limit is infinite", _EXAMPLE)
    if measure == "share" and limit > 1:
        _refuse(text, "a share is at most 1", "write 98 % or 0.98")
    return limit


def _refuse(text: str, why: str, hint: str) -> NoReturn:
    raise UsageError(f"in the gate {text}: {why}", hint)
