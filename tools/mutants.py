"""Small faults to put into a Python file: each is a span of its text and what stands there instead."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

__all__ = ["Mutant", "mutants_of"]

SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
}
"""An operator, and the one that takes its place."""

NO_BEHAVIOUR = ("__all__", "__slots__")


class Mutant(Struct, frozen=True, kw_only=True):
    """One fault. `begin` and `end`: the span in the file's UTF-8 bytes. `line`: from 1."""

    file: str
    line: int
    kind: str
    before: str
    after: str
    begin: int
    end: int

    @property
    def key(self) -> str:
        """Names the fault as long as its file is not changed."""
        return f"{self.file}:{self.begin}-{self.end}:{self.kind}"

    def apply(self, source: bytes) -> bytes:
        """The file's text with the fault in it; no line that follows has another number for it."""
        lost = "\n" * (self.before.count("\n") - self.after.count("\n"))
        after = f"{self.after[:-1]}{lost})" if self.after.endswith(")") else f"{self.after}{lost}"
        return source[: self.begin] + after.encode() + source[self.end :]


def mutants_of(root: Path, file: Path) -> list[Mutant]:
    """Every fault of these kinds for the file, in the order of its text. A file that needs none has none."""
    source = file.read_bytes()
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def at(line: int, column: int) -> int:
        return lines[line - 1] + column

    found = []
    for node, kind, after in _changes(ast.parse(source)):
        assert node.end_lineno is not None and node.end_col_offset is not None
        begin, end = at(node.lineno, node.col_offset), at(node.end_lineno, node.end_col_offset)
        before = source[begin:end].decode()
        name = file.relative_to(root).as_posix()
        found.append(Mutant(file=name, line=node.lineno, kind=kind, before=before, after=after, begin=begin, end=end))
    return sorted(found, key=lambda mutant: (mutant.begin, mutant.end, mutant.kind))


def _changes(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str, str]]:
    """A node, the kind of change, and its new text."""
    for node in _walked(tree):
        if isinstance(node, ast.Compare):
            for place, operator in enumerate(node.ops):
                changed = copy.deepcopy(node)
                changed.ops[place] = SWAPS[type(operator)]()  # type: ignore[call-overload]
                yield node, "comparison", f"({ast.unparse(changed)})"
        elif isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in SWAPS:
            swapped = copy.deepcopy(node)
            swapped.op = SWAPS[type(node.op)]()  # type: ignore[assignment]
            yield node, "and/or" if isinstance(node, ast.BoolOp) else "plus/minus", f"({ast.unparse(swapped)})"
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node, "not", f"({ast.unparse(node.operand)})"
        elif isinstance(node, ast.Constant):
            yield from _constants(node)
        elif isinstance(node, ast.If | ast.While | ast.IfExp):
            if isinstance(node.test, ast.Name | ast.Attribute | ast.Call):
                yield node.test, "condition", f"(not {ast.unparse(node.test)})"
        elif isinstance(node, ast.Return):
            if node.value is not None and not (
                isinstance(node.value, ast.Constant) and node.value.value in (None, False)
            ):
                yield node, "return None", "return None"
        elif _is_removable(node):
            assert isinstance(node, ast.stmt)
            yield node, "removed", "pass"


def _constants(node: ast.Constant) -> Iterator[tuple[ast.expr, str, str]]:
    value = node.value
    if isinstance(value, bool):
        yield node, "constant", str(not value)
    elif isinstance(value, int | float):
        yield node, "constant", f"({value + 1!r})"
        yield node, "constant -1", f"({value - 1!r})"


def _is_removable(node: ast.AST) -> bool:
    """Whether the program runs without the statement: not so without a name that is read later."""
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets)
    return isinstance(node, ast.AugAssign | ast.Continue | ast.Break)


def _walked(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes of code that runs: no types, no keywords of classes, nothing in an f-string, whose places 3.11 lacks."""
    if isinstance(node, ast.JoinedStr):
        return
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id in NO_BEHAVIOUR for t in node.targets):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_comment", "bases"):
            continue
        if isinstance(node, ast.ClassDef) and name == "keywords":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _walked(child)
