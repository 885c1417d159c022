"""The pages of findings and exit codes."""

from __future__ import annotations

import inspect

from comfyload import errors
from comfyload.judge.findings.table import FINDINGS, NOTICED, FindingRow
from tools.reference.markdown import NOTE, Missing, agree, table
from tools.reference.meanings import EXIT_CODES


def exit_codes_page() -> str:
    text = inspect.getdoc(errors) or ""
    listed = " ".join(text.partition("Exit codes:")[2].split()).rstrip(".")
    codes = {int(code): words for code, _, words in (part.strip().partition(" ") for part in listed.split("·"))}
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
            "If the reader of a pipe exits (`comfyload … | head`), the command ends with 141, as in a shell.",
            "",
            "## The errors behind them",
            "",
            "Every error is one line on standard error: what is wrong, and how to fix it.",
            "",
            f"```text\n{tree}\n```",
            "",
        ]
    )


def _errors() -> list[type[errors.ComfyloadError]]:
    kinds = (kind for _, kind in sorted(vars(errors).items()) if isinstance(kind, type))
    return [kind for kind in kinds if issubclass(kind, errors.ComfyloadError) and kind is not errors.ComfyloadError]


def findings_page() -> str:
    made = [_finding(code, row) for code, row in FINDINGS.items() if code not in NOTICED]
    heads = ("code", "level", "means", "what to do")
    return "\n".join(
        [
            "# Findings",
            "",
            NOTE,
            "Read them before the numbers. `invalid`: do not use the numbers; the [exit code](exit-codes.md) is 5.",
            "`warning`: use them with the named doubt. `info`: worth knowing.",
            "",
            "## Computed from the records",
            "",
            table(heads, made),
            "## Noticed during the run",
            "",
            "The manifest keeps them as `observations`; they are shown as findings with the same code.",
            "",
            table(heads, [_finding(code, row) for code, row in FINDINGS.items() if code in NOTICED]),
        ]
    )


def _finding(code: str, row: FindingRow) -> tuple[str, ...]:
    level = f"{row.level}; {row.varies}" if row.varies else row.level
    return f"`{code}`", level, row.meaning, row.advice({})
