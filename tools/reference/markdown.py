"""Markdown for every page: tables, the fields of structs; checks that the tables of meanings match the code."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterable
from typing import Annotated, Any, get_origin

import msgspec
import msgspec.inspect

from comfyload.record import bounds, model
from comfyload.record.flag import flags_on
from tools.reference.meanings import TYPES

NOTE = "<!-- Generated from the code. Do not edit; run: python -m tools.reference -->\n"
Row = tuple[str, ...]


class Missing(Exception):
    """A table of meanings and the code disagree."""


def table(heads: Row, rows: Iterable[Row]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def listed(keys: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)


def agree(table: str, code: Iterable[str | int], entries: Iterable[str | int]) -> None:
    """Raise `Missing` if the two have different names."""
    here, there = set(entries), set(code)
    if here != there:
        new, gone = sorted(there - here, key=str), sorted(here - there, key=str)
        raise Missing(f"{table}: no entry for {new}; no longer in the code: {gone}")


def struct_text(kind: type[msgspec.Struct]) -> str:
    """A struct's docstring and a table of its fields."""
    rows: list[Row] = []
    written = _written(kind)
    for field in msgspec.structs.fields(kind):
        default = field.default
        shown = "" if default is msgspec.NODEFAULT else "absent" if default is msgspec.UNSET else f"`{_json(default)}`"
        if isinstance(default, msgspec.Struct) and default == type(default)():
            shown = "all defaults"
        if field.default_factory is not msgspec.NODEFAULT:
            shown = f"`{_json(field.default_factory())}`"
        flags = listed(flag.name for flag in flags_on(field.type))
        rows.append((f"`{field.encode_name}`", f"`{_type(_plain(written[field.name]))}`", shown, flags))
    doc = inspect.getdoc(kind) or ""
    for field in msgspec.structs.fields(kind):
        doc = doc.replace(f"`{field.name}`", f"`{field.encode_name}`")
    heads: Row = ("field", "type", "default", "flag")
    if not any(row[3] for row in rows):
        heads, rows = heads[:3], [row[:3] for row in rows]
    return f"{doc}\n\n{table(heads, rows)}"


def _written(kind: type[msgspec.Struct]) -> dict[str, ast.expr]:
    """The annotation of each field as the code has it, with the names of types that readers know."""
    bases = [base for base in reversed(kind.__mro__) if issubclass(base, msgspec.Struct) and base is not msgspec.Struct]
    classes = [ast.parse(textwrap.dedent(inspect.getsource(base))).body[0] for base in bases]
    lines = [node for one in classes for node in ast.iter_child_nodes(one)]
    return {ast.unparse(node.target): node.annotation for node in lines if isinstance(node, ast.AnnAssign)}


def _plain(hint: ast.expr) -> str:
    """The annotation without its flags."""

    class Strip(ast.NodeTransformer):
        def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
            self.generic_visit(node)
            if ast.unparse(node.value) != "Annotated" or not isinstance(node.slice, ast.Tuple):
                return node
            of, *metadata = node.slice.elts
            kept = [one for one in metadata if ast.unparse(one).startswith("Meta(")]
            node.slice.elts = [of, *kept]
            return node if kept else of

    return ast.unparse(Strip().visit(hint))


def _type(hint: str) -> str:
    """A type in the reader's words; Python's own types stay."""
    bounded = [name for name, kind in vars(bounds).items() if get_origin(kind) is Annotated]
    agree("TYPES", bounded, TYPES)
    hint = hint.replace("ServerState", str(model.ServerState).removeprefix("typing."))
    hint = hint.replace(" | UnsetType", "")
    return re.sub(r"\w+", lambda name: TYPES.get(name[0], name[0]), hint)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def is_struct(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, msgspec.Struct)


def info_of(kind: Any) -> msgspec.inspect.StructType:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return info


def structs_in(kind: type[msgspec.Struct]) -> list[type[msgspec.Struct]]:
    """The struct and every struct in its fields, each once, in the order of the fields."""
    found: dict[type[msgspec.Struct], None] = {kind: None}

    def visit(inner: msgspec.inspect.Type) -> None:
        if isinstance(inner, msgspec.inspect.StructType):
            found.update(dict.fromkeys(known for known in structs_in(inner.cls) if known not in found))
        for part in (*getattr(inner, "types", ()), *getattr(inner, "item_types", ())):
            visit(part)
        for name in ("item_type", "value_type"):
            if hasattr(inner, name):
                visit(getattr(inner, name))

    for field in info_of(kind).fields:
        visit(field.type)
    return list(found)
