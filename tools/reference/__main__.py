"""Writes docs/reference from the code: `python -m tools.reference`.

The code gives names, types, defaults and docstrings; its tables give the meaning of numbers, outcomes and findings;
`meanings.py` gives that of types, nested keys and exit codes. A key that has no entry there, or an entry that
the code no longer has, stops the script.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from comfyload.record import policy
from tools.reference.commands import cli_page, commands, options_of
from tools.reference.files import baseline_page, policy_page, run_directory_page
from tools.reference.numbers import judgement_page, summary_page
from tools.reference.trouble import exit_codes_page, findings_page

__all__ = ["commands", "main", "options_of", "pages"]

PAGES = Path(__file__).parents[2] / "docs" / "reference"


def pages() -> dict[str, str]:
    """File name to text of every reference page."""
    return {
        "cli.md": cli_page(),
        "summary.md": summary_page(),
        "exit-codes.md": exit_codes_page(),
        "run-directory.md": run_directory_page(),
        "findings.md": findings_page(),
        "judgement.md": judgement_page(),
        "baseline.md": baseline_page(),
        "retry-policy.md": policy_page(),
        "retry.schema.json": json.dumps(_policy_schema(), indent=2) + "\n",
    }


def _policy_schema() -> dict[str, Any]:
    """A file with a key that no policy has is refused, which the types do not say: readers of runs are lenient."""
    schema = msgspec.json.schema(policy.Policy)
    for definition in schema["$defs"].values():
        definition["additionalProperties"] = False
    return schema


def main() -> None:
    """Write the pages into docs/reference."""
    for name, text in pages().items():
        (PAGES / name).write_text(text, encoding="utf-8", newline="\n")
        sys.stdout.write(f"{PAGES / name}\n")


if __name__ == "__main__":
    main()
