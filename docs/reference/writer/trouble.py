"""The pages of what may be wrong: findings and exit codes, from the code that makes them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable
from pathlib import Path

from comfyload import errors
from comfyload.judge.findings.table import _OBSERVED, FINDINGS
from comfyload.record import model
from writer.markdown import NOTE, Missing, agree, table
from writer.meanings import EXIT_CODES, LEVELS

SOURCE = Path(errors.__file__).parent


def exit_codes_page() -> str:
    text = inspect.getdoc(errors) or ""
    said = " ".join(text.partition("Exit codes:")[2].split()).rstrip(".")
    codes = {int(code): words for code, _, words in (part.strip().partition(" ") for part in said.split("·"))}
    agree("EXIT_CODES", codes, EXIT_CODES)
    for kind in _errors():
        if kind.exit_code not in codes:
            raise Missing(f"{kind.__name__} exits with {kind.exit_code}, which errors.py does not explain")
    tree = text[text.index("ComfyloadError") : text.index("Exit codes:")].rstrip()
    return "\n".join(
        [
            "# Exit codes",
            "",
            NOTE,
            table(("code", "means", ""), [(f"`{code}`", words, EXIT_CODES[code]) for code, words in codes.items()]),
            "A reader that goes away (`comfyload … | head`) ends the command with 141, as the shell would.",
            "",
            "## The errors behind them",
            "",
            "Every error is one line on standard error, with a hint: what is wrong, and how to mend it.",
            "",
            f"```text\n{tree}\n```",
            "",
        ]
    )


def _errors() -> list[type[errors.ComfyloadError]]:
    named = [getattr(errors, name) for name in errors.__all__]
    kinds = [kind for kind in named if isinstance(kind, type)]
    return [kind for kind in kinds if kind is not errors.ComfyloadError]


def findings_page() -> str:
    levels, seen = finding_levels(), observation_codes() | set(_OBSERVED)
    agree("FINDINGS of judge/findings/table.py", set(levels) | seen, FINDINGS)
    agree("LEVELS", [code for code, found in levels.items() if len(found) > 1 or not all(found)], LEVELS)
    made = [
        (f"`{code}`", LEVELS.get(code) or _only(levels[code]), *FINDINGS[code]) for code in FINDINGS if code in levels
    ]
    observed = [
        (f"`{code}`", _OBSERVED[code][0] if code in _OBSERVED else "info", *FINDINGS[code])
        for code in FINDINGS
        if code in _OBSERVED or (code in seen and code not in levels)
    ]
    heads = ("code", "level", "means", "what to do")
    return "\n".join(
        [
            "# Findings",
            "",
            NOTE,
            "What to know before reading a number. `invalid`: the numbers do not measure what they are named after,",
            "and the [exit code](exit-codes.md) is 5. `warning`: they do, with the doubt named. `info`: worth knowing.",
            "",
            "## Made from the numbers",
            "",
            table(heads, made),
            "## Noticed during the run",
            "",
            "Kept in the manifest's `observations` as they are seen, and told as findings of the same code.",
            "",
            table(heads, observed),
        ]
    )


def _only(levels: set[str]) -> str:
    (level,) = levels
    return level


def finding_levels() -> dict[str, set[str]]:
    """The codes of findings that `judge` makes, with the levels they are given; "" for one that is computed."""
    found: dict[str, set[str]] = {}
    for call in _calls(SOURCE / "judge", "Finding"):
        words = {word.arg: word.value for word in call.keywords}
        level, known = _constants(words["level"]), _codes(words["code"])
        for code in known:
            found.setdefault(code, set()).update(level)
    return found


def _codes(value: ast.expr) -> set[str]:
    """A constant, or for one that is put together, every code of the table that it may be."""
    if isinstance(value, ast.JoinedStr):
        parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else r"\w+" for p in value.values]
        return {code for code in FINDINGS if re.fullmatch("".join(parts), code)}
    return {str(value.value)} if isinstance(value, ast.Constant) else set()


def _constants(value: ast.expr) -> set[str]:
    if isinstance(value, ast.IfExp):
        return _constants(value.body) | _constants(value.orelse)
    return {str(value.value)} if isinstance(value, ast.Constant) else {""}


def observation_codes() -> set[str]:
    """The codes of what is noticed during a run: those that `Observation` names, and any that the code has beside."""
    named = re.findall(r"`(\w+)`", (inspect.getdoc(model.Observation) or "").partition("Codes:")[2])
    calls = [*_calls(SOURCE, "_note"), *_calls(SOURCE, "Observation")]
    first = [call.args[0] for call in calls if call.args]
    return {*named, *(str(argument.value) for argument in first if isinstance(argument, ast.Constant))}


def _calls(folder: Path, name: str) -> Iterable[ast.Call]:
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and name in (getattr(node.func, "id", ""), getattr(node.func, "attr", "")):
                yield node
