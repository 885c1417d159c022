"""Puts another code into functions that are loaded already: far quicker than to read all modules again."""

from __future__ import annotations

import gc
from pathlib import Path
from types import CodeType, FunctionType

__all__ = ["Swap", "swaps_of"]

Swap = tuple[FunctionType, CodeType]
"""A function, and the code that it gets."""


def swaps_of(path: Path, source: bytes, changed: bytes) -> list[Swap]:
    """What makes the loaded module of that file behave as if `changed` was its text, `source` being its text.

    Empty if that cannot be had: something differs that runs when the module is read, or no function of it is loaded.
    """
    before, after = (compile(text, str(path), "exec") for text in (source, changed))
    old, new = _functions(before), _functions(after)
    if _outside(before) != _outside(after) or old.keys() != new.keys():
        return []
    differ = {key: new[key] for key in old if old[key] != new[key]}
    found = []
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__code__.co_filename == str(path):
            code = differ.get(_key(one.__code__))
            if code is not None and code.co_freevars == one.__code__.co_freevars:
                found.append((one, code))
    return found if {_key(code) for _, code in found} == set(differ) else []


def _key(code: CodeType) -> tuple[str, int]:
    return code.co_qualname, code.co_firstlineno


def _inner(code: CodeType) -> list[CodeType]:
    return [one for one in code.co_consts if isinstance(one, CodeType)]


def _is_class(code: CodeType) -> bool:
    return "__module__" in code.co_names and "__qualname__" in code.co_names


def _functions(code: CodeType) -> dict[tuple[str, int], CodeType]:
    """All functions in a module or class, by name and line; not those within functions, which are made as these run."""
    found: dict[tuple[str, int], CodeType] = {}
    for one in _inner(code):
        if _is_class(one):
            found |= _functions(one)
        else:
            found[_key(one)] = one
    return found


def _outside(code: CodeType) -> tuple[object, ...]:
    """What of a module or class runs when it is read, defaults of arguments included."""
    rest = [one for one in code.co_consts if not isinstance(one, CodeType)]
    return (
        code.co_code,
        tuple(map(repr, rest)),
        code.co_names,
        *(_outside(one) for one in _inner(code) if _is_class(one)),
    )
